"""A whole sidecar in a thread of the test, over models that cost nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.service.settings import SidecarSettings
from msmarco_qdrant.service.sidecar import Mount, Sidecar
from msmarco_qdrant.service.startup import ModelSource
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker

TIMEOUT_S = 60.0
_PAUSE_S = 0.05
_T = TypeVar("_T")


@dataclass
class CountedModels:
    """Models that cost nothing; how often each was loaded."""

    encoders: tuple[HashingEncoder, ...] = (HashingEncoder(),)
    loaded: list[str] = field(default_factory=list)
    let: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.let.set()

    def new(self) -> Encoder:
        """The first of them."""
        return self.of(self.encoders[0].info)

    def of(self, encoder_info: EncoderInfo) -> Encoder:
        """The one of that card, once it may be loaded."""
        self.let.wait(TIMEOUT_S)
        self.loaded.append(encoder_info.model)
        return next(
            one for one in self.encoders if one.info.fingerprint == encoder_info.fingerprint
        )

    def reranker(self) -> Reranker | None:
        """One that costs nothing, too."""
        return WordOverlapReranker()


def settings_in(folder: Path, store: str | None = None, **more: Any) -> SidecarSettings:
    """A sidecar's settings: a spool in a folder, and a store there if none is given."""
    return SidecarSettings(
        store=store or str(folder / "store"),
        spool=folder / "spool",
        port=0,
        timeout_s=5.0,
        retry_s=0.5,
        **more,
    )


@contextmanager
def sidecar_client(
    settings: SidecarSettings, models: ModelSource | None = None, mounts: Sequence[Mount] = ()
) -> Iterator[httpx.Client]:
    """A sidecar that runs meanwhile, and a client that asks it."""
    url: Future[str] = Future()
    sidecar = Sidecar(
        settings, models or CountedModels(), on_listening=url.set_result, mounts=mounts
    )
    stop: list[Any] = []

    async def main() -> None:
        task = asyncio.create_task(sidecar.run())
        stop.extend((asyncio.get_running_loop(), task))
        with suppress(asyncio.CancelledError):
            await task

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as exc:  # noqa: BLE001  # raised where it is waited for
            end.set_exception(exc)
            if not url.done():
                url.set_exception(exc)
        else:
            end.set_result(None)

    end: Future[None] = Future()
    thread = threading.Thread(target=run, name="sidecar")
    thread.start()
    try:
        with httpx.Client(base_url=url.result(TIMEOUT_S), timeout=TIMEOUT_S) as client:
            yield client
    finally:
        if not end.done():
            loop, task = stop
            loop.call_soon_threadsafe(task.cancel)
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
        end.result(0)


def put(client: httpx.Client, *passages: dict[str, Any]) -> dict[str, Any]:
    """Post passages; what their batch did, once they are searchable."""
    answer = client.post("/passages", params={"wait": True}, json=list(passages))
    return ended(client, answer)


def ended(client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    """What a batch did, asked for until it has ended, however long that takes."""
    batch = answer.json()["batch"]

    def state() -> dict[str, Any] | None:
        answer = client.get(f"/batches/{batch}")
        assert 200 == answer.status_code, answer.text
        told: dict[str, Any] = answer.json()
        return told if told["state"] in ("done", "failed") else None

    return asked_until(state)


def pids_of(client: httpx.Client, query: str, **options: Any) -> list[str]:
    """What a search finds, the best first."""
    answer = client.post("/search", json={"query": query, **options})
    assert 200 == answer.status_code, answer.text
    return [hit["pid"] for hit in answer.json()["hits"]]


def wait_until_ready(client: httpx.Client) -> dict[str, Any]:
    """Ask `/readyz` until it says yes."""

    def ready() -> dict[str, Any] | None:
        answer = client.get("/readyz")
        told: dict[str, Any] = answer.json()
        return told if 200 == answer.status_code else None

    return asked_until(ready)


def asked_until(ask: Callable[[], _T | None]) -> _T:
    """What somebody answers in the end who cannot tell when; the test's own limit ends it."""
    while (answer := ask()) is None:
        time.sleep(_PAUSE_S)  # or asking would take the time that it needs
    return answer
