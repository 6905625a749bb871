"""Tokens, where to listen without them, and headers."""

from __future__ import annotations

import pytest

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.service.http.tokens import Tokens, check_binding, is_loopback
from tests.service.http.driver import Driver, drive, exchange, problem_of

_READ, _WRITE = "r" * 16, "w" * 16
_BOTH = Tokens(_READ, _WRITE)


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_each_scope_has_its_token() -> None:
    """None: 401 with a challenge; the other one: 403; an unknown one: 401."""

    async def use(driver: Driver) -> None:
        delete = driver.client.delete
        bare = await delete("/passages/1")
        assert (401, "no-token") == problem_of(bare)
        assert bare.headers["www-authenticate"].startswith("Bearer ")
        wrong = await delete("/passages/1", headers=_bearer(_READ))
        assert (403, "wrong-token") == problem_of(wrong)
        assert 'error="insufficient_scope"' in wrong.headers["www-authenticate"]
        assert (401, "no-token") == problem_of(await delete("/passages/1", headers=_bearer("x")))
        assert 202 == (await delete("/passages/1", headers=_bearer(_WRITE))).status_code
        for token in (_READ, _WRITE):
            found = await driver.client.get("/batches/b-1", headers=_bearer(token))
            assert 200 == found.status_code
        assert 401 == (await driver.client.get("/metrics")).status_code
        assert 200 == (await driver.client.get("/healthz")).status_code

    drive(use, tokens=_BOTH)


def test_without_a_token_nothing_else_is_told() -> None:
    """Not whether the parameters would do, nor whether there is such a batch."""

    async def use(driver: Driver) -> None:
        assert (401, "no-token") == problem_of(
            await driver.client.delete("/passages/1?wait=perhaps")
        )
        assert (401, "no-token") == problem_of(await driver.client.post("/search", content=b"{"))
        assert (401, "no-token") == problem_of(await driver.client.get("/batches/b-1"))

    drive(use, tokens=_BOTH)


@pytest.mark.parametrize(
    "host", ["a.example", "[::1].a", "localhost.a", "127.0.0.1.a", "localhost:80:80", "[]"]
)
def test_without_tokens_another_host_is_refused(host: str) -> None:
    """A page of another site reaches the port under its own name; only the whole name counts."""
    answer = exchange("GET", "/batches/b-1", headers={"host": host})
    assert (421, "misdirected") == problem_of(answer)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.0.1", "example.org"])  # noqa: S104
def test_without_tokens_it_listens_on_loopback_only(host: str) -> None:
    """The error says what to set; with both tokens any host will do."""
    assert not is_loopback(host)
    with pytest.raises(UsageError, match="MSMARCO_QDRANT_WRITE_TOKEN"):
        check_binding(host, Tokens(read=_READ))
    check_binding(host, _BOTH)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "127.9.9.9"])
def test_loopback_needs_no_token(host: str) -> None:
    """Whatever it is called."""
    check_binding(host, Tokens())


@pytest.mark.parametrize("token", ["short", "with spaces in between", "ü" * 20])
def test_an_unusable_token_is_refused_and_not_shown(token: str) -> None:
    """Neither in the error nor in the repr of good ones."""
    with pytest.raises(UsageError) as caught:
        Tokens(read=token)
    assert token not in str(caught.value)
    assert _READ not in repr(_BOTH)


def test_every_answer_has_the_headers() -> None:
    """A page, a refusal, an answer."""

    async def use(driver: Driver) -> None:
        for path, kept in (
            ("/", "no-cache"),
            ("/nothing", "no-store"),
            ("/healthz", "no-store"),
            ("/passages/1", "no-store"),
            ("/openapi.json", "no-store"),
        ):
            headers = (await driver.client.get(path)).headers
            assert headers["content-security-policy"].startswith("default-src 'self';")
            assert "unsafe" not in headers["content-security-policy"]
            assert ("nosniff", "no-referrer", kept) == (
                headers["x-content-type-options"],
                headers["referrer-policy"],
                headers["cache-control"],
            )

    drive(use)
