"""Errors that go from one process to another."""

from __future__ import annotations

import copy
import importlib
import inspect
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.core.reports import EncodeReport, IngestReport
from msmarco_qdrant.errors import PruneRefusedError, StoreError
from msmarco_qdrant.service.http.problems import INVALID
from tests.test_public import module_names

REPORT = IngestReport(5, 3, 1, 1, 3, 0.5)
_VALUES: dict[str, Any] = {  # an argument of each annotation
    "str": "a text",
    "bytes": b"a note",
    "float": 0.5,
    "Path": Path("a"),
    "Kind": INVALID,
    "Mapping[str, str]": {"Retry-After": "1"},
    "Mapping[str, object]": {"errors": []},
    "IngestReport": REPORT,
    "EncodeReport": EncodeReport(5, 3, 1, 1, 2, 70, 0.5),
}


def _error_classes() -> list[type[Exception]]:
    """Return all errors of the package, wherever they are defined; adapters define none."""
    found = set()
    for name in module_names():
        for value in vars(importlib.import_module(name)).values():
            if (
                isinstance(value, type)
                and issubclass(value, Exception)
                and value.__module__ == name
                and "click" not in str(value.__mro__)  # the command line's, printed at once
            ):
                found.add(value)
    return sorted(found, key=lambda kind: (kind.__module__, kind.__name__))


def _make(kind: type[Exception]) -> Exception:
    """Make an error with an argument for each parameter of its class."""
    if not inspect.isfunction(kind.__init__):  # that of Exception, OSError or another built in
        return kind("a text")
    parameters = [*inspect.signature(kind.__init__).parameters.values()][1:]
    annotations = [one.annotation for one in parameters if one.kind != one.VAR_KEYWORD]
    return kind(*(_VALUES[str(name)] for name in annotations))


def _pickled(error: Any) -> Any:
    return pickle.loads(pickle.dumps(error))  # noqa: S301  # made in this process


def _parts(error: BaseException) -> tuple[Any, ...]:
    fields = {name: getattr(error, name) for name in getattr(type(error), "__slots__", ())}
    return type(error), str(error), error.args, error.__dict__, fields


@pytest.mark.parametrize("copied", [_pickled, copy.copy, copy.deepcopy])
def test_c9_every_error_survives(copied: Callable[[Exception], Exception]) -> None:
    """With its message, its attributes and its notes; a new class cannot be forgotten."""
    kinds = _error_classes()
    assert len(kinds) > 25
    for kind in kinds:
        error = _make(kind)
        error.add_note("in shard 3")
        found = copied(error)

        assert _parts(error) == _parts(found)
        assert ["in shard 3"] == found.__notes__


def test_c9_cause_survives_if_it_can() -> None:
    """One that cannot be pickled is left out; the error itself is not lost."""
    error = StoreError("away")
    error.__cause__ = ConnectionError("refused")
    found = _pickled(error)
    assert "ConnectionError('refused')" == repr(found.__cause__)
    assert found.__suppress_context__

    error.__cause__ = OSError(threading.Lock())
    assert None is _pickled(error).__cause__


def test_c9_group_of_errors_survives() -> None:
    """As a task group of asyncio raises it."""
    group = ExceptionGroup("both", [PruneRefusedError("refused", REPORT), StoreError("away")])
    found = _pickled(group)

    assert list(map(_parts, group.exceptions)) == list(map(_parts, found.exceptions))


def _refuse() -> None:
    raise PruneRefusedError("refused", REPORT)


@pytest.mark.slow
def test_c9_error_of_a_process_pool() -> None:
    """The caller gets the report, and the pool goes on."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for _ in range(2):
            with pytest.raises(PruneRefusedError, match="refused") as caught:
                pool.submit(_refuse).result()
            assert REPORT == caught.value.report
