"""The choice of the forward pass for GPUs: it is compared with float32 before it is used."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise

# At the top: this module is imported when a model is loaded.
import numpy as np
import torch

from msmarco_qdrant.core.first_line import first_line
from msmarco_qdrant.encoding.backends.cuda import CudaBackend, VarlenForward, has_triton
from msmarco_qdrant.encoding.backends.cuda_fp8 import Fp8Forward
from msmarco_qdrant.encoding.backends.numpy_forward import NumpyForward
from msmarco_qdrant.encoding.backends.torch_device import resolve_dtype
from msmarco_qdrant.encoding.backends.varlen_attention import has_varlen_attention
from msmarco_qdrant.encoding.compact import CompactModel
from msmarco_qdrant.encoding.probes import random_texts
from msmarco_qdrant.errors import UsageError

_log = logging.getLogger(__name__)

# Of texts of random tokens: rounding stays above it, a wrong kernel far below.
_MIN_COSINE = {"float16": 0.999, "bfloat16": 0.999, "fp8": 0.95}
# Tokens of the longest probe: several blocks of every kernel.
_LONGEST_PROBE = 300
_FP8_CAPABILITY = (8, 9)


def find_gpus(names: Sequence[str | None]) -> list[torch.device]:
    """Return the devices if all are NVIDIA GPUs, else nothing; None is the best device."""
    best = "cuda:0" if torch.cuda.is_available() else "cpu"
    found = [torch.device(name or best) for name in names]
    return found if all(device.type == "cuda" for device in found) else []


def make_cuda_backends(
    model: CompactModel, devices: Sequence[torch.device], precision: str | None
) -> list[CudaBackend] | None:
    """Return a backend for each GPU; None if the library's modules have to run the model.

    Args:
        model: The weights.
        devices: The devices.
        precision: A name of `EncoderOptions.precision`; None for the fast one.

    Raises:
        UsageError: If fp8 is requested and cannot be computed, or is too imprecise.
    """
    if model.biases is not None:  # which its attention does not add
        return None
    made = [_make(model, device, precision) for device in devices]
    return [one for one in made if one is not None] if all(made) else None


def _make(model: CompactModel, device: torch.device, precision: str | None) -> CudaBackend | None:
    if precision == "fp8":
        _require_fp8(device)
    elif not _runs(device, precision):
        return None
    try:
        backend = CudaBackend(_make_forward(model, device, precision))
        cosine = _least_cosine(backend, model)
    except Exception as exc:  # of a kernel that does not compile, or of memory
        if precision == "fp8":
            raise UsageError(f"fp8 cannot run this model: {first_line(exc)}") from exc
        _log.info("the forward pass for GPUs cannot run this model: %s", first_line(exc))
        return None
    if cosine >= _MIN_COSINE[backend.precision]:
        return backend
    if precision == "fp8":
        raise UsageError(
            f"vectors of this model in fp8 must be at cosine {_MIN_COSINE['fp8']} of float32, got "
            f"{cosine:.3f}: use precision=float16"
        )
    _log.info("the forward pass for GPUs is at cosine %.4f of float32: it is not used", cosine)
    return None


def _make_forward(
    model: CompactModel, device: torch.device, precision: str | None
) -> VarlenForward:
    if precision == "fp8":
        return Fp8Forward(model, device)
    return VarlenForward(model, device, resolve_dtype(precision, device))


def _runs(device: torch.device, precision: str | None) -> bool:
    return device.type == "cuda" and has_varlen_attention(device, resolve_dtype(precision, device))


def _require_fp8(device: torch.device) -> None:
    is_new = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _FP8_CAPABILITY
    if not is_new or not has_triton():
        raise UsageError(
            f"fp8 needs an NVIDIA GPU of compute capability 8.9 and Triton, got {device}: use "
            "another precision"
        )


def _least_cosine(backend: CudaBackend, model: CompactModel) -> float:
    """Return the least cosine to float32 over texts of random tokens, short and long ones."""
    texts = random_texts(model, _LONGEST_PROBE)
    one = NumpyForward(model)
    rows = [one(texts.ids[start:stop]) for start, stop in pairwise(texts.offsets.tolist())]
    expected = np.stack(rows).astype(np.float64)
    found = backend.launch(texts, "document").result().astype(np.float64)
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (expected * found).sum(axis=1) / lengths
    return float(np.nan_to_num(cosines).min())
