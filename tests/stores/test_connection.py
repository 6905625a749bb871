"""URLs of servers, and what goes with them: read right, or refused without showing a secret."""

from __future__ import annotations

import math
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection
from msmarco_qdrant.stores.connection import Address, hide_secret, is_url, parse_address

HIDDEN = "hunter2"
ELSEWHERE = Connection(grpc_port=7334)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host", Address("host", False, 6333, 6334)),
        ("http://host/", Address("host", False, 6333, 6334)),
        ("http://host:", Address("host", False, 6333, 6334)),
        ("http://host:6333/", Address("host", False, 6333, 6334)),
        ("http://host:7333", Address("host", False, 7333, 7334)),
        ("https://host", Address("host", True, 6333, 6334)),
        ("https://a.b-c.cloud.qdrant.io:6333/", Address("a.b-c.cloud.qdrant.io", True, 6333, 6334)),
        ("https://host:8333", Address("host", True, 8333, 8334)),
        ("https://host:443", Address("host", True, 443, None, transport="rest")),
        ("http://host:80", Address("host", False, 80, None, transport="rest")),
        ("http://host:65535", Address("host", False, 65535, None, transport="rest")),
        ("https://host/q", Address("host", True, 6333, None, "/q", transport="rest")),
        ("https://host:443/a/b-1/", Address("host", True, 443, None, "/a/b-1", transport="rest")),
        ("grpc://host", Address("host", False, None, 6334, transport="grpc")),
        ("grpc://host:", Address("host", False, None, 6334, transport="grpc")),
        ("grpc://host:1", Address("host", False, None, 1, transport="grpc")),
        ("grpcs://host:65535/", Address("host", True, None, 65535, transport="grpc")),
        ("http://[::1]:6333", Address("[::1]", False, 6333, 6334)),
        ("grpc://[2001:db8::1]:9/", Address("[2001:db8::1]", False, None, 9, transport="grpc")),
        ("HTTPS://Host.Example", Address("host.example", True, 6333, 6334)),
    ],
)
def test_v2_one_rule_from_url_to_ports(url: str, expected: Address) -> None:
    """Another port than 6333 never means gRPC at 6334."""
    assert expected == parse_address(url, DEFAULT_CONNECTION)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host", (6333, 7334)),
        ("http://host:9333", (9333, 7334)),
        ("https://host:443", (443, 7334)),
        ("https://host/path", (6333, 7334)),
        ("grpc://host", (None, 7334)),
        ("grpc://host:1", (None, 1)),
    ],
)
def test_v2_a_given_grpc_port_is_taken(url: str, expected: tuple[int | None, int]) -> None:
    """Only the port of a URL of gRPC is stronger."""
    address = parse_address(url, ELSEWHERE)
    assert expected == (address.rest_port, address.grpc_port)


@pytest.mark.parametrize(
    ("url", "transport", "expected"),
    [
        ("http://host", "rest", "rest"),
        ("http://host", "grpc", "grpc"),
        ("http://host", "auto", "auto"),
        ("grpc://host", "auto", "grpc"),
        ("https://host:443", "auto", "rest"),
    ],
)
def test_v11_a_transport_is_that_of_the_url_or_the_wanted_one(
    url: str, transport: Any, expected: str
) -> None:
    """`auto` is left only where both ports may answer."""
    assert expected == parse_address(url, Connection(transport=transport)).transport


@pytest.mark.parametrize(
    ("url", "transport", "message"),
    [
        ("grpc://host:1", "rest", "transport rest must have an http:// or https:// URL"),
        ("https://host:443", "grpc", "MSMARCO_QDRANT_GRPC_PORT or Connection"),
        ("http://host/path", "grpc", "MSMARCO_QDRANT_GRPC_PORT or Connection"),
    ],
)
def test_v11_a_transport_without_a_port_is_refused(url: str, transport: Any, message: str) -> None:
    """With the setting that gives one."""
    with pytest.raises(UsageError, match=message):
        parse_address(url, Connection(transport=transport))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host:7333/a/", ("https://host:7333/a", "host:7334")),
        ("http://[::1]:6333", ("http://[::1]:6333", "[::1]:7334")),
        ("grpcs://host", ("https://host", "host:7334")),
    ],
)
def test_an_address_is_written_for_each_transport(url: str, expected: tuple[str, str]) -> None:
    """As the clients take it."""
    address = parse_address(url, ELSEWHERE)
    assert expected == (address.base_url, address.grpc_target)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost", True),
        ("http://LOCALHOST:6333", True),
        ("grpc://127.0.0.1:7334", True),
        ("grpc://[::1]", True),
        ("http://host", False),
        ("http://localhost.example", False),
        ("http://10.0.0.1", False),
        ("grpc://[2001:db8::1]", False),
    ],
)
def test_loopback_is_this_machine(url: str, expected: bool) -> None:
    """By name or number; nobody listens on the way there."""
    assert expected == parse_address(url, DEFAULT_CONNECTION).is_loopback


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"http://{HIDDEN}@host", "MSMARCO_QDRANT_API_KEY"),
        (f"https://me:{HIDDEN}@host:6333", "MSMARCO_QDRANT_API_KEY"),
        (f"grpcs://:{HIDDEN}@host", "Connection\\(api_key=...\\)"),
        (f"http://me@{HIDDEN}@host", "MSMARCO_QDRANT_API_KEY"),
        (f"http://host?api-key={HIDDEN}", "MSMARCO_QDRANT_API_KEY"),
        (f"http://host/?{HIDDEN}", "MSMARCO_QDRANT_API_KEY"),
        (f"http://host#{HIDDEN}", "MSMARCO_QDRANT_API_KEY"),
        (f"http://host/%20{HIDDEN}", "names of letters, digits"),
        (f"http://host//{HIDDEN}", "names of letters, digits"),
        (f"https://host/a/../{HIDDEN}", "names of letters, digits"),
        (f"grpcs://host:1/a/{HIDDEN}", "grpcs://host:port without a path"),
        (f"ftp://me:{HIDDEN}@host", "must be http://host, https://host, grpc://host, grpcs://"),
        (f"qdrant://{HIDDEN}", "a directory or :memory:"),
        (f"://{HIDDEN}", "a directory or :memory:"),
        (f"http:///{HIDDEN}", "http://host"),
        ("http://", "http://host"),
        ("grpc://:6334", "grpc://host"),
        (f"http://host:{HIDDEN}", "from 1 to 65535"),
        (f"http://me:{HIDDEN}", "from 1 to 65535"),
        ("grpc://host:0", "from 1 to 65535"),
        ("http://host:0", "from 1 to 65535"),
        ("grpc://host:65536", "from 1 to 65535"),
        ("grpc://host:-1", "from 1 to 65535"),
        (f"http://me:{HIDDEN}@ho\u2100st", "from 1 to 65535"),
        (f"http://[{HIDDEN}", "an IPv6 address in brackets"),
        (f"http://[{HIDDEN}]", "an IPv6 address in brackets"),
        ("http://2001:db8::1", "an IPv6 address in brackets"),
    ],
)
def test_a_url_of_anything_else_is_refused_without_its_secret(url: str, message: str) -> None:
    """The message shows the scheme alone, and so does everything that comes with it."""
    with pytest.raises(UsageError, match=message) as caught:
        parse_address(url, DEFAULT_CONNECTION)
    assert HIDDEN not in "".join(traceback.format_exception(caught.value))


@given(
    scheme=st.sampled_from(["http", "https", "grpc", "grpcs", "ftp", ""]),
    before=st.text(st.sampled_from("ab1:/@?#[]%&=;,\\ \t\n\u2100\u00fc"), max_size=8),
    after=st.text(st.sampled_from("ab1:/@?#[]%&=;,\\ \t\n\u2100\u00fc"), max_size=8),
)
def test_no_refusal_shows_a_secret(scheme: str, before: str, after: str) -> None:
    """Wherever it stands; and what is accepted is a host and a port and nothing else."""
    url = f"{scheme}://{before}{HIDDEN}{after}"
    refused, host = "", HIDDEN
    try:
        host = parse_address(url, DEFAULT_CONNECTION).host
    except UsageError as exc:
        refused = str(exc)
    assert HIDDEN not in refused.lower()
    assert HIDDEN in host
    assert set() == set("/@?#") & set(host)


@pytest.mark.parametrize(
    ("dsn", "is_server", "shown"),
    [
        (f"http://me:{HIDDEN}@host/?{HIDDEN}#{HIDDEN}", True, "http://..."),
        (f"qdrant://{HIDDEN}://{HIDDEN}", True, "qdrant://..."),
        ("./qdrant_data", False, "./qdrant_data"),
        (":memory:", False, ":memory:"),
        ("host:6333", False, "host:6333"),
    ],
)
def test_a_dsn_is_shown_without_secret(dsn: str, is_server: bool, shown: str) -> None:
    """Of a URL that was not checked the scheme alone; a path as it is."""
    assert (is_server, shown) == (is_url(dsn), hide_secret(dsn))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"grpc_port": 0}, "grpc_port must be 1 to 65535, got 0"),
        ({"grpc_port": -1}, "grpc_port must be 1 to 65535, got -1"),
        ({"grpc_port": 65536}, "grpc_port must be 1 to 65535, got 65536"),
        ({"timeout_s": 0.0}, "timeout_s must be a finite number above 0, got 0.0"),
        ({"timeout_s": -1.0}, "timeout_s must be a finite number above 0, got -1.0"),
        ({"timeout_s": math.nan}, "timeout_s must be a finite number above 0, got nan"),
        ({"timeout_s": math.inf}, "timeout_s must be a finite number above 0, got inf"),
        ({"retry_s": -0.1}, "retry_s must be 0 or more, got -0.1"),
        ({"retry_s": math.nan}, "retry_s must be 0 or more, got nan"),
        ({"batch_points": 0}, "batch_points must be a finite number above 0, got 0"),
        ({"batch_bytes": 0}, "batch_bytes must be a finite number above 0, got 0"),
        ({"in_flight": 0}, "in_flight must be a finite number above 0, got 0"),
        ({"in_flight": -4}, "in_flight must be a finite number above 0, got -4"),
    ],
)
def test_numbers_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    """The message names the number, and what it may be."""
    with pytest.raises(UsageError, match=message):
        Connection(**values)


def test_the_smallest_and_largest_numbers_are_accepted() -> None:
    """As they are."""
    least = Connection(None, 1, 0.001, 0.0, None, 1, 1, 1)
    most = Connection(grpc_port=65535, timeout_s=1e6, retry_s=math.inf)
    assert (1, 0.001, 0.0, 1) == (least.grpc_port, least.timeout_s, least.retry_s, least.in_flight)
    assert (65535, math.inf) == (most.grpc_port, most.retry_s)


def test_a_key_is_not_shown() -> None:
    """Not by repr, str or a format, alone or inside of something else."""
    connection = Connection(api_key=HIDDEN)
    assert HIDDEN == connection.api_key
    shown = f"{connection} {connection!r} {connection!s} {[connection]} {({'it': connection},)}"
    assert HIDDEN not in shown
    assert "grpc_port=None" in shown


@pytest.mark.parametrize(
    "key",
    [
        f"{HIDDEN}\n",
        f"{HIDDEN}\r\n",
        f"\n{HIDDEN}",
        f"{HIDDEN}\0",
        f"{HIDDEN}\t",
        f"{HIDDEN}\u00fc",
        f"{HIDDEN}\x7f",
        f"{HIDDEN}\udcff",
        "",
    ],
)
def test_a_key_that_cannot_be_sent_is_refused(key: str) -> None:
    """Before gRPC says so in words of its own, and without showing it."""
    with pytest.raises(UsageError, match="the API key must be printable ASCII") as caught:
        Connection(api_key=key)
    assert HIDDEN not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


@pytest.mark.parametrize("key", ["k", " k k ", "".join(map(chr, range(0x20, 0x7F)))])
def test_any_printable_key_is_accepted(key: str) -> None:
    """All that HTTP/2 lets through as a header's value."""
    assert key == Connection(api_key=key).api_key
