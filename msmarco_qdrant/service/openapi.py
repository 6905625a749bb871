"""The description of the HTTP interface: every response, problems and tokens included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from msmarco_qdrant.service import schemas
from msmarco_qdrant.service.problems import MEDIA_TYPE, Kind

_REF: Final = "#/components/schemas/{model}"
_MODELS: Final[tuple[type[BaseModel], ...]] = (
    schemas.PassageIn,
    schemas.SearchIn,
    schemas.Accepted,
    schemas.BatchOut,
    schemas.HitsOut,
    schemas.HealthOut,
    schemas.ReadyOut,
    schemas.ProblemOut,
)
_WITH_RETRY: Final = (429, 503)


class DescribedApp(FastAPI):
    """An app whose description holds the package's own types and ways to authenticate."""

    security_schemes: Mapping[str, Mapping[str, str]] = {}

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI description, made once."""
        if self.openapi_schema is None:
            made = get_openapi(
                title=self.title,
                version=self.version,
                description=self.description,
                routes=self.routes,
            )
            components = made.setdefault("components", {})
            components["schemas"] = _schemas()
            if self.security_schemes:
                components["securitySchemes"] = dict(self.security_schemes)
            self.openapi_schema = made
        return self.openapi_schema


def ref(model: type[BaseModel]) -> dict[str, Any]:
    """Where a type is described."""
    return {"$ref": _REF.format(model=model.__name__)}


def json_content(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A response or a body in JSON."""
    return {"application/json": {"schema": dict(schema)}}


def responses(
    answers: Mapping[int, tuple[str, Mapping[str, Any]]], *kinds: Kind
) -> dict[int | str, dict[str, Any]]:
    """What a route answers.

    Args:
        answers: Of each status of success, what it means and its content.
        kinds: The problems that it may tell.
    """
    found: dict[int | str, dict[str, Any]] = {
        status: {"description": told, "content": dict(content)}
        for status, (told, content) in answers.items()
    }
    for status in sorted({kind.status for kind in kinds}):
        titles = [kind.title for kind in kinds if kind.status == status]
        found[status] = {
            "description": "; or: ".join(titles) + ".",
            "content": {MEDIA_TYPE: {"schema": ref(schemas.ProblemOut)}},
        }
        if status in _WITH_RETRY:
            found[status]["headers"] = {
                "Retry-After": {
                    "description": "Seconds after which to try again.",
                    "schema": {"type": "integer"},
                }
            }
    return found


def _schemas() -> dict[str, Any]:
    made = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF)
    definitions: dict[str, Any] = made[1]["$defs"]
    return definitions
