"""Choices that follow from the processor: precision and packed layers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.encoding.backends import linear_choice, packed_linear, processor
from msmarco_qdrant.encoding.backends.packed_linear import pack_linears_if_faster
from msmarco_qdrant.encoding.backends.processor import Processor
from msmarco_qdrant.encoding.backends.torch_device import resolve_dtype
from msmarco_qdrant.errors import UsageError
from tests.encoding.conftest import Tiny
from tests.encoding.tiny_models import Recipe
from tests.processors import PROCESSORS, detect_real, use_processor

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "dtype", "packed"),
    [
        ("amx", torch.bfloat16, [torch.float32, torch.bfloat16]),
        ("avx512_bf16", torch.bfloat16, [torch.float32, torch.bfloat16]),
        ("avx2", torch.float32, [torch.float32]),
        ("arm", torch.float32, []),
    ],
)
def test_choices_of_a_processor(
    name: str, dtype: torch.dtype, packed: list[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default dtype, and the types whose layers are packed."""
    monkeypatch.setattr(packed_linear, "has_operators", lambda _: True)
    with use_processor(name):
        assert dtype == resolve_dtype(None, CPU)
        found = [torch.float32, torch.bfloat16, torch.float16]
        assert packed == [one for one in found if packed_linear.packs(one)]


def test_layers_on_a_gpu_are_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the GPU's own."""
    packed: list[nn.Module] = []
    monkeypatch.setattr(packed_linear, "packs", lambda _: True)
    monkeypatch.setattr(packed_linear, "pack_linears", packed.append)
    for device in (torch.device("meta"), CPU):
        pack_linears_if_faster(nn.Linear(2, 2), device, torch.float32)
    assert 1 == len(packed)


@pytest.mark.parametrize(("seconds", "expected"), [((3, 1), True), ((1, 3), False)])
def test_layers_of_the_library_compute_in_the_faster_type(
    seconds: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, expected: bool
) -> None:
    """It is measured once on a machine, and not on one without instructions for bfloat16."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(processor, "detect", lambda: PROCESSORS["avx512_bf16"])
    rates = [{"float32": 1 / seconds[0], "bfloat16": 1 / seconds[1]}]
    monkeypatch.setattr(linear_choice, "measure_rates", lambda *_: rates.pop())
    assert [expected] * 2 == [linear_choice.is_bfloat16_faster() for _ in range(2)]
    monkeypatch.setattr(processor, "detect", lambda: PROCESSORS["avx2"])
    assert not linear_choice.is_bfloat16_faster()


def test_a_type_that_layers_do_not_compute_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is logged."""
    caplog.set_level(logging.INFO)

    def make(dtype: torch.dtype) -> nn.Module:
        if dtype == torch.bfloat16:
            return nn.Linear(3, 3)  # of another size
        return nn.Identity()

    monkeypatch.setattr(linear_choice, "_make_linears", make)
    assert ["float32"] == [*linear_choice.measure_linears().tokens_per_second]
    assert "bfloat16 does not run on this processor: mat" in caplog.text


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


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("amx", "float32, bfloat16, float16"),
        ("avx2", "float32, float16"),
        ("arm", "float32, bfloat16, float16"),
    ],
)
def test_a_refusal_lists_the_precisions_of_the_processor(name: str, offered: str) -> None:
    """Each of them is accepted; no other one is offered."""
    with use_processor(name):
        with pytest.raises(UsageError, match=f"must be {offered} for this model on cpu, got 'fp8'"):
            resolve_dtype("fp8", CPU)
        for precision in offered.split(", "):
            assert f"torch.{precision}" == str(resolve_dtype(precision, CPU))


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


# ---- cores -----------------------------------------------------------------------------------

_IN_VERSION_1 = "4:memory:/\n2:cpu,cpuacct:/user/job\n1:name=systemd:/\n0::/"


@pytest.mark.parametrize(
    ("listing", "files", "expected"),
    [
        pytest.param("0::/", {"cpu.max": "150000 100000"}, 2, id="part of a core"),
        pytest.param("0::/", {"cpu.max": "max 100000"}, 64, id="no limit"),
        pytest.param(
            "0::/slice/job", {"slice/cpu.max": "300000 100000", "cpu.max": "max 100000"}, 3, id="up"
        ),
        pytest.param("0::/host/of/docker", {"cpu.max": "400000 100000"}, 4, id="container"),
        pytest.param("0::/", {"cpu.max": "9900000 100000"}, 64, id="more than there are"),
        pytest.param("0::/", {"cpu.max": "1000 100000"}, 1, id="less than one"),
        pytest.param("0::/", {}, 64, id="no file"),
        pytest.param(
            _IN_VERSION_1,
            {"cpu/user/job/cpu.cfs_quota_us": "500000", "cpu/user/job/cpu.cfs_period_us": "100000"},
            5,
            id="version 1",
        ),
        pytest.param(
            _IN_VERSION_1,
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            64,
            id="version 1 without a limit",
        ),
        pytest.param(None, {}, 64, id="not Linux"),
    ],
)
def test_cores_are_those_of_the_cgroups(
    listing: str | None,
    files: Mapping[str, str],
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Of a process that may run on 64; a quota of one core and a half is two workers."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: range(64), raising=False)
    monkeypatch.setattr(processor, "_ROOT", tmp_path)
    found = {f"sys/fs/cgroup/{name}": content for name, content in files.items()}
    if listing is not None:
        found["proc/self/cgroup"] = listing
    for name, content in found.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")

    assert expected == processor.usable_cores()


def test_cores_are_those_of_the_affinity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As `taskset` or `numactl` set it; all of the machine on systems without."""
    monkeypatch.setattr(processor, "_ROOT", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 8}, raising=False)
    assert 3 == processor.usable_cores()
    monkeypatch.delattr("os.sched_getaffinity")
    for count, expected in ((16, 16), (None, 1)):
        monkeypatch.setattr("os.cpu_count", lambda count=count: count)
        assert expected == processor.usable_cores()
