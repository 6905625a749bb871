"""Latency of each call beside the engine's own call for the same answer, by turns.

Ingests passages with `HashingEncoder` (a store in the work folder stays for the next time) and
calls, for one query or passage after the other, first the engine and then the client: Qdrant Edge
on a copy of the shard, and a server over gRPC, which is the one of the tests. The engine's caller
reads id, score and payload of each point. Vectors of queries are known to both, so that encoding
counts on neither side.

With `--block N`, the engine's calls for N queries come before the client's for these: then a call
finds in the processor's caches what the same side's call before left there, and not the other's.

`ms` are medians of elapsed time, `processor ms` of the processor time of all threads: a loaded
machine changes these less. Snippets have no call of an engine: it has no sentences.

    python benchmarks/calls.py --work DIR [--engine edge|server] [--passages N] [--calls N]
        [--block N] [--only NAME] [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from harness import ROOT, Report, Row, copied_shard, json_option, some_passages, some_queries

sys.path.insert(0, str(ROOT))

from msmarco_qdrant.testing import HashingEncoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from msmarco_qdrant import SearchClient
    from msmarco_qdrant.encoding.tokens import Tokenized
    from msmarco_qdrant.stores import Store

DIMENSION, SIZE, DEPTH, CANDIDATES = 384, 10, 100, 100
SCROLLED, PAGE = 2_000, 100
LANGUAGES = ("en", "de", "fr")
TENANTS = 5
FIELDS = ["pid", "text", "meta"]
EF, OVERSAMPLING = 128, 2.0  # the package's
SERVED = 2_000  # passages of the tests' server, which compares with every vector

_Call = Callable[[str], object]


class RememberingEncoder(HashingEncoder):
    """An encoder that remembers the vector of each query.

    Its words have different weights, so that cosines are as rarely equal as those of a model.

    Attributes:
        known: The vectors of the queries that were encoded.
    """

    def __init__(self) -> None:
        super().__init__(DIMENSION, salt=" weighted")
        self.known: dict[str, NDArray[np.float32]] = {}
        self._weights = np.random.default_rng(0).uniform(0.5, 1.5, DIMENSION).astype(np.float32)

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries that are not known, and return the vectors of all."""
        new = [query for query in queries if query not in self.known]
        if new:
            self.known.update(zip(new, super().encode_queries(new), strict=True))
        if len(queries) == 1:
            return self.known[queries[0]][None]
        return np.stack([self.known[query] for query in queries])

    def _vectors(self, texts: Tokenized) -> NDArray[np.float32]:
        vectors = super()._vectors(texts) * self._weights
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


class Pair(NamedTuple):
    """Two calls for the same answer.

    Attributes:
        name: What is called.
        own: The engine's own call, None if it has none.
        ours: The client's.
        arguments: What both are called with, one after the other.
    """

    name: str
    own: _Call | None
    ours: _Call
    arguments: Sequence[str]


def main() -> None:
    """Ingest and time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--engine", choices=["edge", "server"], action="append")
    parser.add_argument("--passages", type=int, default=47_283, metavar="N")
    parser.add_argument("--calls", type=int, default=200, metavar="N")
    parser.add_argument("--block", type=int, default=1, metavar="N", help="calls before a turn")
    parser.add_argument("--only", metavar="NAME", help="calls whose name has this in it")
    json_option(parser)
    given = parser.parse_args()
    report = Report(given.json, ("qdrant-edge-py", "qdrant-client"))
    for engine in given.engine or ["edge", "server"]:
        with ExitStack() as stack:
            pairs = PREPARED[engine](stack, given.work, given.passages)
            report.table(
                [engine, "engine's own, ms", "ours, ms", "times", "processor ms", "ours", "times"],
                (
                    timed(pair, given.calls, given.block)
                    for pair in pairs
                    if given.only is None or given.only in pair.name
                ),
            )


def timed(pair: Pair, calls: int, block: int) -> Row:
    """Time both calls by turns, so many of one before the other's."""
    arguments = pair.arguments[:calls]
    both = [one for one in (pair.own, pair.ours) if one is not None]
    taken: list[list[tuple[float, float]]] = [[] for _ in both]
    for function in both:
        function(arguments[0])  # the first call imports
    for start in range(0, len(arguments), block):
        for function, times in zip(both, taken, strict=True):
            for argument in arguments[start : start + block]:
                started, used = time.perf_counter(), time.process_time()
                function(argument)
                times.append((time.perf_counter() - started, time.process_time() - used))
    columns = [[*zip(*times, strict=True)] for times in taken]
    cells: list[str] = []
    for clock in (0, 1):
        medians = [1000 * statistics.median(each[clock]) for each in columns]
        shown = [f"{one:.3f}" for one in medians]
        cells += [*shown, f"{medians[1] / medians[0]:.2f}"] if pair.own else ["-", *shown, "-"]
    return Row((pair.name, *cells), columns)


# ---- the collections -----------------------------------------------------------------------


def fill(store: Path | Store, encoder: RememberingEncoder, passages: int) -> None:
    """Write the passages, once as they are and once with tenants; a repeated run finds them."""
    from msmarco_qdrant import Passage, ingest_passages, set_tenant_field

    rows = [
        Passage(
            pid,
            text,
            {
                "lang": LANGUAGES[number % 3],
                "year": 1900 + number * 7919 % 1000,
                "owner": f"tenant{number % TENANTS}",
            },
        )
        for number, (pid, text) in enumerate(some_passages(passages))
    ]
    indexes: dict[str, Any] = {"lang": "keyword", "year": "integer", "owner": "tenant"}
    for collection in ("msmarco", "tenants"):
        ingest_passages(
            rows, store, encoder=encoder, collection=collection, payload_indexes=indexes
        )
    set_tenant_field(store, "tenants", "owner")


def prepare_edge(stack: ExitStack, work: Path, passages: int) -> list[Pair]:
    """The pairs of calls over Qdrant Edge."""
    from msmarco_qdrant.stores import open_store

    encoder, path = RememberingEncoder(), work / f"calls-{passages}"
    fill(path, encoder, passages)
    folders = {one.name.partition("__")[0]: one for one in (path / "collections").iterdir()}
    store = stack.enter_context(closing(open_store(path)))
    engines = {
        name: EdgeCalls(stack.enter_context(copied_shard(folder)), encoder.known)
        for name, folder in folders.items()
    }
    return pairs_of(store, encoder, engines)


def prepare_server(stack: ExitStack, _: Path, passages: int) -> list[Pair]:
    """The pairs of calls over the server of the tests."""
    from qdrant_client import QdrantClient

    from msmarco_qdrant.stores import open_store
    from tests.loopback import LoopbackServer

    encoder = RememberingEncoder()
    server = stack.enter_context(LoopbackServer())
    store = stack.enter_context(closing(open_store(server.url)))
    fill(store, encoder, min(passages, SERVED))
    port = int(server.url.rpartition(":")[2])
    client = QdrantClient(
        host="127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False
    )
    stack.callback(client.close)
    engines = {name: ServerCalls(client, name, encoder.known) for name in ("msmarco", "tenants")}
    return pairs_of(store, encoder, engines)


PREPARED = {"edge": prepare_edge, "server": prepare_server}


# ---- the engines' own calls ----------------------------------------------------------------


class EdgeCalls:
    """Calls of Qdrant Edge, as its caller writes them.

    Args:
        shard: The shard.
        vectors: The vectors of queries.
    """

    def __init__(self, shard: Any, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        import qdrant_edge

        self._edge, self._shard, self._vectors = qdrant_edge, shard, vectors
        found, _ = shard.scroll(qdrant_edge.ScrollRequest(limit=1, with_vector=True))
        self._name = next(name for name in found[0].vector if name != "bm25")
        rescored = qdrant_edge.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
        self._params = qdrant_edge.SearchParams(hnsw_ef=EF, quantization=rescored)

    def search(self, query: str, fields: Sequence[str] = FIELDS, **options: Any) -> object:
        """The best ten of a query."""
        nearest = self._edge.Query.Nearest(self._vector(query), using=self._name)
        return self._query(nearest, fields, **options)

    def search_with_vectors(self, query: str) -> object:
        """The same with their vectors."""
        nearest = self._edge.Query.Nearest(self._vector(query), using=self._name)
        points = self._request(nearest, FIELDS, with_vector=[self._name])
        return [(one.id, one.score, one.payload, one.vector) for one in points]

    def search_filtered(self, query: str, key: str, value: str) -> object:
        """The best ten of a query that match."""
        return self.search(query, filter=self._matching(key, value))

    def diverse(self, query: str) -> object:
        """Ten of the best hundred by maximal marginal relevance."""
        vector = self._vectors[query].tolist()
        return self._query(self._edge.Mmr(vector, 0.5, CANDIDATES, using=self._name), FIELDS)

    def similar(self, pid: str) -> object:
        """The best ten of a passage's vector."""
        (stored,) = self._shard.retrieve([int(pid)], with_payload=False, with_vector=[self._name])
        others = self._edge.Filter(must_not=[self._edge.HasIdCondition({int(pid)})])
        nearest = self._edge.Query.Nearest(stored.vector[self._name], using=self._name)
        return self._query(nearest, FIELDS, filter=others)

    def count(self, key: str | None = None, value: str = "") -> object:
        """The number of points that match."""
        chosen = None if key is None else self._matching(key, value)
        return self._shard.count(self._edge.CountRequest(True, chosen))

    def facets(self, key: str, chosen: tuple[str, str] | None = None) -> object:
        """The values of a key with their counts."""
        matching = None if chosen is None else self._matching(*chosen)
        hits = self._shard.facet(self._edge.FacetRequest(key, SIZE, True, matching)).hits
        return [(one.value, one.count) for one in hits]

    def scroll(self) -> object:
        """The first points in the order of ids."""
        found: list[object] = []
        offset: Any = None
        while len(found) < SCROLLED:
            request = self._edge.ScrollRequest(limit=PAGE, offset=offset, with_payload=FIELDS)
            records, offset = self._shard.scroll(request)
            found += [(one.id, one.payload) for one in records]
            if offset is None:
                break
        return found

    def scroll_by(self, key: str) -> object:
        """The first points in the order of a key; a page begins with the last value before it."""
        found: dict[object, object] = {}
        start = None
        while len(found) < SCROLLED:
            order = self._edge.OrderBy(key, self._edge.Direction.Asc, start)
            request = self._edge.ScrollRequest(limit=PAGE, order_by=order, with_payload=FIELDS)
            records, _ = self._shard.scroll(request)
            found.update((one.id, one.payload) for one in records)
            if len(records) < PAGE:
                break
            start = records[-1].order_value
        return found

    def _vector(self, query: str) -> Any:
        return self._vectors[query]  # NumPy rows are accepted

    def _query(self, query: Any, fields: Sequence[str], **options: Any) -> object:
        points = self._request(query, fields, **options)
        return [(one.id, one.score, one.payload) for one in points]

    def _request(self, query: Any, fields: Sequence[str], **options: Any) -> Any:
        request = self._edge.QueryRequest(
            limit=SIZE, query=query, with_payload=[*fields], params=self._params, **options
        )
        return self._shard.query(request)

    def _matching(self, key: str, value: str) -> Any:
        match = self._edge.MatchValue(value)
        return self._edge.Filter(must=[self._edge.FieldCondition(key=key, match=match)])


class ServerCalls:
    """Calls of qdrant-client, as its caller writes them.

    Args:
        client: The client.
        collection: The collection's name.
        vectors: The vectors of queries.
    """

    def __init__(
        self, client: Any, collection: str, vectors: Mapping[str, NDArray[np.float32]]
    ) -> None:
        from qdrant_client import models

        self._models, self._client, self._collection = models, client, collection
        self._vectors = vectors
        found, _ = client.scroll(collection, limit=1, with_vectors=True)
        self._name = next(name for name in found[0].vector if name != "bm25")
        rescored = models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
        self._params = models.SearchParams(hnsw_ef=EF, quantization=rescored)

    def search(self, query: str, fields: Sequence[str] = FIELDS, **options: Any) -> object:
        """The best ten of a query."""
        if (chosen := options.pop("filter", None)) is not None:
            options["query_filter"] = chosen
        return self._query(self._vectors[query].tolist(), with_payload=[*fields], **options)

    def search_with_vectors(self, query: str) -> object:
        """The same with their vectors."""
        return self.search(query, with_vectors=[self._name])

    def search_filtered(self, query: str, key: str, value: str) -> object:
        """The best ten of a query that match."""
        return self.search(query, filter=self._matching(key, value))

    def diverse(self, query: str) -> object:
        """Ten of the best hundred by maximal marginal relevance."""
        mmr = self._models.Mmr(diversity=0.5, candidates_limit=CANDIDATES)
        nearest = self._vectors[query].tolist()
        return self._query(self._models.NearestQuery(nearest=nearest, mmr=mmr), with_payload=FIELDS)

    def similar(self, pid: str) -> object:
        """The best ten of a passage's vector."""
        return self._query(int(pid), with_payload=FIELDS)

    def count(self, key: str | None = None, value: str = "") -> object:
        """The number of points that match."""
        chosen = None if key is None else self._matching(key, value)
        return self._client.count(self._collection, count_filter=chosen, exact=True).count

    def facets(self, key: str, chosen: tuple[str, str] | None = None) -> object:
        """The values of a key with their counts."""
        matching = None if chosen is None else self._matching(*chosen)
        return self._client.facet(
            self._collection, key=key, facet_filter=matching, limit=SIZE, exact=True
        ).hits

    def scroll(self) -> object:
        """The first points in the order of ids."""
        found: list[object] = []
        offset: Any = None
        while len(found) < SCROLLED:
            records, offset = self._client.scroll(
                self._collection, limit=PAGE, offset=offset, with_payload=FIELDS
            )
            found += [(one.id, one.payload) for one in records]
            if offset is None:
                break
        return found

    def scroll_by(self, key: str) -> object:
        """The first points in the order of a key; a page begins with the last value before it."""
        found: dict[object, object] = {}
        start = None
        while len(found) < SCROLLED:
            order = self._models.OrderBy(key=key, start_from=start)
            records, _ = self._client.scroll(
                self._collection, limit=PAGE, order_by=order, with_payload=FIELDS
            )
            found.update((one.id, one.payload) for one in records)
            if len(records) < PAGE:
                break
            start = records[-1].order_value
        return found

    def _query(self, query: Any, **options: Any) -> object:
        return self._client.query_points(
            self._collection,
            query=query,
            using=self._name,
            limit=SIZE,
            search_params=self._params,
            **options,
        ).points

    def _matching(self, key: str, value: str) -> Any:
        match = self._models.MatchValue(value=value)
        condition = self._models.FieldCondition(key=key, match=match)
        return self._models.Filter(must=[condition])


# ---- the pairs -----------------------------------------------------------------------------


def pairs_of(store: Store, encoder: RememberingEncoder, engines: Mapping[str, Any]) -> list[Pair]:
    """Every call with the engine's own."""
    from msmarco_qdrant import SearchClient

    queries = [*dict.fromkeys(some_queries())]
    encoder.encode_queries(queries)
    client, tenants = (
        SearchClient(store, collection, encoder) for collection in ("msmarco", "tenants")
    )
    engine = engines["msmarco"]
    return [
        *search_pairs(client, engine, queries),
        *content_pairs(client, engine, queries),
        Pair(
            "tenant",
            lambda q: engines["tenants"].search_filtered(q, "meta.owner", "tenant1"),
            lambda q: tenants.search(q, tenant="tenant1"),
            queries,
        ),
        *passage_pairs(client, engine),
    ]


def search_pairs(client: SearchClient, engine: Any, queries: Sequence[str]) -> Iterator[Pair]:
    """Searches whose hits differ from those of a plain one, which is the first."""
    pids = [passage.pid for passage in islice(client.scroll(), 1_000)]
    starts, bounds = {}, {}
    for query in queries[:1_000]:
        starts[query] = (before := client.search(query, limit=DEPTH - SIZE, offset=0)).cursor
        bounds[query] = before[SIZE // 2].score
    last = DEPTH - SIZE
    known = [*starts]

    yield Pair("search", engine.search, client.search, known)
    yield Pair(
        "offset",
        lambda q: engine.search(q, offset=last),
        lambda q: client.search(q, offset=last),
        known,
    )
    yield Pair(
        "cursor",
        lambda q: engine.search(q, offset=last),
        lambda q: client.search(q, cursor=starts[q]),
        known,
    )
    yield Pair(
        "score_threshold",
        lambda q: engine.search(q, score_threshold=bounds[q]),
        lambda q: client.search(q, score_threshold=bounds[q]),
        known,
    )
    yield Pair("diversity", engine.diverse, lambda q: client.search(q, diversity=0.5), known)
    yield Pair("similar", engine.similar, client.similar, pids)


def content_pairs(client: SearchClient, engine: Any, queries: Sequence[str]) -> Iterator[Pair]:
    """Searches for other parts of the hits."""
    yield Pair(
        "with_vectors",
        engine.search_with_vectors,
        lambda q: client.search(q, with_vectors=True),
        queries,
    )
    yield Pair(
        "with_meta",
        lambda q: engine.search(q, ["pid", "text", "meta.lang"]),
        lambda q: client.search(q, with_meta=["lang"]),
        queries,
    )
    yield Pair(
        "with_text=False",
        lambda q: engine.search(q, ["pid", "meta"]),
        lambda q: client.search(q, with_text=False),
        queries,
    )
    yield Pair("snippets", None, lambda q: client.search(q, snippets=2), queries)


def passage_pairs(client: SearchClient, engine: Any) -> Iterator[Pair]:
    """Counts and reads without a query."""
    again = [*LANGUAGES] * 100
    few = [*LANGUAGES] * 10
    yield Pair("count", lambda _: engine.count(), lambda _: client.count(), again)
    yield Pair(
        "count with a filter",
        lambda lang: engine.count("meta.lang", lang),
        lambda lang: client.count(meta_filter={"lang": lang}),
        again,
    )
    yield Pair("facets", lambda _: engine.facets("meta.lang"), lambda _: client.facets("lang"), few)
    yield Pair(
        "facets with a filter",
        lambda lang: engine.facets("meta.year", ("meta.lang", lang)),
        lambda lang: client.facets("year", meta_filter={"lang": lang}),
        few,
    )
    yield Pair(
        f"scroll, {SCROLLED:,}",
        lambda _: engine.scroll(),
        lambda _: [*islice(client.scroll(), SCROLLED)],
        few,
    )
    yield Pair(
        f"scroll by a field, {SCROLLED:,}",
        lambda _: engine.scroll_by("meta.year"),
        lambda _: [*islice(client.scroll(order_by="year"), SCROLLED)],
        few,
    )


if __name__ == "__main__":
    main()
