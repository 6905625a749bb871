"""Defaults of a torch device: precision and batch size; and copies to it.

Bi-encoders and cross-encoders share them.
"""

from __future__ import annotations

import logging

# At the top: this module is imported when a model is loaded.
import torch

from msmarco_qdrant.encoding.backends import linear_choice, processor
from msmarco_qdrant.errors import UsageError

_log = logging.getLogger(__name__)

# Of 1,024 to 16,384 tokens per batch on two cores with all-MiniLM-L6-v2, 2,048 to 4,096 were
# fastest.
_CPU_TOKENS_PER_BATCH = 3072
_GPU_TOKENS_PER_BATCH = 131_072

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_dtype(precision: str | None, device: torch.device) -> torch.dtype:
    """Return the dtype of a name; for None, the fast one of the device.

    Raises:
        UsageError: For a precision that torch does not compute in.
    """
    if precision is None:
        return _fast_dtype(device)
    if precision not in _DTYPES:
        raise UsageError(
            f"precision must be {', '.join(_names(device))} for this model on {device.type}, got "
            f"{precision!r}; int8 needs a CPU, fp8 an NVIDIA GPU since Ada, and both a model of "
            "the shape of BERT, DistilBERT or RoBERTa; int8 also takes MPNet's"
        )
    if precision not in _names(device):
        raise UsageError(
            "this processor has no bfloat16 instructions: use precision=float32, which is faster "
            "here"
        )
    if precision == "bfloat16" and _is_slow_in_bfloat16(device):
        _log.warning("this processor has no bfloat16 instructions: float32 is faster here")
    return _DTYPES[precision]


def default_tokens_per_batch(device: torch.device) -> int:
    """Return the tokens per batch that are fast on a device."""
    return _GPU_TOKENS_PER_BATCH if device.type == "cuda" else _CPU_TOKENS_PER_BATCH


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device without waiting for the end of the copy."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _names(device: torch.device) -> list[str]:
    """Return the precisions that torch computes in on a device."""
    # On x86, oneDNN refuses some of the products without instructions for them.
    is_refused = _is_slow_in_bfloat16(device) and processor.detect().architecture == "x86_64"
    return [name for name in _DTYPES if name != "bfloat16" or not is_refused]


def _is_slow_in_bfloat16(device: torch.device) -> bool:
    return device.type == "cpu" and not processor.detect().is_fast_in_bfloat16


def _fast_dtype(device: torch.device) -> torch.dtype:
    """The fastest precision whose vectors stay within cosine 0.999 of float32."""
    if device.type == "cuda":
        # As fast as bfloat16, with three more bits; overflows are retried in float32.
        return torch.float16
    if device.type == "cpu" and linear_choice.is_bfloat16_faster():
        return torch.bfloat16
    return torch.float32
