"""Choose the field of a collection whose values are its tenants."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import islice
from os import PathLike

from msmarco_qdrant.collection.generations import read_generations
from msmarco_qdrant.collection.tenants import check_tenant_field
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.field_path import field_values, flatten, root_key
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.migrate.indexes import add_index
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, use_store
from msmarco_qdrant.stores.migration_locks import hold_lock, require_lock

_log = logging.getLogger(__name__)

_SAMPLE = 1000


@suggest_keywords
def set_tenant_field(
    store: Store | str | PathLike[str],
    collection: str,
    field: str | None,
    *,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Choose the `meta` field whose values are the tenants of a collection.

    The field gets an index of kind tenant. Searches, counts, facets, scrolls and lookups then have
    to name a tenant, and find only its passages: those with that value, or a list with it. Clients
    that are open already have to be opened again. A passage without the field belongs to none.
    Backups, migrations and re-embeddings keep it.

    Args:
        store: The store that holds the collection, or its path or URL.
        collection: The collection's name.
        field: The field, outside of objects; None for a collection without tenants.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        StoreInUseError: If another process is migrating it.
        UsageError: If the field is inside of an object, has an index of another kind, or passages
            have other values there than strings.
    """
    if field is not None:
        check_tenant_field(field)
    with use_store(store, connection) as opened:
        found = read_generations(opened, collection)
        _require_shard_key(opened, found.name, found.live, field)
        if field is not None:
            _check_values(opened, collection, field)
            add_index(opened, collection, field, "tenant")
        name, locks = found.name, opened.migration_locks
        with hold_lock(locks, name, opened.dsn) as ours:
            found = read_generations(opened, name)
            # also of former ones, to which a rollback returns
            for physical in (found.live, *(other.physical for other in found.others)):
                metadata = replace(opened.metadata(physical), tenant_field=field)
                require_lock(locks, name, ours)
                opened.put_metadata(physical, metadata)


def _require_shard_key(store: Store, name: str, physical: str, field: str | None) -> None:
    """Refuse another field than the shard key of a collection: each shard has one tenant."""
    sharding = store.collection(physical).spec().sharding
    key = sharding and sharding.shard_key
    if key is not None and field != key:
        raise UsageError(
            f"the tenant field of '{name}' must be its shard key '{key}', got {field!r}: ingest "
            "into another collection"
        )


def _check_values(store: Store, name: str, field: str) -> None:
    """Refuse a field whose values cannot be tenants, by some passages; warn if none has it."""
    store.metadata(name)  # raises for another program's collection
    found = islice(store.collection(name).scan((root_key(field),)), _SAMPLE)
    metas = [payload.get("meta") or {} for _, payload in found]
    values = [value for meta in metas for value in flatten(field_values(meta, field))]
    other = next((one for one in values if one is not None and not isinstance(one, str)), None)
    if other is not None:
        raise UsageError(
            f"the values of a tenant field must be strings, got {other!r} in the field '{field}' "
            f"of '{name}'"
        )
    if metas and not values:
        _log.warning(
            "none of the first %s passages of '%s' has the field '%s': a passage without it "
            "belongs to no tenant",
            *(f"{len(metas):,}", name, field),
        )
