"""Hostile requests: each gets a 4xx or does no harm, and none leaves a trace outside the spool."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import httpx
import pytest
from starlette.types import Message

from msmarco_qdrant.service.http.limits import Limits
from msmarco_qdrant.service.http.tokens import Tokens
from tests.service.http.sieges import (
    JSON,
    NDJSON,
    Answers,
    Receive,
    besiege,
    by_hand,
    chunk,
    receiving,
    refused,
)
from tests.service.real_parts import Real

_DEEP = b'[{"pid": "1", "text": "a", "meta": {"a": %s}}]'
_NUMBERS = (b"1e400", b"-1e400", b"1" + b"0" * 5000, b"18446744073709551616", b"NaN", b"Infinity")
_PATHS = (
    "../../etc/passwd",
    "/etc/passwd",
    "..\\..\\passwd",
    "%2e%2e%2fpasswd",
    "file:///etc/passwd",
    "~/passwd",
    "$(touch passwd)",
    "passwd\n../passwd",
    ".lock",
    "sequence",
    "0000000000000001-00000000000000000000000000000000.ops.jsonl",
    "\u202e\ufeff\U0001f4a9",
)


_NO_QUERIES: Sequence[object] = ([], ["a"] * 65, [1] * 100_000, [None], "a", {})
_NO_CONDITIONS: Sequence[object] = (None, [], {}, [[]], {"not": {}}, {"gt": {}})


def _each(name: str, *values: object) -> list[object]:
    """Searches that differ in one field."""
    return [{"query": "a", name: value} for value in values]


def _passage(**fields: object) -> bytes:
    return json.dumps([{"pid": "1", "text": "a", **fields}]).encode("utf-8", "surrogatepass")


def _whole(body: bytes = b'[{"pid": "1", "text": "a"}]') -> Receive:
    return receiving(chunk(body))


async def _posted(
    client: httpx.AsyncClient, path: str, bodies: Sequence[bytes], headers: dict[str, str]
) -> Answers:
    return [
        (body[:80], (await client.post(path, content=body, headers=headers)).status_code)
        for body in bodies
    ]


def test_passages_that_no_payload_holds(tmp_path: Path) -> None:
    """Huge numbers, depth, NUL, half characters, no UTF-8, and what is no passage at all."""
    bodies = [
        *(_DEEP % number for number in _NUMBERS),
        *(b'[{"pid": %s, "text": "a"}]' % number for number in _NUMBERS),
        *(_DEEP % (b"[" * deep + b"]" * deep) for deep in (25, 150, 250, 100_000)),
        b"[" * 1_000_000,
        b'{"a":' * 100_000,
        *(_passage(**{field: "a\0b"}) for field in ("pid", "text")),
        *(_passage(meta=meta) for meta in ({"a\0b": 1}, {"a": "\0"}, {"a": [{"b": "\0"}]})),
        *(b'[{"pid": "%s", "text": "a"}]' % half for half in (rb"\ud800", rb"\udfff\ud800")),
        rb'[{"pid": "1", "text": "a", "meta": {"\ud800": 1}}]',
        *(b'["%s"]' % wrong for wrong in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8")),
        '[{"pid": "1", "text": "a"}]'.encode("utf-16"),
        *(b"", b"null", b"{}", b"[]", b"7", b'"a"', b"[[]]", b"[null]", b"[1", b"]", b"\0"),
        _passage(pid="p" * 1_000_000),
        _passage(text="t" * 1_000_000),
        _passage(text=" \t\n "),
        _passage(meta={str(key): key for key in range(100_000)}),
        b"[{" + b",".join(b'"k%d":1' % key for key in range(100_000)) + b"}]",
        b"[" + b",".join([b"{}"] * 5_000) + b"]",
        b"[" + b",".join([b"1"] * 100_000) + b"]",
    ]

    async def use(client: httpx.AsyncClient, real: Real) -> None:
        assert refused(await _posted(client, "/passages", bodies, JSON))
        lines = [body[1:-1] for body in bodies[:12]]
        assert refused(await _posted(client, "/passages", lines, NDJSON))
        assert 0 == real.spool.depth

    besiege(tmp_path, use)


def test_an_error_of_a_line_names_it(tmp_path: Path) -> None:
    """The number is the line's own, empty lines counted."""
    good = b'{"pid": 1, "text": "a"}'

    async def use(client: httpx.AsyncClient, real: Real) -> None:
        assert 0 == real.spool.depth
        wrong = b"\n".join([good, b"", b" \r", b'{"pid": 2}', b'{"pid": 3, "text": ""}'])
        answer = await client.post("/passages", content=wrong, headers=NDJSON)
        assert ["line 4.text", "line 5"] == [one["where"] for one in answer.json()["errors"]]
        broken = b"\n\n" + good + b"\n{"
        answer = await client.post("/passages", content=broken, headers=NDJSON)
        assert (400, True) == (answer.status_code, "Line 4 " in answer.json()["detail"])

    besiege(tmp_path, use)


@pytest.mark.slow
def test_strange_passages_do_no_harm(tmp_path: Path) -> None:
    """Paths in every string, repeated keys, a million empty lines: written as they are, or told."""
    rows = [
        {"pid": path, "text": f"of {path}", "meta": {path: [path, {path: path}]}} for path in _PATHS
    ]
    wide = [{"pid": "w", "text": "w", "meta": {str(key): key for key in range(15_000)}}]
    named = io.BytesIO()
    with gzip.GzipFile("../../passwd", "wb", fileobj=named) as file:
        file.write(b'[{"pid": "named", "text": "a"}]')

    async def use(client: httpx.AsyncClient, real: Real) -> None:
        for content, headers in (
            (json.dumps(rows).encode(), JSON),
            (json.dumps(wide).encode(), JSON),
            (b'[{"pid": "a", "pid": "b", "text": "c", "text": "d"}]', JSON),
            (b"\xef\xbb\xbf" + _passage(meta={"a": 1e308, "b": -(2**63)}), JSON),
            (b"\n" * 1_000_000 + b'{"pid": 1, "text": "a"}' + b" \n" * 1_000_000, NDJSON),
            (named.getvalue(), {**JSON, "content-encoding": "gzip"}),
        ):
            answer = await client.post("/passages?wait=true", content=content, headers=headers)
            assert (200, "done", 0) == (
                answer.status_code,
                answer.json()["state"],
                answer.json()["rejected"],
            )
        mute = [{"pid": "mute", "text": "\u202e\ufeff"}, {"pid": "heard", "text": "a"}]
        told = (await client.post("/passages?wait=true", json=mute)).json()
        assert ("done", 1, 1) == (told["state"], told["written"], told["rejected"])
        assert [1] == [reject["line"] for reject in told["rejects"]]
        for path in _PATHS:
            assert 202 == (await client.delete(f"/passages/{path.encode().hex()}")).status_code
        found = await client.post("/search", json={"query": "passwd", "limit": 50})
        assert {"../../etc/passwd", "~/passwd"} <= {hit["pid"] for hit in found.json()["hits"]}
        assert real.spool.state("../../etc/passwd") is None

    besiege(tmp_path, use)


@cache
def _bomb() -> bytes:
    return gzip.compress(b" " * 64 * 2**20)


@pytest.mark.parametrize(
    "make",
    [
        _bomb,
        lambda: gzip.compress(_bomb()),
        lambda: gzip.compress(b"") * 2_000,
        lambda: gzip.compress(b"[]" * 1000)[:-8],
        lambda: gzip.compress(b'[{"pid": "1", "text": "a"}]') + b"rubbish",
        lambda: gzip.compress(b'[{"pid": "1", "text": "a"}]') + b"\0" * 1000,
        lambda: b"\x1f\x8b\x08\x00" + b"\xff" * 1000,
        lambda: b"\x1f\x8b",
        lambda: b"",
    ],
    ids=["bomb", "nested", "members", "cut", "rubbish", "zeros", "broken", "magic", "empty"],
)
def test_hostile_gzip(tmp_path: Path, make: Callable[[], bytes]) -> None:
    """No more is made of it than a body may have, and it has to be whole and nothing else."""
    packed = make()

    async def use(client: httpx.AsyncClient, real: Real) -> None:
        headers = {"content-encoding": "gzip"}
        for path, form in (("/passages", JSON), ("/passages", NDJSON), ("/search", JSON)):
            answer = await client.post(path, content=packed, headers={**form, **headers})
            assert answer.status_code in (400, 413)
        assert 0 == real.spool.depth

    besiege(tmp_path, use)


@pytest.mark.slow
def test_searches_that_nobody_can_answer(tmp_path: Path) -> None:
    """Numbers, filters and queries beyond all bounds."""
    fields = ["a\0", '"', "a" * 257, "a[99999999999]", "\ud800"]
    searches: list[object] = [
        *_each("limit", 0, -1, 1_001, 2**64, 1.5, True, "1", [1]),
        *_each("query", "", " ", "\0\ud800", "a" * 2_001, None, 1, ["a"]),
        *_each("mode", "", "../x", None, 1, "DENSE"),
        *_each("filter", *({field: 1} for field in fields)),
        *_each("filter", *({"a": wrong} for wrong in (*_NO_CONDITIONS, 2**64))),
        *_each("filter", *({"a": {"gte": wrong}} for wrong in ("x", *_NO_CONDITIONS, 2**64))),
        *_each("filter", {"a": {"gte": 1, "lt": "2024-05-01"}}, {"a": {"any": []}}),
        *_each("filter", *({"a": {"text": wrong}} for wrong in ("x " * 1_001, "--", 1, None))),
        *_each("filter", *({"a": {"object": wrong}} for wrong in ({}, {"b": {"not": 1}}, None))),
        *_each("filter", {"a": {"not": 1, "any": [2]}}, {"$any": [{"a": 1}], "b": 1}, {"$not": 1}),
        *_each("filter", {"$any": [{"a": 1}] * 1_001}),
        *_each("filter", {"p": {"geo_radius": {"lat": 91, "lon": 0, "radius_m": 1}}}),
        *_each("filter", {str(number): 1 for number in range(5_000)}, {"a": [1] * 5_000}),
        {"query": "a", **{str(number): 1 for number in range(10_000)}},
        *({"queries": wrong} for wrong in _NO_QUERIES),
        {"queries": ["a"] * 64, "limit": 157},
        {"queries": ["a"] * 21, "rerank": True},
        {"query": "a", "queries": ["a"]},
        {},
    ]
    bodies = [json.dumps(one).encode() for one in searches]
    bodies += [b'{"query": "a", "limit": %s}' % number for number in _NUMBERS]
    bodies += [b'{"query": "a", "filter": {"a": %s}}' % number for number in _NUMBERS]
    bodies += [
        b'{"query": "a", "filter": ' + b'{"a":' * 199 + b"1" + b"}" * 199 + b"}",
        b'{"query": "a", "filter": {"a": ' + b'{"not":' * 190 + b"1" + b"}" * 192,
        b'{"query": "a", "filter": ' + b'{"$not":' * 190 + b'{"a": 1}' + b"}" * 191,
        b"[" * 999,
    ]

    async def use(client: httpx.AsyncClient, real: Real) -> None:
        assert refused(await _posted(client, "/search", bodies, JSON))
        assert 0 == real.spool.depth
        for field in (*_PATHS, "", ".", "..", "a.", ".a", "a[", "a[]", "a[0].b", "[", "]"):
            search = {"query": "city", "filter": {field: 1}}
            answer = await client.post("/search", json=search)
            assert (200, []) == (answer.status_code, answer.json()["hits"]), field

    besiege(tmp_path, use)


def test_paths_and_queries_that_lead_elsewhere(tmp_path: Path) -> None:
    """No file is read or written by its name, however it is written."""

    async def use(client: httpx.AsyncClient, real: Real) -> None:
        del client
        answers = []
        for path in (
            b"/page/../app.py",
            b"/page/..%2fapp.py",
            b"/page/%2e%2e/%2e%2e/passwd",
            b"/page/%2fetc%2fpasswd",
            b"/page/index.html%00",
            b"/batches/../../etc/passwd",
            b"/batches/..%2f..%2fpasswd",
            b"/batches/%00",
            b"/batches/" + b"0" * 60_000,
            b"//etc/passwd",
            b"/..",
            b"/%00",
            b"/%ff",
            b"/passages/1?wait=%00",
        ):
            method = "DELETE" if path.startswith(b"/passages") else "GET"
            status, body = await by_hand(real, _whole(b""), method=method, path=path)
            answers.append((path, status))
            assert b"as it was" not in body
        assert refused(answers)
        for path in (
            b"/passages/",
            b"/passages/%ff",
            b"/passages/%00",
            b"/passages/" + b"p" * 2_000,
        ):
            status, _ = await by_hand(real, _whole(b""), method="DELETE", path=path)
            assert status in (400, 422)
        status, _ = await by_hand(
            real, _whole(b""), method="DELETE", path=b"/passages/..%2f../%2e%2e/passwd"
        )
        assert 202 == status

    besiege(tmp_path, use)


def test_headers_that_lie(tmp_path: Path) -> None:
    """Lengths, types, codings, hosts and tokens of any bytes."""
    wrong = (
        (b"content-length", b"9" * 400),
        (b"content-encoding", b"br"),
        (b"content-encoding", b"gzip, gzip"),
        (b"content-type", b"\xff"),
        (b"content-type", b"application/json; charset=utf-16"),
        (b"content-type", b"application/json\0"),
        (b"content-type", b"a" * 60_000),
        (b"host", b"elsewhere.example"),
        (b"host", b"[::1].elsewhere.example"),
        (b"host", b"\xff"),
    )

    async def use(client: httpx.AsyncClient, real: Real) -> None:
        del client
        answers = [
            (value[:80], (await by_hand(real, _whole(), headers={name: value}))[0])
            for name, value in wrong
        ]
        assert refused(answers)
        assert 0 == real.spool.depth

    besiege(tmp_path, use)


def test_tokens_of_any_bytes(tmp_path: Path) -> None:
    """Whatever stands for a token is refused, and none of it is told."""
    given = (
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer \0",
        b"Bearer \xff\xfe",
        b"Basic dzp3",
        b"w" * 60_000,
    )

    async def use(client: httpx.AsyncClient, real: Real) -> None:
        del client
        for token in given:
            headers = {b"authorization": token}
            status, body = await by_hand(real, _whole(), headers=headers)
            assert 401 == status
            assert b"wwww" not in body
        assert 0 == real.spool.depth

    besiege(tmp_path, use, tokens=Tokens("r" * 16, "w" * 16))


def test_bodies_that_do_not_end(tmp_path: Path) -> None:
    """One that stops coming is 408, one that is cut 400; neither keeps a place that others need."""

    async def cut() -> Message:
        return {"type": "http.disconnect"}

    async def use(client: httpx.AsyncClient, real: Real) -> None:
        del client
        for path in (b"/passages", b"/search"):
            for then, expected in ((None, 408), (cut, 400)):
                for _ in range(3):
                    body = receiving(chunk(b"[", more=True), then=then)
                    assert expected == (await by_hand(real, body, path=path))[0]
        assert 0 == real.spool.depth

    besiege(tmp_path, use, limits=Limits(body_s=0.05, bodies=1))
