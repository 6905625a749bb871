"""Text and JSON that commands print."""

from __future__ import annotations

import codecs
import io
import json
import logging
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from msmarco_qdrant.core.escape import escape_controls, escape_json_controls
from msmarco_qdrant.core.json_value import to_json_value
from msmarco_qdrant.errors import MsmarcoQdrantError, OutputError, UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.collection.describe import CollectionDescription, StoreDescription
    from msmarco_qdrant.core.collection_types import CollectionSpec
    from msmarco_qdrant.core.hits import Hits
    from msmarco_qdrant.core.records import Meta
    from msmarco_qdrant.core.reports import EncodeReport, IngestReport
    from msmarco_qdrant.core.search_types import Hit
    from msmarco_qdrant.core.server_state import ServerState
    from msmarco_qdrant.sources.rejects import RejectsFile

_WHITE_SPACE = str.maketrans(dict.fromkeys("\t\n\v\f\r", " "))


def echo(*lines: str, err: bool = False) -> None:
    """Print each text as one line, on standard output or standard error.

    Everything that commands print goes this way: texts of passages, files and servers are
    untrusted. Control characters are escaped, and so is what the stream's encoding lacks. If the
    reader of a stream, such as `head`, has closed it, the rest is dropped and the command goes on.
    """
    encoding = _encoding(sys.stderr if err else sys.stdout)
    text = "\n".join(map(escape_controls, lines))
    try:
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)
    except BrokenPipeError:
        drop_output(sys.stderr if err else sys.stdout)


def drop_output(stream: TextIO) -> None:
    """Let a stream whose reader has closed it lead nowhere, also when Python flushes it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def echo_text(text: str, *, err: bool = False) -> None:
    """Print a text whose line ends are meant, such as a table."""
    echo(*text.split("\n"), err=err)


def _encoding(stream: Any) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


class LogFormatter(logging.Formatter):
    """Formats log records for a terminal; those of this package are one line each."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """Format the record's message."""
        if record.name.partition(".")[0] == __name__.partition(".")[0]:
            record.message = escape_controls(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines, with its traceback if it has one."""
        return "\n".join(map(escape_controls, super().format(record).split("\n")))


class _Shown(io.StringIO):
    """The text of an error; click removes escape sequences unless it is for a terminal."""

    def isatty(self) -> bool:
        """Return True, so that nothing is removed."""
        return True


def print_error(error: click.ClickException) -> None:
    """Print an error as click does."""
    shown = _Shown()
    error.show(shown)
    echo_text(shown.getvalue().removesuffix("\n"), err=True)


@dataclass(slots=True)
class Printed:
    """State of the output of a command; the object of click's contexts.

    Attributes:
        json: True once a JSON document is on standard output.
    """

    json: bool = False


def error_json(error: Exception) -> dict[str, Any]:
    """Return an error as JSON values: its class in this package, and its text."""
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    kind = "UsageError" if isinstance(error, click.UsageError) else "Error"
    for one in (error, error.__cause__):
        if isinstance(one, MsmarcoQdrantError):
            kind = type(one).__name__
    return {"error": {"type": kind, "message": message}}


def print_json(value: Any) -> None:
    """Print a value as indented JSON: UTF-8, or ASCII if the stream has another encoding."""
    is_ascii = codecs.lookup(_encoding(sys.stdout)).name != "utf-8"
    document = json.dumps(value, ensure_ascii=is_ascii, indent=2)
    context = click.get_current_context(silent=True)
    if context is not None and isinstance(context.obj, Printed):
        context.obj.json = True
    try:
        click.echo(escape_json_controls(document))
    except BrokenPipeError:
        drop_output(sys.stdout)


def print_result(value: Any, *lines: str, as_json: bool) -> None:
    """Print a result as JSON or as text."""
    if as_json:
        print_json(value)
    else:
        echo(*lines)


def report_json(report: IngestReport) -> dict[str, Any]:
    """Return the report of an ingest as JSON values."""
    counts = ("read", "written", "unchanged", "rejected", "pruned", "missing", "cut")
    return {
        **{name: getattr(report, name) for name in counts},
        "sources": list(report.sources),
        "seconds": round(report.seconds, 3),
        "passages_per_second": round(report.passages_per_second, 1),
        "stages": [
            {"name": stage.name, "seconds": round(stage.seconds, 3), "share": round(stage.share, 4)}
            for stage in report.stages
        ],
    }


def encode_json(report: EncodeReport) -> dict[str, Any]:
    """Return the report of an encode as JSON values."""
    return {**to_json_value(report), "passages_per_second": round(report.passages_per_second, 1)}


def print_rejects(rejects: RejectsFile, earlier: int = 0) -> None:
    """Print on standard error the number of rejected rows, here and in `earlier` runs."""
    if rejects.count:
        some = "" if rejects.written == rejects.count else f"the first {rejects.written:,} "
        echo(f"rejected rows: {rejects.count:,}, {some}written to {rejects.path}", err=True)
        echo(f"the first: {rejects.first}", err=True)
    if earlier:
        echo(f"rejected rows of earlier runs: {earlier:,}", err=True)


def print_hits(hits: Sequence[Hit], *, as_json: bool) -> None:
    """Print ranked hits as text or JSON."""
    if as_json:
        from msmarco_qdrant.core.hits import Hits

        print_json(Hits(hits).to_dicts())
        return
    for hit in hits:
        place = "" if hit.collection is None else f"{hit.collection}  "
        echo(f"{hit.rank:>3}  {hit.score:.4f}  {place}{hit.pid}")
        print_content(" … ".join(hit.snippets) or hit.text, hit.meta)
    if not hits:
        echo("no passage found")


def print_next_page(hits: Hits) -> None:
    """Print the cursor of the next page, if there is one, on standard error."""
    if hits.cursor is not None:
        echo(f"next page: --cursor {hits.cursor}", err=True)


def print_content(text: str, meta: Meta) -> None:
    """Print a passage, without its pid, as indented text."""
    width = min(shutil.get_terminal_size().columns, 100)
    flat = escape_controls(text.translate(_WHITE_SPACE))
    echo_text(textwrap.fill(flat, width, initial_indent="     ", subsequent_indent="     "))
    if meta:
        echo(f"     {json.dumps(meta, ensure_ascii=False)}")


def print_description(description: StoreDescription) -> None:
    """Print the description of a store, one fact per line."""
    echo(f"store       {description.store} ({description.engine})")
    echo("versions    " + ", ".join(f"{k} {v}" for k, v in description.versions.items()))
    for entry in description.collections:
        info, encoder, bm25 = entry.info, entry.metadata.encoder, entry.metadata.bm25
        echo("", f"collection  {entry.name} -> {info.name}")
        echo(f"passages    {info.points:,}")
        echo(f"last write  {_time(entry.last_write) or 'never'}")
        found = f"{info.in_graph:,} passages in the graph"
        echo(f"index       {found}, segments: {info.segments}, {info.state}")
        if entry.graph_note is not None:
            echo(f"advice      {entry.graph_note}")
        for line in _server_lines(entry.server):
            echo(line)
        echo(f"settings    {_settings(info.spec)}")
        echo(f"model       {encoder.model} ({encoder.dimension}, {encoder.similarity})")
        echo(f"encoding    {encoder.encoding}")
        if (loss := entry.metadata.int8_loss) is not None:
            echo(f"int8        {loss}")
        echo(f"fingerprint {encoder.fingerprint}")
        echo(f"bm25        k={bm25.k} b={bm25.b} avg_len={bm25.avg_len} {bm25.language}")
        echo(f"defaults    {entry.metadata.search_defaults.describe()}")
        echo(f"migrations  {', '.join(entry.metadata.migrations)}")
    if not description.collections:
        echo("", "no collections yet")


def _server_lines(server: ServerState | None) -> Iterator[str]:
    """Describe the server behind a collection; a single node without limits in one line."""
    if server is None:
        return
    pending = server.pending_updates
    waiting = "" if pending is None else f", pending updates: {pending:,}"
    yield f"optimizer   {server.optimizer}{waiting}"
    if server.bulk_threshold_kb is not None:
        yield "bulk mode   no index of new passages is built until `optimize` or an ingest ends"
    if server.replicas:
        yield (
            f"shards      {server.shards}, replicas of each: {server.replication_factor}, of which "
            f"{server.write_consistency_factor} must accept a write; being copied: "
            f"{server.transfers}"
        )
        away = ", ".join(map(str, server.away)) or "all are active"
        peers = len({replica.peer for replica in server.replicas})
        yield f"replicas    {len(server.replicas)} on {peers} peers: {away}"
    if server.strict_mode:
        settings = (f"{name}={json.dumps(value)}" for name, value in server.strict_mode.items())
        yield f"strict mode {', '.join(settings)}"


def _settings(spec: CollectionSpec) -> str:
    from msmarco_qdrant.stores.filters import indexes_by_field

    fields = indexes_by_field(spec.payload_indexes)
    indexes = ", ".join(f"{field} ({kind})" for field, kind in fields.items())
    key = spec.sharding and spec.sharding.shard_key
    return (
        f"hnsw m={spec.hnsw.m} ef_construct={spec.hnsw.ef_construct}, "
        f"vectors {'on disk' if spec.storage.on_disk else 'in memory'}, "
        f"quantization: {spec.storage.quantization}, payload indexes: {indexes or 'none'}"
        f"{f', shard key: {key}' if key else ''}"
    )


def description_json(description: StoreDescription) -> dict[str, Any]:
    """Return a store's description as JSON values."""
    value: dict[str, Any] = to_json_value(description)
    for entry, collection in zip(value["collections"], description.collections, strict=True):
        entry["last_write"] = _time(collection.last_write)
        entry["info"]["in_graph"] = collection.info.in_graph
    return value


def print_collections(found: Sequence[CollectionDescription]) -> None:
    """Print the collections of a store as a table."""
    rows = [
        (
            entry.name,
            f"{entry.info.points:,}",
            entry.metadata.encoder.model,
            entry.info.name,
            _time(entry.last_write) or "never",
        )
        for entry in found
    ]
    if rows:
        head = ("collection", "passages", "model", "physical name", "last write")
        from msmarco_qdrant.evaluation.tables import format_table

        echo_text(format_table([head, *rows]))
    else:
        echo("no collections yet")


def collection_json(entry: CollectionDescription) -> dict[str, Any]:
    """Return a collection's description as JSON values."""
    return {
        "name": entry.name,
        "passages": entry.info.points,
        "model": entry.metadata.encoder.model,
        "physical": entry.info.name,
        "last_write": _time(entry.last_write),
    }


def _time(moment: datetime | None) -> str | None:
    """Format a time as ISO 8601, to the second."""
    return moment.isoformat(timespec="seconds") if moment else None


def rejects_path(given: Path | None, inputs: Sequence[str]) -> Path:
    """Return the file for rejected rows, by default with the time in its name, once checked."""
    path = given or Path(time.strftime("rejects-%Y%m%d-%H%M%S.jsonl"))
    check_output(path, "--rejects", inputs)
    return path


def check_output(path: Path, option: str, inputs: Sequence[str]) -> None:
    """Refuse an output file that is an input or cannot be written, before the work begins.

    Raises:
        UsageError: If it is one of the inputs.
        OutputError: If its directory is not writable, or it is not a regular file.
    """
    if str(path) == "-":
        raise UsageError(f"{option} must be a file; standard output has the summary")
    if any(Path(name).exists() and path.exists() and path.samefile(name) for name in inputs):
        raise UsageError(f"{option} {path} is also an input; pass another file")
    if path.exists() and not path.is_file():  # writing would replace a device by a file
        raise OutputError(f"{path} is not a regular file: pass {option} with another path")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"cannot write {path}: pass {option} with a writable path")
