"""The sample of the package, with questions and a model for it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path

from msmarco_qdrant.encoding.catalog import DEFAULT_MODEL, find_published

COLLECTION = "quickstart"
QUESTIONS = ("how big is london", "symptoms of dehydration", "what does a modem do")
_SMALL_MODEL = "all-MiniLM-L6-v2"


def sample_passages() -> AbstractContextManager[Path]:
    """Return the sample: a file of 300 passages as ``pid<TAB>text``."""
    return as_file(files("msmarco_qdrant.cli") / "sample" / "passages.tsv")


def default_model() -> str:
    """Return the small model if a package with it is installed, else the package's default."""
    published = find_published(_SMALL_MODEL)
    packaged = published.packaged if published else None
    return _SMALL_MODEL if packaged and find_spec(packaged.package) else DEFAULT_MODEL
