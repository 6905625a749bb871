"""Tenants: the passages with one value of a field, which their searches never leave.

A collection keeps the name of its tenant field. Every read of it then names a tenant, and is
refused without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.field_path import check_field, field_values, flatten, payload_keys
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import MetaFilter


def check_tenant(tenant: object) -> None:
    """Check the name of a tenant.

    Raises:
        UsageError: If it is neither None nor a non-empty string.
    """
    if tenant is not None and (not isinstance(tenant, str) or tenant == ""):
        raise UsageError(f"tenant must be a non-empty string, got {tenant!r}")


def check_tenant_field(field: object) -> None:
    """Check the name of a tenant field.

    Raises:
        UsageError: If it is not the name of one field, outside of objects.
    """
    if not isinstance(field, str) or field == "":
        raise UsageError(f"field must be the name of a field of meta, got {field!r}")
    check_field(field)
    if len(payload_keys(field)) > 1:
        raise UsageError(f"a tenant field must not be inside of an object, got {field!r}")


def tenant_filter(
    metadata: CollectionMetadata, name: str, tenant: str | None, dsn: str | None = None
) -> MetaFilter | None:
    """Return the filter of a tenant's passages; None if the collection has no tenants.

    Args:
        metadata: The collection's metadata.
        name: Its name, for messages.
        tenant: The tenant.
        dsn: The path or URL of the store, for messages.

    Raises:
        UsageError: If the collection has a tenant field and no tenant is given, or the other way
            round, or the tenant is not a non-empty string.
    """
    check_tenant(tenant)
    field = metadata.tenant_field
    if field is None:
        if tenant is None:
            return None
        command = advised_command("index", "tenant", "FIELD", collection=name, store=dsn)
        raise UsageError(
            f"collection '{name}' has no tenant field, got the tenant {tenant!r}: omit it, or "
            f"choose the field with {command}"
        )
    if tenant is None:
        raise UsageError(
            f"collection '{name}' is read by one tenant at a time, a value of the field "
            f"'{field}': pass tenant=..."
        )
    return {field: tenant}


def is_tenants(metadata: CollectionMetadata, meta: Mapping[str, Any], tenant: str | None) -> bool:
    """True if a passage is the tenant's; also if the collection has no tenants."""
    field = metadata.tenant_field
    return field is None or tenant in tenants_of(meta, field)


def tenants_of(meta: Mapping[str, Any], field: str) -> Set[str]:
    """Return the tenants of a passage, given the tenant field; empty if it belongs to none."""
    return {one for one in flatten(field_values(meta, field)) if isinstance(one, str)}
