"""The precision of a compact model: layers that pack weights, and the choice by measurement."""

from __future__ import annotations

import gc
import logging
import os
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.encoding.backends import choice, fused, measured, processor
from msmarco_qdrant.encoding.backends.cache import model_cache
from msmarco_qdrant.encoding.backends.choice import choose_precision, measure
from msmarco_qdrant.encoding.backends.fused import FORMS, FusedBackend, FusedForward
from msmarco_qdrant.encoding.backends.fused_layers import Attend, Buffers, PackedLayer, PlainLayer
from msmarco_qdrant.encoding.backends.measured import Choice
from msmarco_qdrant.encoding.backends.processor import Processor
from msmarco_qdrant.encoding.backends.torch import TorchBackend
from msmarco_qdrant.encoding.compact import CompactModel, read_compact
from msmarco_qdrant.encoding.options import Precision
from msmarco_qdrant.encoding.tokens import Tokenized
from tests.encoding.conftest import Tiny
from tests.encoding.tiny_models import Recipe
from tests.processors import detect_real, use_processor

BOTH = ["float32", "bfloat16"]
PLAIN = FORMS["float32"]._replace(make_layer=PlainLayer)
BATCH = Tokenized.from_rows([[5 + place % 30 for place in range(size)] for size in (9, 40, 3, 300)])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the folder of its choices."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return model_cache("choices")


@pytest.fixture
def compact(tiny: Tiny) -> CompactModel:
    """A compact model."""
    found = read_compact(tiny(Recipe("bert")))
    assert found is not None
    return found


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any processor as one with bfloat16: the same layers, which pack weights, in float32."""
    make = partial(PackedLayer, dtype=torch.float32)
    form = FORMS["bfloat16"]._replace(dtype=torch.float32, make_layer=make)
    monkeypatch.setitem(fused.FORMS, "bfloat16", form)
    monkeypatch.setattr(choice, "supported_precisions", lambda: BOTH)


@pytest.mark.parametrize(
    "recipe",
    [Recipe("bert"), Recipe("roberta", normalize=True), Recipe("distilbert", pooling="cls")],
    ids=lambda one: one.architecture,
)
@pytest.mark.usefixtures("packs")
def test_packed_layers_compute_what_others_do(recipe: Recipe, tiny: Tiny) -> None:
    """GELU and the residual in the products, lengths rounded to 16: equal to 1e-5."""
    model = read_compact(tiny(recipe))
    assert model is not None
    short = BATCH.take(np.arange(3))

    for texts in (BATCH, short):
        if len(model.positions) < texts.lengths.max():
            continue
        found, expected = FusedForward(model, "bfloat16")(texts), FusedForward(model, form=PLAIN)
        np.testing.assert_allclose(found, expected(texts), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("packs")
def test_weights_that_are_packed_are_not_kept_in_float32(tiny: Tiny) -> None:
    """But for the first layer, which has the sizes."""
    model = read_compact(tiny(Recipe("bert")))
    assert model is not None
    weight = weakref.ref(model.layers[-1].outer.weight)
    forward = FusedForward(model, "bfloat16")
    del model
    gc.collect()

    assert weight() is None
    assert (3, 32) == forward(BATCH.take(np.arange(3))).shape


def test_bfloat16_is_near_float32(compact: CompactModel) -> None:
    """On a processor that has it, within cosine 0.999."""
    with use_processor("amx") if detect_real().packs_bfloat16 else use_processor("avx2"):
        if choice.supported_precisions() != BOTH:
            pytest.skip("this processor has no bfloat16 instructions")
    texts = BATCH.take(np.arange(3))
    pair = [FusedForward(compact, precision)(texts) for precision in BOTH]
    norms = [np.linalg.norm(vectors, axis=1) for vectors in pair]
    assert ((pair[0] * pair[1]).sum(1) / norms[0] / norms[1]).min() > 0.999


# ---- the measurement -------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "expected"), [((3, 1), "bfloat16"), ((1, 3), "float32")])
@pytest.mark.usefixtures("packs")
def test_the_faster_precision_is_chosen(
    seconds: Sequence[float], expected: str, compact: CompactModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock, whatever the processor's instructions promise."""
    taken = dict(zip(BOTH, seconds, strict=True))
    monkeypatch.setattr(measured, "_least_seconds", lambda *_: taken)

    found = measure(compact, BOTH)

    assert expected == found.precision
    tokens = found.tokens_per_second["float32"] * taken["float32"]
    assert tokens == pytest.approx(found.tokens_per_second["bfloat16"] * taken["bfloat16"])


def test_a_precision_counts_by_its_fastest_round(compact: CompactModel) -> None:
    """Other work on the machine only adds to a time; rounds end after a second."""
    passes = {"float32": FusedForward(compact), "other": FusedForward(compact)}
    times = iter([0, 0, 0.3, 0.3, 1.3, 1.3, 1.5, 1.5, 1.6, 1.7, 9])

    found = choice.time_passes(passes, BATCH.take(np.arange(1)), lambda: float(next(times)))

    assert {"float32": pytest.approx(9 / 0.2), "other": pytest.approx(9 / 0.1)} == found


@pytest.mark.parametrize(
    "fault", ["fails", "is missing", "is wrong", "is imprecise", "is not finite"]
)
@pytest.mark.usefixtures("packs")
def test_a_precision_that_does_not_compute_the_model_is_left_out(
    fault: str, compact: CompactModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator that this build lacks, and vectors that are not those of float32."""

    class Faulty(PackedLayer):
        def __call__(self, values: torch.Tensor, attend: Attend, buffers: Buffers) -> torch.Tensor:
            if fault == "fails":
                raise RuntimeError("no such operator")
            if fault == "is missing":
                return torch.ops.mkldnn.no_such_operator(values)  # type: ignore[no-any-return]
            if fault == "is imprecise":
                found = super().__call__(values, attend, buffers)
                return found + 0.05 * found.roll(1, 1)
            return values.roll(1) if fault == "is wrong" else values * float("nan")

    form = fused.FORMS["bfloat16"]._replace(make_layer=partial(Faulty, dtype=torch.float32))
    monkeypatch.setitem(fused.FORMS, "bfloat16", form)

    assert ["float32"] == [*measure(compact, BOTH).tokens_per_second]
    assert not choice.is_precise(compact, "bfloat16")


# ---- the choice ------------------------------------------------------------------------------


@pytest.mark.usefixtures("packs")
def test_a_choice_is_remembered_for_the_model_and_the_machine(
    compact: CompactModel,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is measured for another model, on another processor, and if the file is damaged."""
    calls: list[object] = []

    def take(*_: object) -> Choice:
        calls.append(_)
        return Choice("bfloat16", {"float32": 10_000.0, "bfloat16": 41_000.0})

    monkeypatch.setattr(choice, "measure", take)
    caplog.set_level(logging.INFO)
    for name in ("one", "one", "other"):
        assert "bfloat16" == choose_precision(compact, name, "the-model")
    assert 2 == len(calls)
    with use_processor("amx" if detect_real().architecture != "x86_64" else "arm"):
        choose_precision(compact, "one", "the-model")
    assert 3 == len(calls) == len([*folder.iterdir()])
    for content in ("{}", "", '{"precision": "int4", "tokens_per_second": {"int4": 1}}', "[1]"):
        for path in folder.iterdir():
            path.write_text(content, "utf-8")
        choose_precision(compact, "one", "the-model")
    assert 7 == len(calls)
    line = (
        "the-model: the fastest precision on this processor is bfloat16 (tokens per second and "
        "core: float32 10,000, bfloat16 41,000)"
    )
    assert {line} == {entry.getMessage() for entry in caplog.records if "fastest" in entry.msg}


@pytest.mark.usefixtures("packs")
def test_an_unwritable_cache_is_no_fault(compact: CompactModel, folder: Path) -> None:
    """The next start measures again."""
    folder.parent.parent.mkdir(parents=True)
    folder.parent.write_text("a file", "utf-8")

    assert choose_precision(compact, "one", "the-model") in BOTH


def test_one_precision_is_not_measured(
    compact: CompactModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without bfloat16 there is nothing to choose."""
    monkeypatch.setattr(choice, "measure", None)
    with use_processor("avx2"):
        assert "float32" == choose_precision(compact, "one", "the-model")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("wanted", "fastest", "expected"),
    [
        (None, "bfloat16", "bfloat16"),
        (None, "float32", "float32"),
        ("bfloat16", "float32", "bfloat16"),
        ("float32", "bfloat16", "float32"),
    ],
)
@pytest.mark.usefixtures("packs")
def test_an_encoder_takes_the_chosen_precision(
    wanted: Precision | None,
    fastest: str,
    expected: str,
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An explicit one is compared, but not measured."""
    monkeypatch.setattr(choice, "choose_precision", lambda *_: fastest)
    monkeypatch.setattr(choice, "time_passes", None)
    encoder = load_encoder(tiny(Recipe("bert")), device="cpu", precision=wanted)
    (backend,) = encoder._require_backends()

    assert isinstance(backend, FusedBackend)
    assert expected == encoder.precision == backend.precision


@pytest.mark.usefixtures("packs")
def test_an_explicit_precision_that_is_wrong_is_left_to_the_library(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a fault of an operator: it would give wrong vectors in silence."""
    monkeypatch.setattr(choice, "is_precise", lambda *_: False)
    monkeypatch.setattr(processor, "detect", lambda: Processor("aarch64"))
    encoder = load_encoder(tiny(Recipe("bert")), device="cpu", precision="bfloat16")

    (backend,) = encoder._require_backends()
    assert isinstance(backend, TorchBackend)
    assert "bfloat16" == backend.precision


def test_measurements_that_were_not_used_for_longest_are_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Choices and int8's calibrations of former models and versions: a recalled one is in use."""
    monkeypatch.setattr(measured, "_KEPT_FILES", 2)
    found = Choice("float32", {"float32": 1.0})
    for age, name in enumerate(("a", "b")):
        measured.recall_choice(name, BOTH, lambda: found)
        os.utime(measured.locate_measurement("choices", f"{name}.json"), (age, age))
    measured.recall_choice("a", BOTH, lambda: pytest.fail("it was measured before"))
    measured.recall_choice("c", BOTH, lambda: found)
    used = {measured.locate_measurement("choices", f"{name}.json") for name in "ac"}
    assert used == {*folder.iterdir()}

    calibrations = [folder.with_name("int8") / f"{name}.npz" for name in "abc"]
    for age, path in enumerate(calibrations):
        measured.save_measurement(path, b"")
        os.utime(path, (age, age))
    assert calibrations[1:] == sorted(calibrations[0].parent.iterdir())
