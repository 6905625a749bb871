"""Where and how an encoder runs: what changes its speed, never its identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from msmarco_qdrant.errors import UsageError

BackendName: TypeAlias = Literal["auto", "torch", "openvino"]
Precision: TypeAlias = Literal["float32", "bfloat16", "float16", "int8"]

ALL_GPUS = "all"
CACHED_QUERIES = 1024


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """How to run a model.

    Attributes:
        backend: "torch", "openvino", or "auto" for the fastest that is installed.
        device: "cpu", "cuda", "cuda:1", several with commas between them, "all" for every GPU
            there is (or the CPU, where there is none); None for the best one.
        precision: What to compute in; None for what the device is fast in while vectors stay
            within cosine 0.999 of float32. "int8" is faster still on some processors, of
            backend "openvino", and loses more.
        tokens_per_batch: Most tokens of a batch; None for the device's default.
        cached_queries: How many queries' vectors to remember; 0 to remember none.
        compiled: Let torch compile the model for a GPU, which takes a while and pays for millions
            of passages.

    Raises:
        UsageError: For a value that means nothing.
    """

    backend: BackendName = "auto"
    device: str | None = None
    precision: Precision | None = None
    tokens_per_batch: int | None = None
    cached_queries: int = CACHED_QUERIES
    compiled: bool = False

    def __post_init__(self) -> None:
        _check_one_of("backend", self.backend, get_args(BackendName))
        if self.precision is not None:
            _check_one_of("precision", self.precision, get_args(Precision))
        if self.tokens_per_batch is not None and self.tokens_per_batch < 1:
            raise UsageError(f"tokens_per_batch={self.tokens_per_batch}: expected 1 or more")
        if self.cached_queries < 0:
            raise UsageError(f"cached_queries={self.cached_queries}: expected 0 or more")


def devices_of(device: str | None) -> list[str | None]:
    """The torch devices that `EncoderOptions.device` stands for.

    Raises:
        UsageError: For a name that torch does not know, or a device that is not there.
    """
    import torch

    if device is None:
        return [None]
    if device == ALL_GPUS:
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
    names = [_full_name(name.strip()) for name in device.split(",")]
    if len(set(names)) < len(names):
        raise UsageError(f"the device {device!r} names one twice")
    for name in names:
        _check_there(name)
    return [*names]


def _full_name(name: str) -> str:
    """Such as "cuda:0" for "cuda"."""
    import torch

    try:
        kind = torch.device(name)
    except RuntimeError as exc:
        raise UsageError(
            f"no device is called {name!r}: expected cpu, cuda, cuda:1, ..., several with commas, "
            "or all"
        ) from exc
    return "cpu" if kind.type == "cpu" else f"{kind.type}:{kind.index or 0}"


def _check_there(name: str) -> None:
    import torch

    kind, _, index = name.partition(":")
    module: Any = getattr(torch, kind, None)
    found = module.device_count() if hasattr(module, "device_count") else 0
    if kind != "cpu" and int(index) >= found:
        raise UsageError(
            f"the device {name} is not here: torch finds {found} of that kind that it can use"
        )


def _check_one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{what} {value!r} is unknown: expected one of {', '.join(known)}")
