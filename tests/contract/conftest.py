"""The stores that the contract runs over."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from msmarco_qdrant.errors import CollectionNotFoundError
from msmarco_qdrant.stores import Connection, Store, open_store
from tests.loopback import LoopbackServer

OpenStore = Callable[[], Store]
ENGINES = ("edge", "memory", "loopback", "server")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine in turn; a real server only where `QDRANT_URL` says one."""
    name: str = request.param
    if name == "server" and "QDRANT_URL" not in os.environ:
        pytest.skip("no Qdrant server: set QDRANT_URL (and QDRANT_API_KEY)")
    return name


@pytest.fixture
def open_again(engine: str, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens another handle on the store under test."""
    with ExitStack() as stack:
        if engine == "edge":
            yield lambda: open_store(tmp_path / "store", create=True)
        elif engine == "memory":
            yield lambda: open_store(":memory:", create=True)
        elif engine == "loopback":
            server = stack.enter_context(LoopbackServer())
            yield lambda: open_store(server.url, create=True)
        else:
            connection = Connection(api_key=os.environ.get("QDRANT_API_KEY"))
            url = os.environ["QDRANT_URL"]
            yield lambda: open_store(url, create=True, connection=connection)


@pytest.fixture
def things() -> str:
    """A collection's name that no other test and no other run uses."""
    return f"things-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def store(open_again: OpenStore, things: str) -> Iterator[Store]:
    """A store; what a test makes there under the name `things` is removed from a real server."""
    with closing(open_again()) as opened:
        yield opened
    with closing(open_again()) as again:
        for number in (1, 2):
            with suppress(CollectionNotFoundError):
                again.drop_collection(f"{things}__{number:04}")
