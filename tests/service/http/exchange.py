"""One request to the app over small parts."""

from __future__ import annotations

from typing import Any

import httpx

from tests.service.http.driver import Driver, drive


def exchange(
    method: str, path: str, *, app: dict[str, Any] | None = None, **request: Any
) -> httpx.Response:
    """Return the answer to a request.

    Args:
        method: The method.
        path: The path.
        app: The parts of the app; see `drive`.
        request: The rest of the request; see `httpx.AsyncClient.request`.
    """

    async def use(driver: Driver) -> httpx.Response:
        return await driver.client.request(method, path, **request)

    return drive(use, **(app or {}))
