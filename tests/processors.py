"""Processors to run tests on, whatever the real one is.

A processor decides choices: the default precision, the backend, and packed or plain layers. Tests
with an injected processor check these choices. No instruction runs that the real processor lacks:

* Plain layers of torch compute bfloat16 on every CPU.
* Layers are packed only after a tiny one was really packed (`packed_linear.has_operators`).
* Layers of the library's modules are not measured: those that can are faster in bfloat16.

Tests of packed layers themselves are skipped where these cannot run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from msmarco_qdrant.encoding.backends import processor
from msmarco_qdrant.encoding.backends.processor import Processor

_AVX2 = frozenset({"avx", "avx2", "fma3"})
_AVX512 = _AVX2 | {"avx512_f", "avx512_bw", "avx512_vl", "avx512_dq"}

PROCESSORS = {
    "amx": Processor("x86_64", _AVX512 | {"avx512_bf16", "amx_tile", "amx_bf16"}),
    "avx512_bf16": Processor("x86_64", _AVX512 | {"avx512_bf16"}),
    "avx2": Processor("x86_64", _AVX2),
    "arm": Processor("aarch64", frozenset({"neon"})),
}
detect_real = processor.detect


@contextmanager
def use_processor(name: str) -> Iterator[None]:
    """Replace the real processor by one of `PROCESSORS`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor, "detect", lambda: PROCESSORS[name])
        patch.setattr(
            "msmarco_qdrant.encoding.backends.linear_choice.is_bfloat16_faster",
            lambda: PROCESSORS[name].is_fast_in_bfloat16,
        )
        yield
