"""Every model folder gives passages, or one line and no collection, by the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from msmarco_qdrant import Passage, describe_store, encode_corpus, ingest_passages, open_store
from msmarco_qdrant.encoding import load_encoder
from tests.cli.runner import command
from tests.encoding.conftest import Tiny, tiny  # noqa: F401  # a fixture
from tests.encoding.model_folders import BASE, LOADED, REFUSED
from tests.encoding.tiny_models import Recipe, texts_of_lengths

QUICK = ("s1 no tokenizer", "as saved")
FOLDERS = {**{name: edit for name, (edit, _) in REFUSED.items()}, **LOADED}


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("s1 no tokenizer", "as saved")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in FOLDERS
    ],
)
def test_s1_c8_ingest_of_a_folder(name: str, tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    """Two passages are written, or one line says why not; no traceback, no empty collection."""
    model = Path(shutil.copytree(tiny(BASE), tmp_path / "m"))
    FOLDERS[name](model)
    source, place = tmp_path / "c.tsv", tmp_path / "store"
    source.write_text(f"1\ta cold night in london\n2\t{'snow ' * 900}\n", "utf-8")
    arguments = [str(source), "--model", str(model), "--store", str(place)]
    done = command("ingest", *arguments, "--device", "cpu")
    assert "Traceback" not in done.err + done.out
    if name in LOADED:
        assert done.status == 0, done.err
        assert done.out.startswith("2 read: 2 written, 0 unchanged, 0 rejected")
        assert done.out.splitlines()[1].startswith("1 text exceeds the model's maximum length")
        with open_store(str(place)) as opened:
            assert [one.info.points for one in describe_store(opened).collections] == [2]
    else:
        _, reason = REFUSED[name]
        assert done.status != 0
        error = done.err.splitlines()[-1]
        assert error.startswith("Error: ")
        assert reason in error
        assert not place.exists()


def test_cut_texts_are_counted(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    """By an ingest and an encode; a text that just fits is not one of them."""
    directory = tiny(Recipe(max_seq_length=12))
    encoder = load_encoder(directory, device="cpu", precision="float32")
    rows = [Passage(str(n), text) for n, text in enumerate(texts_of_lengths([4, 10, 11, 40]))]
    report = ingest_passages(rows, tmp_path / "store", encoder=encoder, optimize=False)
    assert (report.written, report.cut) == (4, 2)
    again = ingest_passages(rows, tmp_path / "store", encoder=encoder, optimize=False)
    assert (again.unchanged, again.cut) == (4, 0)
    assert encode_corpus(rows, tmp_path / "vectors", encoder=encoder).cut == 2
