"""The tools of the server: searches, reads, and writes of one collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field

from msmarco_qdrant.core.digests import text_digest
from msmarco_qdrant.core.field_path import payload_keys
from msmarco_qdrant.core.hits import Hits
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import MAX_REJECTS, UpsertReport
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.integrations.mcp.access import CALLER, Access
from msmarco_qdrant.integrations.mcp.backend import Backend
from msmarco_qdrant.integrations.mcp.schemas import (
    Added,
    CollectionOut,
    CollectionsOut,
    Cursor,
    Deleted,
    FieldName,
    FieldValue,
    FieldValues,
    Filter,
    FoundPassage,
    FoundPassages,
    Limit,
    Mode,
    NewPassage,
    NewPassages,
    PassageCount,
    Pids,
    Query,
    RejectedPassage,
    StoredPassage,
    StoredPassages,
    to_filter,
)
from msmarco_qdrant.service.interfaces import About


class Tools:
    """The functions that become tools; their docstrings are the descriptions that models read.

    Args:
        backend: The collection.
        access: The access of a caller without one of its own.
    """

    def __init__(self, backend: Backend, access: Access) -> None:
        self._backend = backend
        self._access = access

    @property
    def access(self) -> Access:
        """The access of the caller."""
        return CALLER.get() or self._access

    # ---- reads -----------------------------------------------------------------------------

    async def search(
        self,
        query: Query,
        limit: Limit = 10,
        mode: Mode = "dense",
        filter: Filter = None,  # noqa: A002  # the argument's name
        rerank: Annotated[
            bool, Field(description="Score the best hits again with the cross-encoder.")
        ] = False,
        collections: Annotated[
            list[str] | None,
            Field(description="Search these of list_collections, for one ranking."),
        ] = None,
        cursor: Cursor = None,
    ) -> FoundPassages:
        """Search for the passages that answer a query best."""
        about = await self._checked()
        if rerank and not about.rerank:
            raise UsageError(
                "rerank needs a cross-encoder, and this server has none: its operator starts it "
                "with --reranker ms-marco-MiniLM-L6-v2; search without rerank"
            )
        self._check_collections(about, collections)
        options: dict[str, Any] = {
            "limit": limit,
            "mode": mode,
            "meta_filter": to_filter(filter),
            "tenant": self.access.tenant,
            "rerank_depth": "auto" if rerank else None,
            "collections": collections or None,
            "cursor": cursor,
        }
        if collections is None and cursor is None:
            options["offset"] = 0  # the hits come with the cursor of the next page
        answers, notes = await self._backend.run(
            lambda client: client.search_many([query], **options)
        )
        return _found(answers[0], notes)

    async def similar(
        self,
        pids: Pids,
        unlike: Annotated[
            list[str], Field(description="Ids of passages that the hits differ from.")
        ] = [],  # noqa: B006  # never changed, and its schema shows it
        limit: Limit = 10,
        filter: Filter = None,  # noqa: A002
        cursor: Cursor = None,
    ) -> FoundPassages:
        """Search for the passages most similar to some stored ones."""
        await self._checked()
        options: dict[str, Any] = {"offset": 0} if cursor is None else {"cursor": cursor}
        found, notes = await self._backend.run(
            lambda client: client.similar(
                positive=pids,
                negative=unlike,
                limit=limit,
                meta_filter=to_filter(filter),
                tenant=self.access.tenant,
                **options,
            )
        )
        return _found(found, notes)

    async def get(self, pids: Pids) -> StoredPassages:
        """Read passages by their ids."""
        await self._checked()
        found, _ = await self._backend.run(
            lambda client: client.get(pids, tenant=self.access.tenant)
        )
        return StoredPassages(
            passages=[
                StoredPassage(pid=one.pid, text=one.text, meta=one.meta) for one in found.values()
            ],
            missing=[pid for pid in dict.fromkeys(pids) if pid not in found],
        )

    async def count(self, filter: Filter = None) -> PassageCount:  # noqa: A002
        """Count the passages, or those that a filter matches."""
        await self._checked()
        count, notes = await self._backend.run(
            lambda client: client.count(meta_filter=to_filter(filter), tenant=self.access.tenant)
        )
        return PassageCount(count=count, warnings=[*notes])

    async def facets(
        self,
        field: FieldName,
        limit: Annotated[int, Field(ge=1, le=1_000, description="Most values to return.")] = 10,
        filter: Filter = None,  # noqa: A002
    ) -> FieldValues:
        """Count the passages of each value of a field, the most frequent first."""
        await self._checked()
        facets, notes = await self._backend.run(
            lambda client: client.facets(
                field, limit=limit, meta_filter=to_filter(filter), tenant=self.access.tenant
            )
        )
        values = [FieldValue(value=one.value, count=one.count) for one in facets]
        return FieldValues(values=values, warnings=[*notes])

    async def list_collections(self) -> CollectionsOut:
        """Describe the collection of this server: its size, model and fields.

        After it come the names of others that search may name in `collections`.
        """
        about = await self._checked()
        count, _ = await self._backend.run(lambda client: client.count(tenant=self.access.tenant))
        own = CollectionOut(
            name=about.collection,
            passages=count,
            model=about.model,
            dimension=about.dimension,
            modes=[*about.modes],
            rerank=about.rerank,
            fields=dict(about.fields),
        )
        others = [CollectionOut(name=name) for name in self._others(about)]
        return CollectionsOut(collections=[own, *others])

    # ---- writes ----------------------------------------------------------------------------

    async def add(self, passages: NewPassages) -> Added:
        """Store passages, or replace those of the same ids; unchanged ones are skipped."""
        about, tenant = await self._checked(), self.access.tenant
        rows = [
            Passage(
                one.pid or _made_pid(one.text, tenant),
                one.text,
                _with_tenant(one, about.tenant_field, tenant),
                line=position,
            )
            for position, one in enumerate(passages, start=1)
        ]
        report = await self._backend.add(rows)
        is_waiting, report = report is None, report or UpsertReport()
        return Added(
            waiting=is_waiting,
            written=report.written,
            unchanged=report.unchanged,
            superseded=report.superseded,
            pids=[row.pid for row in rows],
            rejected=[
                RejectedPassage(position=one.line, reason=one.reason)
                for one in report.rejects[:MAX_REJECTS]
            ],
        )

    async def delete(self, pids: Pids) -> Deleted:
        """Delete passages by their ids; ids that do not exist are skipped."""
        await self._checked()
        deleted = await self._backend.delete(pids, self.access.tenant)
        return Deleted(deleted=deleted or 0, waiting=deleted is None)

    # ---- checks ----------------------------------------------------------------------------

    async def _checked(self) -> About:
        """Describe the collection, once the caller's tenant is known where it has tenants.

        Raises:
            UsageError: If it has tenants and the caller has none, or the other way round.
        """
        about = await self._backend.about()
        if about.tenant_field is None and self.access.tenant is not None:
            raise UsageError(
                f"the collection '{about.collection}' has no tenants, and this server, or the "
                f"token, is of the tenant {self.access.tenant!r}: its operator chooses the field "
                "of the tenants, or starts it without"
            )
        if about.tenant_field is not None and self.access.tenant is None:
            raise UsageError(
                "this collection is read and written by one tenant at a time, and this server has "
                "none: its operator starts it with --tenant, or gives out tokens of tenants"
            )
        return about

    def _others(self, about: About) -> Sequence[str]:
        return [name for name in self._backend.collections if name != about.collection]

    def _check_collections(self, about: About, names: Sequence[str] | None) -> None:
        known = [about.collection, *self._others(about)]
        for name in names or ():
            if name not in known:
                raise UsageError(
                    f"collections may name {', '.join(known)} here, got {name!r}: see "
                    "list_collections"
                )


def _found(hits: Hits, notes: Sequence[str]) -> FoundPassages:
    return FoundPassages(
        hits=[
            FoundPassage(
                **{name: value for name, value in asdict(hit).items() if name in _HIT_FIELDS}
            )
            for hit in hits
        ],
        cursor=hits.cursor,
        warnings=[*notes],
    )


_HIT_FIELDS = frozenset(FoundPassage.model_fields)


def _made_pid(text: str, tenant: str | None) -> str:
    """Return the pid of a text: equal texts of a tenant are one passage."""
    return f"text-{text_digest(text if tenant is None else chr(0).join((tenant, text)))}"


def _with_tenant(passage: NewPassage, field: str | None, tenant: str | None) -> dict[str, Any]:
    """Return the meta of a passage, with its tenant.

    Raises:
        UsageError: If it names another one.
    """
    if field is None or tenant is None:
        return passage.meta
    key = payload_keys(field, "")[0].strip('"')  # a tenant field is outside of objects
    if passage.meta.get(key, tenant) != tenant:
        raise UsageError(
            f"the field '{field}' must be the tenant {tenant!r}, or be left out, got "
            f"{passage.meta[key]!r}"
        )
    return {**passage.meta, key: tenant}
