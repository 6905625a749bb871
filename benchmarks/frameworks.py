"""Adapters to frameworks beside the Qdrant adapter of each: time, requests and writes.

The same passages are written three times, as an application does: first all of them, then all
again, then again with one of a hundred changed. Each framework embeds by an embedder that only
hashes words and counts texts, so what is measured is the adapter, and how much it embeds. Both
adapters of a framework write to a server, in a process of its own, the tests' own in Python:
compare the processor time of the client. All are given the same ids, so that no points are doubled.

    python benchmarks/frameworks.py [--passages 5000] [--rounds 3] [--only NAME ...] [--json FILE]

It needs `make integrations`: run it with the Python of that environment.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from harness import Report, Row, column, data_name, json_option, run_in_turn, some_passages, spread

from msmarco_qdrant.testing import HashingEncoder

DIMENSION = 384
COLLECTION = "passages"
STEPS = ("all", "all again", "1 % changed")
_CHANGED = 100

Passages = Sequence[tuple[str, str]]
Write = Callable[[Passages], object]


class Embedder:
    """Hashes words, and counts the texts that it was given."""

    def __init__(self) -> None:
        self._encoder = HashingEncoder(DIMENSION)
        self.texts = 0

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a vector for each text."""
        self.texts += len(texts)
        vectors: list[list[float]] = self._encoder.encode([*texts]).tolist()
        return vectors


def uuid_of(pid: str) -> str:
    """Return the same UUID for the same pid, as Qdrant's ids are integers or UUIDs."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, pid))


# ---- the contenders ------------------------------------------------------------------------


def langchain_embeddings(embedder: Embedder) -> Any:
    """Embeddings of LangChain."""
    base: Any = import_module("langchain_core.embeddings").Embeddings

    class Counted(base):  # type: ignore[misc]
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return embedder.embed(texts)

        def embed_query(self, text: str) -> list[float]:
            return embedder.embed([text])[0]

    return Counted()


def langchain_documents(passages: Passages) -> list[Any]:
    """Documents of LangChain."""
    document: Any = import_module("langchain_core.documents").Document
    return [document(id=uuid_of(pid), page_content=text) for pid, text in passages]


def langchain_ours(url: str, embedder: Embedder) -> Write:
    """`MsmarcoVectorStore.add_documents`."""
    ours: Any = import_module("msmarco_qdrant.integrations.langchain")
    embedding = langchain_embeddings(embedder)
    store = ours.MsmarcoVectorStore.open(
        url, collection=COLLECTION, embedding=embedding, create=True
    )
    return lambda passages: store.add_documents(langchain_documents(passages))


def langchain_theirs(url: str, embedder: Embedder) -> Write:
    """`QdrantVectorStore.add_documents` of langchain-qdrant."""
    theirs: Any = import_module("langchain_qdrant")
    client = client_of(url)
    make_collection(client)
    store = theirs.QdrantVectorStore(client, COLLECTION, embedding=langchain_embeddings(embedder))
    return lambda passages: store.add_documents(langchain_documents(passages))


def haystack_documents(passages: Passages) -> list[Any]:
    """Documents of Haystack."""
    document: Any = import_module("haystack").Document
    return [document(id=pid, content=text) for pid, text in passages]


def haystack_ours(url: str, embedder: Embedder) -> Write:
    """`MsmarcoDocumentStore.write_documents`, which embeds."""
    ours: Any = import_module("msmarco_qdrant.integrations.haystack")
    encoders: Any = import_module("msmarco_qdrant.integrations.text_encoder")
    overwrite = import_module("haystack.document_stores.types").DuplicatePolicy.OVERWRITE
    encoder = encoders.TextEncoder(embedder.embed, embedder.embed, model="hash")
    store = ours.MsmarcoDocumentStore(url, collection=COLLECTION, encoder=encoder)
    store.count_documents()
    return lambda passages: store.write_documents(haystack_documents(passages), overwrite)


def haystack_theirs(url: str, embedder: Embedder) -> Write:
    """An embedder, then `QdrantDocumentStore.write_documents` of qdrant-haystack."""
    theirs: Any = import_module("haystack_integrations.document_stores.qdrant")
    overwrite = import_module("haystack.document_stores.types").DuplicatePolicy.OVERWRITE
    store = theirs.QdrantDocumentStore(
        url="http://127.0.0.1",
        grpc_port=port_of(url),
        prefer_grpc=True,
        index=COLLECTION,
        embedding_dim=DIMENSION,
        progress_bar=False,
        client_kwargs={"check_compatibility": False},
    )
    store.count_documents()

    def write(passages: Passages) -> None:
        documents = haystack_documents(passages)
        vectors = embedder.embed([text for _, text in passages])
        for document, vector in zip(documents, vectors, strict=True):
            object.__setattr__(document, "embedding", vector)
        store.write_documents(documents, overwrite)

    return write


def llama_embedding(embedder: Embedder) -> Any:
    """An embedding model of LlamaIndex."""
    base: Any = import_module("llama_index.core.embeddings").BaseEmbedding

    class Counted(base):  # type: ignore[misc]
        def _get_text_embedding(self, text: str) -> list[float]:
            return embedder.embed([text])[0]

        def _get_query_embedding(self, query: str) -> list[float]:
            return embedder.embed([query])[0]

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return embedder.embed([query])[0]

    return Counted(model_name="hash")


def llama_nodes(passages: Passages, embedder: Embedder) -> list[Any]:
    """Nodes of LlamaIndex with their embeddings, as its vector stores are given."""
    node: Any = import_module("llama_index.core.schema").TextNode
    vectors = embedder.embed([text for _, text in passages])
    return [
        node(id_=uuid_of(pid), text=text, embedding=vector)
        for (pid, text), vector in zip(passages, vectors, strict=True)
    ]


def llama_ours(url: str, embedder: Embedder) -> Write:
    """`MsmarcoVectorStore.add` of this package's adapter to LlamaIndex."""
    ours: Any = import_module("msmarco_qdrant.integrations.llamaindex")
    store = ours.MsmarcoVectorStore.open(
        url, collection=COLLECTION, embed_model=llama_embedding(embedder), create=True
    )
    return lambda passages: store.add(llama_nodes(passages, embedder))


def llama_theirs(url: str, embedder: Embedder) -> Write:
    """`QdrantVectorStore.add` of llama-index-vector-stores-qdrant."""
    theirs: Any = import_module("llama_index.vector_stores.qdrant")
    store = theirs.QdrantVectorStore(COLLECTION, client=client_of(url))
    return lambda passages: store.add(llama_nodes(passages, embedder))


def client_of(url: str) -> Any:
    """qdrant-client over gRPC."""
    from qdrant_client import QdrantClient

    return QdrantClient(
        url="http://127.0.0.1", grpc_port=port_of(url), prefer_grpc=True, check_compatibility=False
    )


def port_of(url: str) -> int:
    """Return the port of a URL."""
    return int(url.rpartition(":")[2])


def make_collection(client: Any) -> None:
    """Make the collection, as langchain-qdrant's documentation begins."""
    from qdrant_client import models

    params = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
    client.create_collection(COLLECTION, vectors_config=params)


class Contender(NamedTuple):
    """An adapter: how it is opened, and the module that has to be installed."""

    open: Callable[[str, Embedder], Write]
    module: str


CONTENDERS: Mapping[str, Contender] = {
    "LangChain: msmarco-qdrant": Contender(langchain_ours, "msmarco_qdrant.integrations.langchain"),
    "LangChain: langchain-qdrant": Contender(langchain_theirs, "langchain_qdrant"),
    "Haystack: msmarco-qdrant": Contender(haystack_ours, "msmarco_qdrant.integrations.haystack"),
    "Haystack: qdrant-haystack": Contender(
        haystack_theirs, "haystack_integrations.document_stores.qdrant"
    ),
    "LlamaIndex: msmarco-qdrant": Contender(llama_ours, "msmarco_qdrant.integrations.llamaindex"),
    "LlamaIndex: llama-index-vector-stores-qdrant": Contender(
        llama_theirs, "llama_index.vector_stores.qdrant"
    ),
}
PACKAGES = (
    *("qdrant-client", "haystack-ai", "qdrant-haystack", "langchain-core", "langchain-qdrant"),
    *("llama-index-core", "llama-index-vector-stores-qdrant"),
)


# ---- runs ----------------------------------------------------------------------------------


@contextmanager
def counting_server() -> Iterator[tuple[str, Callable[[], dict[str, int]]]]:
    """A server in a process of its own: its URL, and a function that returns its counts."""
    program = [sys.executable, str(Path(__file__).with_name("counting_server.py"))]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise SystemExit("the server has no pipes")
        told, answers = process.stdin, process.stdout
        url = answers.readline().strip()

        def counts() -> dict[str, int]:
            told.write("\n")
            told.flush()
            found: dict[str, int] = json.loads(answers.readline())
            return found

        try:
            yield url, counts
        finally:
            told.close()


def run(name: str, count: int) -> dict[str, Any]:
    """Write the passages three times: of each step seconds, processor time and counts."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
    passages = some_passages(count)
    changed = [
        (pid, f"{text} Changed.") if number % _CHANGED == 0 else (pid, text)
        for number, (pid, text) in enumerate(passages)
    ]
    embedder, steps = Embedder(), []
    with counting_server() as (url, counts):
        write = CONTENDERS[name].open(url, embedder)
        for rows in (passages, passages, changed):
            counts()
            before, started, worked = embedder.texts, time.perf_counter(), time.process_time()
            write(rows)
            seconds, worked = time.perf_counter() - started, time.process_time() - worked
            own = {"seconds": seconds, "cpu_s": worked, "embedded": embedder.texts - before}
            steps.append({**own, **counts()})
    return {"passages": len(passages), "steps": steps}


def installed() -> list[str]:
    """Return the contenders whose packages are installed."""
    found = [name for name, contender in CONTENDERS.items() if _is_here(contender.module)]
    if missing := CONTENDERS.keys() - {*found}:
        print(f"not installed: {', '.join(sorted(missing))}\n")
    return found


def _is_here(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even its parent
        return False


def compare(options: argparse.Namespace) -> None:
    """Run the contenders in turn, and print their table."""
    names = options.only or installed()
    report = Report(options.json, PACKAGES)
    results = run_in_turn(__file__, names, options.rounds, f"--passages={options.passages}")
    rows = []
    for name, runs in results.items():
        for number, step in enumerate(STEPS):
            of_step = [one["steps"][number] for one in runs]
            first = of_step[0]
            cells = (
                name,
                step,
                spread(column(of_step, "seconds")),
                spread(column(of_step, "cpu_s")),
                *(f"{first[count]:,}" for count in ("embedded", "points", "requests")),
            )
            rows.append(Row(cells, of_step))
    count = next(iter(results.values()))[0]["passages"]
    print(f"{count:,} {data_name()}, vectors of {DIMENSION}\n")
    report.table(
        (
            *("adapter", "step", "s, median (range)", "client's CPU s", "texts embedded"),
            *("points written", "requests"),
        ),
        rows,
    )


def main() -> None:
    """Compare the adapters, or run one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=CONTENDERS, metavar="NAME")
    parser.add_argument("--candidate", help=argparse.SUPPRESS)
    json_option(parser)
    options = parser.parse_args()
    if options.candidate:
        print(json.dumps(run(options.candidate, options.passages)))
    else:
        compare(options)


if __name__ == "__main__":
    main()
