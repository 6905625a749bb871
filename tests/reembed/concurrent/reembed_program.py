"""A change of the model in a process of its own, without a model to load.

Usage: python -m tests.reembed.concurrent.reembed_program STORE reembed|rollback
"""

from __future__ import annotations

import sys
from contextlib import closing

from msmarco_qdrant.stores import open_store
from tests.reembed.concurrent.scenario import reembed, rollback

if __name__ == "__main__":
    with closing(open_store(sys.argv[1])) as opened:
        print({"reembed": reembed, "rollback": rollback}[sys.argv[2]](opened))
