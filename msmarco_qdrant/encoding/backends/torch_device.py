"""What a torch device is fast in: its precision, the size of its batches, and how they get there.

Bi-encoders and cross-encoders share it.
"""

from __future__ import annotations

import logging

# At the top: nothing imports this module before a model is loaded.
import torch

from msmarco_qdrant.encoding.backends import processor
from msmarco_qdrant.errors import UsageError

_log = logging.getLogger(__name__)

# Of 1,024 to 16,384 tokens a batch, tried on two cores with all-MiniLM-L6-v2, 2,048 to 4,096 were
# fastest.
_CPU_TOKENS_PER_BATCH = 3072
_GPU_TOKENS_PER_BATCH = 131_072

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def dtype_of(precision: str | None, device: torch.device) -> torch.dtype:
    """The dtype that a name stands for; of None, what the device is fast in.

    Raises:
        UsageError: For a precision that torch does not compute in.
    """
    if precision is None:
        return _fast_dtype(device)
    if precision not in _DTYPES:
        raise UsageError(
            f"torch computes in {', '.join(_DTYPES)} here, not in {precision!r}; int8 is of the "
            "backend openvino"
        )
    on_cpu = device.type == "cpu"
    if precision == "bfloat16" and on_cpu and not processor.detect().is_fast_in_bfloat16:
        _log.warning("this processor has no bfloat16 instructions: float32 is faster here")
    return _DTYPES[precision]


def tokens_per_batch_of(device: torch.device) -> int:
    """Tokens of a batch that a device is fast with."""
    return _GPU_TOKENS_PER_BATCH if device.type == "cuda" else _CPU_TOKENS_PER_BATCH


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on its way to a device, without waiting for it."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _fast_dtype(device: torch.device) -> torch.dtype:
    """The precision that the device computes fastest in while vectors stay within cosine 0.999."""
    if device.type == "cuda":
        # As fast as bfloat16 there, and of three more bits; what overflows is tried in float32.
        return torch.float16
    if device.type == "cpu" and processor.detect().is_fast_in_bfloat16:
        return torch.bfloat16
    return torch.float32
