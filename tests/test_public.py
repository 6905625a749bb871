"""Public names, their docstrings, the layout of the package, and the wheel."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

import msmarco_qdrant
from tests.conftest import ROOT

ADAPTERS = "msmarco_qdrant.integrations."
# Modules that import a package which is not installed here: frameworks, and Triton.
ABSENT = (ADAPTERS, "msmarco_qdrant.encoding.backends.triton_kernels")


def module_names() -> list[str]:
    """The modules of the package without private ones and without adapters to frameworks.

    `tests/integrations/test_extras.py` reads those, where the frameworks are installed. The names
    are those of files: to import all modules costs each worker of the tests seconds.
    """
    root = Path(msmarco_qdrant.__file__).parent
    paths = (path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py"))
    names = {".".join(path.parts).removesuffix(".__init__") for path in paths}
    private = re.compile(r"\._")
    return sorted(one for one in names if not one.startswith(ABSENT) and not private.search(one))


PUBLIC = {
    "encoding": "Encoder EncoderOptions Reranker load_encoder load_reranker",
    "errors": "MsmarcoQdrantError UsageError SourceError StoreError IngestStoppedError",
    "evaluation": "read_qrels read_run save_run",
    "filters": "All Any Exists GeoRadius MetaFilter Not Range Text",
    "migration": "CollectionPlan CollectionSpec HnswSettings PayloadIndex SPARSE_VECTOR",
    "operations": "AddPayloadIndex RemovePayloadIndex SetBm25 SetHnsw SetOptimizers SetStorage",
    "settings": "Settings load_settings",
    "stores": "Capabilities Connection Store open_store",
    "testing": "HashingEncoder NullStore WordOverlapReranker",
    "train": "ChoiceReport MineReport MinedQuery Strategy choose_negatives compare_strategies "
    "improve_collection mine_negatives read_clicks read_negatives read_positives "
    "split_queries strategies_table train_bi_encoder train_cross_encoder "
    "write_negatives",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_modules_export_their_names(module: str) -> None:
    """These imports work in user code, such as migration files, in every version."""
    imported = importlib.import_module(f"msmarco_qdrant.{module}")
    assert [] == [name for name in PUBLIC[module].split() if not hasattr(imported, name)]


def test_layout_of_the_package() -> None:
    """At most eight modules are in the root, and only dunder modules begin with an underscore."""
    root = Path(msmarco_qdrant.__file__).parent
    assert len(list(root.glob("*.py"))) <= 8
    private = {path.name for path in root.rglob("_*.py")} - {"__init__.py", "__main__.py"}
    assert set() == private


def test_dir_lists_the_public_names() -> None:
    """Another name is an `AttributeError`; `test_portable` imports each."""
    assert sorted(msmarco_qdrant.__all__) == sorted(dir(msmarco_qdrant))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        msmarco_qdrant.nothing  # noqa: B018


def test_every_public_name_is_known_to_type_checkers() -> None:
    """The imports under `if TYPE_CHECKING` have the same names as `__all__`."""
    source = ast.parse(Path(msmarco_qdrant.__file__).read_text("utf-8"))
    (checked,) = (node for node in source.body if isinstance(node, ast.If))
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in imports for alias in node.names}
    assert set(msmarco_qdrant.__all__) - {"__version__"} == names


def test_importing_a_module_hides_no_public_name() -> None:
    """A public function must not share its name with a module that would replace it."""
    stems = {path.stem for path in Path(msmarco_qdrant.__file__).parent.iterdir()}
    assert set(msmarco_qdrant.__all__) & stems == set()


@pytest.mark.parametrize("name", module_names())
def test_everything_public_is_documented(name: str) -> None:
    """Modules, classes, functions, methods and properties."""
    assert_documented(importlib.import_module(name))


def assert_documented(module: ModuleType) -> None:
    """Check the docstrings of a module and of what it defines."""
    assert module.__doc__
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            assert value.__doc__, f"{module.__name__}.{name}"
        elif inspect.isclass(value):
            assert value.__doc__, f"{module.__name__}.{name}"
            for method, member in vars(value).items():
                if method.startswith("_") or not (
                    inspect.isfunction(member) or isinstance(member, property | classmethod)
                ):
                    continue
                assert member.__doc__, f"{module.__name__}.{name}.{method}"


@pytest.mark.slow
def test_the_wheel_works_without_the_sources(tmp_path: Path) -> None:
    """The wheel contains the migrations, the page and the sample, and works alone."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    migrations = sorted(path.name for path in (site / "msmarco_qdrant" / "_migrations").iterdir())
    assert ["0001_create_passages.py", "0002_payload_indexes.py"] == migrations
    pages = [root / "msmarco_qdrant" / "service" / "http" / "page" for root in (ROOT, site)]
    assert (site / "msmarco_qdrant" / "service" / "http" / "page" / "main.js").is_file()
    assert (site / "msmarco_qdrant" / "py.typed").is_file()  # the marker of typed packages
    assert 1 == len({tuple(sorted(path.name for path in page.iterdir())) for page in pages})
    program = """
import sys
from contextlib import closing
from pathlib import Path
import msmarco_qdrant
from msmarco_qdrant import (
    SearchClient, ingest_passages, migrate_collection, migration_status, open_store
)
from msmarco_qdrant.cli.quickstart import sample_passages
from msmarco_qdrant.testing import HashingEncoder

assert msmarco_qdrant.__file__.startswith(sys.argv[1]), msmarco_qdrant.__file__
encoder = HashingEncoder()
with sample_passages() as source:
    print(ingest_passages(source, "store", encoder=encoder).written)
with SearchClient.open("store", encoder=encoder) as client:
    print(len(client.search("how big is london")))
with closing(open_store("store")) as store:
    (step,) = migrate_collection(store, "msmarco", directory=Path("changes"))
    status = migration_status(store, "msmarco", directory=Path("changes"))
    print(step.name, *status.applied, status.is_current)
"""
    (tmp_path / "changes").mkdir()
    (tmp_path / "changes" / "0001_year.py").write_text(
        "from msmarco_qdrant.operations import AddPayloadIndex\n"
        "DESCRIPTION = 'an index'\n"
        "OPERATION = AddPayloadIndex('year', 'integer')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(site)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "300",
        "10",
        "0001_year 0001_create_passages 0002_payload_indexes 0001_year True",
    ]
