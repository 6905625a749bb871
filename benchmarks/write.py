"""Speed of writing points to a server: ours, the client's uploads, and a framework's.

The server is on loopback, in a process of its own: it decodes each request and acknowledges it,
and keeps nothing, so what is measured is the client. The table also has the upper limit:
the requests that ours sends, serialized beforehand and sent as bytes.

Everyone starts from the same arrays (float32 vectors of random numbers, BM25 sparse vectors and
payloads of passages) and sends the same points, which the first request of each proves, by gRPC or
by REST; langchain keeps its own form of payload. What it takes to bring the arrays into the form
that an interface wants is in its time; connecting and a first request are not. Each run in a
process of its own, the contenders in turn; medians over the rounds, with the processor time that
the client took. The ceiling is that of gRPC.

    python benchmarks/write.py [--points 20000] [--dimensions 768 384] [--batch 256] [--rounds 5]
        [--json FILE]

`--dense-only` leaves out the sparse vectors (ours writes empty ones: it always writes both).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from acknowledging_server import running_server
from harness import Report, Row, column, json_option, middle, run_in_turn, some_passages, spread

from msmarco_qdrant.core.collection_types import Bm25Settings, PointBatch, SparseVector
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding.bm25 import Bm25Encoder
from msmarco_qdrant.stores import Connection, open_store
from msmarco_qdrant.stores.payload import SPARSE_VECTOR, payload_of

COLLECTION = "passages__0001"
DENSE = "dense-1a2b3c4d"
IN_FLIGHT = 4
CEILINGS = {in_flight: f"ceiling, {in_flight} in flight" for in_flight in (IN_FLIGHT, 1)}
HANDED_OVER = 1024
"""Points that ours is given at once: what an ingest hands over at most."""
PACKAGES = ("qdrant-client", "grpcio", "protobuf", "langchain-qdrant")


class Setting(NamedTuple):
    """The way points are sent: ports, points per request, with or without sparse vectors."""

    port: int
    rest_port: int
    batch: int
    sparse: bool


Send = Callable[[], object]
Contender = Callable[[Setting], Callable[[PointBatch], Send]]
"""Connects; is given points, which it may not bring into another form yet; then sends them."""


# ---- the contenders ------------------------------------------------------------------------


def ours(
    setting: Setting, in_flight: int = IN_FLIGHT, *, rest: bool = False
) -> Callable[[PointBatch], Send]:
    """`Collection.upsert` and `flush`, as an ingest calls them. Waits for every write."""
    connection = Connection(batch_points=setting.batch, in_flight=in_flight)
    url = f"grpc://127.0.0.1:{setting.port}"
    if rest:
        url, connection = (
            f"http://127.0.0.1:{setting.rest_port}",
            replace(connection, transport="rest"),
        )
    store = open_store(url, connection=connection)
    collection = store.collection(COLLECTION)

    def send(points: PointBatch) -> None:
        for start in range(0, len(points.ids), HANDED_OVER):
            collection.upsert(part(points, start, start + HANDED_OVER))
        collection.flush()

    return lambda points: partial(send, points)


def ceiling(setting: Setting, in_flight: int = IN_FLIGHT) -> Callable[[PointBatch], Send]:
    """Our requests as bytes made beforehand, with as many under way as ours has."""
    import grpc as grpcio  # type: ignore[import-untyped]
    from qdrant_client import grpc

    from msmarco_qdrant.stores.server.wire import upsert_requests

    channel = grpcio.insecure_channel(
        f"127.0.0.1:{setting.port}", options=[("grpc.max_send_message_length", -1)]
    )
    upsert = channel.unary_unary(
        "/qdrant.Points/Upsert",
        response_deserializer=grpc.PointsOperationResponse.FromString,
    )
    senders = ThreadPoolExecutor(in_flight)

    def prepare(points: PointBatch) -> Send:
        made = upsert_requests(COLLECTION, points, max_points=setting.batch, max_bytes=2**30)
        requests = [request.SerializeToString() for request in made]
        return lambda: list(senders.map(upsert, requests))

    return prepare


def upload_points(
    setting: Setting, *, rest: bool = False, **options: Any
) -> Callable[[PointBatch], Send]:
    """`QdrantClient.upload_points`, of points that are made as they are asked for."""
    from qdrant_client import QdrantClient, models

    client = client_of(setting.port)
    if rest:
        url = f"http://127.0.0.1:{setting.rest_port}"
        client = QdrantClient(url=url, check_compatibility=False)

    def made(points: PointBatch) -> Iterator[models.PointStruct]:
        for id_, vectors, payload in zip(
            points.ids, vectors_of(points, setting), points.payloads, strict=True
        ):
            yield models.PointStruct(id=id_, vector=vectors, payload=payload)

    def send(points: PointBatch) -> None:
        client.upload_points(COLLECTION, made(points), batch_size=setting.batch, **options)

    return lambda points: partial(send, points)


def upload_collection(setting: Setting, **options: Any) -> Callable[[PointBatch], Send]:
    """`QdrantClient.upload_collection`; without sparse vectors it takes the array as it is."""
    client = client_of(setting.port)

    def send(points: PointBatch) -> None:
        vectors: Any = vectors_of(points, setting) if setting.sparse else {DENSE: points.dense}
        client.upload_collection(
            COLLECTION, vectors, points.payloads, points.ids, batch_size=setting.batch, **options
        )

    return lambda points: partial(send, points)


def langchain(setting: Setting) -> Callable[[PointBatch], Send]:
    """`QdrantVectorStore.add_texts` with embeddings that look ready vectors up. Waits."""
    langchain_qdrant: Any = import_module("langchain_qdrant")
    dense, sparse = Ready(), Ready()
    store = langchain_qdrant.QdrantVectorStore(
        client_of(setting.port),
        COLLECTION,
        embedding=dense,
        retrieval_mode="hybrid" if setting.sparse else "dense",
        vector_name=DENSE,
        content_payload_key="text",
        metadata_payload_key="meta",
        sparse_embedding=sparse if setting.sparse else None,
        sparse_vector_name=SPARSE_VECTOR,
        validate_collection_config=False,
    )

    def prepare(points: PointBatch) -> Send:
        texts = [payload["text"] for payload in points.payloads]
        dense.found = dict(zip(texts, points.dense, strict=True))
        sparse.found = dict(zip(texts, points.sparse, strict=True))
        rest = [{**payload} for payload in points.payloads]
        for payload in rest:
            del payload["text"]
        return lambda: store.add_texts(texts, rest, points.ids, batch_size=setting.batch)

    return prepare


class Ready:
    """Embeddings that are looked up, in langchain's form: lists of numbers, or sparse vectors."""

    def __init__(self) -> None:
        self.found: Mapping[str, Any] = {}

    def embed_documents(self, texts: Sequence[str]) -> list[Any]:
        """The vectors of some texts."""
        found = [self.found[text] for text in texts]
        return [one.tolist() if isinstance(one, np.ndarray) else one for one in found]


class Entry(NamedTuple):
    """A contender, and how many of its requests are under way at once."""

    open: Contender
    in_flight: int = 1


BASE = "upload_points"
LANGCHAIN = "langchain-qdrant add_texts"
OURS_BY_REST = ("msmarco-qdrant, REST", "msmarco-qdrant, REST, 1 in flight")
OURS = ("msmarco-qdrant", "msmarco-qdrant, 1 in flight", *OURS_BY_REST, *CEILINGS.values())
ENTRIES: Mapping[str, Entry] = {
    BASE: Entry(upload_points),
    "upload_points, wait=True": Entry(partial(upload_points, wait=True)),
    "upload_collection": Entry(upload_collection),
    LANGCHAIN: Entry(langchain),
    "msmarco-qdrant": Entry(ours, IN_FLIGHT),
    "msmarco-qdrant, 1 in flight": Entry(partial(ours, in_flight=1)),
    "upload_points, REST": Entry(partial(upload_points, rest=True)),
    "upload_points, REST, wait=True": Entry(partial(upload_points, rest=True, wait=True)),
    OURS_BY_REST[0]: Entry(partial(ours, rest=True), IN_FLIGHT),
    OURS_BY_REST[1]: Entry(partial(ours, in_flight=1, rest=True)),
    CEILINGS[IN_FLIGHT]: Entry(ceiling, IN_FLIGHT),
    CEILINGS[1]: Entry(partial(ceiling, in_flight=1)),
}


# ---- points --------------------------------------------------------------------------------


def make_points(count: int, dimension: int, *, sparse: bool) -> PointBatch:
    """So many points of real passages, with random vectors of unit length."""
    texts = [text for _, text in some_passages(count)]
    texts = [texts[number % len(texts)] for number in range(count)]
    dense = np.random.default_rng(0).standard_normal((count, dimension), np.float32)
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    bm25 = Bm25Encoder(Bm25Settings())
    empty = SparseVector([], [])
    return PointBatch(
        using=DENSE,
        ids=range(count),
        dense=dense,
        sparse=[bm25.encode_passage(text) if sparse else empty for text in texts],
        payloads=[
            payload_of(Passage(str(number), text), 10**18 + number)
            for number, text in enumerate(texts)
        ],
    )


def part(points: PointBatch, start: int, stop: int) -> PointBatch:
    """Some of the points."""
    return PointBatch(
        using=points.using,
        ids=points.ids[start:stop],
        dense=points.dense[start:stop],
        sparse=points.sparse[start:stop],
        payloads=points.payloads[start:stop],
    )


def vectors_of(points: PointBatch, setting: Setting) -> Iterator[dict[str, Any]]:
    """Each point's vectors, as qdrant-client's models take them."""
    from qdrant_client import models

    for row, sparse in zip(points.dense, points.sparse, strict=True):
        vectors: dict[str, Any] = {DENSE: row.tolist()}
        if setting.sparse:
            vectors[SPARSE_VECTOR] = models.SparseVector(
                indices=sparse.indices, values=sparse.values
            )
        yield vectors


def client_of(port: int) -> Any:
    """qdrant-client over gRPC."""
    from qdrant_client import QdrantClient

    return QdrantClient(
        url="http://127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False
    )


# ---- runs ----------------------------------------------------------------------------------


def run(name: str, points: PointBatch, batch: int, *, sparse: bool) -> dict[str, Any]:
    """Send a first request, then the rest: the rest's points per second, and what they cost."""
    # a client that is still open when its server ends prints a warning
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    with running_server(COLLECTION) as (port, taken):
        prepare = ENTRIES[name].open(Setting(port, taken.rest_port, batch, sparse))
        prepare(part(points, 0, batch))()
        send = prepare(part(points, batch, len(points.ids)))
        started, cpu_started = time.perf_counter(), time.process_time()
        send()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    if taken.points != len(points.ids):
        raise SystemExit(f"{name}: {taken.points:,} of {len(points.ids):,} points arrived")
    count = len(points.ids) - batch
    return {
        "points_per_second": count / seconds,
        "cpu_us_per_point": 1e6 * cpu_seconds / count,
        "first": taken.first,
    }


def compare(report: Report, names: Sequence[str], dimension: int, options: Any) -> None:
    """Run some contenders in turn, round after round, and print their table."""
    arguments = ["--dimensions", str(dimension)]
    arguments += [f"--points={options.points}", f"--batch={options.batch}"]
    arguments += ["--dense-only"] if options.dense_only else []
    results = run_in_turn(__file__, names, options.rounds, *arguments)
    require_same_model(results, sparse=not options.dense_only)
    rates = {name: column(results[name], "points_per_second") for name in names}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    content = "without sparse vectors" if options.dense_only else "with sparse vectors"
    head = (
        f"{dimension} floats, {content}, {options.batch} points a request",
        "points/s, median (range)",
        "times as fast",
        "of its ceiling",
        "client's CPU, µs a point",
    )

    def cells(name: str) -> tuple[str, ...]:
        return (
            name,
            spread(rates[name], digits=0),
            f"{medians[name] / medians[BASE]:.2f}",
            f"{medians[name] / medians[CEILINGS[ENTRIES[name].in_flight]]:.0%}",
            f"{middle(results[name], 'cpu_us_per_point'):.1f}",
        )

    report.table(head, [Row(cells(name), results[name]) for name in names])


def require_same_model(results: Mapping[str, list[dict[str, Any]]], *, sparse: bool) -> None:
    """Refuse to compare what did not send the same points, byte for byte."""
    others = {LANGCHAIN} if sparse else {LANGCHAIN, *OURS}
    sent = {one["first"] for name in results if name not in others for one in results[name]}
    if len(sent) != 1:
        raise SystemExit(f"the contenders sent {len(sent)} different first requests")


def main() -> None:
    """Compare all that is installed, at each dimension."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[768, 384])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dense-only", action="store_true")
    parser.add_argument("--candidate", choices=ENTRIES, help="run one, here, and print JSON")
    json_option(parser)
    options = parser.parse_args()
    sparse = not options.dense_only
    if options.candidate:
        points = make_points(options.points + options.batch, options.dimensions[0], sparse=sparse)
        print(json.dumps(run(options.candidate, points, options.batch, sparse=sparse)))
        return
    names = list(ENTRIES)
    if find_spec("langchain_qdrant") is None:
        print("langchain-qdrant is left out: pip install 'msmarco-qdrant[bench]' brings it\n")
        names.remove(LANGCHAIN)
    report = Report(options.json, PACKAGES if LANGCHAIN in names else PACKAGES[:-1])
    for dimension in options.dimensions:
        compare(report, names, dimension, options)


if __name__ == "__main__":
    main()
