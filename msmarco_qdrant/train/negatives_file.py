"""Files of mined negatives, in the form of the published msmarco-hard-negatives.jsonl.gz.

Each line is ``{"qid": 1, "pos": [pid], "neg": {"system": [pid, ...]}}``: a query, the passages
that answer it, and candidates of each system, best first. The published file has integers as ids.
Here ids are strings; those that are the decimal form of an integer are written as integers.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.errors import SourceError, UsageError
from msmarco_qdrant.runtime.atomic_file import atomic_write
from msmarco_qdrant.sources.files import read_text
from msmarco_qdrant.train.records import MinedQuery

NEGATIVES_FILE = "negatives.jsonl.gz"
"""The file's name in a folder that `mine_negatives` or `choose_negatives` made."""

_FORM = '{"qid": 1, "pos": [2], "neg": {"system": [3, 4]}}'
_MAX_LINE_BYTES = 1 << 26
_SHOWN = 60
# JSON readers with 64-bit floats keep integers up to this length.
_INTEGER = re.compile(r"0|[1-9][0-9]{0,14}", re.ASCII)

_log = logging.getLogger(__name__)


def read_negatives(source: str | PathLike[str]) -> Iterator[MinedQuery]:
    """Yield the queries of a file of mined negatives, plain or compressed, in its order.

    A pid that a list repeats is returned once. A positive among the negatives is left out, and a
    warning counts these. Memory does not grow with the file, except for 13 bytes per query.

    Args:
        source: The file, or a folder with `negatives.jsonl.gz`.

    Raises:
        SourceError: For an unreadable or empty file, a line of another form, or a repeated qid.
    """
    name = _file_name(source)
    qids, left_out = PidSet(), 0
    for line in read_text(name, _MAX_LINE_BYTES):
        place = f"{name}:{line.number}"
        if line.problem is not None:
            raise SourceError(f"{place}: {line.problem}")
        if not line.data.strip():
            continue
        mined, positives = _parse(line.data, place)
        left_out += positives
        if not qids.add(mined.qid):
            raise SourceError(f"{place}: each query must have one line, got {mined.qid!r} again")
        yield mined
    if not len(qids):
        raise SourceError(f"{name} has no queries; expected lines such as {_FORM}")
    if left_out:
        _log.warning("%s: %s negatives are positives of their query: left out", name, left_out)


def write_negatives(path: str | PathLike[str], mined: Iterable[MinedQuery]) -> int:
    """Replace a file by mined negatives, atomically; as gzip if its name ends in .gz.

    The same queries give the same bytes.

    Returns:
        The number of queries.

    Raises:
        UsageError: For a repeated qid, an empty id, or a positive among the negatives.
        OutputError: If the file cannot be written.
    """
    target, qids = Path(path), PidSet()
    with atomic_write(target) as file:
        packed = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if target.suffix == ".gz" else None
        out = packed or file
        for one in mined:
            if not qids.add(one.qid):
                raise UsageError(f"each query needs its own qid, got {one.qid!r} twice")
            out.write(to_line(one))
        if packed is not None:
            packed.close()
    return len(qids)


def to_line(mined: MinedQuery) -> bytes:
    """Return the line of a query.

    Raises:
        UsageError: For an id that is not a non-empty string, or a positive among the negatives.
    """
    positives = set(mined.positives)
    for system, pids in mined.negatives.items():
        if not positives.isdisjoint(pids):
            both = next(pid for pid in pids if pid in positives)
            raise UsageError(
                f"negatives must not be positives, got {both!r} of {system!r} in both for query "
                f"{mined.qid!r}"
            )
    negatives = ",".join(
        f"{json.dumps(system)}:{_list_of(pids)}" for system, pids in mined.negatives.items()
    )
    line = f'{{"qid":{_to_json(mined.qid, "qid")},"pos":{_list_of(mined.positives)}'
    return f'{line},"neg":{{{negatives}}}}}\n'.encode()


def _list_of(pids: Sequence[str]) -> str:
    return f"[{','.join([_to_json(pid, 'pid') for pid in pids])}]"


def _file_name(source: str | PathLike[str]) -> str:
    """Return the file's name, also for the folder that has it."""
    path = Path(source)
    if not path.is_dir():
        return os.fspath(source)
    if not (path / NEGATIVES_FILE).is_file():
        raise SourceError(
            f"the folder {path} must hold {NEGATIVES_FILE}: run `mine` or `choose` until it ends, "
            "or pass a file"
        )
    return str(path / NEGATIVES_FILE)


def _parse(data: bytes, place: str) -> tuple[MinedQuery, int]:
    """Return the query of a line, and the number of positives left out of its negatives."""
    row = _object(data, place)
    qid = _to_id(row["qid"], "qid", place)
    positives = _to_pids(row["pos"], "pos", place)
    if not isinstance(row["neg"], dict):
        raise SourceError(
            f"{place}: neg must be an object with a list of pids by system, got "
            f"{_shorten(row['neg'])}; expected {_FORM}"
        )
    known, negatives, left_out = set(positives), {}, 0
    for system, given in row["neg"].items():
        pids = _to_pids(given, f"neg of {system!r}", place)
        negatives[system] = tuple(pid for pid in pids if pid not in known)
        left_out += len(pids) - len(negatives[system])
    return MinedQuery(qid, positives, negatives), left_out


def _object(data: bytes, place: str) -> Mapping[str, Any]:
    """Return the JSON object of a line, which has all fields."""
    try:
        row = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise SourceError(
            f"{place}: not JSON ({exc}): {_shorten(data.decode('utf-8', 'replace'))}; expected "
            f"{_FORM}"
        ) from exc
    missing = [
        name for name in ("qid", "pos", "neg") if not isinstance(row, dict) or name not in row
    ]
    if missing:
        raise SourceError(
            f"{place}: expected an object with qid, pos and neg, got {_shorten(row)}; such as "
            f"{_FORM}"
        )
    found: Mapping[str, Any] = row
    return found


def _to_pids(value: object, field: str, place: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise SourceError(f"{place}: {field} must be a list of pids, got {_shorten(value)}")
    return tuple(dict.fromkeys(_to_id(one, f"a pid in {field}", place) for one in value))


def _to_id(value: object, field: str, place: str) -> str:
    """Return an id as a string; an integer is its decimal form, as in an ingest."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer and (not isinstance(value, str) or not value):
        raise SourceError(
            f"{place}: {field} must be an integer or a non-empty string, got {_shorten(value)}"
        )
    return str(value)


def _to_json(name: str, kind: str) -> str:
    if not isinstance(name, str) or not name:
        raise UsageError(f"{kind} must be a non-empty string, got {name!r}")
    return _id_json(name)


@lru_cache(maxsize=1 << 16)
def _id_json(name: str) -> str:
    """Return an id as JSON, an integer where it is the decimal form of one."""
    return name if _INTEGER.fullmatch(name) else json.dumps(name)


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
