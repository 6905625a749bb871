"""OpenAPI of what FastAPI cannot derive: problems, and bodies that the routes parse themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from msmarco_qdrant.service.http.problems import MEDIA_TYPE, Kind
from msmarco_qdrant.service.http.schemas import PassageIn, ProblemOut
from msmarco_qdrant.service.http.schemas_search import SEARCHES
from msmarco_qdrant.service.http.schemas_similar import SimilarIn

Responses: TypeAlias = dict[int | str, dict[str, Any]]

_REF: Final = "#/components/schemas/{model}"
_CHALLENGE: Final = ("WWW-Authenticate", "The way to authenticate.", "string")
_RETRY: Final = ("Retry-After", "Seconds until the next attempt.", "integer")
_HEADERS: Final[Mapping[int, tuple[str, str, str]]] = {
    401: _CHALLENGE,
    403: _CHALLENGE,
    429: _RETRY,
    503: _RETRY,
}


class DescribedApp(FastAPI):
    """An app whose description has the models of problems and of parsed bodies, too."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI description, made once."""
        if self.openapi_schema is None:
            models = [
                (model, "validation") for model in (PassageIn, *SEARCHES, SimilarIn, ProblemOut)
            ]
            definitions = models_json_schema(models, ref_template=_REF)[1]["$defs"]  # type: ignore[arg-type]
            super().openapi()["components"]["schemas"] |= definitions
        return super().openapi()


def ref(model: type[BaseModel]) -> dict[str, Any]:
    """Return the reference to a model."""
    return {"$ref": _REF.format(model=model.__name__)}


def describe_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return the body of a request in OpenAPI; its route parses it itself."""
    content = {"application/json": {"schema": ref(model)}}
    return {"requestBody": {"required": True, "content": content}}


def header(name: str, description: str, form: str) -> dict[str, Any]:
    """Return the description of a response's header."""
    return {name: {"description": description, "required": True, "schema": {"type": form}}}


def problem_responses(*kinds: Kind) -> Responses:
    """Return the responses of some kinds of problems, by their status."""
    found: Responses = {}
    for status in sorted({kind.status for kind in kinds}):
        titles = [kind.title for kind in kinds if kind.status == status]
        found[status] = {
            "description": "; or: ".join(titles) + ".",
            "content": {MEDIA_TYPE: {"schema": ref(ProblemOut)}},
        }
        if status in _HEADERS:
            found[status]["headers"] = header(*_HEADERS[status])
    return found
