"""Linear layers whose weights oneDNN has laid out once, instead of at every call.

On a CPU with bfloat16 instructions a plain `torch.nn.Linear` hands oneDNN weights in rows, and
oneDNN lays them out anew in every forward pass. Laid out once, all-MiniLM-L6-v2 encodes a tenth to
a fifth faster on two cores; the results are the same to the last bit but one of bfloat16. The two
operators are those which torch's own compiler emits for a frozen linear layer
(`torch/_inductor/fx_passes/mkldnn_fusion.py`), in torch 2.11 and 2.13.
"""

from __future__ import annotations

# At the top, as a class derives from it: nothing imports this module before a model is loaded.
import torch
from torch import nn


class PackedLinear(nn.Module):
    """A linear layer in bfloat16 on a CPU, for inference only.

    Args:
        linear: The layer to take weights and bias from.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        # No batch size is given: the layout then serves any.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)  # noqa: SLF001
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """`(..., in_features)` to `(..., out_features)`."""
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            values, self._weight, self._bias, "none", [], ""
        )
        return output


def can_pack() -> bool:
    """Whether this build of torch has oneDNN and the two operators."""
    return torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


@torch.inference_mode()
def pack_linears(module: nn.Module) -> None:
    """Replace every plain linear layer below `module`, in place."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child))
        else:
            pack_linears(child)
