"""The command `serve` without a model to load, in a process of its own.

Usage: python -m tests.cli.serve_program [OPTION ...]
"""

from __future__ import annotations

import sys

from msmarco_qdrant.cli.app import main
from msmarco_qdrant.service import sidecar
from tests.service.sidecars import CountedModels

if __name__ == "__main__":
    sidecar.NamedModels = lambda *_: CountedModels()  # type: ignore[assignment,attr-defined]
    sys.exit(main(["serve", *sys.argv[1:]]))
