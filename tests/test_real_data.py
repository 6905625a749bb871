"""Real MS MARCO passages with the real model; skipped without the data.

`benchmarks/quality.py` covers the whole collection.
"""

from __future__ import annotations

import gzip
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from msmarco_qdrant.core.collection_types import Bm25Settings
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding import Bm25Encoder, load_encoder
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.sources.corpus import Corpus, read_queries

pytestmark = pytest.mark.slow

MODEL = "all-MiniLM-L6-v2"
PART = 100


@pytest.fixture(scope="module")
def part(real_data: Path) -> list[Passage]:
    """The first passages of the collection."""
    rows = islice(Corpus(real_data / "collection.tsv.gz"), PART)
    return [row for row in rows if isinstance(row, Passage)]


def test_every_row_of_the_collection_is_a_passage(real_data: Path) -> None:
    """47,283 passages, none rejected, each as a plain reading of the file gives it."""
    rows = list(Corpus(real_data / "collection.tsv.gz"))
    with gzip.open(real_data / "collection.tsv.gz") as file:
        lines = file.read().decode().removesuffix("\n").split("\n")
    assert len(rows) == len(lines) == 47_283
    assert [f"{row.pid}\t{row.text}" for row in rows if isinstance(row, Passage)] == lines


def test_queries_are_read(real_data: Path) -> None:
    """43 judged queries of TREC DL 2019, 1,331 of MS MARCO dev."""
    assert len(list(read_queries(real_data / "queries.dl19.tsv"))) == 43
    assert len(list(read_queries(real_data / "queries.dev.tsv"))) == 1331


def test_bm25_length_is_that_of_the_collection(real_data: Path) -> None:
    """The default `avg_len` is the mean over the real passages, to a tenth of a token."""
    bm25 = Bm25Encoder(Bm25Settings())
    rows = Corpus(real_data / "collection.tsv.gz")
    counts = [bm25.count_tokens(row.text) for row in rows if isinstance(row, Passage)]
    assert sum(counts) / len(counts) == pytest.approx(Bm25Settings().avg_len, abs=0.1)


def test_vectors_are_the_librarys(part: list[Passage]) -> None:
    """Every vector within cosine 0.999 of `SentenceTransformer.encode` in float32."""
    from sentence_transformers import SentenceTransformer

    encoder = load_encoder(MODEL)
    texts = [passage.text for passage in part]
    ours = np.empty((len(texts), 384), np.float32)
    for batch in encoder.encode_passages(encoder.tokenizer(texts)):
        ours[batch.positions] = batch.vectors
    library = SentenceTransformer(encoder.location, device="cpu").encode(texts)
    library /= np.linalg.norm(library, axis=1, keepdims=True)
    assert np.linalg.norm(ours, axis=1) == pytest.approx(1.0, abs=1e-3)
    assert np.einsum("ij,ij->i", ours, library).min() > 0.999


def test_passages_find_themselves(part: list[Passage], tmp_path: Path) -> None:
    """Each real passage, asked for by its own text, is the first hit."""
    encoder = load_encoder(MODEL)
    report = ingest_passages(part, tmp_path / "store", encoder=encoder)
    assert (PART, 0) == (report.written, report.rejected)
    with SearchClient.open(tmp_path / "store", encoder=encoder) as client:
        answers = client.search_many([passage.text for passage in part[:50]], limit=1)
    assert [answer[0].pid for answer in answers] == [passage.pid for passage in part[:50]]
