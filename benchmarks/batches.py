"""Small batches at once: how fast a sidecar takes them, and has them searchable.

The real sidecar in a process of its own, over Qdrant Edge. Several connections post batches of ten
passages as fast as they are answered with 202; the time ends when the last batch is done. Once
with an encoder that costs nothing, so that the rest is seen, and once with the real model, beside
the rate of the encoder alone. At the end every passage is there, once, or the command fails.

    python benchmarks/batches.py [--passages 5000] [--connections 8] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
from harness import Report, Row, data_name, json_option, some_passages
from sidecar_load import sidecar, wait_until_ready

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.encoding import Encoder, load_encoder
from msmarco_qdrant.encoding.protocols import Reranker
from msmarco_qdrant.service.settings import SidecarSettings
from msmarco_qdrant.service.sidecar import Sidecar
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder

MODEL = "all-MiniLM-L6-v2"
EACH = 10
COSTLESS = "an encoder that costs nothing"
_POLL_S = 0.02
_TIMEOUT_S = 600.0
_STARTED_S = 60.0
PACKAGES = ("torch", "sentence-transformers", "qdrant-edge-py", "uvicorn", "fastapi")


class CostlessModels:
    """Models of a sidecar: one encoder that costs nothing."""

    def __init__(self) -> None:
        self._encoder = HashingEncoder(384)

    def new(self) -> Encoder:
        """Return the encoder."""
        return self._encoder

    def of(self, encoder_info: EncoderInfo) -> Encoder:  # noqa: ARG002  # there is one
        """Return the encoder."""
        return self._encoder

    def reranker(self) -> Reranker | None:
        """Return none."""
        return None


def serve(store: str, spool: str) -> None:
    """Run a sidecar with the costless encoder; print its URL."""
    settings = SidecarSettings(store=store, spool=Path(spool), port=0)
    listening = Sidecar(settings, CostlessModels(), on_listening=lambda url: print(url, flush=True))
    asyncio.run(listening.run())


@contextmanager
def costless_sidecar(store: str, folder: Path) -> Iterator[str]:
    """Run it in a process of its own, and yield its URL."""
    arguments = [sys.executable, __file__, "--serve", store, str(folder / "spool")]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    if process.stdout is None:
        raise RuntimeError("no pipe")
    with process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait(_STARTED_S)


def post_all(url: str, passages: Sequence[tuple[str, str]], connections: int) -> list[float]:
    """Post every batch and wait until all are done; return the seconds of each post, and of all.

    By the standard library's client, as another one takes more of the two cores than the sidecar.
    """
    bodies = iter(
        [
            json.dumps([{"pid": pid, "text": text} for pid, text in passages[at : at + EACH]])
            for at in range(0, len(passages), EACH)
        ]
    )
    posts: list[float] = []
    lock = threading.Lock()

    def post() -> None:
        connection = HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)
        while (body := _next(bodies, lock)) is not None:
            began = time.perf_counter()
            if _send(connection, "POST", "/passages", body)[0] != HTTPStatus.ACCEPTED:
                raise RuntimeError("a batch was refused")
            posts.append(time.perf_counter() - began)

    begin = time.perf_counter()
    with ThreadPoolExecutor(connections) as threads:
        for done in [threads.submit(post) for _ in range(connections)]:
            done.result()
    connection = HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)
    while json.loads(_send(connection, "GET", "/status")[1])["spool"]["batches"]:
        time.sleep(_POLL_S)
    return [*posts, time.perf_counter() - begin]


def _next(bodies: Iterator[str], lock: threading.Lock) -> str | None:
    with lock:
        return next(bodies, None)


def _send(
    connection: HTTPConnection, method: str, path: str, body: str | None = None
) -> tuple[int, bytes]:
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def measure(
    passages: Sequence[tuple[str, str]], connections: int, model: str | None
) -> list[float]:
    """Run one sidecar; check that every passage is there, once."""
    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name), str(Path(name) / "store")
        running = (
            costless_sidecar(store, folder) if model is None else sidecar(store, folder, model)
        )
        with running as url:
            wait_until_ready(url)
            first = httpx.post(
                f"{url}/passages?wait=true", json=[{"pid": "first", "text": "the first of all"}]
            )
            first.raise_for_status()
            seconds = post_all(url, passages, connections)
        with closing(open_store(store)) as opened:
            found = [payload["pid"] for _, payload in opened.collection("msmarco").scan(["pid"])]
    if sorted(found) != sorted(["first", *(pid for pid, _ in passages)]):
        sys.exit(f"{len(found)} passages are there, {len(passages) + 1} were accepted")
    return seconds


def encoder_rate(texts: Sequence[str]) -> float:
    """Passages per second of the encoder alone."""
    encoder = load_encoder(MODEL)
    encoder.encode(texts[:64])
    begin = time.perf_counter()
    encoder.encode(texts)
    return len(texts) / (time.perf_counter() - begin)


def row(name: str, runs: Sequence[tuple[list[float], float | None]], count: int) -> Row:
    """Medians over the rounds of one encoder."""
    rates = [count / seconds[-1] for seconds, _ in runs]
    alone = [rate for _, rate in runs if rate is not None]
    shares = [rate / own for rate, own in zip(rates, alone, strict=False)]
    posts = [1000 * post for seconds, _ in runs for post in seconds[:-1]]
    cells = (
        name,
        f"{np.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})",
        f"{np.median(alone):,.0f}" if alone else "-",
        f"{np.median(shares):.0%}" if shares else "-",
        f"{np.median(posts):.1f}",
        f"{np.percentile(posts, 99):.1f}",
    )
    return Row(cells, [[*map(float, seconds)] for seconds, _ in runs])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, default=5000, metavar="N", help="of each run")
    parser.add_argument("--connections", type=int, default=8, metavar="N", help="that post")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of both encoders")
    parser.add_argument("--serve", nargs=2, metavar=("STORE", "SPOOL"), help=argparse.SUPPRESS)
    json_option(parser)
    given = parser.parse_args()
    if given.serve:
        serve(*given.serve)
        return
    report = Report(given.json, PACKAGES)
    passages = some_passages(given.passages)
    runs: dict[str, list[tuple[list[float], float | None]]] = {COSTLESS: [], MODEL: []}
    for _ in range(given.rounds):
        runs[COSTLESS].append((measure(passages, given.connections, None), None))
        alone = encoder_rate([text for _, text in passages])
        runs[MODEL].append((measure(passages, given.connections, MODEL), alone))
    print(f"{len(passages):,} {data_name()} in batches of {EACH}\n")
    report.table(
        (
            "encoder",
            "passages/s until all are searchable, median (range)",
            "encoder alone, passages/s",
            "share",
            "post, median ms",
            "post, p99 ms",
        ),
        [row(name, found, len(passages)) for name, found in runs.items()],
    )


if __name__ == "__main__":
    main()
