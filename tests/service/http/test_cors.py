"""Pages of other sites: which of them a browser lets use the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.service.http.tokens import Tokens
from msmarco_qdrant.service.settings import SidecarSettings
from tests.service.http.driver import exchange

_OURS, _OTHER = "https://app.example.com", "https://other.example.com"
_TOKENS: dict[str, Any] = {"read_token": "r" * 16, "write_token": "w" * 16}


def _preflight(origin: str, origins: list[str], path: str = "/search") -> httpx.Response:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,mcp-protocol-version",
    }
    return exchange("OPTIONS", path, headers=headers, app={"origins": origins})


def test_a_named_site_may_use_the_api() -> None:
    """Its preflight is allowed with the token's header, and it can read an answer and a refusal."""
    allowed = _preflight(_OURS, [_OURS])
    assert 200 == allowed.status_code
    assert _OURS == allowed.headers["access-control-allow-origin"]
    assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
    for tokens, status in ((Tokens(), 200), (Tokens("r" * 16, "w" * 16), 401)):
        app = {"origins": [_OURS], "tokens": tokens}
        answer = exchange("GET", "/status", headers={"origin": _OURS}, app=app)
        assert (status, _OURS) == (
            answer.status_code,
            answer.headers["access-control-allow-origin"],
        )
        assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
        assert "Origin" in answer.headers["vary"]


@pytest.mark.slow
@pytest.mark.parametrize("origins", [[], [_OURS]])
def test_another_site_may_not(origins: list[str]) -> None:
    """Neither without the setting nor if it names others; the page of the sidecar works."""
    refused = _preflight(_OTHER, origins)
    assert refused.status_code in {400, 405}
    answer = exchange("GET", "/status", headers={"origin": _OTHER}, app={"origins": origins})
    assert 200 == answer.status_code
    assert "access-control-allow-origin" not in {*refused.headers, *answer.headers}
    assert "same-origin" == answer.headers["cross-origin-resource-policy"]


def test_the_setting_names_origins(tmp_path: Path) -> None:
    """With commas between several; "*" needs both tokens, as any site could write otherwise."""
    place: dict[str, Any] = {"store": str(tmp_path / "store"), "spool": tmp_path / "spool"}
    given = f"{_OURS}, http://localhost:3000"
    settings = SidecarSettings(**place, cors_origins=given)
    settings.check()
    assert [_OURS, "http://localhost:3000"] == settings.origins
    SidecarSettings(**place, cors_origins="*", **_TOKENS).check()
    assert [] == SidecarSettings(**place).origins
    with pytest.raises(UsageError, match="set both tokens, or name them"):
        SidecarSettings(**place, cors_origins="*").check()


@pytest.mark.parametrize(
    "origin",
    [
        "app.example.com",
        f"{_OURS}/",
        f"{_OURS}/page",
        "https://App.example.com",
        f"{_OURS}:443",
        "null",
        "ftp://a",
    ],
)
def test_what_is_not_an_origin_is_refused(tmp_path: Path, origin: str) -> None:
    """The error shows the form."""
    settings = SidecarSettings(
        store=str(tmp_path / "store"), spool=tmp_path / "spool", cors_origins=origin
    )
    with pytest.raises(UsageError, match=r"such as https://app\.example\.com"):
        settings.check()
