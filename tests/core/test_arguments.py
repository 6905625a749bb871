"""Arguments of public functions: names, and plain values in place of objects."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import jedi
import pytest

import msmarco_qdrant
from msmarco_qdrant import (
    AsyncSearchClient,
    Bm25Settings,
    Connection,
    Corpus,
    EncoderOptions,
    Fusion,
    PrunePolicy,
    SearchClient,
    StorageSettings,
    VectorShards,
    encode_corpus,
    evaluation,
    ingest_passages,
    open_store,
    reembed_collection,
    rollback_collection,
    train,
)
from msmarco_qdrant.core.arguments import to_settings
from msmarco_qdrant.encoding.options import to_encoder_options
from msmarco_qdrant.errors import UnknownArgumentError, UsageError
from msmarco_qdrant.ingest.prune import to_policy
from msmarco_qdrant.testing import HashingEncoder

_MODULES = (msmarco_qdrant, evaluation, train)
# These read saved runs and judgments, and have few arguments.
_EVALUATION = ("evaluate_search", "plan_evaluation", "run_evaluation")
_FUNCTIONS = {
    name: getattr(module, name)
    for module, names in ((msmarco_qdrant, msmarco_qdrant.__all__), (evaluation, _EVALUATION))
    for name in names
    if inspect.isfunction(getattr(module, name))
}


@pytest.mark.parametrize("name", sorted(_FUNCTIONS))
def test_every_function_refuses_an_unknown_name(name: str) -> None:
    """Before anything else happens, with the nearest name."""
    function = _FUNCTIONS[name]
    right = list(inspect.signature(function).parameters)[-1]
    wrong = right[:-1] + "_" + right[-1:]
    with pytest.raises(UnknownArgumentError, match=rf"'{wrong}': (did you mean|it takes)"):
        function(**{wrong: None})


def _numbers() -> list[Any]:
    """Numbers with a default: of public functions, and of methods of the classes with many."""
    found = [getattr(module, one) for module in _MODULES for one in module.__all__]
    classes = (SearchClient, AsyncSearchClient, Corpus)
    found += [getattr(kind, one) for kind in classes for one in vars(kind)]
    return [
        pytest.param(function, one.name, id=f"{function.__qualname__}-{one.name}")
        for function in found
        if inspect.isroutine(function)
        for one in inspect.signature(function).parameters.values()
        if one.annotation in ("int", "float") and one.default not in (None, one.empty)
    ]


def await_if_needed(result: Any) -> None:
    """Wait for a coroutine."""
    if inspect.iscoroutine(result):
        asyncio.run(result)


@pytest.mark.parametrize(("function", "name"), _numbers())
def test_none_is_refused_for_a_number_with_a_default(
    function: Callable[..., Any], name: str
) -> None:
    """It would be a TypeError where it is compared, maybe late."""
    with pytest.raises(UsageError, match=f"^{name} must not be None: omit it for its default, "):
        await_if_needed(function(**{name: None}))


@pytest.mark.parametrize("kind", [Connection, EncoderOptions, Fusion, PrunePolicy])
def test_none_is_refused_for_a_number_of_settings(kind: type) -> None:
    """By the rule of each."""
    for one in fields(kind):
        if one.type in ("int", "float"):
            with pytest.raises(UsageError, match=f"{one.name} must be .*, got None$"):
                kind(**{one.name: None})


def test_none_is_refused_for_another_default() -> None:
    """Also by its position; where None means something, it is accepted."""
    with pytest.raises(UsageError, match=r"skip_field must not be None: omit it for its default"):
        Corpus("a.tsv", skip_field=None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"collection must not be None: omit .*, 'msmarco'"):
        rollback_collection(":memory:", None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"optimize must not be None: omit .*, True"):
        ingest_passages([], ":memory:", prompts=None, optimize=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("ingest_passages(", {"source=", "storage=", "progress="}),
        ("reembed_collection(", {"model=", "progress="}),
        ("encode_corpus(x, pro", {"progress="}),
    ],
)
def test_an_editor_completes_functions(call: str, expected: set[str]) -> None:
    """Although their names are checked, and the package imports them late."""
    name = call.partition("(")[0]
    program = f"from msmarco_qdrant import {name}\nx = 1\n{call}"
    names = {completion.name for completion in jedi.Script(program).complete()}
    assert set() == expected - names


@pytest.mark.parametrize(
    ("kind", "value", "plain", "expected"),
    [
        (StorageSettings, "turbo4", "quantization", StorageSettings(quantization="turbo4")),
        (StorageSettings, {"on_disk": False}, "quantization", StorageSettings(on_disk=False)),
        (Bm25Settings, "german", "language", Bm25Settings(language="german")),
        (PrunePolicy, PrunePolicy(0.5), None, PrunePolicy(0.5)),
    ],
)
def test_settings_are_an_object_a_dictionary_or_a_string(
    kind: type[object], value: object, plain: str | None, expected: object
) -> None:
    """A string sets one field."""
    assert expected == to_settings(kind, value, "it", plain)


@pytest.mark.parametrize(
    ("kind", "value", "plain", "message"),
    [
        (
            StorageSettings,
            "int4",
            "quantization",
            "quantization must be one of none, int8, turbo4, got 'int4'",
        ),
        (
            StorageSettings,
            {"quantisation": "none"},
            "quantization",
            "it has no field 'quantisation': did you mean 'quantization'",
        ),
        (
            StorageSettings,
            8,
            "quantization",
            (
                "it must be a string for its quantization, a dictionary of its fields "
                r"\(on_disk, quantization\) or a StorageSettings, got 8"
            ),
        ),
        (PrunePolicy, "all", None, "it must be a dictionary of its fields"),
        (
            StorageSettings,
            {"on_disk": "yes"},
            None,
            "on_disk of it must be True or False",
        ),
        (StorageSettings, StorageSettings(on_disk=1), None, "on_disk of it must be True or False"),  # type: ignore[arg-type]
        (Bm25Settings, {"k": "x"}, None, "k of it must be a number, got 'x'"),
        (Bm25Settings, {"language": 5}, None, "language of it must be a string, got 5"),
        (EncoderOptions, {"cached_queries": 1.5}, None, "cached_queries of it must be an integer"),
        (EncoderOptions, {"device": 5}, None, "device of it must be a string, got 5"),
        (EncoderOptions, {"precision": "int4"}, "device", "precision must be float32, bfloat16"),
    ],
)
def test_other_settings_are_refused(
    kind: type[object], value: object, plain: str | None, message: str
) -> None:
    """With what is accepted."""
    with pytest.raises(UsageError, match=message):
        to_settings(kind, value, "it", plain)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        (False, None),
        (True, PrunePolicy()),
        (0.5, PrunePolicy(0.5)),
        (1, PrunePolicy(1.0)),
        ({"allow_rejects": True}, PrunePolicy(allow_rejects=True)),
    ],
)
def test_prune_is_true_a_share_or_a_policy(given: Any, expected: PrunePolicy | None) -> None:
    """A share is the largest that is removed."""
    assert expected == to_policy(given)


def test_another_prune_is_refused() -> None:
    """With each form that is accepted."""
    with pytest.raises(UsageError, match=r"prune must be True, the largest share .*, got 'all'"):
        to_policy("all")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="max_share must be 0 to 1, got 2"):
        to_policy(2)


def test_a_device_is_enough_for_encoder_options() -> None:
    """Without any, the default of the operation."""
    assert EncoderOptions(device="cpu") == to_encoder_options("cpu")
    assert EncoderOptions(device="all") == to_encoder_options(None, device="all")
    assert EncoderOptions(precision="float32") == to_encoder_options({"precision": "float32"})


def test_an_ingest_takes_plain_values(tmp_path: Path) -> None:
    """The new collection has them; a search takes them, too."""
    encoder = HashingEncoder()
    passages = [("1", "ein Haus"), ("2", "two")]
    ingest_passages(passages, tmp_path, encoder=encoder, storage="none", bm25="german")
    report = ingest_passages(passages[:1], tmp_path, encoder=encoder, prune=0.5)
    assert (1, 1) == (report.unchanged, report.pruned)
    store = open_store(tmp_path)
    try:
        assert "none" == store.collection("msmarco").info().spec.storage.quantization
        assert "german" == store.metadata("msmarco").bm25.language
    finally:
        store.close()
    with SearchClient.open(tmp_path, encoder=encoder) as client:
        assert ["1"] == [hit.pid for hit in client.search("Haus", mode="bm25", fusion="rrf")]
    with pytest.raises(UsageError, match="encoder_options must be a string for its device"):
        SearchClient.open(tmp_path, encoder_options=7)  # type: ignore[arg-type]


_OPENERS: dict[str, Callable[..., object]] = {
    "ingest_passages": lambda path, **given: ingest_passages([("1", "one")], path, **given),
    "VectorShards": lambda path, **given: ingest_passages(_shards(path), path / "new", **given),
    "encode_corpus": lambda path, **given: encode_corpus([("1", "one")], path / "new", **given),
    "reembed_collection": lambda path, **given: reembed_collection(_stored(path), **given),
    "rollback_collection": lambda path, **given: rollback_collection(_stored(path), **given),
    "SearchClient": lambda path, **given: SearchClient.open(_stored(path), **given),
    "AsyncSearchClient": lambda path, **given: asyncio.run(
        AsyncSearchClient.open(_stored(path), **given)
    ),
}


def _stored(path: Path) -> Path:
    ingest_passages([("1", "one")], path, encoder=HashingEncoder())
    return path


def _shards(path: Path) -> VectorShards:
    encode_corpus([("1", "one")], path / "shards", encoder=HashingEncoder())
    return VectorShards(path / "shards")


@pytest.mark.parametrize("name", _OPENERS)
def test_options_of_a_model_are_refused_without_one(name: str, tmp_path: Path) -> None:
    """They would have no effect: a loaded encoder, or one of stored vectors, has its own."""
    given = {} if name == "VectorShards" else {"encoder": HashingEncoder()}
    with pytest.raises(UsageError, match="encoder_options need a model to load: omit them"):
        _OPENERS[name](tmp_path, encoder_options="cpu", **given)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", _OPENERS)
def test_a_model_and_an_encoder_are_refused(name: str, tmp_path: Path) -> None:
    """By one message."""
    with pytest.raises(UsageError, match=r"pass either model=\.\.\. or encoder=\.\.\., not both"):
        _OPENERS[name](tmp_path, model="a", encoder=HashingEncoder())
