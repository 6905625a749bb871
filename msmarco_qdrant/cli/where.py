"""The language of `--where`: conditions with and, or, not and parentheses.

::

    filter    = part { "or" part }
    part      = item { "and" item }
    item      = "not" item | "(" filter ")" | condition
    condition = FIELD                                         it exists
              | FIELD ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) VALUE
              | FIELD [ "not" ] "in" "(" VALUE { "," VALUE } ")"
              | FIELD "has" VALUE                             all words of the value
              | FIELD "within" DISTANCE "of" LAT "," LON      5km or 300m
              | FIELD "with" "(" filter ")"                   one object meets all conditions

`and` binds more tightly than `or`, and `not` than `and`. Quotation marks keep a name or a value
whole; a value in quotation marks is text only. The filter after `with` has no `or`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import click

from msmarco_qdrant.core.field_path import check_field
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import (
    MAX_DEPTH,
    All,
    Exists,
    GeoRadius,
    Not,
    Range,
    SearchFilter,
    Text,
)
from msmarco_qdrant.filters import Any as EitherOf

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*')|(?P<sign>!=|>=|<=|[()=<>,])"""
    r"""|(?P<word>(?:"[^"]*"|[^\s"'(),=<>!])+))"""
)
_KEYWORDS = frozenset({"and", "or", "not", "in", "has", "within", "of", "with"})
_BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_DISTANCE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(km|m)", re.ASCII)

ParseValues = Callable[[str, str], Sequence[Any]]
"""Returns a value of a field in each type that it may have."""

ParseBound = Callable[[str], Any]
"""Returns a number or a moment; None for another text."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int

    @property
    def keyword(self) -> str:
        """Its keyword or sign; "" for a name, a value, and the end."""
        if self.kind == "sign":
            return self.text
        found = self.text.lower()
        return found if self.kind == "word" and found in _KEYWORDS else ""


def parse_where(text: str, parse_values: ParseValues, parse_bound: ParseBound) -> SearchFilter:
    """Parse the text of a `--where`.

    Raises:
        click.UsageError: For another text; the message has the place and what was expected.
    """
    return _Parser(text, parse_values, parse_bound).parse()


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str, parse_values: ParseValues, parse_bound: ParseBound) -> None:
        self._text = text
        self._parse_values = parse_values
        self._parse_bound = parse_bound
        self._tokens = self._split()
        self._at = 0
        self._depth = 0

    def parse(self) -> SearchFilter:
        """Parse the whole text."""
        found = self._either("")
        if self._next.kind != "end":
            self._fail("and, or, or the end")
        return found

    # ---- and, or, not ----------------------------------------------------------------------

    def _either(self, inside: str) -> SearchFilter:
        parts = [self._both(inside)]
        while self._take("or"):
            if inside:
                self._refuse("or")
            parts.append(self._both(inside))
        return parts[0] if len(parts) == 1 else EitherOf(parts)

    def _both(self, inside: str) -> SearchFilter:
        parts = [self._item(inside)]
        while self._take("and"):
            parts.append(self._item(inside))
        return _merge(parts)

    def _item(self, inside: str) -> SearchFilter:
        if self._take("not"):
            inner = self._deeper(self._item, inside)
            if isinstance(inner, Mapping) and len(inner) == 1:
                ((field, condition),) = inner.items()
                return {field: Not(condition)}
            if inside:
                self._refuse("not of several conditions")
            return Not(inner)
        if self._take("("):
            inner = self._deeper(self._either, inside)
            self._expect(")")
            return inner
        return self._condition(inside)

    def _deeper(self, parse: Callable[[str], SearchFilter], inside: str) -> SearchFilter:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"at most {MAX_DEPTH} levels of parentheses and not are allowed")
        found = parse(inside)
        self._depth -= 1
        return found

    def _refuse(self, what: str) -> NoReturn:
        raise self._error(
            f"the conditions on one object are joined by and, got {what}: write FIELD with (...) "
            "once for each alternative"
        )

    # ---- conditions ------------------------------------------------------------------------

    def _condition(self, inside: str) -> SearchFilter:
        field = self._field()
        whole = f"{inside}{field}"
        try:
            check_field(whole)
            return {field: self._operation(whole)}
        except UsageError as exc:
            raise self._error(str(exc)) from exc

    def _field(self) -> str:
        token = self._next
        if token.kind != "word" or token.keyword:
            self._fail("a field")
        self._at += 1
        return token.text

    def _operation(self, field: str) -> Any:
        token = self._next
        operator = token.keyword
        parse = {
            **dict.fromkeys(("=", "!=", *_BOUNDS), self._comparison),
            "in": self._list,
            "has": self._has,
            "within": self._within,
            "with": self._objects,
        }.get(operator)
        if parse is not None:
            self._at += 1
            return parse(operator, field)
        if operator == "not":
            self._at += 1
            self._expect("in")
            return Not(self._list("in", field))
        return Exists()

    def _comparison(self, operator: str, field: str) -> Any:
        if operator in _BOUNDS:
            token = self._next
            bound = self._parse_bound(token.text.strip("'"))
            if bound is None:
                self._fail("a number, a date such as 2024-05-01, or a time")
            self._at += 1
            return Range(**{_BOUNDS[operator]: bound})
        values = self._value(field)
        return values if operator == "=" else Not(values)

    def _list(self, _: str, field: str) -> Any:
        self._expect("(")
        values = [*self._value(field)]
        while self._take(","):
            values += self._value(field)
        self._expect(")")
        return values

    def _has(self, _: str, __: str) -> Any:
        return Text(self._plain_value()[0])

    def _within(self, _: str, __: str) -> Any:
        found = _DISTANCE.fullmatch(self._next.text)
        if found is None:
            self._fail("a distance such as 5km or 300m")
        self._at += 1
        self._expect("of")
        lat = self._degrees()
        self._expect(",")
        radius_m = float(found[1]) * (1000 if found[2] == "km" else 1)
        return GeoRadius(lat=lat, lon=self._degrees(), radius_m=radius_m)

    def _degrees(self) -> float:
        number = self._parse_bound(self._next.text)
        if not isinstance(number, int | float):
            self._fail("degrees such as 52.5")
        self._at += 1
        return float(number)

    def _objects(self, _: str, field: str) -> Any:
        self._expect("(")
        found: Any = self._deeper(self._either, f"{field}.")
        self._expect(")")
        if isinstance(found, All):  # several conditions on one field
            merged: dict[str, list[Any]] = {}
            for part in found.conditions:
                for name, condition in dict(part).items():  # type: ignore[arg-type]
                    merged.setdefault(name, []).append(condition)
            return {
                name: All(conditions) if len(conditions) > 1 else conditions[0]
                for name, conditions in merged.items()
            }
        return found

    def _value(self, field: str) -> Sequence[Any]:
        text, is_quoted = self._plain_value()
        return [text] if is_quoted else self._parse_values(field, text)

    def _plain_value(self) -> tuple[str, bool]:
        """Return a value, and True if it is in quotation marks."""
        token = self._next
        if token.kind not in ("word", "text"):
            self._fail("a value")
        self._at += 1
        if token.kind == "text":
            return token.text[1:-1].replace("''", "'"), True
        if token.text.startswith('"') and token.text.find('"', 1) == len(token.text) - 1:
            return token.text[1:-1], True
        return token.text, False

    # ---- tokens ----------------------------------------------------------------------------

    def _split(self) -> list[_Token]:
        tokens: list[_Token] = []
        at, text = 0, self._text.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                start = at + len(text[at:]) - len(text[at:].lstrip())
                raise self._error(
                    f"unexpected {text[start]!r} at character {start + 1}: put names in double and "
                    "values in single quotation marks"
                )
            kind = found.lastgroup
            tokens.append(_Token(kind, found[kind], found.start(kind)))
            at = found.end()
        return [*tokens, _Token("end", "", len(text))]

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, keyword: str) -> bool:
        if self._next.keyword != keyword:
            return False
        self._at += 1
        return True

    def _expect(self, keyword: str) -> None:
        if not self._take(keyword):
            self._fail(f"'{keyword}'")

    def _fail(self, expected: str) -> NoReturn:
        token = self._next
        got = repr(token.text) if token.text else "the end"
        raise self._error(f"expected {expected} at character {token.start + 1}, got {got}")

    def _error(self, reason: str) -> click.UsageError:
        return click.UsageError(f"--where {self._text!r}: {reason}")


def _merge(parts: Sequence[SearchFilter]) -> SearchFilter:
    """Join filters by and: one mapping of different fields, one range of two bounds."""
    fields: dict[str, Any] = {}
    others: list[SearchFilter] = []
    flat: list[Any] = []
    for part in parts:
        flat += part.conditions if isinstance(part, All) else [part]
    for part in flat:
        if not isinstance(part, Mapping):
            others.append(part)
            continue
        for field, condition in part.items():
            if field not in fields:
                fields[field] = condition
            elif (span := _join(fields[field], condition)) is not None:
                fields[field] = span
            else:
                others.append({field: condition})
    joined = [fields, *others] if fields else others
    return joined[0] if len(joined) == 1 else All(joined)


def _join(one: Any, other: Any) -> Range | None:
    """Return the range of a lower and an upper bound; None for other conditions."""
    if not isinstance(one, Range) or not isinstance(other, Range):
        return None
    bounds = [
        {name: value for name in _BOUNDS.values() if (value := getattr(each, name)) is not None}
        for each in (one, other)
    ]
    sides = [{name[0] for name in each} for each in bounds]
    if len(sides[0] | sides[1]) < 2 or sides[0] & sides[1]:  # lower and upper
        return None
    try:
        return Range(**bounds[0], **bounds[1])
    except UsageError:  # a number and a date
        return None
