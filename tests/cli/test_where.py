"""`--where`: conditions with and, or, not and parentheses."""

from __future__ import annotations

from datetime import date
from typing import Any

import click
import pytest
from click.testing import CliRunner

from msmarco_qdrant.cli.filters import Where, filter_option, parse_filters
from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.filters import All, Exists, GeoRadius, Not, Range, Text, check_filter
from msmarco_qdrant.filters import Any as Either

INDEXES: dict[str, PayloadIndex] = {
    "meta.lang": "keyword",
    "meta.year": "integer",
    "meta.seen": "datetime",
    "meta.authors.born": "integer",
    "meta.authors.name": "keyword",
}
DE: Any = {"lang": ["de"]}
NEW: Any = {"year": Range(gte=2000)}
OF_ADA = {"name": ["Ada"], "born": Range(lt=1900)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lang = de", DE),
        ("  lang=de ", DE),
        ("lang != de", {"lang": Not(["de"])}),
        ("year", {"year": Exists()}),
        ("not year", {"year": Not(Exists())}),
        ("NOT NOT year", {"year": Not(Not(Exists()))}),
        ("lang in (de, 'sv')", {"lang": ["de", "sv"]}),
        ("lang not in (de)", {"lang": Not(["de"])}),
        ("year >= 2000", NEW),
        ("year >= 2000 and year < 2010", {"year": Range(gte=2000, lt=2010)}),
        ("year > 1 and year > 2", All([{"year": Range(gt=1)}, {"year": Range(gt=2)}])),
        ("seen < 2024-05-01", {"seen": Range(lt=date(2024, 5, 1))}),
        ("seen < '2024-05-01'", {"seen": Range(lt=date(2024, 5, 1))}),
        ("lang = de and year >= 2000", {**DE, **NEW}),
        ("lang = de and lang = sv", All([DE, {"lang": ["sv"]}])),
        ("lang = de or year >= 2000", Either([DE, NEW])),
        ("lang = de or year >= 2000 and year", Either([DE, All([NEW, {"year": Exists()}])])),
        ("(lang = de or year >= 2000) and tag", All([{"tag": Exists()}, Either([DE, NEW])])),
        ("(lang = de and (tag)) and year >= 2000", {**DE, "tag": Exists(), **NEW}),
        ("not (lang = de and year >= 2000)", Not({**DE, **NEW})),
        ("not (lang = de or tag)", Not(Either([DE, {"tag": Exists()}]))),
        ("title has music", {"title": Text("music")}),
        ("title has 'sea music'", {"title": Text("sea music")}),
        ("p within 5km of 52.5,13.4", {"p": GeoRadius(lat=52.5, lon=13.4, radius_m=5000)}),
        ("p within 1.5m of -1, -2", {"p": GeoRadius(lat=-1, lon=-2, radius_m=1.5)}),
        ("authors with (name = Ada and born < 1900)", {"authors": OF_ADA}),
        ("authors with ((name = Ada) and born < 1900)", {"authors": OF_ADA}),
        ("not authors with (name = Ada)", {"authors": Not({"name": ["Ada"]})}),
        (
            "authors with (name and not born)",
            {"authors": {"name": Exists(), "born": Not(Exists())}},
        ),
        ("a with (b = x and b != y)", {"a": {"b": All([["x"], Not(["y"])])}}),
        ("a with (b with (c = x))", {"a": {"b": {"c": ["x"]}}}),
        ("'x' = y", None),
        ('"first name" = "a b"', {'"first name"': ["a b"]}),
        ('"in" = in', {'"in"': ["in"]}),
        ("code = '1'", {"code": ["1"]}),
        ("code = 1", {"code": ["1", 1.0, 1]}),
        ("title = 'it''s'", {"title": ["it's"]}),
        ("a.b[0].größe = x", {"a.b[0].größe": ["x"]}),
    ],
)
def test_expressions(text: str, expected: Any) -> None:
    """A value has the types of `--filter`; in quotation marks it is text."""
    if expected is None:
        with pytest.raises(click.UsageError):
            parse_filters([Where(text)], INDEXES)
        return
    assert expected == parse_filters([Where(text)], INDEXES)
    check_filter(expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a field at character 1, got the end"),
        ("lang = ", "expected a value at character 7, got the end"),
        ("lang de", "expected and, or, or the end at character 6, got 'de'"),
        ("(lang = de", r"expected '\)' at character 11, got the end"),
        ("lang = de)", r"or the end at character 10, got '\)'"),
        ("and lang", "expected a field at character 1, got 'and'"),
        ("lang == de", "expected a value at character 7, got '='"),
        ("year > soon", "expected a number, a date such as 2024-05-01, or a time at character 8"),
        ("lang in de", r"expected '\(' at character 9, got 'de'"),
        ("p within 5 of 1,2", "expected a distance such as 5km or 300m at character 10, got '5'"),
        ("p within 5km of 1 2", "expected ',' at character 19, got '2'"),
        ("p within 5km of x,2", "expected degrees such as 52.5 at character 17, got 'x'"),
        ("p within 5km of 91,2", "lat of a GeoRadius must be -90 to 90, got 91"),
        ("title has '--'", "a Text must be a string with a letter or digit, got '--'"),
        ("lang = 'de", 'unexpected "\'" at character 8'),
        ("! lang", "unexpected '!' at character 1"),
        ("a with (b = 1 or c = 2)", "the conditions on one object are joined by and, got or"),
        ("a with (not (b and c))", "joined by and, got not of several conditions"),
        ("a with (not b)", "must have a condition that an object without the field does not meet"),
        ("(" * 13 + "a" + ")" * 13, "at most 12 levels of parentheses and not are allowed"),
        ('a"b = 1', "quotation marks"),
    ],
)
def test_invalid_expressions(text: str, reason: str) -> None:
    """The message has the text, the place in it, and what was expected there."""
    with pytest.raises(click.UsageError, match=reason) as found:
        parse_filters([Where(text)])
    assert found.value.message.startswith(f"--where {text!r}: ")


def test_both_options_must_hold() -> None:
    """Each `--where`, and all of `--filter` together; in either order."""
    seen: list[Any] = []

    @click.command()
    @filter_option
    def command(*, filters: tuple[str, ...]) -> None:
        seen.append(parse_filters(filters, INDEXES))

    for words in (
        ["--where", "lang = de", "--filter", "tag", "--where", "year >= 2000"],
        ["--filter", "tag", "--where", "lang = de", "--where", "year >= 2000"],
        ["--where", "lang = de"],
        ["--filter", "tag"],
        [],
    ):
        assert 0 == CliRunner().invoke(command, words).exit_code
    both = All([{"tag": Exists()}, DE, NEW])
    assert [both, both, DE, {"tag": Exists()}, None] == seen
