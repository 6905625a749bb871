"""The sample of the package, with questions and the commands for a user's own passages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from itertools import chain, count
from pathlib import Path

COLLECTION = "quickstart"
OWN_COLLECTION = "my_passages"
QUESTIONS = ("how big is london", "symptoms of dehydration", "what does a modem do")
OWN_QUESTION = "how is bread made"
_OWN_LINES = r"1\tThe cat sat on the mat.\n2\tFlour, water and yeast are baked in an oven.\n"


def sample_passages() -> AbstractContextManager[Path]:
    """Return the sample: a file of 300 passages as ``pid<TAB>text``."""
    return as_file(files("msmarco_qdrant.cli") / "sample" / "passages.tsv")


def own_file() -> Path:
    """Return the name of a file in the current directory that does not exist."""
    names = chain(["my_passages.tsv"], (f"my_passages_{number}.tsv" for number in count(2)))
    return next(path for path in map(Path, names) if not path.exists())


def own_commands(file: Path, ingest: str, search: str) -> Iterator[str]:
    """Yield three shell commands: make a file of passages, ingest it, search it."""
    yield f"printf '{_OWN_LINES}' > {file}"
    yield ingest
    yield search
