"""Tiny models that the encoding tests share, and processors with and without bfloat16."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.encoding.tiny_cross_encoders import PairRecipe, save_tiny_pairs
from tests.encoding.tiny_models import Recipe, save_tiny
from tests.processors import use_processor

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Tiny: TypeAlias = Callable[[Recipe], Path]
TinyPairs: TypeAlias = Callable[[PairRecipe], Path]
Library: TypeAlias = "Callable[[Path], SentenceTransformer]"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A function from a recipe to the directory of its model, made once per session; read only."""
    folder, made = tmp_path_factory.mktemp("tiny"), dict[str, Path]()

    def directory(recipe: Recipe) -> Path:
        key = repr(recipe)
        if key not in made:
            made[key] = save_tiny(folder / f"model-{len(made)}", recipe)
        return made[key]

    return directory


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory: pytest.TempPathFactory) -> TinyPairs:
    """A function from a recipe to the directory of its cross-encoder, made once; read only."""
    folder = tmp_path_factory.mktemp("pairs")

    @cache
    def directory(recipe: PairRecipe) -> Path:
        return save_tiny_pairs(Path(tempfile.mkdtemp(dir=folder)) / "model", recipe)

    return directory


@pytest.fixture(scope="session")
def library() -> Library:
    """A function from a directory to the library's own float32 model on the CPU; read only."""

    @cache
    def model(directory: Path) -> SentenceTransformer:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(directory), device="cpu")

    return model


@pytest.fixture
def in_float32() -> Iterator[None]:
    """A processor without bfloat16, so that float32 is chosen."""
    with use_processor("avx2"):
        yield


@pytest.fixture
def in_bfloat16() -> Iterator[None]:
    """A processor with bfloat16; torch computes in it on every CPU, if slowly."""
    with use_processor("avx512_bf16"):
        yield
