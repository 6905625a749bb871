"""int8 of compact models: calibrated on passages, and refused if it is imprecise or slow."""

from __future__ import annotations

import gc
import itertools
import logging
import re
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.encoding.backends import fused, int8, processor
from msmarco_qdrant.encoding.backends.cache import model_cache
from msmarco_qdrant.encoding.backends.choice import cosines
from msmarco_qdrant.encoding.backends.fused import FORMS, FusedBackend, FusedForward
from msmarco_qdrant.encoding.backends.int8 import Int8Backend
from msmarco_qdrant.encoding.backends.int8_layers import Ranges
from msmarco_qdrant.encoding.backends.packed_linear import has_operators
from msmarco_qdrant.encoding.backends.processor import Processor
from msmarco_qdrant.encoding.compact import CompactModel, Linear, read_compact
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import EncodingError
from tests.encoding.conftest import Tiny
from tests.encoding.tiny_models import Recipe

pytestmark = pytest.mark.usefixtures("in_float32")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Few passages decide, and int8 is the faster one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(int8, "_CALIBRATED", 40)
    monkeypatch.setattr(int8, "_COMPARED", 16)
    set_rates(monkeypatch, floats=100.0, int8_rate=200.0)


def set_rates(patch: pytest.MonkeyPatch, floats: float, int8_rate: float) -> None:
    """Replace the measured tokens per second."""
    rates = {"float32": floats, "int8": int8_rate}
    patch.setattr(int8, "time_passes", lambda *_: rates)


@pytest.fixture(params=["bert", "mpnet"])
def compact(tiny: Tiny, request: pytest.FixtureRequest) -> CompactModel:
    """A compact model, without and with biases of attention."""
    found = read_compact(tiny(Recipe(request.param)))
    assert found is not None
    return found


def _backend(compact: CompactModel, fingerprint: str = "a-digest") -> Int8Backend:
    return Int8Backend(compact, "the-model", fingerprint, "float32")


def batches(count: int) -> list[Tokenized]:
    """Batches of eight texts of random tokens."""
    random = np.random.default_rng(0)
    return [
        Tokenized.from_rows([random.integers(5, 30, size).tolist() for size in range(6, 22, 2)])
        for _ in range(count)
    ]


def encode(backend: Int8Backend | FusedBackend, count: int = 12) -> list[np.ndarray]:
    """Vectors of each batch."""
    return [backend.launch(batch, "document").result() for batch in batches(count)]


def test_the_first_passages_calibrate_and_the_next_ones_are_compared(compact: CompactModel) -> None:
    """Both are encoded in float32; those that follow in int8, and queries in floats."""
    backend = _backend(compact)
    found, expected = encode(backend), encode(FusedBackend(compact))

    for pair in zip(found[:7], expected[:7], strict=True):  # 40 and 16 passages
        np.testing.assert_allclose(*pair, rtol=0, atol=1e-5)
    rest = [cosines(*pair) for pair in zip(expected[7:], found[7:], strict=True)]
    assert not np.allclose(found[7:], expected[7:], rtol=0, atol=1e-5)
    assert np.concatenate(rest).min() > 0.98
    assert "int8" == backend.precision
    assert backend.loss is not None
    assert 16 == backend.loss.passages
    assert 0.98 < backend.loss.least <= backend.loss.mean < 1
    query = batches(1)[0].take(np.arange(1))
    exact = FusedForward(compact)(query)
    np.testing.assert_allclose(backend.launch(query, "query").result(), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("imprecise", r"cosine to float32 of 16 passages: .*, 0\.95 and 0\.99 are required"),
        ("slow", r"not faster on this processor \(.*float32 300, int8 200\)"),
        ("fails", "no such operator"),
        ("missing", ".*has no attribute 'no_such_operator'"),
        ("not finite", "cannot convert float NaN to integer"),
    ],
)
def test_int8_is_refused_in_one_line(
    fault: str,
    reason: str,
    compact: CompactModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Floats go on, and the encoder says so."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator")

    if fault == "imprecise":
        monkeypatch.setattr(int8, "_GREATEST_WEIGHT_OF_AVX2", 1)
    elif fault == "slow":
        set_rates(monkeypatch, floats=300.0, int8_rate=200.0)
    elif fault == "fails":
        monkeypatch.setattr(int8, "Int8Layer", fail)
    elif fault == "missing":
        monkeypatch.setattr(int8, "Int8Layer", lambda *_, **__: torch.ops.onednn.no_such_operator)
    backend = _backend(compact)
    if fault == "not finite":
        for ranges in backend._ranges.values():
            ranges.inputs[0].least[0] = float("nan")
    found, expected = encode(backend), encode(FusedBackend(compact))

    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert ("float32", None) == (backend.precision, backend.loss)
    (line,) = [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    message = f"int8 is refused for the-model: .*{reason}.*; float32 goes on"
    assert re.fullmatch(message, line.getMessage())


def files() -> list[Path]:
    """The kept calibrations."""
    return [*model_cache("int8").glob("*")]


def test_a_calibration_is_kept_for_the_next_process(compact: CompactModel) -> None:
    """It only compares, and gives the same vectors; for another model it calibrates."""
    found, expected = encode(_backend(compact)), encode(FusedBackend(compact))
    again, other = encode(_backend(compact)), encode(_backend(compact, "another-digest"))

    np.testing.assert_allclose(again[:2], expected[:2], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(again[7:], found[7:])
    assert not np.allclose(again[2:7], expected[2:7], rtol=0, atol=1e-5)
    np.testing.assert_allclose(other[:7], expected[:7], rtol=0, atol=1e-5)
    assert 2 == len(files())


@pytest.mark.parametrize("content", [b"", b"PK", None], ids=["empty", "cut off", "other shapes"])
def test_a_damaged_calibration_is_made_again(content: bytes | None, compact: CompactModel) -> None:
    """As without one."""
    expected = encode(_backend(compact))
    (path,) = files()
    if content is None:
        np.savez(path, np.zeros((2, 3), np.float32))
    else:
        path.write_bytes(content)
    np.testing.assert_array_equal(encode(_backend(compact)), expected)


def test_a_kept_calibration_that_fails_is_made_again(
    compact: CompactModel, caplog: pytest.LogCaptureFixture
) -> None:
    """In the same process: passages of another kind may need other ranges."""
    encode(_backend(compact))
    (path,) = files()
    with np.load(path) as kept:
        np.savez(path, *(kept[name] / 1000 for name in kept.files))
    backend = _backend(compact)
    found, expected = encode(backend, 16), encode(FusedBackend(compact), 16)

    np.testing.assert_allclose(found[:9], expected[:9], rtol=0, atol=1e-5)  # 16 + 40 + 16 passages
    assert cosines(expected[9], found[9]).min() > 0.98
    assert "int8" == backend.precision
    assert [] == [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    np.testing.assert_array_equal(encode(_backend(compact), 16)[9:], found[9:])


def test_a_kept_calibration_that_is_refused_is_removed(
    compact: CompactModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is one that was made in its place."""
    encode(_backend(compact))
    monkeypatch.setattr(int8, "_MIN_MEAN", 1.1)
    backend = _backend(compact)
    encode(backend)
    assert "float32" == backend.precision
    assert [] == files()


@pytest.mark.skipif(not has_operators(torch.float32), reason="layers share their weights here")
@pytest.mark.parametrize("is_used", [True, False])
def test_the_model_s_weights_are_not_held_twice(
    is_used: bool,
    compact: CompactModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once int8 is decided, only the layers in use hold weights."""
    monkeypatch.setattr(fused, "packs", lambda _: True)
    if not is_used:
        set_rates(monkeypatch, floats=300.0, int8_rate=200.0)
    inner = [Linear(one.inner.weight.copy(), one.inner.bias) for one in compact.layers]
    held = [weakref.ref(one.weight) for one in inner]
    layers = [replace(one, inner=own) for one, own in zip(compact.layers, inner, strict=True)]
    backend = _backend(replace(compact, layers=tuple(layers)))
    del inner, layers
    encode(backend)
    gc.collect()
    assert "int8" == backend.precision if is_used else "float32" == backend.precision
    # The first layer gives the sizes of all.
    assert [None] == [one() for one in held[1:]]


@pytest.mark.parametrize("calls", [range(2), range(5, 7)], ids=["calibrated", "compared"])
def test_a_pass_that_fails_does_not_fail_later_ones(
    calls: range, compact: CompactModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own caller gets the error, such as want of memory; int8 is decided without it."""
    numbers, forward = itertools.count(), FusedForward.__call__

    def fail_some(self: FusedForward, batch: Tokenized) -> np.ndarray:
        if self.form.make_layer is not FORMS["float32"].make_layer and next(numbers) in calls:
            raise RuntimeError("not enough memory")
        return forward(self, batch)

    monkeypatch.setattr(FusedForward, "__call__", fail_some)
    backend = _backend(compact)
    failed = 0
    for batch in batches(10):
        try:
            backend.launch(batch, "document").result()
        except EncodingError:
            failed += 1

    assert len(calls) == failed
    expected = "float32" if calls.start else "int8"  # nothing is left to compare with
    assert expected == backend.precision


@pytest.mark.parametrize(
    ("feature", "expected"), [("avx512_vnni", 127), ("amx_int8", 127), ("avx2", 63)]
)
def test_weights_have_seven_bits_without_vnni(
    feature: str, expected: int, compact: CompactModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two products of eight bits overflow the sixteen of AVX2's instruction."""
    found = Processor("x86_64", frozenset({feature}))
    monkeypatch.setattr(processor, "detect", lambda: found)

    form = int8.int8_form({layer: Ranges(layer) for layer in compact.layers}, "float32")

    assert expected == form.make_layer.keywords["greatest"]  # type: ignore[attr-defined]


def test_an_encoder_of_a_compact_model_has_int8(tiny: Tiny) -> None:
    """Its precision is the one that was asked for."""
    encoder = load_encoder(tiny(Recipe("bert")), device="cpu", precision="int8")

    assert isinstance(encoder._require_backends()[0], Int8Backend)
    assert "int8" == encoder.precision
