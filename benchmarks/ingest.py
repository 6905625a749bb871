"""Time from a TSV file to searchable passages.

Ours: `ingest_passages` into Qdrant Edge, until its index is built. The others, each as its
documentation shows for loading many texts: sentence-transformers with
`QdrantClient.upload_points` (as it comes, and in bfloat16), langchain-qdrant, qdrant-haystack and
llama-index. They write to a server, in a process of its own, that acknowledges everything at once
and keeps and indexes nothing: that flatters them, for an engine would be busy for a while after
the last acknowledgement. The server counts the points, so that nobody is credited for what was not
sent.

All take the same model from the same directory and read the same file themselves. The time goes
from opening it to the last acknowledgement, or until ours is searchable; loading the model and a
first query are left out. Each run in a process of its own, the candidates in turn; medians over
the rounds.

    python benchmarks/ingest.py [--passages 4096] [--rounds 3] [--model all-MiniLM-L6-v2]
        [--only NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from acknowledging_server import running_server
from harness import (
    PACKAGES,
    Report,
    Row,
    column,
    data_name,
    json_option,
    middle,
    model_directory,
    read_tsv,
    run_in_turn,
    some_passages,
    spread,
)

MODEL = "all-MiniLM-L6-v2"
COLLECTION = "passages"
QUERY = "how big is london"
AS_LIBRARY = 32
"""Texts of a forward pass by sentence-transformers' default; llama-index's own is 10."""

Load = Callable[[], object]
Opened = Iterator[Load]
"""What a candidate's generator yields once its model is loaded; calling it is what is timed."""


# ---- the candidates ------------------------------------------------------------------------


def ours(source: Path, model: str, folder: Path) -> Opened:
    """`ingest_passages` into Edge, `optimize` included; then a search has to find something."""
    from msmarco_qdrant.encoding import load_encoder
    from msmarco_qdrant.ingest.api import ingest_passages
    from msmarco_qdrant.search.client import SearchClient

    encoder = load_encoder(model)
    encoder.encode_queries([QUERY])
    store = folder / "store"
    yield lambda: ingest_passages(source, store, encoder=encoder)
    with SearchClient.open(store, encoder=encoder) as client:
        if not client.search(QUERY):
            raise SystemExit("nothing is found in what was ingested")
        points = client.store.collection(client.collection).info().points
    if points != len(read_tsv(source)):
        raise SystemExit(f"{points:,} of {len(read_tsv(source)):,} passages can be searched")


def upload_points(source: Path, model: str, port: int, dtype: str = "float32") -> Opened:
    """`SentenceTransformer.encode` of all texts, then `QdrantClient.upload_points`."""
    from qdrant_client import models
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model, model_kwargs={"dtype": dtype})
    (first,) = encoder.encode([QUERY])
    client = client_of(port)

    def load() -> None:
        make_collection(client, len(first))
        passages = read_tsv(source)
        vectors = encoder.encode([text for _, text in passages])
        points = (
            models.PointStruct(
                id=int(pid), vector=vector.tolist(), payload={"pid": pid, "text": text}
            )
            for (pid, text), vector in zip(passages, vectors, strict=True)
        )
        client.upload_points(COLLECTION, points)

    yield load
    client.close()


def langchain(source: Path, model: str, port: int) -> Opened:
    """`QdrantVectorStore.add_documents`, which encodes and writes 64 at a time."""
    documents: Any = import_module("langchain_core.documents")
    qdrant: Any = import_module("langchain_qdrant")
    hugging_face: Any = import_module("langchain_huggingface")
    embeddings = hugging_face.HuggingFaceEmbeddings(model_name=model)
    dimension = len(embeddings.embed_query(QUERY))
    client = client_of(port)

    def load() -> None:
        make_collection(client, dimension)
        store = qdrant.QdrantVectorStore(client, COLLECTION, embedding=embeddings)
        passages = [
            documents.Document(page_content=text, metadata={"pid": pid})
            for pid, text in read_tsv(source)
        ]
        store.add_documents(passages, ids=[str(uuid.uuid4()) for _ in passages])

    yield load
    client.close()


def haystack(source: Path, model: str, port: int) -> Opened:
    """An indexing pipeline of document embedder and writer."""
    framework: Any = import_module("haystack")
    writers: Any = import_module("haystack.components.writers")
    policies: Any = import_module("haystack.document_stores.types")
    embedders: Any = import_module(
        "haystack_integrations.components.embedders.sentence_transformers"
    )
    stores: Any = import_module("haystack_integrations.document_stores.qdrant")
    embedder = embedders.SentenceTransformersDocumentEmbedder(model=model, progress_bar=False)
    embedder.warm_up()
    first = embedder.run([framework.Document(content=QUERY)])["documents"][0]

    def load() -> None:
        store = stores.QdrantDocumentStore(
            url="http://127.0.0.1",
            grpc_port=port,
            prefer_grpc=True,
            index=COLLECTION,
            embedding_dim=len(first.embedding),
            progress_bar=False,
            client_kwargs={"check_compatibility": False},
        )
        pipeline = framework.Pipeline()
        pipeline.add_component("embedder", embedder)
        overwrite = policies.DuplicatePolicy.OVERWRITE  # else it looks for each one first
        pipeline.add_component("writer", writers.DocumentWriter(store, policy=overwrite))
        pipeline.connect("embedder", "writer")
        passages = [
            framework.Document(content=text, meta={"pid": pid}) for pid, text in read_tsv(source)
        ]
        pipeline.run({"embedder": {"documents": passages}})

    yield load


def llama_index(source: Path, model: str, port: int) -> Opened:
    """`VectorStoreIndex` over nodes that need no splitting, in batches as big as the library's."""
    core: Any = import_module("llama_index.core")
    schema: Any = import_module("llama_index.core.schema")
    stores: Any = import_module("llama_index.vector_stores.qdrant")
    embeddings: Any = import_module("llama_index.embeddings.huggingface")
    embedding = embeddings.HuggingFaceEmbedding(model_name=model, embed_batch_size=AS_LIBRARY)
    embedding.get_text_embedding(QUERY)
    client = client_of(port)

    def load() -> None:
        store = stores.QdrantVectorStore(COLLECTION, client=client)
        context = core.StorageContext.from_defaults(vector_store=store)
        nodes = [
            schema.TextNode(text=text, metadata={"pid": pid}, excluded_embed_metadata_keys=["pid"])
            for pid, text in read_tsv(source)
        ]
        core.VectorStoreIndex(nodes, storage_context=context, embed_model=embedding)

    yield load
    client.close()


def client_of(port: int) -> Any:
    """qdrant-client over gRPC."""
    from qdrant_client import QdrantClient

    return QdrantClient(
        url="http://127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False
    )


def make_collection(client: Any, dimension: int) -> None:
    """Make the collection, as the documentation of Qdrant and of langchain-qdrant begins."""
    from qdrant_client import models

    params = models.VectorParams(size=dimension, distance=models.Distance.COSINE)
    client.create_collection(COLLECTION, vectors_config=params)


class Peer(NamedTuple):
    """A candidate that writes to the server.

    Attributes:
        open: Loads its model.
        modules: What has to be installed.
        packages: Distributions whose versions decide its figures.
    """

    open: Callable[[Path, str, int], Opened]
    modules: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


OURS = "msmarco-qdrant, into Edge"
PEERS: Mapping[str, Peer] = {
    "sentence-transformers + upload_points": Peer(upload_points),
    "sentence-transformers in bfloat16 + upload_points": Peer(
        partial(upload_points, dtype="bfloat16")
    ),
    "langchain-qdrant": Peer(
        langchain,
        ("langchain_qdrant", "langchain_huggingface"),
        ("langchain-qdrant", "langchain-huggingface"),
    ),
    "qdrant-haystack": Peer(
        haystack,
        (
            "haystack_integrations.document_stores.qdrant",
            "haystack_integrations.components.embedders.sentence_transformers",
        ),
        ("haystack-ai", "qdrant-haystack", "sentence-transformers-haystack"),
    ),
    "llama-index": Peer(
        llama_index,
        ("llama_index.vector_stores.qdrant", "llama_index.embeddings.huggingface"),
        (
            "llama-index-core",
            "llama-index-vector-stores-qdrant",
            "llama-index-embeddings-huggingface",
        ),
    ),
}
HOW_TO_INSTALL = """pip install 'msmarco-qdrant[bench]' brings the peers, but for \
langchain-huggingface: 1.2 asks for huggingface-hub below 2, which is older than our pins, and \
works with a newer one: pip install --no-deps langchain-huggingface"""


# ---- runs ----------------------------------------------------------------------------------


def run(name: str, source: Path, model: str) -> dict[str, Any]:
    """Load the model, then the passages: seconds, and passages per second."""
    # a client that is still open when its server ends prints a warning
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
    count = len(read_tsv(source))
    with tempfile.TemporaryDirectory() as folder:
        if name == OURS:
            seconds, arrived = timed(ours(source, model, Path(folder))), count
        else:
            with running_server(COLLECTION) as (port, taken):
                seconds = timed(PEERS[name].open(source, model, port))
            arrived = taken.points
    if arrived != count:
        raise SystemExit(f"{name}: {arrived:,} points arrived, expected {count:,}")
    return {"seconds": seconds, "passages_per_second": count / seconds, "arrived": arrived}


def timed(opened: Opened) -> float:
    """Seconds that a candidate's loading takes, between what comes before and after."""
    load = next(opened)
    started = time.perf_counter()
    load()
    seconds = time.perf_counter() - started
    for _ in opened:  # what it checks afterwards
        pass
    return seconds


def installed() -> list[str]:
    """Return the candidates whose packages are installed; print how to install the others."""
    missing = {name for name, peer in PEERS.items() if not all(map(_is_here, peer.modules))}
    if missing:
        print(f"not installed: {', '.join(sorted(missing))}. {HOW_TO_INSTALL}\n")
    return [name for name in (*PEERS, OURS) if name not in missing]


def _is_here(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even its parent
        return False


def print_results(report: Report, results: Mapping[str, list[dict[str, Any]]]) -> None:
    """The table: every candidate against the fastest of the others."""
    rates = {name: middle(runs, "passages_per_second") for name, runs in results.items()}
    best = max((rate for name, rate in rates.items() if name != OURS), default=rates.get(OURS, 0))

    def cells(name: str, runs: list[dict[str, Any]]) -> tuple[str, ...]:
        return (
            name,
            spread(column(runs, "seconds")),
            f"{rates[name]:,.1f}",
            f"{rates[name] / best:.2f}",
        )

    report.table(
        ("from TSV to the end", "seconds, median (range)", "passages/s", "times the best peer"),
        [Row(cells(name, runs), runs) for name, runs in results.items()],
    )


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Write the file, run the candidates in turn, and print their table."""
    names = options.only or installed()
    packages = [package for name in names if name in PEERS for package in PEERS[name].packages]
    report = Report(options.json, (*PACKAGES, "qdrant-client", *packages))
    source = folder / "passages.tsv"
    passages = some_passages(options.passages)
    source.write_text("".join(f"{pid}\t{text}\n" for pid, text in passages), "utf-8")
    arguments = (f"--source={source}", f"--model={model_directory(options.model)}")
    results = run_in_turn(__file__, names, options.rounds, *arguments)
    print(f"{len(passages):,} {data_name()}, {options.model}\n")
    print_results(report, results)


def main() -> None:
    """Compare all that is installed, or run one."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = (*PEERS, OURS)
    parser.add_argument("--passages", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=MODEL, help="a name or a directory")
    parser.add_argument("--only", nargs="+", choices=known, help="all that is installed, if absent")
    parser.add_argument("--candidate", choices=known, help="run one, here, and print JSON")
    parser.add_argument("--source", type=Path, help="the file that one reads")
    json_option(parser)
    options = parser.parse_args()
    if options.candidate:
        print(json.dumps(run(options.candidate, options.source, options.model)))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


if __name__ == "__main__":
    main()
