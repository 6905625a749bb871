"""The server itself: ports, restarts, TLS, the record of requests, threads, and all clients."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from shutil import which

import grpc as grpcio  # type: ignore[import-untyped]
import pytest
from qdrant_client import QdrantClient, grpc

from tests.loopback import LoopbackServer, Received
from tests.loopback.conftest import NAME, client_of, point


def test_requests_are_kept_with_their_wait(server: LoopbackServer, client: QdrantClient) -> None:
    """In order, by long or short name, and cleared on request."""
    client.upsert(NAME, [point(6)], wait=True)
    client.upsert(NAME, [point(7)], wait=False)
    client.count(NAME)
    assert [True, False] == [message.wait for message in server.requests.of("Upsert")]
    assert ["Points.Upsert", "Points.Upsert", "Points.Count"] == [rpc for rpc, _ in server.requests]
    last = server.requests.all()[-1]
    assert isinstance(last, Received)
    assert isinstance(last.message, grpc.CountPoints)
    assert (3, 2) == (server.requests.count(), server.requests.count("Points.Upsert"))
    server.requests.clear()
    assert (0, 0) == (len(server.requests), server.requests.count())


def test_only_the_last_requests_are_kept(client: QdrantClient, server: LoopbackServer) -> None:
    """The record is bounded, the count is not."""
    server.requests.keep(2)
    for _ in range(3):
        client.count(NAME)
    assert (2, 3) == (len(server.requests), server.requests.count("Count"))


def test_calls_from_many_threads_are_one_after_the_other(
    server: LoopbackServer, client: QdrantClient
) -> None:
    """Local mode breaks under concurrent use; behind the one lock nothing is lost."""
    threads = [
        threading.Thread(
            target=lambda start=start: [
                client.upsert(NAME, [point(number)]) for number in range(start, start + 10)
            ]
        )
        for start in range(100, 180, 10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 85 == client.count(NAME).count
    assert 80 == server.requests.count("Upsert")


def test_a_restart_keeps_data_port_and_record(server: LoopbackServer, client: QdrantClient) -> None:
    """As a server that was down for a while."""
    port = server.port
    server.stop()
    server.stop()
    server.start()
    server.start()
    assert port == server.port
    fresh = client_of(server)
    assert 5 == fresh.count(NAME).count
    assert 1 == server.requests.count()
    fresh.close()
    client.close()


def test_tls(tmp_path: Path) -> None:
    """A secure port, with a certificate that the client is told to trust."""
    openssl = which("openssl")
    if openssl is None:
        pytest.skip("no openssl program to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = (
        f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    with LoopbackServer(tls=(key.read_bytes(), certificate.read_bytes())) as server:
        client = QdrantClient(
            url=f"https://127.0.0.1:{server.port}",
            grpc_port=server.port,
            prefer_grpc=True,
            check_compatibility=False,
            grpc_options={"root_certificates": certificate.read_bytes()},
        )
        assert "1.20.0" == client.info().version
        assert f"grpcs://127.0.0.1:{server.port}" == server.url
        client.close()


def test_what_is_not_served_says_so(server: LoopbackServer, client: QdrantClient) -> None:
    """A call of the protobufs that is not served is UNIMPLEMENTED, and so is another service's."""
    with pytest.raises(grpcio.RpcError) as caught:
        client.grpc_points.Facet(grpc.FacetCounts(collection_name=NAME, key="pid"))
    assert (grpcio.StatusCode.UNIMPLEMENTED, "the loopback server does not serve Points.Facet") == (
        caught.value.code(),
        caught.value.details(),
    )
    with (
        grpcio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        pytest.raises(grpcio.RpcError) as caught,
    ):
        channel.unary_unary("/qdrant.Snapshots/List")(b"")
    assert grpcio.StatusCode.UNIMPLEMENTED == caught.value.code()
