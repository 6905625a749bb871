"""The forward pass for GPUs: its vectors are the library's, by any kernels and in any precision.

Most of it runs on a CPU, by the plain kernels. Triton's kernels run on a GPU, or interpreted on a
CPU if TRITON_INTERPRET=1 is set; Triton 3.6 needs NumPy before 2.4 for that, and pytest's option
`-W ignore::DeprecationWarning`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.encoding.backends import cuda_choice, plain_kernels
from msmarco_qdrant.encoding.backends.cuda import CudaBackend, VarlenForward, find_kernels
from msmarco_qdrant.encoding.backends.cuda_choice import make_cuda_backends
from msmarco_qdrant.encoding.backends.cuda_fp8 import Fp8Forward
from msmarco_qdrant.encoding.backends.numpy_forward import NumpyForward
from msmarco_qdrant.encoding.bi_encoder import BiEncoder
from msmarco_qdrant.encoding.compact import CompactModel, read_compact
from msmarco_qdrant.encoding.probes import random_texts
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import UsageError
from tests.encoding.conftest import Library, Tiny
from tests.encoding.tiny_models import Recipe

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
RECIPES = [Recipe(), Recipe("bert", pooling="cls"), Recipe("roberta", normalize=True)]
TEXTS = ["london", "how cold is the iceberg in the north", "snow " * 80, "a river of snow"]

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def compact(tiny: Tiny, recipe: Recipe) -> CompactModel:
    """A model of a recipe."""
    model = read_compact(tiny(recipe))
    assert model is not None
    return model


def reference(model: CompactModel, texts: Tokenized) -> np.ndarray:
    """The vectors in float32 of one text after the other."""
    one = NumpyForward(model)
    return np.stack([one(texts.ids[start:stop]) for start, stop in pairwise(texts.offsets)])


def cosines(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Of each row with its counterpart."""
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    shares: np.ndarray = (expected * found).sum(axis=1) / lengths
    return shares


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda one: one.architecture)
def test_texts_end_to_end_have_the_vectors_of_each_alone(recipe: Recipe, tiny: Tiny) -> None:
    """Of several lengths, with padding tokens inside a text, by the plain kernels."""
    model = compact(tiny, recipe)
    texts = random_texts(model, None)
    found = VarlenForward(model, CPU, torch.float32)(texts).numpy()
    np.testing.assert_allclose(found, reference(model, texts), rtol=0, atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda one: one.architecture)
def test_fp8_is_near_float32(recipe: Recipe, tiny: Tiny) -> None:
    """Products of 3 bits after the first one, and nothing worse."""
    model = compact(tiny, recipe)
    texts = random_texts(model, None)
    forward = Fp8Forward(model, CPU)
    assert "fp8" == forward.precision
    found = cosines(reference(model, texts), forward(texts).numpy())
    assert 0.99 < found.min()
    assert found.max() < 0.99999


class OnCpu(CudaBackend):
    """The backend on a CPU, where tests run."""

    def launch(self, batch: Tokenized, task: Any) -> Any:
        """Compute at once."""
        del task
        vectors = self._forward(batch).float().numpy()
        return type("Done", (), {"result": lambda _: vectors})()


@pytest.fixture
def cpu_as_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice takes a CPU for a GPU."""
    monkeypatch.setattr(cuda_choice, "CudaBackend", OnCpu)
    monkeypatch.setattr(cuda_choice, "_runs", lambda *_: True)
    monkeypatch.setattr(cuda_choice, "_require_fp8", lambda *_: None)


@pytest.mark.usefixtures("cpu_as_gpu", "in_bfloat16")
@pytest.mark.parametrize("precision", ["float16", "bfloat16", "fp8"])
def test_a_model_is_compared_before_it_is_used(precision: str, tiny: Tiny) -> None:
    """The same backend for each device, in the precision that was requested."""
    made = make_cuda_backends(compact(tiny, Recipe()), [CPU, CPU], precision)
    assert made is not None
    assert [precision, precision] == [backend.precision for backend in made]


@pytest.mark.usefixtures("cpu_as_gpu")
def test_other_vectors_are_not_used(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's modules run the model instead; fp8, which they cannot compute, is refused."""
    model = compact(tiny, Recipe())
    monkeypatch.setattr(
        plain_kernels, "add_norm", lambda values, residual, *_: values + 9 * residual
    )
    assert make_cuda_backends(model, [CPU], "float16") is None
    with pytest.raises(UsageError, match=r"must be at cosine 0.95 of float32, got .*use precision"):
        make_cuda_backends(model, [CPU], "fp8")


@pytest.mark.usefixtures("cpu_as_gpu")
def test_a_forward_pass_that_fails_is_not_used(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a kernel that does not compile."""

    def fail(*_: object) -> None:
        raise RuntimeError("no such instruction\nin a kernel")

    monkeypatch.setattr(plain_kernels, "attend", fail)
    model = compact(tiny, Recipe())
    assert make_cuda_backends(model, [CPU], "float16") is None
    with pytest.raises(UsageError, match=r"fp8 cannot run this model: no such instruction$"):
        make_cuda_backends(model, [CPU], "fp8")


def test_a_cpu_is_no_gpu(tiny: Tiny) -> None:
    """The library's modules or the forward pass for CPUs run there; fp8 is refused."""
    model = compact(tiny, Recipe())
    assert make_cuda_backends(model, [CPU], None) is None
    with pytest.raises(UsageError, match=r"fp8 needs an NVIDIA GPU of compute capability 8\.9"):
        make_cuda_backends(model, [CPU], "fp8")
    with pytest.raises(UsageError, match="got 'fp8'; int8 needs a CPU, fp8 an NVID"):
        load_encoder(tiny(Recipe()), device="cpu", precision="fp8")


@pytest.mark.usefixtures("cpu_as_gpu")
def test_mpnet_is_the_library_s_on_a_gpu(tiny: Tiny) -> None:
    """No kernel adds its biases."""
    assert make_cuda_backends(compact(tiny, Recipe("mpnet")), [CPU], "float16") is None


def test_a_compact_model_runs_on_the_gpus(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """One backend each, before the library's modules are asked for; `compiled` is reported."""
    encoder = load_encoder(tiny(Recipe()), device="cpu", precision="float32")
    expected = encoder.encode(TEXTS)
    monkeypatch.setattr(BiEncoder, "_fused_precision", lambda *_: None)
    monkeypatch.setattr(cuda_choice, "find_gpus", lambda devices: [CPU for _ in devices])
    monkeypatch.setattr(
        cuda_choice,
        "make_cuda_backends",
        lambda model, devices, _: [
            OnCpu(VarlenForward(model, device, torch.float32)) for device in devices
        ],
    )
    on_gpus = load_encoder(tiny(Recipe()), precision="float16")
    assert isinstance(on_gpus._require_backends()[0], OnCpu)
    np.testing.assert_allclose(on_gpus.encode(TEXTS), expected, rtol=0, atol=1e-5)


# ---- Triton's kernels ------------------------------------------------------------------------


@pytest.fixture
def triton_kernels() -> Any:
    """The module, where it runs."""
    pytest.importorskip("triton")
    if not torch.cuda.is_available() and not os.environ.get("TRITON_INTERPRET"):
        pytest.skip("needs an NVIDIA GPU, or TRITON_INTERPRET=1")
    from msmarco_qdrant.encoding.backends import triton_kernels

    return triton_kernels


Step = Callable[[Any, torch.device], torch.Tensor]
EDGES = [0, 70, 73, 74, 204, 268]


def _draw(device: torch.device, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(device)


def _embed(kernels: Any, device: torch.device) -> torch.Tensor:
    ids, words = torch.arange(20, dtype=torch.int32, device=device), _draw(device, 40, 96)
    norm = (_draw(device, 96), _draw(device, 96))
    output: torch.Tensor = kernels.embed(ids, ids.flip(0), words, words * 2, norm, 1e-12)
    return output


def _add_norm(kernels: Any, device: torch.device) -> torch.Tensor:
    values, norm = _draw(device, 33, 96), (_draw(device, 96), _draw(device, 96))
    copy = torch.empty_like(values, dtype=torch.float16)
    output: torch.Tensor = kernels.add_norm(values, values * 3, norm, 1e-12, copy)
    torch.testing.assert_close(copy, output.half())
    torch.testing.assert_close(output, kernels.add_norm(values, values * 3, norm, 1e-12))
    return output


def _gelu(kernels: Any, device: torch.device) -> torch.Tensor:
    values = _draw(device, 33, 384) * 3
    kernels.gelu(values, output := torch.empty_like(values))
    return output


def _attend(kernels: Any, device: torch.device) -> torch.Tensor:
    edges = torch.tensor(EDGES, dtype=torch.int32, device=device)
    qkv = _draw(device, EDGES[-1], 3 * 96)
    # On a GPU the plain kernel is of 16 bits.
    kind = torch.float16 if device.type == "cuda" else torch.float32
    output = torch.empty(EDGES[-1], 96, device=device, dtype=kind)
    kernels.attend(qkv.to(kind), edges, 130, 3, output, 16.0)
    return output


def _pool(kernels: Any, device: torch.device) -> torch.Tensor:
    edges = torch.tensor(EDGES, dtype=torch.int32, device=device)
    output: torch.Tensor = kernels.pool(_draw(device, EDGES[-1], 96), edges)
    return output


@pytest.mark.parametrize("step", [_embed, _add_norm, _gelu, _attend, _pool])
def test_triton_s_kernels_give_the_plain_results(triton_kernels: Any, step: Step) -> None:
    """For sizes that are no powers of two, and texts of one and of several blocks."""
    device = GPU if torch.cuda.is_available() else CPU
    expected, found = step(plain_kernels, device), step(triton_kernels, device)
    atol = 2e-2 if found.dtype == torch.float16 else 1e-5
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=atol)


@on_gpu
def test_attention_takes_many_short_texts(triton_kernels: Any) -> None:
    """More than the 65,535 of a grid's later axes; a text of one token has its value."""
    count, heads = 70_000, 3
    edges = torch.arange(count + 1, dtype=torch.int32, device=GPU)
    qkv = _draw(GPU, count, 3 * 96).half()
    output = torch.empty(count, 96, device=GPU, dtype=torch.float16)
    triton_kernels.attend(qkv, edges, 1, heads, output)
    torch.testing.assert_close(output, qkv[:, 2 * 96 :])


PRECISIONS = [("float16", 0.9999), ("bfloat16", 0.999), ("fp8", 0.97)]


@on_gpu
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda one: one.architecture)
@pytest.mark.parametrize(("precision", "least"), PRECISIONS)
def test_triton_s_kernels_run_a_model(
    recipe: Recipe, precision: str, least: float, triton_kernels: Any, tiny: Tiny
) -> None:
    """One with heads of 16 units: the plain kernels run those of a recipe, which are smaller."""
    model = replace(compact(tiny, recipe), heads=2)
    assert triton_kernels is find_kernels(model, GPU)
    made = make_cuda_backends(model, [GPU], precision)
    assert made is not None
    texts = random_texts(model, None)
    found = made[0].launch(texts, "document").result()
    assert least < cosines(reference(model, texts), found).min()


@on_gpu
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda one: one.architecture)
@pytest.mark.parametrize(("precision", "least"), PRECISIONS)
def test_a_gpu_gives_the_library_s_vectors(
    recipe: Recipe, precision: Any, least: float, tiny: Tiny, library: Library
) -> None:
    """Of a newly loaded encoder, in each precision."""
    directory = tiny(recipe)
    encoder = load_encoder(directory, device="cuda", precision=precision)
    assert isinstance(encoder._require_backends()[0], CudaBackend)
    assert precision == encoder.precision
    expected = library(directory).encode(TEXTS, normalize_embeddings=True)
    assert least < cosines(expected, encoder.encode(TEXTS)).min()
