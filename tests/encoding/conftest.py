"""Tiny models that the encoding tests share, and processors with and without bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.encoding.tiny_models import Recipe, save_tiny
from tests.processors import use_processor

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Tiny: TypeAlias = Callable[[Recipe], Path]
Library: TypeAlias = "Callable[[Path], SentenceTransformer]"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A function from a recipe to the directory of its model, made once a session; read only."""
    made: dict[str, Path] = {}

    def directory(recipe: Recipe) -> Path:
        key = repr(recipe)
        if key not in made:
            made[key] = save_tiny(tmp_path_factory.mktemp("tiny") / "model", recipe)
        return made[key]

    return directory


@pytest.fixture(scope="session")
def library() -> Library:
    """A function from a directory to the library's own float32 model on the CPU."""
    loaded: dict[Path, SentenceTransformer] = {}

    def model(directory: Path) -> SentenceTransformer:
        from sentence_transformers import SentenceTransformer

        if directory not in loaded:
            loaded[directory] = SentenceTransformer(str(directory), device="cpu")
        return loaded[directory]

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
