"""Parsing and validation of rows: pid, text and meta, or the reason of a reject.

A row is rejected if a Qdrant payload, a digest or a model would lose, change or refuse its values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from msmarco_qdrant.core.escape import escape_surrogates
from msmarco_qdrant.core.meta_values import (
    MetaValueError,
    check_string,
    plain_meta,
    type_name,
)
from msmarco_qdrant.core.records import Meta, Passage
from msmarco_qdrant.sources.fields import PASSAGE, Fields

_SHOWN_FIELDS = 12


class RowError(ValueError):
    """The reason that a row cannot become a passage."""


def check_passage(passage: Passage) -> Passage:
    """Validate a passage made in Python like a row of a file.

    Returns:
        The same passage, with an integer pid in decimal form, and `meta` as JSON values.

    Raises:
        RowError: If the passage is invalid.
    """
    text: object = passage.text
    if not isinstance(text, str):
        raise _wrong_type("the text", "a string", text)
    if not isinstance(passage.meta, Mapping):
        raise _wrong_type("the meta", "an object", passage.meta)
    pid = _checked_pid(passage.pid)
    _checked_text(text)
    meta = _plain_meta(passage.meta)
    if pid is passage.pid and meta is passage.meta:
        return passage
    return replace(passage, pid=pid, meta=meta)


def decode_utf8(data: bytes) -> str:
    """Decode UTF-8, or raise `RowError`."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise RowError(describe_decode_error(exc)) from exc


def describe_decode_error(exc: UnicodeDecodeError) -> str:
    """Return the reason of a reject whose bytes are not UTF-8."""
    return f"not UTF-8: byte 0x{exc.object[exc.start]:02x} at offset {exc.start}"


def parse_tsv(line: str, kind: str = "pid") -> tuple[str, str, Meta]:
    """Return pid, text and meta of a line `pid<TAB>text`."""
    pid, tab, text = line.partition("\t")
    if not tab:
        raise RowError(f"no tab: expected {kind}<TAB>text")
    return _checked_pid(pid, kind), _checked_text(text), {}


def parse_json(line: str, names: Fields = PASSAGE) -> tuple[str, str, Meta]:
    """Return pid, text and meta of a line of JSON."""
    return parse_fields(json_object(line), names)


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object, or raise `RowError`."""
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
        raise _wrong_type("the JSON", "an object", fields)
    return fields


def json_meta(text: str) -> dict[str, Any]:
    """Parse the column `meta` of a table, or raise `RowError`."""
    try:
        return json_object(text)
    except RowError as exc:
        raise RowError(f"'meta' must be a JSON object as text: {exc}") from exc


def _refuse_constant(name: str) -> None:
    raise RowError(f"a non-finite number: {name}")


def parse_fields(fields: dict[str, Any], names: Fields = PASSAGE) -> tuple[str, str, Meta]:
    """Return pid, text and meta of a row's fields."""
    if names.skip:
        fields = {name: value for name, value in fields.items() if name not in names.skip}
    id_field = next((name for name in names.ids if fields.get(name) is not None), None)
    if id_field is None:
        raise RowError(_missing(names.kind, names.ids, fields))
    id_ = _checked_pid(fields[id_field], names.kind)
    text_field = next((name for name in names.texts if fields.get(name) is not None), None)
    if text_field is None:
        text_field = next((name for name in names.texts if name in fields), None)
        if text_field is None:
            raise RowError(_missing("text", names.texts, fields))
    title_field = next((name for name in names.titles if name in fields), "title")
    text = _joined_text(fields, text_field, title_field)
    return id_, text, _collect_meta(fields, {id_field, text_field, title_field, "meta"})


def _missing(what: str, names: tuple[str, ...], fields: dict[str, Any]) -> str:
    """Return the reason of a row without an id or a text, with the fields that it has."""
    first = [f"'{name}'" for name in names[: 3 if what != "text" else 1]]
    expected = ", ".join(first[:-1]) + " or " + first[-1] if len(first) > 1 else first[0]
    others = f" (or {', '.join(names[len(first) :])})" if len(names) > len(first) else ""
    return f"no {what}: expected a field {expected}{others}, got {show_fields(fields)}"


def show_fields(names: Iterable[str]) -> str:
    """Return the names of a row's fields for a message, the first twelve of them."""
    found = [escape_surrogates(name) for name in names]
    more = f" and {len(found) - _SHOWN_FIELDS} more" if len(found) > _SHOWN_FIELDS else ""
    return (", ".join(found[:_SHOWN_FIELDS]) or "no fields") + more


def _joined_text(fields: dict[str, Any], text_field: str, title_field: str) -> str:
    """Join title and text like BEIR (beir.datasets.data_loader: title, a space, the text)."""
    text, title = fields[text_field], fields.get(title_field)
    if not isinstance(text, str):
        raise _wrong_type(f"'{text_field}'", "a string", text)
    if title is not None and not isinstance(title, str):
        raise _wrong_type(f"'{title_field}'", "a string", title)
    return _checked_text(f"{title} {text}".strip() if title else text)


def _collect_meta(fields: dict[str, Any], others: set[str]) -> Meta:
    """Collect the user's own fields: those inside 'meta', and all without another role."""
    inside = fields.get("meta")
    if inside is not None and not isinstance(inside, dict):
        raise _wrong_type("'meta'", "an object", inside)
    meta = {name: value for name, value in fields.items() if name not in others}
    for name in inside or {}:
        if name in meta:
            raise RowError(f"field {name!r} must be inside or outside of 'meta', not both")
    meta.update(inside or {})
    return _plain_meta(meta)


def _checked_pid(value: object, kind: str = "pid") -> str:
    where = "the pid" if kind == "pid" else f"the {kind}"
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise _wrong_type(where, "a string or an integer", value)
    if not value:
        raise RowError(f"no {kind}: it is empty")
    _check_string(value, where)
    return value


def _checked_text(text: str) -> str:
    _check_string(text, "the text")
    if not text.strip():
        raise RowError("the text is empty")
    return text


def _check_string(value: str, where: str) -> None:
    try:
        check_string(value, where)
    except MetaValueError as exc:
        raise RowError(str(exc)) from exc


def _plain_meta(meta: Meta) -> Meta:
    """Return the fields as JSON values; the same dictionary if they are that."""
    try:
        return plain_meta(meta)
    except MetaValueError as exc:
        raise RowError(str(exc)) from exc


def _wrong_type(where: str, expected: str, value: object) -> RowError:
    return RowError(f"{where} must be {expected}, got {type_name(value)}")


# Version 0.1.0 hashed the reasons of rejected rows into shards, in these words.
_HASHED_WORDS = (
    (r"^(no pid: expected a field 'pid', '_id' or 'id').*$", r"\1"),
    (r"^(no text: expected a field 'text').*$", r"\1"),
    (
        r"^'meta' must be a JSON object as text: ",
        "'meta' is a string, expected a JSON object in it: ",
    ),
    (r"^a line must have at most (.+) bytes, got (.+)$", r"the line has \2 bytes; \1 are accepted"),
    (r"the JSON must be an object, got (.+)$", r"a JSON object was expected, found \1"),
    (
        r"^(.+) must be a signed 64-bit integer, got (.+);",
        r"\1: \2 does not fit 64 bits with a sign;",
    ),
    (r"^(.+) must be a finite number, got (.+)$", r"\1: a non-finite number: \2"),
    (r"^(.+) must be a JSON value, got ([^:]+)(?:: .*)?$", r"\1 is \2, which JSON does not have"),
    (r"^(.+) must be inside or outside of (.+), not both$", r"\1 stands both inside and beside \2"),
    (r"^(.+) must be (.+), got (.+)$", r"\1 is \3, expected \2"),
)


def hashed_reason(reason: str) -> str:
    """Return the reason of a reject in the words that shards hash."""
    for pattern, words in _HASHED_WORDS:
        reason = re.sub(pattern, words, reason, flags=re.DOTALL)
    return reason
