"""The command `models`."""

from __future__ import annotations

from typing import Any

import click

from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.options import json_option
from msmarco_qdrant.cli.output import echo, echo_text, print_json
from msmarco_qdrant.core.json_value import to_json_value
from msmarco_qdrant.encoding.catalog import PUBLISHED_MODELS, PublishedModel
from msmarco_qdrant.evaluation.tables import format_table


@click.command(cls=Command, examples=["", "--json"])
@json_option
def models(*, as_json: bool) -> None:
    """List the published models with their published figures."""
    if as_json:
        print_json([_model_json(model) for model in PUBLISHED_MODELS])
        return
    head = ("model", "kind", "similarity", "dim", "DL19", "DL20", "dev", "passages/s GPU")
    echo_text(format_table([head, *map(_model_row, PUBLISHED_MODELS)]))
    echo(
        "", "DL19, DL20: NDCG@10 on TREC DL 2019 and 2020; dev: MRR@10 on MS MARCO dev; in percent"
    )


def _model_json(model: PublishedModel) -> dict[str, Any]:
    values: dict[str, Any] = to_json_value(model)
    for name in values:
        value = getattr(model, name)
        if hasattr(value, "_asdict"):  # a figure with its source, or a package
            values[name] = value._asdict()
    return values


def _model_row(model: PublishedModel) -> tuple[str, ...]:
    names = ("ndcg10_dl19", "ndcg10_dl20", "mrr10_dev", "passages_per_second_gpu")
    figures = [getattr(model, name) for name in names]
    return (
        model.name,
        model.kind,
        model.similarity or "-",
        str(model.dimension or "-"),
        *("-" if figure is None else f"{figure.value:g}" for figure in figures),
    )
