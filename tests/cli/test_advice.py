"""Each command that a message advises is run as it stands there, and does what was said.

`CASES` provoke the messages. `test_every_advice_is_provoked` reads the package's source: a function
that writes a command into a message has a case, or a reason in `NOT_PROVOKED`.
"""

from __future__ import annotations

import ast
import logging
import re
import shlex
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pytest

import msmarco_qdrant
from msmarco_qdrant.collection.bulk import BulkMode
from msmarco_qdrant.collection.create import create_physical
from msmarco_qdrant.collection.generations import read_generations
from msmarco_qdrant.collection.migration import CollectionPlan, load_migrations
from msmarco_qdrant.core.collection_types import Bm25Settings
from msmarco_qdrant.core.metadata_types import LockHolder
from msmarco_qdrant.core.records import Passage, Query
from msmarco_qdrant.encoding import Encoder, load_encoder, load_reranker
from msmarco_qdrant.encoding.pretrained import load_model
from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.evaluation import sweep_ann
from msmarco_qdrant.evaluation.published import published_figures
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.startup import NamedModels, Startup
from msmarco_qdrant.settings import Settings
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.stores.migration_locks import this_process
from msmarco_qdrant.stores.payload import point_id
from tests.cli.runner import Outcome, command
from tests.encoding.model_folders import write_modules
from tests.encoding.tiny_models import Recipe, save_tiny
from tests.loopback import LoopbackServer

NAME = "films"  # another name than the default, so that `--collection` matters
PASSAGES = [Passage(str(number), f"london is city {number}") for number in range(4)]
_COMMAND = re.compile(r"`(msmarco-qdrant [^`]+)`|^\$ (msmarco-qdrant .+)$", re.MULTILINE)


class Models(NamedTuple):
    """Directories of two tiny models, whose names need quotes in a shell, and the first loaded."""

    old: str
    new: str
    encoder: Encoder


@dataclass(slots=True)
class World:
    """A store with four passages, and what a case needs to provoke a message."""

    place: str
    models: Models
    caplog: pytest.LogCaptureFixture
    source: str
    server: LoopbackServer | None = None

    @contextmanager
    def open(self) -> Iterator[Store]:
        """Open the store."""
        with closing(open_store(self.place)) as store:
            yield store

    def run(self, *words: str, collection: str | None = NAME) -> Outcome:
        """Run a command on the store."""
        named = [] if collection is None else ["--collection", collection]
        return command(*words, *named, "--store", self.place)

    def begin(self, model: str, number: int = 2) -> None:
        """Leave a re-embedding unfinished, before its first passage."""
        info = load_encoder(model, device="cpu").info
        with self.open() as store:
            live = store.aliases()[NAME]
            plan = CollectionPlan(
                f"{NAME}__{number:04}",
                info,
                Bm25Settings(),
                store.collection(live).info().spec.storage,
            )
            create_physical(store, plan, load_migrations(), copied_from=live, swaps=1)

    def swap(self) -> None:
        """Leave a re-embedding unfinished, after its swap."""
        self.begin(self.models.new)
        with self.open() as store:
            store.set_alias(NAME, f"{NAME}__0002")

    def forget(self, migrations: int = 1) -> None:
        """Remove the last migrations from the ledger of the live collection."""
        with self.open() as store:
            found = store.metadata(NAME)
            store.put_metadata(
                store.aliases()[NAME], replace(found, migrations=found.migrations[:-migrations])
            )


Provoke = Callable[[World], str]
Check = Callable[[World], object]


@dataclass(frozen=True, slots=True)
class Case:
    """A message: the functions whose advice is in it, how to provoke it, what its commands do.

    `engine` is "edge" or "loopback"; `check` raises unless the commands did what was said.
    """

    sites: tuple[str, ...]
    provoke: Provoke
    check: Check = lambda _world: None
    engine: str = "edge"
    status: int = 0


def _error(call: Callable[[Store], object]) -> Provoke:
    """Provoke the error of a call in Python."""

    def provoke(world: World) -> str:
        with world.open() as store, pytest.raises(MsmarcoQdrantError) as caught:
            call(store)
        return str(caught.value)

    return provoke


def _failure(*words: str) -> Provoke:
    """Provoke the error of a command; OLD, NEW and SOURCE stand for the world's."""

    def provoke(world: World) -> str:
        places = {"OLD": world.models.old, "NEW": world.models.new, "SOURCE": world.source}
        done = world.run(*(places.get(word, word) for word in words))
        assert done.status in (1, 2), done
        return done.err

    return provoke


def _after(state: Check, provoke: Provoke) -> Provoke:
    def both(world: World) -> str:
        state(world)
        return provoke(world)

    return both


def _aliased(world: World) -> None:
    with world.open() as store:
        assert {NAME: f"{NAME}__0001"} == store.aliases()
        assert len(PASSAGES) == store.collection(NAME).info().points


def _finished(world: World) -> None:
    """The model changed, nothing is unfinished, and nothing was lost."""
    with world.open() as store:
        found = read_generations(store, NAME)
        assert (None, f"{NAME}__0002") == (found.copying, found.live)
        assert len(PASSAGES) == store.collection(NAME).info().points


def _back(world: World) -> None:
    with world.open() as store:
        assert f"{NAME}__0001" == store.aliases()[NAME]


# ---- states and calls that take more than a line ---------------------------------------------


def _lose_alias(world: World) -> None:
    """As a restored snapshot: only a server can have that."""
    from qdrant_client import models

    with world.open() as store:
        client = store._client  # type: ignore[attr-defined]
        delete = models.DeleteAlias(alias_name=NAME)
        client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=delete)])


def _lose_source(world: World) -> None:
    """Only the target of a re-embedding is left, with its passages and without an alias."""
    with world.open() as store:
        found = store.metadata(NAME)
        store.put_metadata(f"{NAME}__0001", replace(found, copied_from=f"{NAME}__0009"))
    _lose_alias(world)


def _in_the_way(world: World) -> str:
    """A physical collection without an alias, when another process creates it."""
    with world.open() as store:
        spec = store.collection(NAME).info().spec
    _lose_alias(world)
    return _error(lambda store: store.create_collection(f"{NAME}__0001", spec))(world)


def _empty_in_the_way(world: World) -> str:
    """An empty one for another model, left by an interrupted creation."""
    from msmarco_qdrant.testing import HashingEncoder

    with world.open() as store:
        spec = store.collection(NAME).info().spec
        store.drop_collection(f"{NAME}__0001")
        other = replace(spec, dense=HashingEncoder().info.vector_name)
        store.create_collection(f"{NAME}__0001", other)
    return _failure("ingest", "SOURCE", "--model", "OLD")(world)


def _ingested(world: World) -> None:
    done = world.run("ingest", world.source, "--model", world.models.old)
    assert 0 == done.status, done.err


def _lock(world: World) -> None:
    with world.open() as store:
        holder = LockHolder(token=uuid.uuid4().hex, **this_process())
        assert holder == store.migration_locks.acquire(NAME, holder)


def _locked(*words: str) -> Provoke:
    """Provoke the error of a command while another process holds the lock, and has ended."""

    def provoke(world: World) -> str:
        _lock(world)
        return _failure(*words)(world)

    return provoke


def _unlocked(world: World) -> None:
    with world.open() as store:
        assert store.migration_locks.holder(NAME) is None


def _wrong_token(world: World) -> str:
    _lock(world)
    return _failure("migrate", "unlock", "--token", "wrong")(world)


def _sweep(world: World) -> str:
    with (
        world.open() as store,
        SearchClient.open(store, collection=NAME, encoder=world.models.encoder) as client,
    ):
        sweep_ann(client, [Query("1", "london")], efs=[16])
    return world.caplog.text


def _interrupted_ingest(world: World) -> str:
    world.swap()
    with world.open() as store:
        passages = [Passage("new", "oslo")]
        encoder = load_encoder(world.models.new, device="cpu")
        ingest_passages(passages, store, collection=NAME, encoder=encoder)
    return world.caplog.text


def _other_model_at_startup(world: World) -> str:
    settings = Settings(store=world.place, collection=NAME, model=world.models.new, device="cpu")
    with world.open() as store:
        Startup(settings, NamedModels(settings))._load_encoder(store)
    return world.caplog.text


def _bulk_mode_at_startup(world: World) -> str:
    settings = Settings(store=world.place, collection=NAME, device="cpu")
    with world.open() as store:
        interrupted = BulkMode(store, NAME)
        interrupted.begin()
        interrupted.leave()
        Startup(settings, NamedModels(settings))._load_encoder(store)
    return world.caplog.text


def _out_of_bulk_mode(world: World) -> None:
    with world.open() as store:
        assert {} == store.bulk_holders(NAME)


def _two_kept(world: World) -> None:
    """A re-embedding and back by the model's name: the metadata names no previous collection."""
    for model in (world.models.new, world.models.old):
        assert 0 == world.run("migrate", "reembed", "--model", model, "--allow-worse").status
    with world.open() as store:
        live = store.aliases()[NAME]
        store.put_metadata(live, replace(store.metadata(NAME), previous=None))


def _other_bm25(world: World) -> None:
    """The kept collection of the new model has other BM25 settings."""
    assert 0 == world.run("migrate", "reembed", "--model", world.models.new, "--allow-worse").status
    assert 0 == world.run("migrate", "rollback", "--allow-worse").status
    with world.open() as store:
        for physical, changes in (
            (f"{NAME}__0002", {"bm25": Bm25Settings(avg_len=9.0)}),
            (f"{NAME}__0001", {"previous": None}),
        ):
            store.put_metadata(physical, replace(store.metadata(physical), **changes))


def _pending_and_copying(world: World) -> None:
    world.begin(world.models.new)
    world.forget()


def _searchable(world: World) -> None:
    with world.open() as store:
        assert len(PASSAGES) <= store.collection(NAME).info().points


def _re_embedded(world: World) -> None:
    done = world.run("migrate", "reembed", "--model", world.models.new, "--allow-worse")
    assert 0 == done.status, done.err


def _has_a_year(world: World) -> None:
    first = Passage(PASSAGES[0].pid, PASSAGES[0].text, {"year": 2001})
    with world.open() as store:
        ingest_passages([first], store, collection=NAME, encoder=world.models.encoder)


def _year_is_indexed(world: World) -> None:
    with world.open() as store:
        assert "integer" == store.collection(NAME).info().spec.payload_indexes["meta.year"]


def _restrict(world: World) -> None:
    """As hosted clusters are: a filter needs an index."""
    from qdrant_client import models

    with world.open() as store:
        config = models.StrictModeConfig(enabled=True, unindexed_filtering_retrieve=False)
        client = store._client  # type: ignore[attr-defined]
        client.update_collection(f"{NAME}__0001", strict_mode_config=config)


def _unknown_batch(world: World) -> str:
    folder = Path(world.source).parent / "my spool"
    Spool.open(folder).close()
    done = command("spool", "requeue", "0" * 32, "--spool", str(folder))
    assert 2 == done.status
    return done.err


def _year_by_float(world: World) -> None:
    assert 0 == world.run("index", "add", "year=float").status


def _filtered(world: World) -> None:
    done = world.run("search", "london", "--filter", "year>=2001")
    assert 0 == done.status, done.err


def _aliased_to_new(world: World) -> None:
    with world.open() as store:
        assert f"{NAME}__0002" == store.aliases()[NAME]


def _lock_elsewhere(world: World) -> None:
    with world.open() as store:
        holder = LockHolder("t", "other", 1, "2026-01-02T03:04:05Z")
        assert holder == store.migration_locks.acquire(NAME, holder)


def _overwrite(world: World) -> None:
    """Another program replaces the payload of a passage."""
    with world.open() as store:
        client = store._client  # type: ignore[attr-defined]
        client.overwrite_payload(f"{NAME}__0001", {"x": 1}, [point_id("1")])


def _export_with_foreign(world: World) -> str:
    """The advised `check` lists the point, so its status is that of a fault."""
    _overwrite(world)
    assert 0 == world.run("export", f"{world.source}.jsonl").status
    return world.caplog.text


def _stalled(world: World) -> str:
    assert world.server is not None
    world.server.set_status(f"{NAME}__0001", "yellow", calls=3)
    with world.open() as store:
        store.collection(NAME).optimize(stall_s=0.0)
    return world.caplog.text


CASES: dict[str, Case] = {
    "the alias is missing": Case(
        ("stores.unlinked:missing_alias",),
        _after(_lose_alias, _failure("search", "london")),
        _aliased,
        engine="loopback",
    ),
    "the alias is missing, of a copy": Case(
        ("stores.unlinked:missing_alias",),
        _after(_lose_source, _failure("ingest", "SOURCE", "--model", "OLD")),
        _aliased,
        engine="loopback",
    ),
    "a collection with points is in the way": Case(
        ("stores.server.store:_describe_remedy",), _in_the_way, _aliased, engine="loopback"
    ),
    "an empty collection is in the way": Case(
        ("stores.server.store:_describe_remedy",), _empty_in_the_way, _ingested, engine="loopback"
    ),
    "another process migrates": Case(
        ("stores.migration_locks:hold_lock",),
        _locked("migrate", "up"),
        _unlocked,
        engine="loopback",
    ),
    "the lock has another token": Case(
        ("migrate.status:unlock_migrations",), _wrong_token, engine="loopback"
    ),
    "no graph": Case(("evaluation.ann:_warn_without_graph",), _sweep),
    "pending while copying": Case(
        (
            "migrate.runner:_check_not_copying",
            "collection.generations:abandon_hint",
        ),
        _after(_pending_and_copying, _failure("migrate", "up")),
        # resumes first: pending migrations of the live one are refused, so only the rest is run
    ),
    "an unfinished re-embedding": Case(
        ("cli.migrate:status",),
        _after(
            lambda world: world.begin(world.models.new),
            lambda world: world.run("migrate", "status").out,
        ),
        _finished,
    ),
    "an ingest into an unfinished one": Case(
        ("ingest.alias_guard:warn_if_unfinished",), _interrupted_ingest
    ),
    "prune of an unfinished one": Case(
        ("reembed.api:prune_collection",),
        _after(World.swap, _failure("migrate", "prune", "--yes")),
    ),
    "rollback of an unfinished one": Case(
        ("reembed.api:_select_rollback",),
        _after(lambda world: world.begin(world.models.new), _failure("migrate", "rollback")),
        _aliased,
    ),
    "rollback without a previous one": Case(
        ("reembed.api:_select_rollback",),
        _after(_two_kept, _failure("migrate", "rollback")),
    ),
    "another model while copying": Case(
        ("reembed.target:prepare_target",),
        _after(
            lambda world: world.begin(world.models.new),
            _failure("migrate", "reembed", "--model", "OLD"),
        ),
        _aliased,
    ),
    "pending before a re-embedding": Case(
        ("reembed.target:_check_live",),
        _after(World.forget, _failure("migrate", "reembed", "--model", "NEW")),
        _re_embedded,
    ),
    "other BM25 settings": Case(
        ("reembed.target:_find_existing",),
        _after(_other_bm25, _failure("migrate", "reembed", "--model", "NEW")),
    ),
    "the report of a re-embedding": Case(
        ("cli.reembed:_report_lines", "cli.reembed:_change_model"),
        lambda world: (
            world.run("migrate", "reembed", "--model", world.models.new, "--allow-worse").out
        ),
        _back,
    ),
    "a collection of this package to adopt": Case(
        ("stores.names:own_collection",),
        _error(lambda store: store.point_reader(NAME)),
        engine="loopback",
    ),
    "the notice of an index build": Case(
        ("cli.command_settings:index_notice", "cli.ingest_options:run_ingest"),
        lambda world: world.run("ingest", world.source, "--model", world.models.old).err,
        _searchable,
        engine="loopback",
    ),
    "a backup of an unfinished one": Case(
        ("collection.backup:__init__",),
        _after(
            World.swap,
            lambda world: world.run("backup", NAME, "--out", "backup", collection=None).err,
        ),
    ),
    "a server that builds no index": Case(
        ("stores.server.index_wait:report_unfinished",), _stalled, engine="loopback"
    ),
    "a check of an unfinished one": Case(
        ("collection.check:_check_lock",),
        _after(
            lambda world: world.begin(world.models.new),
            lambda world: world.run("check", NAME, collection=None).out,
        ),
        _aliased_to_new,
    ),
    "a check of a lock": Case(
        ("collection.check:_check_lock",),
        _after(_lock_elsewhere, lambda world: world.run("check", NAME, collection=None).out),
        _unlocked,
        engine="loopback",
    ),
    "a point without a pid": Case(
        ("collection.delete:_check_deletable",),
        _after(_overwrite, _failure("delete", "1")),
        engine="loopback",
        status=1,
    ),
    "points that are not passages": Case(
        ("stores.foreign:add",), _export_with_foreign, engine="loopback", status=1
    ),
    "the notice of optimize": Case(
        ("cli.collections:optimize",),
        lambda world: world.run("optimize").err,
        _searchable,
        engine="loopback",
    ),
    "another model at startup": Case(
        ("service.startup:_load_encoder",), _other_model_at_startup, _finished
    ),
    "a bulk mode at startup": Case(
        ("service.startup:_warn_of_bulk_mode",),
        _bulk_mode_at_startup,
        _out_of_bulk_mode,
        engine="loopback",
    ),
    "another model": Case(
        ("encoding.matching:require_same_model",), _failure("ingest", "SOURCE", "--model", "NEW")
    ),
    "other settings of BM25": Case(
        ("ingest.target:_require_same_bm25",),
        _error(
            lambda store: ingest_passages(PASSAGES, store, collection=NAME, bm25=Bm25Settings(k=9))
        ),
    ),
    "other indexes": Case(
        ("ingest.target:_require_same_indexes",),
        _failure("ingest", "SOURCE", "--model", "OLD", "--index", "year=integer"),
        _year_is_indexed,
    ),
    "a batch that has not failed": Case(
        ("service.spool.failed:_unknown",),
        _unknown_batch,
    ),
    "an index of another kind": Case(
        ("migrate.indexes:add_index",),
        _after(_year_by_float, _failure("index", "add", "year=integer")),
        _year_is_indexed,
    ),
    "an ingest for another kind of index": Case(
        ("ingest.target:_require_same_indexes",),
        _after(
            _year_by_float,
            _failure("ingest", "SOURCE", "--model", "OLD", "--index", "year=integer"),
        ),
    ),
    "strict mode without the index": Case(
        ("stores.filter_indexes:unindexed_step",),
        _after(_restrict, _failure("search", "london", "--filter", "year>=2001")),
        _filtered,
        engine="loopback",
    ),
    "a model that the hub's cache lacks": Case(
        ("encoding.pretrained:_not_found_error",),
        _error(lambda _store: load_model("nobody/no-such-model", "cpu")),
    ),
    "no such model": Case(
        ("encoding.hub:_advice",),
        _error(lambda _store: load_encoder("no-such-model", device="cpu")),
    ),
    "a bi-encoder that reranks": Case(
        ("encoding.loading:_find_in_catalog",),
        _error(lambda _store: load_reranker("all-MiniLM-L6-v2")),
    ),
    "a directory that reranks": Case(
        ("encoding.pretrained:_require_pair_scores",),
        lambda world: _error(lambda _: load_reranker(f"{world.models.old}-plain", device="cpu"))(
            world
        ),
    ),
    "a tenant of a collection without": Case(
        ("collection.tenants:tenant_filter",), _failure("count", "--tenant", "acme")
    ),
    "an order without an index": Case(
        ("collection.scroll:_no_index",),
        _after(_has_a_year, _failure("list", "--order-by", "year")),
    ),
    "a directory of another kind": Case(
        ("encoding.model_files:",),
        lambda world: _error(lambda _: load_encoder(_router(world.models.old), device="cpu"))(
            world
        ),
    ),
    "no figures": Case(
        ("evaluation.published:published_figures",), _error(lambda _store: published_figures("x"))
    ),
    "the quickstart": Case(
        ("cli.ingest:quickstart", "cli.ingest:_print_own_commands"),
        lambda world: command("quickstart", "--store", "demo", "--model", world.models.old).out,
    ),
}


def _router(model: str) -> Path:
    """Return a copy of a model that claims to be a Router."""
    folder = Path(model).with_name("router")
    shutil.copytree(model, folder, dirs_exist_ok=True)
    write_modules(folder, ("", "sentence_transformers.base.modules.router.Router"))
    return folder


# One of each kind; all others are slow.
QUICK = frozenset(
    {"the alias is missing", "another process migrates", "another model", "no such model"}
)
NOT_PROVOKED = {
    **dict.fromkeys(
        (
            "core.advice:advised_command",
            "collection.generations:reembed_command",
            "collection.generations:abandon_command",
            "cli.command_settings:command_with",
        ),
        "it makes the command for the others",
    ),
    "reembed.run:_require_unswapped": "the race is in tests/reembed; `status` is run above",
    **dict.fromkeys(
        (
            "train.improve:_report",
            "train.improve_commands:choose",
            "train.improve_commands:evaluate",
            "train.improve_commands:judge",
            "train.improve_commands:mine",
            "train.improve_commands:train",
        ),
        "of a finished training: tests/train/test_improve_loop.py",
    ),
    "collection.check:_check_alias": "tests/collection/test_check.py removes the collection",
    "collection.graph:graph_note": "only of many passages: tests/collection/test_graph.py",
    "collection.facets:_advise_index": "only of many passages: tests/collection/test_facets.py",
    "collection.replicas:_delete_hidden": "only a cluster: tests/collection/test_replicas.py",
    "collection.backup_manifest:read_manifest": "it says what must have written the folder",
    "collection.restore:_fill": "DIR and the store of the backup are the caller's to fill in",
    "sources.shard_file:read_footer": "it says what wrote the file, and advises an option",
    "sources.vector_shards:_require_manifest": "it says what must have written the folder",
}


# ---- the tests -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Two models of one shape."""
    folder = tmp_path_factory.mktemp("tiny models")
    old, new = (
        str(save_tiny(folder / name, Recipe(seed=seed))) for seed, name in enumerate(("old", "new"))
    )
    return Models(old, new, load_encoder(old, device="cpu"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Path:
    """A directory with the passages, for copies."""
    path = tmp_path_factory.mktemp("filled") / "store"
    ingest_passages(PASSAGES, path, collection=NAME, encoder=models.encoder, optimize=False)
    return path


@contextmanager
def _place(
    engine: str, filled: Path, tmp_path: Path, models: Models
) -> Iterator[tuple[str, LoopbackServer | None]]:
    if engine == "edge":
        yield str(shutil.copytree(filled, tmp_path / "my store's")), None
        return
    with LoopbackServer() as server:
        ingest_passages(PASSAGES, server.url, collection=NAME, encoder=models.encoder)
        yield server.url, server


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in CASES],
)
def test_v12_advised_commands_do_what_is_said(
    name: str, filled: Path, tmp_path: Path, models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    """Pasted as they stand in the message; each succeeds, and no passage is lost."""
    case = CASES[name]
    source = tmp_path / "passages.tsv"
    source.write_text("".join(f"{one.pid}\t{one.text}\n" for one in PASSAGES))
    caplog.set_level(logging.WARNING)
    with _place(case.engine, filled, tmp_path, models) as (place, server):
        world = World(place, models, caplog, str(source), server)
        text = case.provoke(world)
        advised = [one or two for one, two in _COMMAND.findall(text)]
        assert advised, text
        for line in advised:
            words = shlex.split(line)[1:]
            done = command(*words)
            assert case.status == done.status, (text, line, done.err)
        case.check(world)


class _Sites(ast.NodeVisitor):
    """The functions of a module that write a command into a message."""

    _MAKERS = frozenset(
        {"advised_command", "command_line", "command_with", "reembed_command"}
        | {"abandon_command", "abandon_hint", "index_notice"}
    )

    def __init__(self, module: str) -> None:
        self._module = module
        self._function = ""
        self.found: set[str] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self._function = self._function, self._function or node.name
        documented = ast.get_docstring(node) is not None
        for child in [*node.decorator_list, *node.body[documented:]]:
            self.visit(child)
        self._function = outer

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in self._MAKERS:
            self._add()
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and "`msmarco-qdrant " in node.value:
            self._add()

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def _add(self) -> None:
        self.found.add(f"{self._module}:{self._function}")


def test_v12_every_advice_is_provoked() -> None:
    """Nobody adds a command to a message without running it here."""
    root = Path(msmarco_qdrant.__file__).parent
    found: set[str] = set()
    for path in root.rglob("*.py"):
        text = path.read_text("utf-8")
        if not any(word in text for word in (*_Sites._MAKERS, "`msmarco-qdrant ")):
            continue
        sites = _Sites(".".join(path.relative_to(root).with_suffix("").parts))
        sites.visit(ast.parse(text))
        found |= sites.found
    provoked = {site for case in CASES.values() for site in case.sites}
    assert provoked | set(NOT_PROVOKED) == found


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "search london",
        "ingest SOURCE",
        "migrate prune",
        "drop",
        *(
            pytest.param(words, marks=pytest.mark.slow)
            for words in (
                *("info", "get 1", "delete 1", "export out.jsonl", "optimize"),
                *("evaluate --queries SOURCE --ann", "migrate reembed --model NEW"),
                *(f"migrate {name}" for name in ("status", "up", "check", "rollback", "unlock")),
            )
        ),
    ],
)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("taken", "collection 'taken' in URL is another program's"),
        pytest.param(
            "theirs",
            "'theirs' is an alias of taken in URL, which another program created",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_v12_the_collection_of_another_program(
    foreign: World, words: str, name: str, reason: str
) -> None:
    """Every command says so and names ours; none touches theirs, or advises to."""
    given = [
        {"SOURCE": foreign.source, "NEW": "no-model"}.get(word, word) for word in words.split()
    ]
    if words == "drop":
        done = foreign.run("drop", name, "--yes", collection=None)
    else:
        done = foreign.run(*given, collection=name)
    assert 1 == done.status
    assert f"Error: {reason.replace('URL', foreign.place)}" in done.err
    assert 1 == len([line for line in done.err.splitlines() if line.startswith("Error")])
    assert "msmarco-qdrant drop" not in done.err
    if name == "taken":
        assert f"there: {NAME}. Use one of these names" in done.err


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Iterator[World]:
    """A server with a collection of ours, and one of another program with an alias."""
    from qdrant_client import models as qdrant

    source = tmp_path_factory.mktemp("source") / "passages.tsv"
    source.write_text("1\tlondon\n")
    with LoopbackServer() as server:
        ingest_passages(PASSAGES, server.url, collection=NAME, encoder=models.encoder)
        with closing(open_store(server.url)) as store:
            client = store._client  # type: ignore[attr-defined]
            client.create_collection(
                "taken", qdrant.VectorParams(size=2, distance=qdrant.Distance.DOT)
            )
            client.upsert("taken", [qdrant.PointStruct(id=1, vector=[1.0, 2.0])])
            create = qdrant.CreateAlias(collection_name="taken", alias_name="theirs")
            client.update_collection_aliases([qdrant.CreateAliasOperation(create_alias=create)])
        yield World(server.url, models, None, str(source))  # type: ignore[arg-type]
        with server.inspect() as engine:
            assert 1 == engine.count("taken").count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("refused", "confirmed"),
    [
        (["drop", NAME], ["--yes"]),
        pytest.param(["migrate", "prune"], ["--yes"], marks=pytest.mark.slow),
        pytest.param(["migrate", "prune", "--unfinished"], ["--yes"], marks=pytest.mark.slow),
    ],
)
def test_v12_an_option_to_confirm_is_enough(
    filled: Path, tmp_path: Path, models: Models, refused: list[str], confirmed: list[str]
) -> None:
    """The same command with the advised option succeeds."""
    world = World(str(shutil.copytree(filled, tmp_path / "store")), models, None, "")  # type: ignore[arg-type]
    if refused[0] == "migrate":
        world.begin(models.new)
    collection = None if refused[0] == "drop" else NAME
    done = world.run(*refused, collection=collection)
    assert (2, True) == (done.status, all(option in done.err for option in confirmed))
    assert 0 == world.run(*refused, *confirmed, collection=collection).status
