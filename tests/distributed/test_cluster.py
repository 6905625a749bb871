"""The address of a Ray cluster; without Ray."""

from __future__ import annotations

import socket

import pytest

from msmarco_qdrant.distributed.cluster import require_answer
from msmarco_qdrant.errors import WorkerError


def test_an_address_where_nothing_listens_is_refused() -> None:
    """At once, with the address; one that answers is not, nor a word for a cluster."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        require_answer(address)
    for none in (address, "127.0.0.1:99999"):
        with pytest.raises(WorkerError, match=f"no Ray cluster answers at {none}: .*ray start"):
            require_answer(none)
    for word in (None, "auto", "local"):
        require_answer(word)
