"""Options that change an encoder's speed, never its identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from msmarco_qdrant.core.arguments import check_fields, to_settings
from msmarco_qdrant.errors import UsageError

Precision: TypeAlias = Literal["float32", "bfloat16", "float16", "int8", "fp8"]

ALL_GPUS = "all"
CACHED_QUERIES = 1024


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """Options to run a model with.

    Attributes:
        device: "cpu", "cuda", "cuda:1", "mps" (a Mac's GPU), several separated by commas, or "all"
            for every GPU (the CPU without one); None for the best one.
        precision: "float32", "bfloat16", "float16", "int8" or "fp8"; None for the fastest of the
            device whose vectors stay within cosine 0.999 of float32. "int8" needs a CPU,
            "fp8" an NVIDIA GPU since Ada, and both a model of the shape of BERT, DistilBERT or
            RoBERTa, "int8" also of MPNet; they are faster and less precise. int8 is calibrated on
            the first thousand passages, and refused where it is not faster.
        tokens_per_batch: Maximum tokens of a batch; None for the device's default.
        cached_queries: Number of queries whose vectors to cache; 0 for none.
        compiled: Compile a model with torch for a GPU, if it is not of the shape of BERT,
            DistilBERT or RoBERTa, which have a faster forward pass; it takes a while and pays off
            with millions of passages.

    Raises:
        UsageError: For an invalid value.
    """

    device: str | None = None
    precision: Precision | None = None
    tokens_per_batch: int | None = None
    cached_queries: int = CACHED_QUERIES
    compiled: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.precision is not None:
            _require_one_of("precision", self.precision, get_args(Precision))
        if self.tokens_per_batch is not None and self.tokens_per_batch < 1:
            raise UsageError(f"tokens_per_batch must be 1 or more, got {self.tokens_per_batch}")
        if self.cached_queries < 0:
            raise UsageError(f"cached_queries must be 0 or more, got {self.cached_queries}")


EncoderChoices: TypeAlias = EncoderOptions | Mapping[str, Any] | str
"""Encoder options: an `EncoderOptions`, a dictionary of its fields, or the name of a device."""


def to_encoder_options(
    options: EncoderChoices | None, *, device: str | None = None
) -> EncoderOptions:
    """Return the options; without any, those for a device, None for the best one.

    Raises:
        UsageError: For another type, an unknown field or an invalid value.
    """
    if options is None:
        return EncoderOptions(device=device)
    return to_settings(EncoderOptions, options, "encoder_options", "device")


def resolve_devices(device: str | None) -> list[str | None]:
    """Return the torch devices of `EncoderOptions.device`.

    Raises:
        UsageError: For a name or device that torch does not have.
    """
    if device is None or device == "cpu":  # without importing torch
        return [device]
    import torch

    if device == ALL_GPUS:
        gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        return [*(gpus or (["mps:0"] if torch.backends.mps.is_available() else ["cpu"]))]
    names = [_add_number(name.strip()) for name in device.split(",")]
    if len(set(names)) < len(names):
        raise UsageError(f"each device must be named once, got {device!r}")
    if "cpu" in names and len(names) > 1:
        raise UsageError(f"device must be cpu or GPUs, not both, got {device!r}")
    for name in names:
        _require_device(name)
    return [*names]


def count_gpus(device: str | None) -> int:
    """Return the number of GPUs of `EncoderOptions.device`; 0 for the CPU.

    Raises:
        UsageError: As `resolve_devices`.
    """
    names = resolve_devices(device)
    if None in names:  # the library takes an accelerator of any kind
        import torch

        return int(torch.accelerator.is_available())
    return sum(name != "cpu" for name in names)


def _add_number(name: str) -> str:
    """Return the name with its number, such as "cuda:0" for "cuda"."""
    import torch

    try:
        kind = torch.device(name)
    except RuntimeError as exc:
        raise UsageError(
            "device must be cpu, cuda, cuda:1, ..., several separated by commas, or all, got "
            f"{name!r}"
        ) from exc
    return "cpu" if kind.type == "cpu" else f"{kind.type}:{kind.index or 0}"


def _require_device(name: str) -> None:
    import torch

    kind, _, index = name.partition(":")
    module: Any = getattr(torch, kind, None)
    found = module.device_count() if hasattr(module, "device_count") else 0
    if kind != "cpu" and int(index) >= found:
        raise UsageError(
            f"the device {name} does not exist: torch finds {found} usable devices of its kind"
        )


def _require_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} must be {', '.join(allowed)}, got {value!r}")
