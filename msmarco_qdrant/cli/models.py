"""The command `models`."""

from __future__ import annotations

import click

from msmarco_qdrant.cli.options import json_option
from msmarco_qdrant.cli.output import model_json, print_json, print_models


@click.command()
@json_option
def models(*, as_json: bool) -> None:
    """List the published models with their published figures."""
    from msmarco_qdrant.encoding.catalog import PUBLISHED_MODELS

    if as_json:
        print_json([model_json(model) for model in PUBLISHED_MODELS])
    else:
        print_models()
