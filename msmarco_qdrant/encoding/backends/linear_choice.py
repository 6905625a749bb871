"""The faster of float32 and bfloat16 for the library's modules on a CPU, measured once.

Their models have many shapes, so the measurement is that of two linear layers of BERT's size: such
layers take most of the time of a transformer.
"""

from __future__ import annotations

import logging
from functools import partial

# At the top: this module is imported when a model is loaded.
import torch
from torch import nn

from msmarco_qdrant.core.first_line import first_line
from msmarco_qdrant.encoding.backends import processor
from msmarco_qdrant.encoding.backends.measured import Choice, measure_rates, recall_choice
from msmarco_qdrant.encoding.backends.packed_linear import pack_linears_if_faster

_log = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_TOKENS, _HIDDEN, _WIDE = 512, 768, 3072


def is_bfloat16_faster() -> bool:
    """True if linear layers are faster in bfloat16 than in float32 on this machine's processor."""
    if not processor.detect().is_fast_in_bfloat16:
        return False
    found = recall_choice("linear layers", [*_DTYPES], measure_linears)
    _log.info("the fastest precision of linear layers on this processor is %s", found)
    return found.precision == "bfloat16"


def measure_linears() -> Choice:
    """Compare the precisions on one core; one that fails is left out."""
    calls = {}
    for name, dtype in _DTYPES.items():
        call = partial(_pass, _make_linears(dtype), torch.ones(_TOKENS, _HIDDEN, dtype=dtype))
        try:
            call()
        except RuntimeError as exc:  # of a product that this processor lacks
            _log.info("%s does not run on this processor: %s", name, first_line(exc))
            continue
        calls[name] = call
    return Choice.of(measure_rates(calls, _TOKENS))


def _make_linears(dtype: torch.dtype) -> nn.Module:
    with torch.random.fork_rng([]):  # random weights must not disturb the caller's
        linears = nn.Sequential(nn.Linear(_HIDDEN, _WIDE), nn.Linear(_WIDE, _HIDDEN)).to(dtype)
    pack_linears_if_faster(linears, torch.device("cpu"), dtype)
    return linears


@torch.inference_mode()
def _pass(linears: nn.Module, values: torch.Tensor) -> None:
    linears(values)
