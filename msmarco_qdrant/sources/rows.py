"""What a row may hold: from a line or a record to pid, text and meta, or a reason why not.

What is refused here is what a Qdrant payload, a digest or a model would lose, change or choke on.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from msmarco_qdrant.core.records import Meta, Passage

# A message of gRPC may be nested 100 levels, of which an object of a payload takes three: what is
# deeper cannot be read back from a server. Edge takes 125 levels, and cannot load more again.
_MAX_DEPTH = 24
_PID_FIELDS = ("pid", "_id", "id")


class RowError(ValueError):
    """Why a row cannot become a passage."""


def check_passage(passage: Passage) -> Passage:
    """A passage that was made in Python, looked at as a row of a file is.

    Returns:
        The same passage; an integer pid as its decimal form.

    Raises:
        RowError: If it cannot go in.
    """
    text: object = passage.text
    if not isinstance(text, str):
        raise RowError(f"the text is {_kind(text)}, expected a string")
    if not isinstance(passage.meta, dict):
        raise RowError(f"the meta is {_kind(passage.meta)}, expected an object")
    pid = _checked_pid(passage.pid)
    _checked_text(text)
    _check_value(passage.meta, "")
    return passage if pid is passage.pid else replace(passage, pid=pid)


def decode_utf8(data: bytes) -> str:
    """Decode UTF-8, or raise `ValueError` with the reason."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise RowError(describe_decode_error(exc)) from exc


def describe_decode_error(exc: UnicodeDecodeError) -> str:
    """Return the reason of a reject that is not UTF-8."""
    return f"not UTF-8: byte 0x{exc.object[exc.start]:02x} at offset {exc.start}"


def parse_tsv(line: str) -> tuple[str, str, Meta]:
    """Return pid, text and meta of a line `pid<TAB>text`."""
    pid, tab, text = line.partition("\t")
    if not tab:
        raise RowError("no tab: expected pid<TAB>text")
    return _checked_pid(pid), _checked_text(text), {}


def parse_json(line: str) -> tuple[str, str, Meta]:
    """Return pid, text and meta of a line of JSON."""
    return parse_fields(json_object(line))


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object, or raise `ValueError` with the reason."""
    try:
        fields = json.loads(text, parse_constant=_refuse_constant)
    except RowError:
        raise
    except json.JSONDecodeError as exc:
        raise RowError(f"broken JSON: {exc.msg} at column {exc.colno}") from exc
    except RecursionError as exc:
        raise RowError("broken JSON: nested too deeply") from exc
    except ValueError as exc:  # an integer of more digits than Python converts
        raise RowError(f"broken JSON: {exc}") from exc
    if not isinstance(fields, dict):
        raise RowError(f"a JSON object was expected, found {_kind(fields)}")
    return fields


def _refuse_constant(name: str) -> None:
    raise RowError(f"a non-finite number: {name}")


def parse_fields(fields: dict[str, Any]) -> tuple[str, str, Meta]:
    """Return pid, text and meta of a row's fields."""
    pid_field = next((name for name in _PID_FIELDS if fields.get(name) is not None), None)
    if pid_field is None:
        raise RowError("no pid: expected a field 'pid', '_id' or 'id'")
    pid = _checked_pid(fields[pid_field])
    text = _joined_text(fields)
    return pid, text, _collect_meta(fields, pid_field)


def _joined_text(fields: dict[str, Any]) -> str:
    """Title and text as BEIR joins them (beir.datasets.data_loader: title, a space, the text)."""
    if "text" not in fields:
        raise RowError("no text: expected a field 'text'")
    text, title = fields["text"], fields.get("title")
    if not isinstance(text, str):
        raise RowError(f"'text' is {_kind(text)}, expected a string")
    if title is not None and not isinstance(title, str):
        raise RowError(f"'title' is {_kind(title)}, expected a string")
    return _checked_text(f"{title} {text}".strip() if title else text)


def _collect_meta(fields: dict[str, Any], pid_field: str) -> Meta:
    """The user's own fields: those inside an object 'meta', and all that have no other role."""
    inside = fields.get("meta")
    if inside is not None and not isinstance(inside, dict):
        raise RowError(f"'meta' is {_kind(inside)}, expected an object")
    taken = {pid_field, "text", "title", "meta"}
    meta = {name: value for name, value in fields.items() if name not in taken}
    for name in inside or {}:
        if name in meta:
            raise RowError(f"field {name!r} stands both inside and beside 'meta'")
    meta.update(inside or {})
    _check_value(meta, "")
    return meta


def _checked_pid(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise RowError(f"the pid is {_kind(value)}, expected a string or an integer")
    if not value:
        raise RowError("no pid: it is empty")
    _check_string(value, "the pid")
    return value


def _checked_text(text: str) -> str:
    _check_string(text, "the text")
    if not text.strip():
        raise RowError("the text is empty")
    return text


def _check_string(value: str, where: str) -> None:
    if "\x00" in value:
        raise RowError(f"{where} holds a NUL byte")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as exc:
        code = ord(value[exc.start])
        raise RowError(f"{where} holds a lone surrogate, U+{code:04X}") from exc


def _check_value(value: object, where: str, depth: int = 0) -> None:  # noqa: C901  # a case a type
    """Refuse what a Qdrant payload would lose or change."""
    if depth > _MAX_DEPTH:
        raise RowError(f"nested too deeply: {_MAX_DEPTH} levels are accepted")
    match value:
        case str():
            _check_string(value, where)
        case bool() | None:
            pass
        case int():
            if not -(2**63) <= value < 2**63:
                raise RowError(
                    f"{where}: {value} does not fit 64 bits with a sign; write it as a string"
                )
        case float():
            if not math.isfinite(value):
                raise RowError(f"{where}: a non-finite number: {value}")
        case dict():
            for name, inner in value.items():
                _check_name(name, where)
                _check_value(inner, f"{where}.{name}" if where else f"field '{name}'", depth + 1)
        case list():
            for index, inner in enumerate(value):
                _check_value(inner, f"{where}[{index}]", depth + 1)
        case _:
            raise RowError(f"{where} is {_kind(value)}, which JSON does not have")


def _check_name(name: object, where: str) -> None:
    if not isinstance(name, str):
        raise RowError(f"a field name is {_kind(name)}, expected a string")
    _check_string(name, f"a field name in {where or 'the row'}")


def _kind(value: object) -> str:
    names = {
        bool: "a boolean",
        int: "an integer",
        float: "a float",
        str: "a string",
        list: "an array",
        dict: "an object",
        type(None): "null",
    }
    return names.get(type(value), f"a {type(value).__name__}")
