"""Ingests of vector shards, without a model."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from msmarco_qdrant.cli.app import main
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import EncodedPassage, Passage, PrunePolicy, Reject
from msmarco_qdrant.errors import IngestStoppedError, ModelMismatchError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.ingest.windows import RowStream, split_into_windows
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.sources.shard_file import MANIFEST, read_footer, shard_path, write_shard
from msmarco_qdrant.sources.vector_shards import VectorShards
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.stores.payload import point_id
from msmarco_qdrant.testing import HashingEncoder, NullStore
from tests.engines import ENGINES, new_store
from tests.vectors import table_of, write_folder


@pytest.fixture
def folder(tmp_path: Path, passages: Sequence[Passage], encoder: HashingEncoder) -> Path:
    """A folder of three shards."""
    return write_folder(tmp_path / "vectors", passages, encoder)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with new_store("memory", tmp_path) as opened:
        yield opened


def stored(store: Store, passages: Sequence[Passage]) -> dict[str, tuple[str, object]]:
    """Text and meta of those passages that the collection holds."""
    ids = [point_id(passage.pid) for passage in passages]
    found = store.collection("msmarco").retrieve(ids, ["pid", "text", "meta"])
    return {p["pid"]: (p["text"], p["meta"]) for p in found.values()}


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_takes_them(
    engine: str,
    tmp_path: Path,
    folder: Path,
    passages: Sequence[Passage],
    encoder: HashingEncoder,
) -> None:
    """Text, meta and vector of each; the collection remembers the encoder."""
    with new_store(engine, tmp_path) as store:
        report = ingest_passages(VectorShards(folder), store)
        assert (5, 5, 0, 0, 0) == (
            report.read,
            report.written,
            report.unchanged,
            report.rejected,
            report.encoded,
        )
        assert encoder.info == store.metadata("msmarco").encoder
        assert {p.pid: (p.text, p.meta) for p in passages} == stored(store, passages)
        with SearchClient.open(store, encoder=encoder) as client:
            for passage in passages:
                hit = client.search(passage.text, limit=1)[0]
                assert passage.pid == hit.pid
                assert pytest.approx(1.0, abs=1e-3) == hit.score
            assert "2" == client.search("paris", mode="bm25")[0].pid


def test_vectors_and_passages_make_the_same_collection(
    tmp_path: Path, folder: Path, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """What was ingested from text is unchanged from vectors, and the other way round."""
    with new_store("memory", tmp_path) as store:
        ingest_passages(passages, store, encoder=encoder)
        assert 5 == ingest_passages(VectorShards(folder), store).unchanged
    with new_store("memory", tmp_path) as store:
        ingest_passages(VectorShards(folder), store)
        assert 5 == ingest_passages(passages, store, encoder=encoder).unchanged
    assert 10 == encoder.encoded  # for the folder, and for the first of these


def test_what_changed_alone_is_written(
    store: Store, tmp_path: Path, folder: Path, passages: Sequence[Passage]
) -> None:
    """One text, one meta; the others stay, and a new run writes nothing."""
    ingest_passages(VectorShards(folder), store)
    changed = [
        Passage(passages[0].pid, "zebras graze on grass"),
        Passage(passages[1].pid, passages[1].text, {"new": True}),
        *passages[2:],
    ]
    encoder = HashingEncoder()
    other = VectorShards(write_folder(tmp_path / "other", changed, encoder, rows=5))
    report = ingest_passages(other, store)
    assert (2, 3, 0) == (report.written, report.unchanged, report.encoded)
    assert {p.pid: (p.text, p.meta) for p in changed} == stored(store, changed)
    with SearchClient.open(store, encoder=encoder) as client:
        assert passages[0].pid == client.search("zebras graze", limit=1)[0].pid
    assert 0 == ingest_passages(other, store).written


def test_rejects_of_the_folder_are_counted(
    store: Store, folder: Path, passages: Sequence[Passage]
) -> None:
    """The others go in."""
    first = shard_path(folder, 0)
    vectors = np.zeros((2, 64), np.float16)
    write_shard(first, read_footer(first).header, table_of(passages[:2]), vectors)
    rejects: list[Reject] = []
    report = ingest_passages(VectorShards(folder), store, on_reject=rejects.append)
    assert (5, 3, 2) == (report.read, report.written, report.rejected)
    assert ["its vector is zero or not finite"] * 2 == [reject.reason for reject in rejects]


def test_what_the_folder_does_not_hold_is_pruned(
    tmp_path: Path, store: Store, folder: Path, passages: Sequence[Passage]
) -> None:
    """As of any source."""
    ingest_passages(VectorShards(folder), store)
    fewer = write_folder(tmp_path / "fewer", passages[:4], HashingEncoder())
    report = ingest_passages(VectorShards(fewer), store, prune=PrunePolicy())
    assert (4, 1) == (report.unchanged, report.pruned)
    assert {p.pid for p in passages[:4]} == set(stored(store, passages))


class Wide(VectorShards):
    """A folder that gives 300 passages with one vector of 65,536 numbers."""

    def __iter__(self) -> Iterator[EncodedPassage | Reject]:
        """They are made up."""
        vector = np.ones(65_536, np.float32)
        for number in range(300):
            yield EncodedPassage(Passage(str(number), "text"), vector)


def test_a_window_is_bounded_by_its_vectors_too(folder: Path) -> None:
    """At 10 million numbers it ends, long before there are 8,192 passages."""
    cut = split_into_windows(RowStream(Wide(folder)), PidSet(), 8192, None)
    assert [153, 147] == [len(window.passages) for window in cut]


# ---- what is refused -------------------------------------------------------------------------


def test_vectors_of_another_model_are_refused(
    store: Store, folder: Path, passages: Sequence[Passage]
) -> None:
    """By a message that names folder, collection and both models; nothing is written."""
    ingest_passages(passages[:1], store, encoder=HashingEncoder(salt="v2"))
    message = (
        r"vectors holds vectors of costless-64 \(64, fingerprint \w{8}, cosine\), collection "
        r"'msmarco' those of costless-64v2"
    )
    with pytest.raises(ModelMismatchError, match=message):
        ingest_passages(VectorShards(folder), store)
    assert 1 == store.collection("msmarco").info().points


def test_a_model_beside_vectors_is_refused(tmp_path: Path, folder: Path) -> None:
    """They are encoded already; nothing is created."""
    shards = VectorShards(folder)
    with pytest.raises(UsageError, match="already holds vectors: omit model"):
        ingest_passages(shards, tmp_path / "store", model="all-MiniLM-L6-v2")
    with pytest.raises(UsageError, match="already holds vectors: omit model"):
        ingest_passages(shards, tmp_path / "store", encoder=HashingEncoder())
    assert not (tmp_path / "store").exists()


def test_the_rows_alone_are_no_source(folder: Path, encoder: HashingEncoder) -> None:
    """What made them has to be known: their vectors are not dropped without a word."""
    with pytest.raises(UsageError, match="got an EncodedPassage"):
        ingest_passages(iter(VectorShards(folder)), NullStore(), encoder=encoder)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_shard_that_breaks_in_the_middle_stops_the_run(
    store: Store, folder: Path, passages: Sequence[Passage]
) -> None:
    """After what came before it; once it is mended, the same call goes on."""
    shards = VectorShards(folder)
    path = shard_path(folder, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(IngestStoppedError, match=r"00002\.parquet cannot be read") as caught:
        ingest_passages(shards, store, window=2)
    assert 4 == caught.value.report.written
    path.write_bytes(whole)
    report = ingest_passages(shards, store, window=2)
    assert (1, 4) == (report.written, report.unchanged)
    assert {p.pid for p in passages} == set(stored(store, passages))


# ---- the command -----------------------------------------------------------------------------


def test_the_command_loads_no_model(
    tmp_path: Path, folder: Path, passages: Sequence[Passage], capsys: pytest.CaptureFixture[str]
) -> None:
    """The encoder of these vectors could not even be loaded."""
    command = ["ingest", "--vectors", str(folder), "--store", str(tmp_path / "store")]

    assert 0 == main(command)

    out, _ = capsys.readouterr()
    assert out.startswith("5 read: 5 written, 0 unchanged, 0 rejected; ")
    assert 0 == main([*command, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (5, 5) == (found["read"], found["unchanged"])
    assert ["read", "skip", "sparse", "write", "index"] == [s["name"] for s in found["stages"]]
    store = open_store(tmp_path / "store")
    assert {p.pid for p in passages} == set(stored(store, passages))
    store.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("ingest", "nothing to ingest: pass a SOURCE"),
        ("ingest p.tsv --vectors {}", "pass a SOURCE or --vectors, got both"),
        (
            "ingest --vectors {} --model x",
            "--model needs a SOURCE; --vectors DIR has vectors already",
        ),
        (
            "ingest --vectors {} --format tsv",
            "--format needs a SOURCE; --vectors DIR has vectors already",
        ),
    ],
)
def test_what_cannot_go_together_is_status_2(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    """With the way out, and nothing created."""
    assert 2 == main(shlex.split(arguments.format(folder)))

    assert message in capsys.readouterr().err
    assert [] == list(Path.cwd().iterdir())


def test_a_folder_that_is_not_complete_is_status_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the command that finishes it, and nothing created."""
    (folder / MANIFEST).unlink()

    assert 1 == main(["ingest", "--vectors", str(folder)])

    assert "run the same encode again to finish it" in capsys.readouterr().err
    assert [] == list(Path.cwd().iterdir())


def test_rejects_do_not_go_over_what_is_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shard is an input."""
    path = shard_path(folder, 0)

    assert 2 == main(["ingest", "--vectors", str(folder), "--rejects", str(path)])

    assert "is also an input" in capsys.readouterr().err


def test_vectors_stay_with_their_passages(tmp_path: Path) -> None:
    """Of many passages, of which every other one is there already."""
    rows = [Passage(str(number), f"word{number} alone{number}") for number in range(60)]
    wide = HashingEncoder(512)
    folder = write_folder(tmp_path / "vectors", rows, wide, rows=16)
    with new_store("memory", tmp_path) as store:
        ingest_passages(rows[::2], store, encoder=wide)
        assert 30 == ingest_passages(VectorShards(folder), store, window=25).written
        with SearchClient.open(store, encoder=wide) as client:
            answers = client.search_many([row.text for row in rows], limit=1)
    assert [row.pid for row in rows] == [answer[0].pid for answer in answers]
