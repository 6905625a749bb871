"""Tokens of tenants: each reads its own passages, and no other route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from msmarco_qdrant import AsyncSearchClient
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.tenants import set_tenant_field
from msmarco_qdrant.service.http.app import create_app
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.limits import Limits
from msmarco_qdrant.service.http.tokens import Tokens
from msmarco_qdrant.service.metrics import Metrics
from msmarco_qdrant.service.settings import SidecarSettings
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.contract.test_tenants import TENANTS, tenant_passages
from tests.service.http.driver import GivenChecks, KeepingIngester, problem_of

_READ, _WRITE = "read-" * 8, "write-" * 8
_OWN = {tenant: f"{tenant}-token-" * 4 for tenant in TENANTS}
_WORDS = ("city", "river", "bridge", "market", "castle", "garden", "harbor", "tower")


@asynccontextmanager
async def _served(place: Path, count: int) -> AsyncIterator[httpx.AsyncClient]:
    """The app on so many passages of both tenants."""
    with closing(open_store(place, create=True)) as store:
        ingest_passages(
            tenant_passages(count),
            store,
            encoder=HashingEncoder(),
            payload_indexes={"year": "integer", "lang": "keyword"},
        )
        set_tenant_field(store, "msmarco", "customer")
        async with await AsyncSearchClient.open(store, encoder=HashingEncoder()) as client:
            ingester = KeepingIngester()
            app = create_app(
                AppDependencies(
                    ingester,
                    lambda: client,
                    GivenChecks(),
                    Metrics(ingester.backlog),
                    Tokens(_READ, _WRITE, _OWN),
                    Limits(search_s=60),
                )
            )
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                yield http


def _with(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_token_reads_its_tenant(tmp_path: Path) -> None:
    """Without naming it; another one, and routes of the operator, are refused."""

    async def main() -> None:
        async with _served(tmp_path, 40) as http:
            for tenant, token in _OWN.items():
                for body in ({}, {"tenant": tenant}):
                    answer = await http.post("/count", json=body, headers=_with(token))
                    assert {"count": 20} == answer.json()
                other = next(one for one in TENANTS if one != tenant)
                for path, body in (("/count", {}), ("/search", {"query": "castle"})):
                    answer = await http.post(
                        path, json={**body, "tenant": other}, headers=_with(token)
                    )
                    assert 403 == answer.status_code
                first = 1 if other == "beta" else 0
                answer = await http.get(f"/passages/{other}-{first}", headers=_with(token))
                assert 404 == answer.status_code
                for path in ("/status", "/metrics", "/batches"):
                    assert 403 == (await http.get(path, headers=_with(token))).status_code
                answer = await http.post("/passages", json={"passages": []}, headers=_with(token))
                assert 403 == answer.status_code
            answer = await http.post("/count", json={"tenant": "acme"}, headers=_with(_READ))
            assert {"count": 20} == answer.json()
            answer = await http.get(
                "/passages/beta-1", params={"tenant": "beta"}, headers=_with(_READ)
            )
            assert "beta-1" == answer.json()["pid"]
            answer = await http.post("/count", json={}, headers=_with(_READ))
            assert (422, "invalid") == problem_of(answer)
            assert 401 == (await http.post("/count", json={}, headers=_with("x" * 20))).status_code

    asyncio.run(main())


_REQUESTS: Mapping[str, Callable[[Random], dict[str, Any]]] = {
    "/search": lambda random: {
        "query": " ".join(random.choices(_WORDS, k=3)),
        "mode": random.choice(["dense", "bm25", "hybrid"]),
        "limit": random.randint(1, 50),
        "offset": random.choice([0, 0, 20]),
        **random.choice(
            [
                {},
                {"filter": {"year": {"gte": random.randint(1999, 2009)}}},
                {"filter": {"customer": {"not": random.choice(TENANTS)}}},
                {"filter": {"lang": [f"{one}-en" for one in TENANTS]}},
                {"group_by": "lang"},
            ]
        ),
    },
    "/similar": lambda random: {"text": " ".join(random.choices(_WORDS, k=3)), "limit": 20},
    "/facets": lambda random: {"field": random.choice(["lang", "customer"]), "limit": 50},
    "/scroll": lambda random: {"limit": 40, "order_by": random.choice([None, "year", "-year"])},
    "/rank": lambda random: {
        "query": random.choice(_WORDS),
        "pids": [f"{one}-{random.randint(0, 99)}" for one in TENANTS for _ in range(9)],
        "mode": random.choice(["dense", "bm25", "hybrid"]),
    },
}


async def _ask_at_random(http: httpx.AsyncClient, requests: int) -> None:
    random = Random(11)
    cursors: dict[str, dict[str, Any]] = {}
    for _ in range(requests):
        tenant = random.choice(TENANTS)
        other = next(one for one in TENANTS if one != tenant)
        path = random.choice([*_REQUESTS, "/search", "/search"])
        body = {name: value for name, value in _REQUESTS[path](random).items() if value is not None}
        if path == "/search" and tenant in cursors and random.random() < 0.3:
            body = cursors.pop(tenant)
        answer = await http.post(path, json=body, headers=_with(_OWN[tenant]))
        assert 200 == answer.status_code, answer.text
        assert other not in answer.text.replace(f'"{other}-en"', ""), (path, body)
        cursor = answer.json().get("cursor") if path == "/search" else None
        if cursor is not None:
            body.pop("offset", None)
            cursors[tenant] = {**body, "cursor": cursor}


@pytest.mark.parametrize(
    ("passages", "requests"),
    [
        (60, 60),
        pytest.param(2_000, 200, marks=pytest.mark.slow),
        pytest.param(10_000, 300, marks=pytest.mark.soak),
    ],
)
def test_random_requests_never_show_the_other_tenant(
    tmp_path: Path, passages: int, requests: int
) -> None:
    """Searches, filters, pages, facets, scrolls, rankings and similars, with either token."""

    async def main() -> None:
        async with _served(tmp_path, passages) as http:
            await _ask_at_random(http, requests)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("read", "given", "reason"),
    [
        (_READ, "acme", "the token of a tenant must be TENANT=TOKEN"),
        (_READ, "acme=short", "the token of a tenant must be TENANT=TOKEN"),
        (_READ, f"={'t' * 20}", "the token of a tenant must be TENANT=TOKEN"),
        (_READ, f"acme={_READ}", "must differ from each other and all others"),
        (_READ, f"acme={'t' * 20},acme={'u' * 20}", "one token per tenant, got 2 tokens for 1"),
        (None, f"acme={'t' * 20}", "need a read token and a write token, too"),
    ],
)
def test_invalid_tokens_are_refused(read: str | None, given: str, reason: str) -> None:
    """Without showing one."""
    values: dict[str, Any] = {"read_token": read, "write_token": _WRITE, "tenant_tokens": given}
    settings = SidecarSettings(**values)
    with pytest.raises(UsageError, match=reason) as caught:
        _ = settings.tokens
    assert given.rsplit("=", maxsplit=1)[-1] not in str(caught.value) or given == "acme"


def test_tokens_of_several_tenants() -> None:
    """A token may contain equals signs."""
    values: dict[str, Any] = {
        "read_token": _READ,
        "write_token": _WRITE,
        "tenant_tokens": f"acme={'a' * 20}==, beta={'b' * 20}",
    }
    settings = SidecarSettings(**values)
    assert {"acme": "a" * 20 + "==", "beta": "b" * 20} == settings.tokens.tenants
    assert {"a" * 20 + "==", "b" * 20} <= {*settings.secrets}
