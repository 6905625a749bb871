"""The description of the HTTP interface: every response, problems and tokens included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from msmarco_qdrant.service.http import schemas
from msmarco_qdrant.service.http.problems import INSIDE, MEDIA_TYPE, TOO_SLOW, Kind
from msmarco_qdrant.service.interfaces import Limits

_REF: Final = "#/components/schemas/{model}"
_MODELS: Final[tuple[type[BaseModel], ...]] = (
    schemas.PassageIn,
    schemas.SearchIn,
    schemas.Accepted,
    schemas.BatchOut,
    schemas.HitsOut,
    schemas.HealthOut,
    schemas.ReadyOut,
    schemas.StatusOut,
    schemas.ProblemOut,
)
_CHALLENGE: Final = ("WWW-Authenticate", "How to authenticate.", "string")
_RETRY: Final = ("Retry-After", "Seconds after which to try again.", "integer")
_HEADERS: Final[Mapping[int, tuple[str, str, str]]] = {
    202: ("Location", "Where to ask how far it is.", "string"),
    401: _CHALLENGE,
    403: _CHALLENGE,
    429: _RETRY,
    503: _RETRY,
}
_OF_ALL: Final = (INSIDE, TOO_SLOW)


class DescribedApp(FastAPI):
    """An app whose description holds the package's own types and ways to authenticate.

    Args:
        security_schemes: Those ways, by name; without any, whoever reaches the port may ask.
        limits: How much a request may bring and ask for.
        settings: FastAPI's own.
    """

    def __init__(
        self,
        *,
        security_schemes: Mapping[str, Mapping[str, str]],
        limits: Limits,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._security_schemes = security_schemes
        self._limits = limits

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
            components["schemas"] = _schemas(self._limits)
            if self._security_schemes:
                components["securitySchemes"] = dict(self._security_schemes)
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
        kinds: The problems that it may tell, beside those that every route may.
    """
    kinds = tuple(dict.fromkeys((*kinds, *_OF_ALL)))
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
    for status, (name, told, form) in _HEADERS.items():
        if status in found:
            header = {"description": told, "required": True, "schema": {"type": form}}
            found[status]["headers"] = {name: header}
    return found


def _schemas(limits: Limits) -> dict[str, Any]:
    made = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF)
    definitions: dict[str, Any] = made[1]["$defs"]
    passage, search = (definitions[name]["properties"] for name in ("PassageIn", "SearchIn"))
    passage["pid"]["maxLength"] = limits.pid_chars
    passage["text"]["maxLength"] = limits.text_chars
    search["query"]["maxLength"] = limits.query_chars
    search["queries"]["maxItems"] = limits.queries
    search["queries"]["anyOf"][0]["items"]["maxLength"] = limits.query_chars
    search["limit"]["maximum"] = limits.limit
    return definitions
