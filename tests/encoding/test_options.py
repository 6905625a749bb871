"""Where and how an encoder runs: what is refused, and in which words."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from msmarco_qdrant.encoding.options import EncoderOptions, count_gpus, resolve_devices
from msmarco_qdrant.errors import UsageError

gpus = torch.cuda.device_count()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"precision": "fp16"},
            "precision must be float32, bfloat16, float16, int8, fp8, got 'fp16'",
        ),
        ({"tokens_per_batch": 0}, "tokens_per_batch must be 1 or more, got 0"),
        ({"cached_queries": -1}, "cached_queries must be 0 or more, got -1"),
    ],
)
def test_an_invalid_option_is_refused(values: dict[str, Any], text: str) -> None:
    """The error has the rule and the value."""
    with pytest.raises(UsageError, match=f"^{re.escape(text)}$"):
        EncoderOptions(**values)


# ---- devices ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (None, [None]),
        ("cpu", ["cpu"]),
        (" cpu ", ["cpu"]),
        ("all", [f"cuda:{index}" for index in range(gpus)] or ["cpu"]),
        *(("cuda", ["cuda:0"]) for _ in range(min(gpus, 1))),
        *(("cuda:0, cuda:1", ["cuda:0", "cuda:1"]) for _ in range(gpus // 2)),
    ],
)
def test_devices_of_a_name(device: str | None, expected: list[str | None]) -> None:
    """None stays open, one is itself, "all" is every GPU or else the CPU."""
    assert expected == resolve_devices(device)


INVALID = "device must be cpu, cuda, cuda:1, ..., several separated by commas, or all, got"


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("gpu", f"{INVALID} 'gpu'"),
        ("cpu,", f"{INVALID} ''"),
        ("cuda:x", f"{INVALID} 'cuda:x'"),
        ("cuda:-1", f"{INVALID} 'cuda:-1'"),
        ("cpu,all", f"{INVALID} 'all'"),
        ("cpu,cpu", "each device must be named once, got 'cpu,cpu'"),
        ("cuda:0, cuda:0", "each device must be named once, got 'cuda:0, cuda:0'"),
        ("cpu,cuda", "device must be cpu or GPUs, not both, got 'cpu,cuda'"),
        ("cuda:0,cpu", "device must be cpu or GPUs, not both, got 'cuda:0,cpu'"),
        (
            f"cuda:{gpus}",
            f"the device cuda:{gpus} does not exist: torch finds {gpus} usable devices",
        ),
    ],
)
def test_an_invalid_device_is_refused(device: str, text: str) -> None:
    """An unknown kind, a device named twice, or one that this machine does not have."""
    with pytest.raises(UsageError, match=f"^{re.escape(text)}"):
        resolve_devices(device)


@pytest.mark.skipif(gpus > 0, reason="this machine has a GPU")
def test_a_gpu_without_a_number_is_refused_where_there_is_none() -> None:
    """The name "cuda" is that of the first GPU."""
    with pytest.raises(UsageError, match="the device cuda:0 does not exist: torch finds 0"):
        resolve_devices("cuda")


@pytest.mark.skipif(gpus > 0, reason="this machine has a GPU")
def test_r11_all_gpus_of_a_mac_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`encode` takes it without a device; its name has a number."""
    import torch

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "device_count", lambda: 1)
    assert ["mps:0"] == resolve_devices("all")
    assert ["mps:0"] == resolve_devices("mps")
    assert [None] == resolve_devices(None)


@pytest.mark.parametrize(
    ("device", "expected"), [("mps", 1), ("cpu", 0), ("cuda:0, cuda:1", 2), (None, 1)]
)
def test_r11_a_macs_gpu_counts_as_one(
    device: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So `encode` tokenizes in subprocesses while it computes."""
    monkeypatch.setattr(torch.mps, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert expected == count_gpus(device)
