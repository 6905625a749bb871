"""Conversion of a collection's metadata to JSON, which every engine stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from msmarco_qdrant.core.collection_types import Bm25Settings
from msmarco_qdrant.core.encoder_types import EncoderInfo, Int8Loss, Prompts
from msmarco_qdrant.core.metadata_types import CollectionMetadata, UserMigration
from msmarco_qdrant.core.search_defaults import NO_DEFAULTS, SearchDefaults
from msmarco_qdrant.core.search_types import Fusion
from msmarco_qdrant.errors import StoreCorruptError, UsageError
from msmarco_qdrant.stores.payload import SCHEMA_VERSION

_DETAILS = ("other_fingerprints", "pooling", "assumed")


def metadata_to_json(metadata: CollectionMetadata) -> dict[str, Any]:
    """Convert metadata to a JSON object, in which version 0.1 finds only its own fields."""
    value = asdict(metadata)
    value["encoder_details"] = {name: value["encoder"].pop(name) for name in _DETAILS}
    if metadata.search_defaults == NO_DEFAULTS:
        del value["search_defaults"]
    for name in ("tenant_field", "int8_loss"):
        if value[name] is None:
            del value[name]
    return value


def metadata_from_json(value: Any, name: str) -> CollectionMetadata:
    """Convert a JSON object to metadata.

    Args:
        value: The result of `metadata_to_json`.
        name: The collection's name, for messages.

    Raises:
        StoreCorruptError: If it has another version.
    """
    try:
        found = value["schema_version"]
        if found != SCHEMA_VERSION:
            raise StoreCorruptError(
                f"collection '{name}' has schema version {found}, this version of msmarco-qdrant "
                f"reads {SCHEMA_VERSION}: use the version that wrote it "
                f"({value['package_version']})"
            )
        encoder = dict(value["encoder"])
        details = _details_from_json(value.get("encoder_details", {}))
        return CollectionMetadata(
            schema_version=found,
            package_version=value["package_version"],
            encoder=EncoderInfo(**{**encoder, "prompts": Prompts(**encoder["prompts"]), **details}),
            bm25=Bm25Settings(**value["bm25"]),
            migrations=tuple(value["migrations"]),
            copied_from=_name(value, "copied_from"),
            previous=_name(value, "previous"),
            swaps=int(value.get("swaps", 0)),
            only_copies=bool(value.get("only_copies", False)),
            restoring=_name(value, "restoring"),
            user_migrations=_user_migrations(value.get("user_migrations")),
            search_defaults=_search_defaults(value.get("search_defaults", {})),
            tenant_field=_name(value, "tenant_field"),
            int8_loss=None if (loss := value.get("int8_loss")) is None else Int8Loss(**loss),
        )
    except (TypeError, KeyError, UsageError) as exc:
        raise StoreCorruptError(
            f"collection '{name}' has invalid metadata ({exc!r}): its creation was interrupted, or "
            "another program wrote it"
        ) from exc


def _user_migrations(found: Any) -> tuple[UserMigration, ...] | None:
    """Return the records of a user's migrations; None, too, where an earlier version wrote none."""
    return None if found is None else tuple(UserMigration(**one) for one in found)


def _search_defaults(found: Mapping[str, Any]) -> SearchDefaults:
    fusion = found.get("fusion")
    return SearchDefaults(**{**found, "fusion": None if fusion is None else Fusion(**fusion)})


def _details_from_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the fields of an encoder that version 0.1 does not have; ignore other fields."""
    return {
        name: tuple(found) if isinstance(found, list) else found
        for name in _DETAILS
        if (found := value.get(name)) is not None
    }


def _name(value: Any, field: str) -> str | None:
    """Return a physical name; None, too, where an earlier version wrote no such field."""
    found = value.get(field)
    if found is not None and not isinstance(found, str):
        raise TypeError(f"{field} must be a name, got {found!r}")
    return found
