"""The OpenAPI description: schemathesis finds no answer that it does not describe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.service.http.limits import Limits
from msmarco_qdrant.service.http.tokens import Tokens
from msmarco_qdrant.service.interfaces import COUNTS
from tests.service.http.driver import Driver, drive
from tests.service.real_parts import OpenedApp, traces

schemathesis = pytest.importorskip("schemathesis", reason="the extra 'dev' is not installed")

_READ, _WRITE = "r" * 16, "w" * 16
_HOST = {"Host": "localhost"}
_CONFIG: Mapping[str, Any] = {
    "seed": 7,
    "headers": _HOST,
    "generation": {"deterministic": True, "max-examples": 8, "database": "none"},
    "phases": {"stateful": {"max-steps": 4}},
    "cache": {"enabled": False},
    # What a schema cannot say is refused with 422: a moment that is none, words nobody can search.
    "checks": {
        "positive_data_acceptance": {
            "expected-statuses": ["2xx", "401", "403", "404", "422", "429"],
        },
        # 413: what is too long for its field may be too large for a body
        "negative_data_rejection": {
            "expected-statuses": ["400", "401", "404", "405", "413", "415", "422", "429", "503"],
        },
    },
}


def _found(app: OpenedApp, **config: object) -> tuple[list[str], Counter[str]]:
    """What schemathesis objects to, and how often each operation was answered how."""
    from schemathesis.config import SchemathesisConfig
    from schemathesis.engine import from_schema
    from schemathesis.engine.events import ScenarioFinished
    from schemathesis.python import asgi

    settings = SchemathesisConfig.from_dict({**_CONFIG, **config})
    objections: list[str] = []
    answers: Counter[str] = Counter()
    try:
        schema = schemathesis.openapi.from_asgi(
            "/openapi.json", app, config=settings, headers=_HOST
        )
        for event in from_schema(schema).execute():
            objections += _faults(event)
            if isinstance(event, ScenarioFinished):
                answers.update(_answers(event.recorder))
    finally:
        asgi.shutdown_lifespans()
    return objections, answers


def _faults(event: Any) -> Iterator[str]:
    from schemathesis.engine import Status
    from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished

    if isinstance(event, FatalError):
        yield repr(event.exception)
    elif isinstance(event, NonFatalError):
        yield f"{event.label}: {event.value!r}"
    elif isinstance(event, ScenarioFinished):
        for case_id, checks in event.recorder.checks.items():
            case = event.recorder.cases[case_id].value
            for check in checks:
                if check.status is Status.FAILURE and check.failure_info is not None:
                    failure = check.failure_info.failure
                    yield (
                        f"{case.method} {case.path} {case.query} {case.body!r:.300}: {check.name}: "
                        f"{failure.title}: {failure.message}"
                    )


def _answers(recorder: Any) -> Iterator[str]:
    for case_id, interaction in recorder.interactions.items():
        operation = recorder.cases[case_id].value.operation.label
        if interaction.response is not None:
            yield f"{operation} {interaction.response.status_code}"


def _describe(description: dict[str, Any]) -> None:
    """Drop a bound that takes minutes to try (100,000 characters); add an example to try."""
    text = description["components"]["schemas"]["PassageIn"]["properties"]["text"]
    assert 100_000 == text.pop("maxLength")
    (batch,) = description["paths"]["/batches/{batch}"]["get"]["parameters"]
    batch["example"] = "0" * 32


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(0, marks=pytest.mark.slow),
        *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 11)),
    ],
)
def test_every_answer_is_as_described(tmp_path: Path, seed: int) -> None:
    """All routes over real parts: no 5xx; status, type, schema, headers, methods as described.

    It takes some 35 s of processor time: the bounds of every schema are tried, a seed's examples of
    it, and sequences of calls.
    """
    objections, answers = _found(OpenedApp(tmp_path, describe=_describe), seed=seed)
    assert [] == objections
    expected = {
        "POST /passages 202",
        "POST /passages 200",
        "POST /passages 422",
        "POST /passages 405",
        "DELETE /passages/{pid} 202",
        "DELETE /passages/{pid} 200",
        "GET /batches/{batch} 200",
        "GET /batches/{batch} 404",
        "POST /search 200",
        "POST /search 422",
        "GET /healthz 200",
        "GET /readyz 200",
        "GET /metrics 200",
    }
    assert set() == expected - set(answers)
    assert ["spool"] == sorted({path.partition("/")[0] for path in traces(tmp_path)})


@pytest.mark.slow
def test_with_tokens_nothing_is_answered_without(tmp_path: Path) -> None:
    """With both tokens, each operation takes its own, and refuses none and a wrong one.

    The bounds of the schemas are those of the test above; here two requests of each show it.
    """
    bearers = {"readToken": {"bearer": _READ}, "writeToken": {"bearer": _WRITE}}
    objections, answers = _found(
        OpenedApp(tmp_path, tokens=Tokens(_READ, _WRITE), describe=_describe),
        auth={"openapi": bearers},
        generation={**_CONFIG["generation"], "max-examples": 2},
        phases={"coverage": {"enabled": False}, "stateful": {"enabled": False}},
    )
    assert [] == objections
    assert {"POST /search 200", "POST /passages 202", "GET /metrics 401"} <= set(answers)


def test_the_limits_are_described() -> None:
    """As they were set, so that a client need not find them out; and all that is counted."""

    async def use(driver: Driver) -> None:
        described = (await driver.client.get("/openapi.json")).json()
        body = described["paths"]["/passages"]["post"]["requestBody"]
        assert 10_000 == body["content"]["application/json"]["schema"]["maxItems"]
        assert "At most 10,000 passages, and 12 bytes" in body["description"]
        schemas = described["components"]["schemas"]
        passage = schemas["PassageIn"]["properties"]
        assert 1_024 == passage["pid"]["anyOf"][0]["maxLength"]
        assert 100_000 == passage["text"]["maxLength"]
        assert set(COUNTS) <= set(schemas["BatchOut"]["required"])
        search = schemas["SearchIn"]["properties"]
        assert (2_000, 64) == (
            search["query"]["anyOf"][0]["maxLength"],
            search["queries"]["anyOf"][0]["maxItems"],
        )
        assert 2_000 == search["queries"]["anyOf"][0]["items"]["maxLength"]
        assert 1_000 == search["limit"]["maximum"]

    drive(use, limits=Limits(body_bytes=12))
