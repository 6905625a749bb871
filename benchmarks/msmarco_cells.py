"""One figure of the published table: measured, kept, and not measured again.

A figure is kept as a JSON file with the values of its queries, the versions of what decides it,
and its identity: the model, the way and the digests of the files. It is written whole or not at
all, after everything else; until then the stores are the checkpoint, as `ingest_passages` goes on
where it stood.
"""

from __future__ import annotations

import gc
import hashlib
import json
import re
import sys
import time
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import PACKAGES, machine
from msmarco_files import Data, Folder, Kind

from msmarco_qdrant.core.collection_types import Bm25Settings, StorageSettings
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.encoding.catalog import PublishedModel, find_published

if TYPE_CHECKING:
    from msmarco_qdrant.encoding import Encoder
    from msmarco_qdrant.evaluation import Run
    from msmarco_qdrant.search.client import SearchClient

DECIDING = (*PACKAGES, "ir-measures")
DEPTH = 10
WORDS = "words"
"""Owner of the stores that need no model: BM25 searches them, cross-encoders read from them."""


# ---- models --------------------------------------------------------------------------------


class Contender(NamedTuple):
    """A row of the table.

    Attributes:
        name: What the table calls it.
        kind: What it is, which decides how it is measured.
        location: What to load it by: a name, a hub id or an absolute directory.
        published: The catalog's entry, if it has one.
    """

    name: str
    kind: Kind
    location: str
    published: PublishedModel | None

    @property
    def slug(self) -> str:
        """A name for its files; two directories of one name have two."""
        plain = re.sub(r"[^\w.-]+", "_", self.name)
        if self.location == self.name:
            return plain
        return f"{plain}-{hashlib.sha256(self.location.encode()).hexdigest()[:8]}"


def contender(name: str) -> Contender:
    """A model by its name; what is neither in the catalog nor a directory is a bi-encoder."""
    published, path = find_published(name), Path(name).expanduser()
    if published is not None:
        return Contender(published.name, published.kind, published.name, published)
    if not path.is_dir():
        return Contender(name, "bi-encoder", name, None)
    path = path.resolve()
    return Contender(path.name, kind_of(path), str(path), find_published(path.name))


def kind_of(directory: Path) -> Kind:
    """Return the kind: a model with a classification head in its configuration scores pairs."""
    try:
        config = json.loads((directory / "config.json").read_text("utf-8"))
    except (OSError, ValueError):  # loading it will report the problem
        return "bi-encoder"
    pairs = any(
        kind.endswith("ForSequenceClassification") for kind in config.get("architectures") or ()
    )
    return "cross-encoder" if pairs else "bi-encoder"


class Model:
    """A contender's model, loaded when it is first needed: never, where all figures are kept."""

    def __init__(self, of: Contender) -> None:
        self.of = of

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder of passages; one that costs nothing if vectors are not used."""
        from msmarco_qdrant.encoding import load_encoder
        from msmarco_qdrant.testing import HashingEncoder

        if self.of.kind != "bi-encoder":
            return HashingEncoder(8)
        return load_encoder(self.of.location)

    def client(self, store: Path) -> SearchClient:
        """A client on a store of passages."""
        from msmarco_qdrant.search.client import SearchClient

        if self.of.kind == "bi-encoder":
            return SearchClient.open(store, encoder=self.encoder)
        reranker = self.of.location if self.of.kind == "cross-encoder" else None
        return SearchClient.open(store, bm25_only=True, reranker=reranker)


def free_memory() -> None:
    """Give back what a model held that nothing refers to any more."""
    gc.collect()
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


# ---- one figure ----------------------------------------------------------------------------


class Bench(NamedTuple):
    """Place and way of measuring figures.

    Attributes:
        folder: The data.
        work: Where stores and finished figures are kept.
        exact: Compare with every vector in a full search, instead of following the graph.
    """

    folder: Folder
    work: Path
    exact: bool

    def stores(self, owner: str) -> Path:
        """The folder of a model's stores."""
        return self.work / "stores" / owner

    def file(self, of: Contender, data: Data) -> Path:
        """Return the file of a finished figure."""
        return self.work / "cells" / f"{of.slug}.{data.key}.json"


class Answers(NamedTuple):
    """Answers to the queries of a column.

    Attributes:
        run: The rankings.
        passages: How many the collection held.
        candidates: How many were given to be ranked, over all queries; None for a search.
    """

    run: Run
    passages: int
    candidates: int | None


def answer(bench: Bench, data: Data, model: Model) -> Answers:
    """Ingest what is searched or ranked, as far as it is not there, and ask every query."""
    from msmarco_qdrant.evaluation import System, rank_run, search_run

    kind = model.of.kind
    candidates = None if data.searches(kind) else data.candidates_run()
    store = ingest(bench, data, model, candidates)
    depth = 1 if kind == "cross-encoder" else None  # any number: it scores all of them
    mode: SearchMode = "dense" if kind == "bi-encoder" else "bm25"
    system = System(mode, rerank_depth=depth, exact=bench.exact)
    with model.client(store) as client:
        passages = client.store.collection(client.collection).info().points
        if candidates is None:
            return Answers(search_run(client, data.queries, system, DEPTH), passages, None)
        given = sum(map(len, candidates.rankings.values()))
        return Answers(rank_run(client, data.queries, system, candidates), passages, given)


def ingest(bench: Bench, data: Data, model: Model, candidates: Run | None) -> Path:
    """The store of a column's passages, filled; running it again goes on where it stood."""
    from msmarco_qdrant.ingest.api import ingest_passages
    from msmarco_qdrant.ingest.progress import IngestDisplay

    kind = model.of.kind
    whole = data.whole(kind)
    stores = bench.stores(model.of.slug if kind == "bi-encoder" else WORDS)
    identified = data.used(kind) if whole is None else bench.folder.identify(whole)
    store = stores / f"{data.key if whole is None else 'collection'}.{digest(identified)}"
    compressed = whole is not None and kind == "bi-encoder"  # 8.8 million vectors
    ingest_passages(
        whole or data.candidate_passages(candidates or data.candidates_run()),
        store,
        encoder=model.encoder,
        storage=StorageSettings(quantization="int8" if compressed else "none"),
        optimize=whole is not None,
        on_progress=IngestDisplay(),
    )
    return store


def digest(values: Mapping[str, object]) -> str:
    """Return a short hash of the facts of files."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def measure(bench: Bench, data: Data, model: Model) -> dict[str, Any]:
    """Return one figure with its per-query values and conditions, as JSON values."""
    from msmarco_qdrant.evaluation import evaluate_runs

    started = time.perf_counter()
    answers = answer(bench, data, model)
    name = data.column.measure
    evaluation = evaluate_runs(data.queries, data.qrels, [answers.run], name)
    value = evaluation.runs[0].values[name]
    return {
        "identity": identity(bench, data, model.of),
        "value": value.mean,
        "interval": value.interval,
        "queries": len(value.per_query),
        "passages": answers.passages,
        "candidates": answers.candidates,
        "ranked": sum(map(len, answers.run.rankings.values())),
        "seconds": time.perf_counter() - started,
        "machine": machine(),
        "versions": {package: version(package) for package in DECIDING},
        "per_query": value.per_query,
    }


def identity(bench: Bench, data: Data, of: Contender) -> dict[str, Any]:
    """Return all that a figure depends on: if it differs from a kept one's, measure again."""
    bm25 = Bm25Settings()
    searched = data.searches(of.kind) and of.kind == "bi-encoder"
    return {
        "model": of.location,
        "column": data.key,
        "measure": data.column.measure,
        "exact": bench.exact if searched else None,
        "bm25": {"k": bm25.k, "b": bm25.b} if of.kind == "baseline" else None,
        "files": data.used(of.kind),
    }


# ---- figures that are kept -----------------------------------------------------------------


def kept(file: Path, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """A finished figure, if there is one of the same model and data."""
    if not file.is_file():
        return None
    try:
        cell: dict[str, Any] = json.loads(file.read_text("utf-8"))
        same = cell["identity"] == wanted
    except (ValueError, KeyError, TypeError):
        log(f"{file} is damaged: measuring again")
        return None
    if not same:
        log(f"{file} was measured on other data or in another way: measuring again")
    return cell if same else None


def keep(file: Path, cell: Mapping[str, Any]) -> None:
    """Write a finished figure, whole or not at all."""
    from msmarco_qdrant.runtime.atomic_file import atomic_write_text

    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write_text(file) as out:
        json.dump(cell, out, indent=1)


def log(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)
