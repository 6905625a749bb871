"""The loss of vectors in int8 is kept with what holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from msmarco_qdrant import Passage, SearchClient, VectorShards, encode_corpus, ingest_passages
from msmarco_qdrant.core.encoder_types import EncodedBatch, Int8Loss
from msmarco_qdrant.core.reports import ReembedProgress
from msmarco_qdrant.encoding import Tokenized, load_encoder
from msmarco_qdrant.encoding.backends import int8
from msmarco_qdrant.ingest.upsert import upsert_rows
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.sources.shard_file import read_footer, shard_path
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.stores.migration_locks import hold_lock
from msmarco_qdrant.testing import HashingEncoder, NullStore
from tests.cli.runner import command
from tests.encoding.conftest import Tiny, in_float32, tiny  # noqa: F401  # fixtures
from tests.encoding.tiny_models import Recipe, texts_of_lengths
from tests.engines import each_engine

SMALL, LARGE = Int8Loss(0.98, 0.995, 256), Int8Loss(0.96, 0.99, 256)


class InInt8(HashingEncoder):
    """An encoder whose loss is known once it has encoded passages, as that of int8."""

    def __init__(self, loss: Int8Loss, salt: str = "") -> None:
        super().__init__(salt=salt)
        self.int8_loss: Int8Loss | None = None
        self._found = loss

    def _batches(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        self.int8_loss = self._found
        return super()._batches(passages)


def kept(store: Store) -> Int8Loss | None:
    """The loss in a collection's metadata."""
    return store.metadata("msmarco").int8_loss


@each_engine
def test_a_collection_keeps_the_largest_loss_of_its_ingests(
    store: Store, passages: Sequence[Passage]
) -> None:
    """A model in floats leaves it, and a client has it."""
    ingest_passages(passages[:2], store, encoder=HashingEncoder())
    assert kept(store) is None
    for loss, expected in ((SMALL, SMALL), (LARGE, LARGE), (SMALL, LARGE)):
        ingest_passages([Passage(str(loss), "more")], store, encoder=InInt8(loss))
        assert expected == kept(store)
    ingest_passages(passages, store, encoder=HashingEncoder())
    with SearchClient.open(store, encoder=HashingEncoder()) as client:
        assert LARGE == client.metadata.int8_loss


def test_info_shows_it(tmp_path: Path, passages: Sequence[Passage]) -> None:
    """In a line of its own, and as JSON."""
    place = str(tmp_path / "store")
    ingest_passages(passages, place, encoder=HashingEncoder())
    assert "int8        " not in command("info", "--store", place).out
    with open_store(place) as opened:
        upsert_rows(opened, "msmarco", InInt8(SMALL), [Passage("more", "more")])

    shown = command("info", "--store", place).out
    line = "int8        cosine to float32 of 256 passages: 0.9800 at least, 0.9950 on average"
    assert line in shown.splitlines()
    assert '"least": 0.98' in command("info", "--store", place, "--json").out


def test_a_folder_of_vectors_takes_it_to_the_collection(
    tmp_path: Path, store: Store, passages: Sequence[Passage]
) -> None:
    """Each file has the loss of its encoder, also those of an encode that was resumed."""
    folder = tmp_path / "vectors"
    many = [Passage(str(number), "a passage") for number in range(1500)]
    encode_corpus(many, folder, encoder=InInt8(LARGE), shard_chunks=1)
    shard_path(folder, 1).unlink()
    encode_corpus(many, folder, encoder=InInt8(SMALL), shard_chunks=1)

    found = [read_footer(shard_path(folder, number)).header.int8_loss for number in range(2)]
    assert [LARGE, SMALL] == found
    assert VectorShards(folder).int8_loss == LARGE
    ingest_passages(VectorShards(folder), store)
    assert LARGE == kept(store)
    encode_corpus(passages, tmp_path / "floats", encoder=HashingEncoder())
    assert VectorShards(tmp_path / "floats").int8_loss is None


def test_a_re_embedding_in_int8_keeps_its_own(store: Store, passages: Sequence[Passage]) -> None:
    """The vectors of the model before have another one."""
    ingest_passages(passages, store, encoder=InInt8(LARGE))
    reembed_collection(
        store, "msmarco", encoder=InInt8(SMALL, salt="new"), load_old=lambda _: HashingEncoder()
    )
    assert SMALL == kept(store)


def test_a_re_embedding_that_was_interrupted_keeps_it(
    store: Store, passages: Sequence[Passage]
) -> None:
    """The run that continues it may not encode in int8, and finds the vectors written."""
    ingest_passages(passages, store, encoder=HashingEncoder())

    def interrupt(progress: ReembedProgress) -> None:
        if progress.done:
            raise KeyboardInterrupt

    def reembed(
        encoder: HashingEncoder, on_progress: Callable[[ReembedProgress], None] | None = None
    ) -> None:
        reembed_collection(
            store,
            "msmarco",
            encoder=encoder,
            load_old=lambda _: HashingEncoder(),
            on_progress=on_progress,
        )

    with pytest.raises(KeyboardInterrupt):
        reembed(InInt8(LARGE, salt="new"), interrupt)
    assert kept(store) is None
    reembed(HashingEncoder(salt="new"))
    assert LARGE == kept(store)


def test_an_ingest_does_not_wait_to_keep_it(store: Store, passages: Sequence[Passage]) -> None:
    """While a migration runs, passages are written without it; the next ingest keeps it."""
    ingest_passages(passages[:1], store, encoder=HashingEncoder())
    encoder = InInt8(SMALL)
    with hold_lock(store.migration_locks, "msmarco"):
        assert 1 == ingest_passages(passages[1:2], store, encoder=encoder).written
        assert kept(store) is None
    ingest_passages(passages[:2], store, encoder=encoder)
    assert SMALL == kept(store)


def test_a_store_that_stores_nothing_keeps_none(passages: Sequence[Passage]) -> None:
    """It has no lock to change metadata."""
    store = NullStore()
    ingest_passages(passages, store, encoder=InInt8(SMALL))
    assert kept(store) is None


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("architecture", ["bert", "distilbert", "mpnet"])
def test_the_loss_is_that_of_the_compared_passages(
    architecture: str,
    store: Store,
    tiny: Tiny,  # noqa: F811  # the fixture
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Of a model with random weights; one that is refused has none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(int8, "_CALIBRATED", 40)
    monkeypatch.setattr(int8, "_COMPARED", 16)
    rates = {"float32": 100.0, "int8": 200.0}
    monkeypatch.setattr(int8, "time_passes", lambda *_: rates)
    directory = tiny(Recipe(architecture))  # type: ignore[arg-type]
    texts = texts_of_lengths([3 + number % 40 for number in range(200)])
    source = [Passage(str(number), text) for number, text in enumerate(texts)]

    def ingest(collection: str) -> Int8Loss | None:
        encoder = load_encoder(directory, device="cpu", precision="int8", tokens_per_batch=200)
        ingest_passages(source, store, collection=collection, encoder=encoder)
        assert encoder.int8_loss == store.metadata(collection).int8_loss
        return encoder.int8_loss

    loss = ingest("in-int8")
    assert loss is not None
    assert 16 <= loss.passages < 60
    assert 0.95 <= loss.least <= loss.mean < 1
    rates["int8"] = 50.0
    assert ingest("in-floats") is None
