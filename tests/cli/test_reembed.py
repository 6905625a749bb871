"""`migrate reembed`, `rollback` and `prune`, as a person or a script uses them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import pytest

from msmarco_qdrant.cli.reembed import _show
from msmarco_qdrant.collection.create import create_physical
from msmarco_qdrant.collection.generations import abandon_command, reembed_command
from msmarco_qdrant.collection.migration import CollectionPlan, load_migrations
from msmarco_qdrant.core.advice import command_line
from msmarco_qdrant.core.collection_types import Bm25Settings
from msmarco_qdrant.core.reports import ReembedProgress
from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.stores.migration_locks import hold_lock
from tests.cli.runner import Outcome, command
from tests.encoding.tiny_models import HIDDEN, Recipe, randomize, save_tiny, texts_of_lengths
from tests.loopback import LoopbackServer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from torch.nn import Embedding

TEXTS = texts_of_lengths([6 + number % 20 for number in range(40)])
QUERY = "london river"
LEDGER = ["0001_create_passages", "0002_payload_indexes"]
STAGES = """copying missing passages to the {0} collection
building the index of the {0} collection
searching both collections with sample queries
comparing every passage of both collections
repointing the alias to the {0} collection
copying passages written before the swap
"""


class Models(NamedTuple):
    """Directories of tiny models: two of one shape, a smaller one, and two of little use."""

    old: str
    new: str
    small: str
    picky: str
    dull: str


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The models, of random weights."""
    folder = tmp_path_factory.mktemp("models")
    recipes = [Recipe(seed=seed) for seed in range(5)]
    edits = (None, None, _half_as_long, _picky, _dull)
    named = zip(Models._fields, recipes, edits, strict=True)
    return Models(*(str(save_tiny(folder / name, recipe, edit)) for name, recipe, edit in named))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of 40 passages."""
    path = tmp_path_factory.mktemp("source") / "passages.tsv"
    path.write_text("".join(f"{pid}\t{text}\n" for pid, text in enumerate(TEXTS)))
    return str(path)


@pytest.fixture
def edge(unchanged: str, tmp_path: Path) -> str:
    """A directory with the passages and vectors of the old model."""
    return str(shutil.copytree(unchanged, tmp_path / "store"))


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory, source: str, models: Models) -> str:
    """The same for tests that change nothing."""
    store = str(tmp_path_factory.mktemp("unchanged") / "store")
    _ingest(store, source, models)
    return store


@pytest.fixture
def server_url(source: str, models: Models) -> Iterator[str]:
    """A server with the same."""
    with LoopbackServer() as server:
        _ingest(server.url, source, models)
        yield server.url


# ---- re-embed and roll back ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["edge", pytest.param("server_url", marks=pytest.mark.slow)])
def test_another_model_and_back(
    engine: str, request: pytest.FixtureRequest, models: Models
) -> None:
    """Each stage is announced; the report and searches match the model."""
    place = request.getfixturevalue(engine)
    done = migrate("reembed", place, "--model", models.new)

    assert (0, STAGES.format("new")) == (done.status, done.err)
    summary = "msmarco -> msmarco__000{}: 40 passages with vectors of {}, {} newly encoded, "
    first, compared, kept = done.out.splitlines()
    assert first.startswith(summary.format(2, models.new, 40))
    assert compared.startswith("40 passages searched by their first words: ")
    assert " in the first ten hits, " in compared
    assert (
        "msmarco__0001 is kept: `"
        f"{command_line('migrate', 'rollback', store=place)}` returns to it, "
        "`msmarco-qdrant migrate prune --help` shows how to remove it"
    ) == kept
    assert (
        f"collection  msmarco -> msmarco__0002 ({models.new})\n"
        f"applied     {', '.join(LEDGER)}\n"
        "pending     none\n"
        f"other       msmarco__0001 ({models.old}), kept\n"
    ) == migrate("status", place).out
    assert best_by(models.new) == found(place) != best_by(models.old)

    back = migrate("rollback", place)

    assert (0, STAGES.format("older")) == (back.status, back.err)
    first, _, kept = back.out.splitlines()
    assert first.startswith(summary.format(1, models.old, 0))
    assert (
        "msmarco__0002 is kept: `"
        f"{command_line('migrate', 'reembed', '--model', models.new, store=place)}` returns to "
        "it, `msmarco-qdrant migrate prune --help` shows how to remove it"
    ) == kept
    assert best_by(models.old) == found(place)
    assert_error(
        migrate("rollback", place),
        1,
        "no collection to go back to: 'msmarco' points to msmarco__0001; msmarco__0002 exists: "
        f"{reembed_command(place, 'msmarco', models.new)} repoints to it",
    )


@pytest.mark.slow
def test_a_model_of_another_length(edge: str, models: Models, source: str) -> None:
    """With texts from the file; the second time there is nothing to do."""
    done = migrate("reembed", edge, "--model", models.small, "--source", source)

    assert (0, STAGES.format("new")) == (done.status, done.err)
    info = command("info", "--store", edge).out
    assert f"model       {models.small} ({HIDDEN // 2}, cosine)\n" in info
    assert best_by(models.small) == found(edge) != best_by(models.old)
    assert (0, f"'msmarco' already has vectors of {models.small}\n", "") == migrate(
        "reembed", edge, "--model", models.small
    )


@pytest.mark.slow
def test_prune_needs_yes(edge: str, models: Models) -> None:
    """After it, rollback is not possible."""
    migrate("reembed", edge, "--model", models.new)
    status = migrate("status", edge)

    assert_error(
        migrate("prune", edge),
        2,
        f"nothing was removed: no alias points to msmarco__0001 ({models.old}); pass --yes to "
        "confirm",
    )
    assert status == migrate("status", edge)

    assert (0, "removed: msmarco__0001\n", "") == migrate("prune", edge, "--yes")

    assert "other " not in migrate("status", edge).out
    assert best_by(models.new) == found(edge)
    for options in ([], ["--yes"]):
        assert (0, "nothing to remove\n", "") == migrate("prune", edge, *options)
    error = "no collection to go back to: 'msmarco' points to msmarco__0002"
    assert_error(migrate("rollback", edge), 1, error)


@pytest.mark.slow
def test_every_command_prints_json(edge: str, models: Models) -> None:
    """One document each."""
    done = json.loads(migrate("reembed", edge, "--model", models.new, "--json").out)
    comparison = done.pop("comparison")
    assert done.pop("seconds") > 0
    expected = {
        "collection": "msmarco",
        "old": "msmarco__0001",
        "new": "msmarco__0002",
        "model": models.new,
        "passages": 40,
        "copied": 40,
        "removed": 0,
        "without_vector": [],
    }
    assert expected == done
    assert {"queries", "found_before", "found_after", "overlap"} == comparison.keys()

    again = json.loads(migrate("reembed", edge, "--model", models.new, "--json").out)
    assert ("msmarco__0002", "msmarco__0002", 0) == (again["old"], again["new"], again["copied"])

    back = json.loads(migrate("rollback", edge, "--json").out)
    assert ("msmarco__0002", "msmarco__0001", 0) == (back["old"], back["new"], back["copied"])

    others = [{"physical": "msmarco__0002", "model": models.new, "being_filled": False}]
    assert others == json.loads(migrate("status", edge, "--json").out)["others"]
    refused = migrate("prune", edge, "--json")
    assert (2, "UsageError") == (refused.status, json.loads(refused.out)["error"]["type"])
    pruned = json.loads(migrate("prune", edge, "--json", "--yes").out)
    assert {"removed": ["msmarco__0002"]} == pruned
    assert {"removed": []} == json.loads(migrate("prune", edge, "--json").out)


# ---- interruptions -------------------------------------------------------------------------


@pytest.mark.slow
def test_interrupted_reembedding_resumes(edge: str, models: Models) -> None:
    """With the same model; another one is refused."""
    begin(edge, models.new)
    again = reembed_command(edge, "msmarco", models.new)

    lines = migrate("status", edge).out.splitlines()
    assert (
        f"other       msmarco__0002 ({models.new}), being filled",
        f"unfinished  resume with {again}",
    ) == (lines[-2], lines[-1])
    status = json.loads(migrate("status", edge, "--json").out)
    assert (True, True) == (status["others"][0]["being_filled"], status["is_unfinished"])
    assert_error(
        migrate("reembed", edge, "--model", models.small),
        2,
        f"--model must be {models.new}, because the re-embedding of 'msmarco' into msmarco__0002 "
        f"is not finished, got {models.small}: finish it with --model {models.new}, or abandon it "
        f"with {abandon_command(edge, 'msmarco')}",
    )

    assert 0 == migrate("reembed", edge, "--model", models.new).status

    assert "unfinished" not in migrate("status", edge).out
    assert best_by(models.new) == found(edge)


def test_interrupted_reembedding_can_be_abandoned(edge: str, models: Models) -> None:
    """The alias still points to the same collection."""
    begin(edge, models.new)
    assert_error(
        migrate("prune", edge, "--unfinished"),
        2,
        f"nothing was removed: no alias points to msmarco__0002 ({models.new}, not complete); pass "
        "--unfinished --yes to confirm",
    )
    assert (0, "removed: msmarco__0002\n", "") == migrate("prune", edge, "--unfinished", "--yes")
    assert "pending     none" == migrate("status", edge).out.splitlines()[-1]
    assert best_by(models.old) == found(edge)


def test_interruption_shows_how_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    """Once; the exception continues."""

    def interrupted() -> None:
        with _show("new") as show:
            show(ReembedProgress("copy", 0, 5))
            show(ReembedProgress("copy", 5, 5))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (
        "copying missing passages to the new collection\n"
        "\nCopied passages are kept; run the same command again to resume.\n"
    ) == capsys.readouterr().err


# ---- models that are not swapped in --------------------------------------------------------


@pytest.mark.slow
def test_passages_without_a_vector(edge: str, models: Models) -> None:
    """They are reported; with --allow-rejects they are left out."""
    poisoned = [str(pid) for pid, text in enumerate(TEXTS) if "poison" in text.split()]
    done = migrate("reembed", edge, "--model", models.picky)
    assert (1, "") == (done.status, done.out)
    assert f"returns no vector for {len(poisoned)} passages, such as " in done.err
    assert "or leave them out with --allow-rejects" in done.err
    assert best_by(models.old) == found(edge)

    done = migrate("reembed", edge, "--model", models.picky, "--allow-rejects")

    assert 0 == done.status, done.err
    assert f"msmarco__0002: {40 - len(poisoned)} passages with vectors of" in done.out
    assert f"left out because they have no vector: {', '.join(sorted(poisoned))}\n" in done.out


@pytest.mark.slow
def test_a_model_that_finds_nothing(edge: str, models: Models) -> None:
    """It is swapped in only with --allow-worse."""
    done = migrate("reembed", edge, "--model", models.dull)
    assert (1, "") == (done.status, done.out)
    assert "--allow-worse" in done.err
    assert best_by(models.old) == found(edge)
    done = migrate("reembed", edge, "--model", models.dull, "--allow-worse")
    assert 0 == done.status, done.err


# ---- mistakes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("reembed", 2, "Missing option '--model'"),
        ("reembed --model no-such-model", 1, "cannot load the model no-such-model: it is not a"),
        ("reembed --model NEW --source lost.tsv", 1, "no such file: lost.tsv (relative to "),
        ("reembed --model NEW --source memory://b/c.tsv", 1, "no such file: memory://b/c.tsv"),
        ("reembed --model NEW --collection films", 1, "no collection 'films' in "),
        ("rollback", 1, "no collection to go back to: 'msmarco' points to msmarco__0001\n"),
        ("rollback --collection films", 1, "no collection 'films' in "),
        ("prune --collection films", 1, "no collection 'films' in "),
    ],
)
def test_error_is_one_line(
    unchanged: str, models: Models, arguments: str, status: int, message: str
) -> None:
    """Nothing is created or removed."""
    name, *options = arguments.replace("NEW", models.new).split()
    before = migrate("status", unchanged)
    done = migrate(name, unchanged, *options)
    assert (status, "") == (done.status, done.out)
    assert message in done.err
    assert done.err.splitlines()[-1].startswith("Error: ")
    assert before == migrate("status", unchanged)


@pytest.mark.slow
def test_rollback_needs_the_earlier_model(edge: str, models: Models) -> None:
    """Another model is refused."""
    migrate("reembed", edge, "--model", models.new)
    done = migrate("rollback", edge, "--model", models.small)
    assert (1, "") == (done.status, done.out)
    assert f"collection 'msmarco__0001' holds vectors of {models.old} ({HIDDEN})" in done.err
    assert f"you asked for {models.small} ({HIDDEN // 2})" in done.err
    assert best_by(models.new) == found(edge)
    assert 0 == migrate("rollback", edge, "--model", models.old).status
    assert best_by(models.old) == found(edge)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reembed", "rollback", "prune"])
def test_two_at_once(unchanged: str, models: Models, name: str) -> None:
    """The error of the second names the process of the first."""
    options = ("--model", models.new) if name == "reembed" else ()
    with (
        closing(open_store(unchanged)) as store,
        hold_lock(store.migration_locks, "msmarco") as ours,
    ):
        done = migrate(name, unchanged, *options)
        assert (1, "") == (done.status, done.out)
        assert (
            f"'msmarco' is being migrated or restored by process {ours.pid} on {ours.host}"
            in done.err
        )
        assert f"locked by   process {ours.pid} on " in migrate("status", unchanged).out


def migrate(name: str, place: str, *options: str) -> Outcome:
    """One of the commands."""
    return command("migrate", name, "--store", place, *options)


def found(place: str) -> str:
    """The pid of the best passage for the query."""
    done = command("search", QUERY, "--store", place, "--limit", "1", "--json")
    assert 0 == done.status, done.err
    (hit,) = json.loads(done.out)
    return str(hit["pid"])


@cache
def best_by(model: str) -> str:
    """The same by a model, without a store."""
    encoder = load_encoder(model, device="cpu", precision="float32")
    query, *passages = encoder.encode_queries([QUERY, *TEXTS])  # which have no prompts here
    scores = [float(vector @ query) for vector in passages]
    return str(scores.index(max(scores)))


def begin(place: str, model: str) -> None:
    """The state after a re-embedding is interrupted before its first passage."""
    encoder_info = load_encoder(model, device="cpu").info
    with closing(open_store(place)) as store:
        storage = store.collection("msmarco").info().spec.storage
        plan = CollectionPlan("msmarco__0002", encoder_info, Bm25Settings(), storage)
        create_physical(store, plan, load_migrations(), copied_from="msmarco__0001", swaps=1)


def assert_error(done: Outcome, status: int, message: str) -> None:
    """Require an outcome with nothing but an error."""
    assert (status, "", f"Error: {message}\n") == done


def _ingest(place: str, source: str, models: Models) -> None:
    done = command("ingest", source, "--store", place, "--model", models.old)
    assert 0 == done.status, done.err


def _half_as_long(model: SentenceTransformer) -> None:
    """Vectors of half the length."""
    from sentence_transformers.base.modules import Dense
    from torch import nn

    dense = Dense(HIDDEN, HIDDEN // 2, activation_function=nn.Identity())
    randomize(dense, 0)
    model.append(dense)


def _picky(model: SentenceTransformer) -> None:
    """The word "poison" has no embedding."""
    row = model.tokenizer.convert_tokens_to_ids("poison")
    embeddings = cast("Transformer", model[0]).model.get_input_embeddings()
    cast("Embedding", embeddings).weight.data[row] = float("nan")


def _dull(model: SentenceTransformer) -> None:
    """Every text has the same vector."""
    from sentence_transformers.base.modules import Dense
    from torch import nn

    dense = Dense(HIDDEN, HIDDEN, activation_function=nn.Identity())
    dense.linear.weight.data.zero_()
    dense.linear.bias.data.fill_(1.0)
    model.append(dense)
