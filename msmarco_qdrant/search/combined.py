"""Searches and rankings of several collections of one model. Steps without I/O, as in `steps`.

Collections of different models are refused. One that is re-embedded during a search starts it over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, cast

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.hits import Hits
from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.errors import ModelMismatchError, SchemaError, UsageError
from msmarco_qdrant.search.combined_ranking import CombinedSearch, Part
from msmarco_qdrant.search.given_passages import rank_of_several
from msmarco_qdrant.search.options import RankOptions, SearchOptions, SimilarOptions
from msmarco_qdrant.search.request import MAX_UNCHANGED, SearchRequest
from msmarco_qdrant.search.similar import Examples, find_target
from msmarco_qdrant.search.step import GetAliases, OpenSession, Refresh, Steps, Together, together
from msmarco_qdrant.search.steps import Searcher

if TYPE_CHECKING:
    from msmarco_qdrant.search.session import SearchSession

_T = TypeVar("_T")


def search_combined(
    own: SearchSession, queries: Sequence[str], options: SearchOptions
) -> Steps[list[Hits]]:
    """Search several collections, and start over when one holds vectors of another model.

    Raises:
        ModelMismatchError: If they hold vectors of different models.
    """
    sessions = yield from _open(own, options)
    by_words = options.get("mode") == "bm25" and not options.get("snippets")

    def search(searchers: Sequence[Searcher]) -> Steps[list[Hits]]:
        combined = yield from _combine(own, sessions, searchers, options)
        return (yield from combined.search(queries))

    return (yield from _follow(sessions, search, loads_model=not by_words))


def similar_combined(
    own: SearchSession, examples: Examples, options: SimilarOptions
) -> Steps[Hits]:
    """Search several collections by examples, whose passages are those of the own one.

    Raises:
        ModelMismatchError: If they hold vectors of different models.
        PassageNotFoundError: If the own collection lacks a passage of the examples.
    """
    sessions = yield from _open(own, options)

    def search(searchers: Sequence[Searcher]) -> Steps[Hits]:
        first, *others = searchers
        target = yield from find_target(examples, first, first.scope(options.get("tenant")))
        combined = yield from _combine(own, sessions, others, options)
        aliases: Mapping[str, str] = yield GetAliases()
        place = aliases.get(own.name, own.name)
        names = [one.collection for one in others]  # a physical name is another of the same
        same = [name for name in names if aliases.get(name, name) == place]
        return (yield from combined.similar(target, dict.fromkeys(same, examples.ids)))

    return (yield from _follow([own, *sessions], search, loads_model=True))


def rank_combined(
    own: SearchSession,
    queries: Sequence[str],
    pids: Sequence[Sequence[str]],
    options: RankOptions,
) -> Steps[list[list[Hit]]]:
    """Rank given passages of several collections, and start over as `search_combined` does.

    Raises:
        ModelMismatchError: If the collections hold vectors of different models.
    """
    sessions = yield from _open(own, options)
    names = ("mode", "fusion", "tenant", "collections", "merge")
    wanted = cast("SearchOptions", {name: options.get(name) for name in names if name in options})

    def rank(searchers: Sequence[Searcher]) -> Steps[list[list[Hit]]]:
        requests = [own.fill_in(wanted, one) for one in searchers]
        parts = [Part(*each) for each in zip(sessions, searchers, requests, strict=True)]
        whole = _whole_request(requests, searchers)
        return (yield from rank_of_several(parts, whole, queries, pids, options))

    return (yield from _follow(sessions, rank, loads_model=options.get("mode") != "bm25"))


def _open(
    own: SearchSession, options: SimilarOptions | RankOptions
) -> Steps[Sequence[SearchSession]]:
    names = options.get("collections") or ()
    opened: Sequence[SearchSession] = yield Together([(own, OpenSession(name)) for name in names])
    return opened


def _follow(
    sessions: Sequence[SearchSession],
    search: Callable[[Sequence[Searcher]], Steps[_T]],
    *,
    loads_model: bool,
) -> Steps[_T]:
    """Search with the current searchers of sessions, until none holds vectors of another model."""
    unchanged = 0
    while True:
        searchers = yield from _current_searchers(sessions, loads_model=loads_model)
        try:
            return (yield from search(searchers))
        except SchemaError:
            newer = yield from _refresh(sessions, searchers, loads_model=loads_model)
            is_same = all(one is other for one, other in zip(newer, searchers, strict=True))
            unchanged = unchanged + 1 if is_same else 0
            if unchanged > MAX_UNCHANGED:
                raise


def _refresh(
    sessions: Sequence[SearchSession], used: Sequence[Searcher], *, loads_model: bool
) -> Steps[Sequence[Searcher]]:
    steps = [Refresh(one, loads_model) for one in used]
    newer: Sequence[Searcher] = yield Together([*zip(sessions, steps, strict=True)])
    return newer


def _current_searchers(
    sessions: Sequence[SearchSession], *, loads_model: bool
) -> Steps[Sequence[Searcher]]:
    """Return the searchers of sessions, all of one model; read their metadata if it seems not.

    A search by words alone needs no model, and loads none.
    """
    searchers: Sequence[Searcher] = [one.current for one in sessions]
    due = [one.refresh.is_due() for one in sessions]
    if any(due) or not _have_one_model(searchers):
        searchers = yield from _refresh(sessions, searchers, loads_model=loads_model)
    if not _have_one_model(searchers):
        raise different_models({one.collection: one.metadata.encoder for one in searchers})
    return searchers


def _have_one_model(searchers: Sequence[Searcher]) -> bool:
    first = searchers[0].metadata.encoder
    return all(one.metadata.encoder.has_same_vectors_as(first) for one in searchers)


def different_models(models: Mapping[str, EncoderInfo]) -> ModelMismatchError:
    """Return the error for collections of different models, by their names."""
    (first, one), *others = models.items()
    second, other = next(each for each in others if not each[1].has_same_vectors_as(one))
    texts = [
        f"'{name}' holds vectors of {info.model} ({info.dimension}, {info.similarity}, fingerprint "
        f"{info.fingerprint[:8]})"
        for name, info in ((first, one), (second, other))
    ]
    return ModelMismatchError(
        f"one ranking needs collections of one model, and {texts[0]}, {texts[1]}: search them one "
        "by one, or re-embed one of them with the model of the other"
    )


def _combine(
    own: SearchSession,
    sessions: Sequence[SearchSession],
    searchers: Sequence[Searcher],
    options: SimilarOptions,
) -> Steps[CombinedSearch]:
    """Return the search of several collections by these searchers, with checked options."""
    requests = [own.fill_in(options, one) for one in searchers]
    limited = [(one, one.within_limits(its)) for one, its in zip(sessions, requests, strict=True)]
    requests = yield from together(limited)
    whole = _whole_request(requests, searchers)
    parts = [
        Part(session, searcher, _part_request(request, whole))
        for session, searcher, request in zip(sessions, searchers, requests, strict=True)
    ]
    return CombinedSearch(parts, whole)


def _whole_request(
    requests: Sequence[SearchRequest], searchers: Sequence[Searcher]
) -> SearchRequest:
    """Return the request for the ranking of all, given each collection's with its own defaults.

    Raises:
        UsageError: If their fusions differ, but their scores are compared.
    """
    first = min(requests, key=lambda request: request.max_limit)
    if first.mode == "hybrid" and first.merge == "scores":
        for request, searcher in zip(requests, searchers, strict=True):
            if request.fusion != requests[0].fusion:
                names = f"'{searchers[0].collection}' and '{searcher.collection}'"
                raise UsageError(
                    f"scores of different fusions do not compare, and the defaults of collections "
                    f"{names} are {requests[0].fusion} and {request.fusion}: pass fusion=..., or "
                    "merge='rrf'"
                )
    depths = [request.rerank_depth for request in requests if request.rerank_depth is not None]
    return replace(first, rerank_depth=max(depths, default=None))


def _part_request(request: SearchRequest, whole: SearchRequest) -> SearchRequest:
    """Return the request for the best passages of one collection, from its first one on."""
    reranks = whole.rerank_depth is not None
    return replace(
        request,
        offset=0 if whole.is_page and not reranks else None,
        cursor=None,
        score_threshold=whole.first_threshold,
        rerank_depth=None,
        rerank_sigmoid=False,
        group_by=None,
        diversity=None,
        with_vectors=False,
        with_meta=request.with_meta if whole.group_by is None else True,
        with_text=request.with_text or reranks or request.snippets > 0,
        snippets=0,
    )
