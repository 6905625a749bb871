"""Point a missing alias to its collection again."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from msmarco_qdrant.collection.create import check_collection_name
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.errors import SchemaError, StoreCorruptError, UsageError
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, use_store
from msmarco_qdrant.stores.names import is_own_alias
from msmarco_qdrant.stores.unlinked import UnlinkedCollection, find_unlinked


@suggest_keywords
def link_collection(
    store: Store | str | PathLike[str],
    name: str,
    *,
    to: str | None = None,
    connection: Connection = DEFAULT_CONNECTION,
) -> str:
    """Point the alias of a name to its physical collection, if the alias is missing.

    A server's snapshot contains no alias. Repeating the call does nothing.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        name: The name that users see.
        to: The physical collection; by default the only one of that name that is complete.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Returns:
        The physical collection's name.

    Raises:
        SchemaError: If the alias points to another collection, or `name` is a collection.
        StoreCorruptError: If `to` was not created by this package.
        UsageError: If no collection fits, or several do and `to` is None; the message lists them.
    """
    with use_store(store, connection) as opened:
        check_collection_name(name)
        with opened.lock():
            existing = set(opened.physical_names())
            live = opened.aliases().get(name)
            if live in existing and to in (None, live):
                return live
            if live in existing:
                raise SchemaError(
                    f"the alias '{name}' must be missing to be linked to {to}, got one that points "
                    f"to {live} in {opened.dsn}: nothing was changed"
                )
            if name in existing:
                raise SchemaError(
                    f"'{name}' in {opened.dsn} must not be a collection itself, got one that "
                    "another program created: nothing was changed"
                )
            physical = _choose(opened, name, find_unlinked(opened, name), to)
            opened.set_alias(name, physical)
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
