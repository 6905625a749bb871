"""Point a missing alias to its collection again."""

from __future__ import annotations

from collections.abc import Sequence

from msmarco_qdrant.collection.create import check_collection_name
from msmarco_qdrant.errors import SchemaError, StoreCorruptError, UsageError
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.names import is_own_alias
from msmarco_qdrant.stores.unlinked import UnlinkedCollection, find_unlinked


def link_collection(store: Store, name: str, *, to: str | None = None) -> str:
    """Point the alias of a name to its physical collection, if the alias is missing.

    A server's snapshot contains no alias. Repeating the call does nothing.

    Args:
        store: The store that holds the physical collection.
        name: The name that users see.
        to: The physical collection; by default the only one of that name that is complete.

    Returns:
        The physical collection's name.

    Raises:
        SchemaError: If the alias points to another collection, or `name` is a collection.
        StoreCorruptError: If `to` was not created by this package.
        UsageError: If no collection fits, or several do and `to` is None; the message lists them.
    """
    check_collection_name(name)
    with store.lock():
        existing = set(store.physical_names())
        live = store.aliases().get(name)
        if live in existing and to in (None, live):
            return live
        if live in existing:
            raise SchemaError(
                f"the alias '{name}' must be missing to be linked to {to}, got one that points to "
                f"{live} in {store.dsn}: nothing was changed"
            )
        if name in existing:
            raise SchemaError(
                f"'{name}' in {store.dsn} must not be a collection itself, got one that another "
                "program created: nothing was changed"
            )
        physical = _choose(store, name, find_unlinked(store, name), to)
        store.set_alias(name, physical)
    return physical


def _choose(store: Store, name: str, found: Sequence[UnlinkedCollection], to: str | None) -> str:
    """Return the collection to link."""
    complete = [one for one in found if one.is_complete]
    if to is not None:
        return _check_choice(store, name, found, to)
    if len(complete) == 1:
        return complete[0].physical
    if complete:
        listed = "; ".join(map(str, complete))
        raise UsageError(
            f"'{name}' has several collections in {store.dsn}: {listed}. Choose one, such as "
            f"--to {complete[-1].physical} (to={complete[-1].physical!r})"
        )
    if found:
        raise UsageError(
            f"no collection of '{name}' in {store.dsn} is complete: {_describe_gap(found[0])}"
        )
    raise UsageError(
        f"no collection of '{name}' with passages is in {store.dsn}: its physical name must be "
        f"'{name}__' and four digits, and its metadata those of msmarco-qdrant"
    )


def _check_choice(store: Store, name: str, found: Sequence[UnlinkedCollection], to: str) -> str:
    """Refuse a collection of another name or program, or one that is not complete."""
    if not is_own_alias(name, to):
        raise UsageError(f"to= (--to) must be '{name}__' and four digits, got {to}")
    store.metadata(to)  # raises if it does not exist, or is not from this package
    chosen = [one for one in found if one.physical == to]
    if not chosen:
        raise StoreCorruptError(
            f"{to} in {store.dsn} must have passages to be linked, got none: its creation was "
            f"interrupted; ingest into '{name}' to create it again"
        )
    (one,) = chosen
    # Without its source, an incomplete copy is all there is.
    is_only_copy = one.metadata.restoring is None and one.metadata.copied_from not in {
        other.physical for other in found
    }
    if not one.is_complete and not is_only_copy:
        raise UsageError(f"{to} is not complete: {_describe_gap(one)}")
    return to


def _describe_gap(one: UnlinkedCollection) -> str:
    if one.metadata.restoring is not None:
        return f"a restore from a backup was filling {one.physical}; run the same restore again"
    return (
        f"a re-embedding was filling {one.physical} from {one.metadata.copied_from}; link the "
        f"latter if it exists, else pass --to {one.physical} (to={one.physical!r})"
    )
