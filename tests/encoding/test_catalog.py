"""The catalog against the published pages."""

from __future__ import annotations

from typing import TypeAlias, get_args

import pytest

from msmarco_qdrant.core.encoder_types import NO_PROMPTS, Prompts
from msmarco_qdrant.encoding.catalog import (
    PUBLISHED_MODELS,
    Figure,
    Measure,
    PublishedModel,
    find_published,
)

Row: TypeAlias = tuple[float | str | None, ...]

# Similarity; DL 19, DL 20, dev; queries on GPU and CPU, passages on GPU and CPU, per second. One
# model of each page, architecture and similarity.
BI_ENCODERS: dict[str, Row] = {
    "msmarco-distilbert-base-v3": ("cosine", 69.02, None, 33.13, 7000, 350, 1100, 70),
    "msmarco-distilroberta-base-v3": ("cosine", None, None, None, None, None, None, None),
    "msmarco-MiniLM-L6-v3": ("cosine", 67.46, None, 32.27, 18000, 750, 2800, 180),
    "msmarco-MiniLM-L12-v3": ("cosine", 65.14, None, 32.75, 11000, 400, 1500, 90),
    "msmarco-distilbert-base-tas-b": ("dot", 71.04, 69.78, 34.43, 7000, 350, 1100, 70),
    "msmarco-MiniLM-L12-cos-v5": ("cosine", 65.14, 67.48, 32.75, None, None, None, None),
    "msmarco-bert-base-dot-v5": ("dot", 70.51, 73.45, 38.08, 4000, 170, 540, 30),
    "msmarco-distilbert-base-v2": ("cosine", 68.35, None, 30.77, None, None, None, None),
    "distilroberta-base-msmarco-v1": ("cosine", None, None, 23.28, None, None, None, None),
    "all-MiniLM-L6-v2": ("cosine", None, None, None, None, None, None, None),
}
# DL 19 and dev, reranked; pairs per second on a V100.
CROSS_ENCODERS: dict[str, tuple[float, float, float]] = {
    "ms-marco-electra-base": (71.99, 36.41, 340),
    "ms-marco-TinyBERT-L2-v2": (69.84, 32.56, 9000),
    "ms-marco-MiniLM-L6-v2": (74.30, 39.01, 1800),
}
SOURCES = {"v1", "v2", "v3", "v5", "ce"}


def _found(name: str) -> PublishedModel:
    model = find_published(name)
    assert model is not None, name
    return model


def _figures(model: PublishedModel) -> tuple[Figure | None, ...]:
    return tuple(getattr(model, measure) for measure in get_args(Measure))


def _values(model: PublishedModel) -> tuple[float | None, ...]:
    return tuple(figure.value if figure else None for figure in _figures(model))


@pytest.mark.parametrize("name", BI_ENCODERS)
def test_figures_of_bi_encoders(name: str) -> None:
    """Each figure is as it was published, or None."""
    model = _found(name)
    assert (model.similarity, *_values(model)) == BI_ENCODERS[name]
    assert (model.kind, model.hub_id) == ("bi-encoder", f"sentence-transformers/{name}")
    assert model.dimension == (384 if "MiniLM" in name else 768)
    v1 = Prompts("[QRY] ", "[DOC] ")
    assert model.prompts == (v1 if name == "distilroberta-base-msmarco-v1" else NO_PROMPTS)


@pytest.mark.parametrize("name", CROSS_ENCODERS)
def test_figures_of_cross_encoders(name: str) -> None:
    """Their figures are of reranking; there is no vector, so neither similarity nor dimension."""
    model = _found(name)
    dl19, dev, per_second = CROSS_ENCODERS[name]
    assert _values(model) == (dl19, None, dev, None, None, per_second, None)
    assert (model.kind, model.hub_id) == ("cross-encoder", f"cross-encoder/{name}")
    assert (model.similarity, model.dimension) == (None, None)


def test_the_baseline() -> None:
    """BM25 by Elasticsearch: 45.46 and 17.29."""
    model = _found("BM25")
    assert _values(model) == (45.46, None, 17.29, None, None, None, None)
    assert (model.kind, model.hub_id, model.dimension) == ("baseline", None, None)


def test_every_name_means_one_model() -> None:
    """Short names, older names and hub ids never clash."""
    names = [
        name
        for model in PUBLISHED_MODELS
        for name in (model.name, model.hub_id, *model.aliases)
        if name is not None
    ]
    assert len(names) == len(set(names))


def test_every_figure_names_its_source() -> None:
    """A figure says which page published it."""
    figures = [figure for model in PUBLISHED_MODELS for figure in _figures(model) if figure]
    assert {figure.source for figure in figures} <= SOURCES


@pytest.mark.parametrize("model", PUBLISHED_MODELS, ids=lambda model: model.name)
def test_a_model_is_found_by_each_of_its_names(model: PublishedModel) -> None:
    """By short name, by hub id, by older names with and without their owner."""
    owner = [] if model.hub_id is None else [f"{model.hub_id.partition('/')[0]}/"]
    names = [f"{prefix}{name}" for prefix in ("", *owner) for name in (model.name, *model.aliases)]
    assert {model.name} == {_found(name).name for name in names}


@pytest.mark.parametrize(
    ("old", "name"),
    [
        ("msmarco-MiniLM-L-6-v3", "msmarco-MiniLM-L6-v3"),
        ("cross-encoder/ms-marco-MiniLM-L-12-v2", "ms-marco-MiniLM-L12-v2"),
    ],
)
def test_older_names(old: str, name: str) -> None:
    """The hub renamed the MiniLM models; old names are still in use."""
    assert _found(old).name == name


@pytest.mark.parametrize("name", ["", "bm25s", "msmarco", "cross-encoder/msmarco-MiniLM-L6-v3"])
def test_an_unknown_name_is_none(name: str) -> None:
    """What the catalog does not know it does not guess."""
    assert find_published(name) is None
