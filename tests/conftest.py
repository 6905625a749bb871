"""Fixtures that many tests share. Importing this imports neither torch nor an engine."""

from __future__ import annotations

import gc
import itertools
import os
import re
import shutil
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.testing import HashingEncoder

if TYPE_CHECKING:
    from tests.loopback import LoopbackServer

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# The examples are the same in every run, so a failure repeats. `--hypothesis-profile=explore`
# searches for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parent.parent
_DATA_BESIDE = ROOT.parent / "shared" / "data"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage while tests are collected: what is imported stays for the whole run.

    Looking through it took a tenth of the time, and a second at the end of each worker.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Restore SIGINT, which processes in the background of a shell ignore."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def injected_processor() -> Iterator[None]:
    """Run all tests as on another processor, if MSMARCO_QDRANT_TEST_PROCESSOR names one.

    It is amx, avx512_bf16, avx2 or arm (not x86); see `tests.processors`. Programs that tests
    start run on the real processor.
    """
    if not (name := os.environ.get("MSMARCO_QDRANT_TEST_PROCESSOR")):
        yield
        return
    from tests.processors import use_processor

    with use_processor(name):
        yield


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that makes a new directory, whose name starts as given.

    `mktemp` lists all earlier directories to find the next number: 8 ms of processor time after
    2,500 tests.
    """
    base, numbers = tmp_path_factory.mktemp("tests"), itertools.count()

    def make(name: str) -> Path:
        folder = base / f"{name}{next(numbers)}"
        folder.mkdir(mode=0o700)
        return folder

    return make


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, make_folder: Callable[[str], Path]) -> Iterator[Path]:
    """An empty directory, named after the test, in place of pytest's.

    It stays if the test fails. The stores of all tests would fill a small disk.
    """
    failed = request.session.testsfailed
    folder = make_folder(re.sub(r"\W", "_", request.node.name)[:30])
    yield folder
    if request.session.testsfailed == failed:
        # A program that the test killed may have a child that still writes.
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def isolated_settings(monkeypatch: pytest.MonkeyPatch, make_folder: Callable[[str], Path]) -> None:
    """No test depends on the environment variables of a user or a `.env` in the checkout."""
    monkeypatch.chdir(make_folder("current"))
    for name in list(os.environ):
        if name.startswith("MSMARCO_QDRANT_") and name != "MSMARCO_QDRANT_DATA":
            monkeypatch.delenv(name)


@pytest.fixture
def encoder() -> HashingEncoder:
    """An encoder without a model; common words give similar vectors."""
    return HashingEncoder()


@pytest.fixture(scope="session")
def passages() -> Sequence[Passage]:
    """Five passages with meta of several types."""
    return [
        Passage("1", "london is a big city", {"lang": "en", "year": 2001, "score": 1.5}),
        Passage("2", "paris is a city in france", {"lang": "fr", "year": 2002, "live": True}),
        Passage("007", "a spy likes cocktails", {"lang": "en", "tags": ["film", "book"]}),
        Passage("b6c0e8a2-0d7e-4f43-b4d2-7d2f1a8f1d2c", "berlin is a city in germany"),
        Passage("18446744073709551616", "numbers beyond 64 bits are strings"),
    ]


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """A running server."""
    from tests.loopback import LoopbackServer

    with LoopbackServer() as running:
        yield running


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder `msmarco-47k` of real MS MARCO passages, or a visible skip."""
    root = Path(os.environ.get("MSMARCO_QDRANT_DATA", _DATA_BESIDE))
    folder = root / "msmarco-47k"
    if not folder.is_dir():
        pytest.skip(f"no real MS MARCO data at {folder}: set MSMARCO_QDRANT_DATA")
    return folder
