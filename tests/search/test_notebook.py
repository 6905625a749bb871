"""What a client, an encoder, hits and reports show in a console and in a notebook."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from msmarco_qdrant import (
    AsyncSearchClient,
    BackupReport,
    CheckReport,
    EncodeReport,
    Hit,
    Hits,
    IngestReport,
    Passage,
    ReembedReport,
    RestoreReport,
    SearchClient,
    UpsertReport,
    open_store,
)
from msmarco_qdrant.core.reports import ModelComparison, StageTiming
from msmarco_qdrant.errors import EncodingError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.search.support import run

_HITS = Hits(
    [
        Hit(1, "7", 0.81234, "<script>alert(1)</script> & more", {"lang": "<b>"}),
        Hit(2, "8", 0.5, "x" * 1000, {}),
    ]
)


def test_hits_are_a_list() -> None:
    """Equal to one with the same hits, sliced and sorted as one."""
    assert [*_HITS] == _HITS
    assert _HITS == Hits(_HITS)
    assert [_HITS[1]] == _HITS[1:]
    assert [] == Hits()


def test_a_notebook_shows_hits_as_a_table() -> None:
    """Texts and meta are escaped, and long ones are cut."""
    table = _HITS._repr_html_()
    assert table.startswith("<table>")
    assert 3 == table.count("<tr>")
    assert "&lt;script&gt;" in table
    assert "<script>" not in table
    assert "<b>" not in table
    assert 1500 > len(table)
    assert "<tbody></tbody>" in Hits()._repr_html_()


def test_hits_are_converted() -> None:
    """To dictionaries, and to a DataFrame where pandas is installed."""
    assert {"rank": 2, "pid": "8", "score": 0.5, "text": "x" * 1000, "meta": {}} == (
        _HITS.to_dicts()[1]
    )
    pandas = pytest.importorskip("pandas")
    assert ["7", "8"] == _HITS.to_pandas()["pid"].tolist()
    assert isinstance(Hits().to_pandas(), pandas.DataFrame)
    assert ["rank", "pid", "score", "text", "meta"] == [*Hits().to_pandas().columns]


def test_a_hit_is_one_short_line() -> None:
    """With the start of its text and its meta."""
    expected = (
        "Hit(rank=1, pid='7', score=0.8123, text='<script>alert(1)</script> & more', "
        "meta={'lang': '<b>'})"
    )
    assert expected == repr(_HITS[0])
    assert 150 > len(repr(_HITS[1]))


def test_a_client_shows_its_collection_and_models(tmp_path: Path) -> None:
    """Without secrets, in one line; also once it is closed."""
    ingest_passages([("1", "one")], tmp_path, encoder=HashingEncoder(), optimize=False)
    with SearchClient.open(
        tmp_path, encoder=HashingEncoder(), reranker=WordOverlapReranker()
    ) as client:
        shown = f"'msmarco' in {tmp_path}, costless-64, reranked by word-overlap"
        assert f"<SearchClient: {shown}>" == repr(client)
    assert f"<SearchClient: {shown}, closed>" == repr(client)

    async def show() -> str:
        async with await AsyncSearchClient.open(tmp_path, bm25_only=True) as client:
            return repr(client)

    assert f"<AsyncSearchClient: 'msmarco' in {tmp_path}, bm25 only>" == run(show)


def test_reports_are_what_the_command_prints() -> None:
    """The counts, the cut texts and the time; in a console, the counts alone."""
    stages = (StageTiming("read", 0.1, 0.1), StageTiming("forward", 0.9, 0.9))
    report = IngestReport(3, 1, 1, 1, 1, 1.0, stages=stages, cut=1)
    counts = "3 read: 1 written, 1 unchanged, 1 rejected; 1.0 s, 3.0 passages/s"
    expected = [
        counts,
        "1 text exceeds the model's maximum length: the model did not read the end",
        "time: forward 90%, read 10% (limited by the model)",
    ]
    assert expected == str(report).splitlines()
    assert f"<IngestReport: {counts}>" == repr(report)
    assert "<UpsertReport: 2 written, 0 unchanged, 0 rejected>" == repr(UpsertReport(written=2))


def test_every_report_has_a_line_for_a_console() -> None:
    """`repr` is one line, `str` is what the command prints."""
    comparison = ModelComparison(queries=9, found_before=8, found_after=9, overlap=0.5)
    reports = {
        EncodeReport(9, 5, 3, 1, 2, 100, 2.0, 1.0, cut=1): (
            (
                "9 read: 5 encoded (3 already encoded), 1 rejected; 2 files; 2.0 s, "
                "2.5 passages/s, after 1.0 s of startup"
            ),
            "1 text exceeds the model's maximum length: the model did not read the end",
        ),
        BackupReport("a", "a__0001", "portable", "b", 7, 2, 2**21, 1.0): (
            "a: 7 passages in b (portable, 2 MiB, 1.0 s)",
        ),
        RestoreReport("a", "a__0002", "portable", 7, "b", 1.0): (
            "a -> a__0002: 7 passages restored from b (portable, 1.0 s)",
        ),
        ReembedReport("a", "a__0001", "a__0002", "m", 7, 6, 0, ("1",), comparison, 1.0): (
            "a -> a__0002: 7 passages with vectors of m, 6 newly encoded, 1.0 s",
            "left out because they have no vector: 1",
            (
                "9 passages searched by their first words: 9 in the first ten hits, 8 before; "
                "50% of these hits are the same"
            ),
        ),
        CheckReport("a", "a__0001", 7, ()): (
            "'a': 7 points checked in a__0001",
            "no fault found",
        ),
    }
    for report, lines in reports.items():
        assert [*lines] == str(report).splitlines()
        assert repr(report).startswith(f"<{type(report).__name__}: ")
        assert 1 == len(repr(report).splitlines())


def test_a_passage_and_a_store_are_one_short_line(tmp_path: Path) -> None:
    """A text is cut; a store shows its path."""
    assert "Passage(pid='1', text='one')" == repr(Passage("1", "one"))
    assert 150 > len(repr(Passage("1", "x" * 1000, {"k": "y"}, "c.tsv", 7)))
    store = open_store(tmp_path / "s", create=True)
    assert f"<EdgeStore: {tmp_path / 's'}>" == repr(store)
    store.close()


# ---- encoders of strings -----------------------------------------------------------------------


def test_an_encoder_takes_strings() -> None:
    """One float32 row per text, the same as of a tokenized window; none for no texts."""
    encoder = HashingEncoder(dimension=32)
    vectors = encoder.encode(["a b", "c"])
    assert ((2, 32), "float32") == (vectors.shape, str(vectors.dtype))
    (batch,) = encoder.encode_passages(encoder.tokenizer(["a b", "c"]))
    np.testing.assert_array_equal(batch.vectors, vectors)
    np.testing.assert_array_equal(encoder.encode_passages(["a b", "c"]), vectors)  # type: ignore[arg-type]
    assert (0, 32) == encoder.encode([]).shape
    assert "HashingEncoder(dimension=32, model='costless-32')" == repr(encoder)


def test_texts_that_cannot_be_encoded_are_refused() -> None:
    """One string is not a list of texts; a text without a vector is named."""
    encoder = HashingEncoder()
    with pytest.raises(UsageError, match="a list of strings, also for one text"):
        encoder.encode("a b")
    with pytest.raises(UsageError, match="texts must be strings, got an int"):
        encoder.encode(["a", 1])  # type: ignore[list-item]
    with pytest.raises(EncodingError, match=r"no finite, non-zero vector for the text '!\?'"):
        encoder.encode(["a", "!?"])
