"""Choices that follow from the processor: precision and packed layers."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn

from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.encoding.backends import packed_linear
from msmarco_qdrant.encoding.backends.packed_linear import pack_linears_if_faster
from msmarco_qdrant.encoding.backends.processor import Processor
from msmarco_qdrant.encoding.backends.torch_device import resolve_dtype
from msmarco_qdrant.errors import UsageError
from tests.encoding.conftest import Tiny
from tests.encoding.tiny_models import Recipe
from tests.processors import detect_real, use_processor

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "dtype", "packs"),
    [
        ("amx", torch.bfloat16, True),
        ("avx512_bf16", torch.bfloat16, True),
        ("avx2", torch.float32, False),
        ("arm", torch.float32, False),
    ],
)
def test_choices_of_a_processor(
    name: str, dtype: torch.dtype, *, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default dtype, and packed or plain layers in bfloat16."""
    packed: list[nn.Module] = []
    monkeypatch.setattr(packed_linear, "has_operators", lambda: True)
    monkeypatch.setattr(packed_linear, "pack_linears", packed.append)
    with use_processor(name):
        assert dtype == resolve_dtype(None, CPU)
        pack_linears_if_faster(nn.Linear(2, 2), CPU, torch.bfloat16)
        assert packs == bool(packed)


@pytest.mark.parametrize(
    ("features", "packs"),
    [
        ({"avx512_bw", "avx512_vl", "avx512_dq"}, True),
        ({"avx512_bw", "avx512_vl"}, False),
        ({"avx2", "avx_ne_convert"}, True),
        (set(), False),
    ],
)
def test_features_that_pack_bfloat16(features: set[str], *, packs: bool) -> None:
    """They are those that the error of oneDNN names."""
    assert packs == Processor("x86_64", frozenset(features)).packs_bfloat16


def test_bfloat16_without_instructions_for_it_on_x86(tiny: Tiny) -> None:
    """It is refused in one line: oneDNN refuses some products, in words of its own."""
    with use_processor("avx2"), pytest.raises(UsageError, match="use precision=float32"):
        load_encoder(tiny(Recipe()), device="cpu", precision="bfloat16")


def test_bfloat16_without_instructions_for_it(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    """Plain layers compute it, within cosine 0.999 of float32, and one line advises float32."""
    texts = ["london is a big city", "how cold is the iceberg"]
    with use_processor("arm"):
        encoders = [
            load_encoder(tiny(Recipe()), device="cpu", precision=precision)
            for precision in (None, "bfloat16")
        ]
    exact, coarse = (encoder.encode_queries(texts) for encoder in encoders)
    assert ["float32", "bfloat16"] == [encoder.precision for encoder in encoders]
    assert (exact * coarse).sum(axis=1).min() > 0.999
    assert not np.array_equal(exact, coarse)
    warnings = [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert ["this processor has no bfloat16 instructions: float32 is faster here"] == warnings


def test_detection_describes_this_machine() -> None:
    """Its features are those that torch lists as true."""
    found, listed = detect_real(), torch.cpu.get_capabilities()
    assert found.architecture in ("x86_64", "aarch64", "arm64")
    assert {name for name, value in listed.items() if value is True} == found.features
