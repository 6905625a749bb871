"""Datasets of `ir_datasets` made of local files. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """`ir_datasets` with a temporary folder; its registry is restored afterwards."""
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "home"))
    import ir_datasets

    before = dict(ir_datasets.registry._registered)
    yield ir_datasets
    ir_datasets.registry._registered = before


def register(library: Any, folder: Path, name: str, **files: str) -> None:
    """Register a dataset of these files."""
    paths = {}
    for kind, content in files.items():
        path = folder / f"{name.replace('/', '-')}.{kind}"
        path.write_text(content, "utf-8")
        paths[kind] = str(path)
    library.registry.register(name, library.create_dataset(**paths))
