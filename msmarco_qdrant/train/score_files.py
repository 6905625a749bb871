"""Files of a judge's scores: a score for each judged passage of each query.

Written files are Parquet with a row per query, the form in which sentence-transformers publishes
scores (`msmarco-scores-ms-marco-MiniLM-L6-v2`, "list"): the columns `query_id` (string),
`corpus_id` (list of strings) and `score` (list of floats). These forms are read as well:

- Parquet with a row per pair, as that data set's "pair" and `msmarco`'s "bert-ensemble-mse";
- JSON lines of both, as `datasets` exports them;
- one JSON object `{qid: {pid: score}}`.

A pickle is refused: reading one can run any code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.errors import MissingExtraError, OutputError, SourceError
from msmarco_qdrant.runtime.atomic_file import atomic_write
from msmarco_qdrant.sources.compression import compression_of, decompress
from msmarco_qdrant.sources.content import Content, read_content
from msmarco_qdrant.sources.files import file_size, open_source
from msmarco_qdrant.sources.lines import DamagedStreamError
from msmarco_qdrant.train.score_json import read_json_rows

QueryScores: TypeAlias = tuple[str, dict[str, float]]
"""A qid, and the score of each of its judged pids."""

SCORES_FILE = "scores.parquet"
"""The file's name in a folder of `judge_negatives`."""

QUERY_COLUMN, PID_COLUMN, SCORE_COLUMN = "query_id", "corpus_id", "score"

_QUERY_NAMES = (QUERY_COLUMN, "qid", "query-id")
_PID_NAMES = (PID_COLUMN, "passage_id", "pid", "corpus-id", "doc_id", "corpus_ids", "doc_ids")
_SCORE_NAMES = (SCORE_COLUMN, "scores")
_SUFFIXES = (".parquet", ".jsonl", ".json", ".jsonl.gz", ".json.gz")
_OTHER_FILES = ("check.json", "report.json", "settings.json")  # of a judge's output folder
_PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_BATCH_ROWS = 1024
# A row group is read at once; 512 queries with 100 scores each need about 10 MB in Python.
_GROUP_SCORES = 50_000


def read_scores(source: str | PathLike[str]) -> Iterator[QueryScores]:
    """Read scores, one query at a time, in the order of the file.

    Args:
        source: A file in one of the forms above, or a folder of such files, read by name.

    Raises:
        SourceError: For an unreadable or empty file, a pickle, another form, a score that is not a
            finite number, two scores of one passage, or a query whose rows do not follow each
            other.
        MissingExtraError: For Parquet without the extra `train`.
    """
    seen = PidSet()
    for path in score_paths(source):
        for qid, scores in _group(str(path), _rows(str(path))):
            if not seen.add(qid):
                raise SourceError(
                    f"{path}: the rows of the query {qid!r} must follow each other, got some after "
                    "those of another query: sort the file by query"
                )
            yield qid, scores
    if not len(seen):
        raise SourceError(f"{source} must have the scores of one query or more, got none")


def write_scores(path: Path, scores: Iterable[tuple[str, Mapping[str, float]]]) -> int:
    """Write scores as Parquet, one row group in memory at a time; return the number of queries.

    The same scores give the same bytes. The file appears when it is complete.

    Raises:
        OutputError: If the file cannot be written.
        MissingExtraError: Without the extra `train`.
    """
    check_extra("writing scores")
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {PID_COLUMN: pa.list_(pa.string()), SCORE_COLUMN: pa.list_(pa.float32())}
    schema = pa.schema({QUERY_COLUMN: pa.string(), **columns})
    count = 0
    try:
        with atomic_write(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as out:
            for group in _row_groups(scores):
                count += len(group)
                rows = [(qid, [*found.keys()], [*found.values()]) for qid, found in group]
                arrays = [[*column] for column in zip(*rows, strict=True)]
                out.write_table(pa.table(arrays, schema=schema))
    except pa.ArrowException as exc:
        raise OutputError(f"the scores cannot be written to {path}: {exc}") from exc
    return count


def check_extra(feature: str) -> None:
    """Raise `MissingExtraError` for a feature if pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401  # only checks that it is installed
    except ImportError as exc:
        raise MissingExtraError(feature, "train") from exc


def has_small_lists(path: Path) -> bool:
    """True for Parquet with a row per query, in row groups that memory holds."""
    import pyarrow as pa

    with open_parquet(path) as file:
        found = Columns.of(str(path), file.schema_arrow.names)
        index = file.schema_arrow.names.index(found.pid)
        if not pa.types.is_nested(file.schema_arrow.field(index).type):
            return False
        groups = (file.metadata.row_group(number) for number in range(file.num_row_groups))
        return all(group.column(index).num_values <= 10 * _GROUP_SCORES for group in groups)


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """Open a Parquet file; errors of its content are raised as `SourceError`."""
    check_extra(f"reading Parquet ({path})")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as raw:
            yield pq.ParquetFile(raw)
    except (pa.ArrowException, OSError) as exc:
        raise SourceError(f"{path} cannot be read as Parquet: {exc}") from exc


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the three columns of a file."""

    qid: str
    pid: str
    score: str

    @classmethod
    def of(cls, place: str, names: Sequence[str]) -> Columns:
        """Find the columns among all names of a table or of a row.

        Raises:
            SourceError: If one of the three is missing, or the scores are differences.
        """
        if {"positive_id", "negative_id"} <= set(names):
            raise SourceError(
                f"{place} holds differences of scores (positive minus negative), which belong to "
                "pairs of passages: pass a file with a score for each passage"
            )
        found = [
            next((name for name in known if name in names), None)
            for known in (_QUERY_NAMES, _PID_NAMES, _SCORE_NAMES)
        ]
        if None in found:
            raise SourceError(
                f"{place} must have the columns {QUERY_COLUMN}, {PID_COLUMN} and {SCORE_COLUMN}, "
                f"got {', '.join(sorted(names)) or 'none'}"
            )
        return cls(*map(str, found))


def parse_row(place: str, row: Mapping[str, Any], columns: Columns) -> QueryScores:
    """Check a row, of one pair or of all pairs of a query.

    Raises:
        SourceError: For an id that is not a string or an integer, a score that is not a finite
            number, or lists of different lengths.
    """
    pids, scores = row.get(columns.pid), row.get(columns.score)
    if not isinstance(pids, list) and not isinstance(scores, list):
        pids, scores = [pids], [scores]
    if not isinstance(pids, list) or not isinstance(scores, list) or len(pids) != len(scores):
        raise SourceError(
            f"{place}: {columns.pid} and {columns.score} must be two lists of equal length"
        )
    found = dict(zip((_id(place, pid) for pid in pids), _numbers(place, scores), strict=True))
    if len(found) < len(pids):
        raise SourceError(f"{place}: each passage must have one score, got two of one passage")
    return _id(place, row.get(columns.qid)), found


# ---- files -----------------------------------------------------------------------------------


def score_paths(source: str | PathLike[str]) -> list[Path]:
    """Return the file, or the files of scores in a folder by name.

    Raises:
        SourceError: If it is missing, or a folder without such a file.
    """
    path = Path(source)
    if not path.is_dir():
        file_size(str(source))  # refuses a missing file with a clear message
        return [path]
    if (path / SCORES_FILE).is_file():
        return [path / SCORES_FILE]
    found = sorted(
        file
        for file in path.iterdir()
        if file.name.endswith(_SUFFIXES) and file.name not in _OTHER_FILES
    )
    if not found:
        raise SourceError(f"the folder {path} must hold files of scores (.parquet or .jsonl)")
    return found


def _rows(source: str) -> Iterator[QueryScores]:
    """Yield the scores of each row, or of each query of an object, in the order of the file."""
    with open_source(source) as raw:
        compression = compression_of(raw.peek(16))
        stream = raw if compression is None else decompress(raw, compression, source)
        try:
            _refuse_pickle(source, stream.peek(2))
        except DamagedStreamError as exc:
            raise SourceError(f"{source}: {exc}") from exc
    with open_source(source) as raw:
        content = read_content(source, raw)
        if content.kind == "parquet" and content.compression is None:
            yield from _parquet_rows(Path(source))
        elif content.kind == "text":
            yield from _json_rows(source, content)
        else:
            raise SourceError(f"{source} must be Parquet or JSON, got {content.kind}")


def _refuse_pickle(source: str, head: bytes) -> None:
    if head.startswith(_PICKLES):
        raise SourceError(
            f"{source} is a Python pickle, which can run any code when it is read: pass the same "
            "scores as Parquet (msmarco-scores-ms-marco-MiniLM-L6-v2 of sentence-transformers) or "
            "as JSON"
        )


def _json_rows(source: str, content: Content) -> Iterator[QueryScores]:
    for place, row in read_json_rows(source, content, _QUERY_NAMES):
        if len(row) > 1:
            yield parse_row(place, row, Columns.of(place, [*row]))
            continue
        ((qid, scores),) = row.items()
        if not isinstance(scores, dict):
            raise SourceError(
                f"{place}: the scores must be an object {{pid: score}}, got {str(scores)[:60]!r}"
            )
        numbers = _numbers(place, [*scores.values()])
        yield _id(place, qid), dict(zip(scores, numbers, strict=True))


def _parquet_rows(path: Path) -> Iterator[QueryScores]:
    with open_parquet(path) as file:
        columns = Columns.of(str(path), file.schema_arrow.names)
        names = [columns.qid, columns.pid, columns.score]
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=names):
            for row in batch.to_pylist():
                number += 1
                yield parse_row(f"{path}: row {number}", row, columns)


def _group(source: str, rows: Iterable[QueryScores]) -> Iterator[QueryScores]:
    """Join the rows of a query that follow each other."""
    current: QueryScores | None = None
    for qid, scores in rows:
        if current is None or current[0] != qid:
            if current is not None:
                yield current
            current = qid, scores
            continue
        for pid in scores.keys() & current[1].keys():
            if scores[pid] != current[1][pid]:
                raise SourceError(
                    f"{source}: the passage {pid!r} has the scores {current[1][pid]} and "
                    f"{scores[pid]} for the query {qid!r}"
                )
        current[1].update(scores)
    if current is not None:
        yield current


def _row_groups(
    scores: Iterable[tuple[str, Mapping[str, float]]],
) -> Iterator[list[tuple[str, Mapping[str, float]]]]:
    """Split by number of scores."""
    group: list[tuple[str, Mapping[str, float]]] = []
    held = 0
    for qid, found in scores:
        group.append((qid, found))
        held += len(found) + 1
        if held >= _GROUP_SCORES:
            yield group
            group, held = [], 0
    if group:
        yield group


# ---- values ----------------------------------------------------------------------------------


def _id(place: str, value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise SourceError(f"{place}: an id must be a non-empty string or an integer, got {value!r}")


def _numbers(place: str, values: Sequence[Any]) -> list[float]:
    for value in values:
        if type(value) not in (float, int) or not math.isfinite(value):
            raise SourceError(f"{place}: a score must be a finite number, got {value!r}")
    return [float(value) for value in values]
