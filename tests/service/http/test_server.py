"""The HTTP server's sockets."""

from __future__ import annotations

import socket

import pytest

from msmarco_qdrant.service.http.server import listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_body_of_an_answer_is_not_delayed(host: str) -> None:
    """Connections send small segments at once: headers and body are two of them."""
    if host == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6")
    with listen(host, 0) as listening, socket.create_connection(listening.getsockname()[:2]):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
