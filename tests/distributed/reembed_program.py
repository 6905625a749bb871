"""A change of the model on a Ray cluster, driven by a process of its own.

Usage: python -m tests.distributed.reembed_program ADDRESS URL
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from msmarco_qdrant.distributed import reembed_on_ray
from msmarco_qdrant.testing import HashingEncoder
from tests.reembed.concurrent.scenario import MODELS, NAME

make_new = partial(HashingEncoder, 320, salt="new")
"""Makes the new model of the scenario."""

ON_RAY: dict[str, Any] = {
    "workers": 2,
    "cpus_per_worker": 0.5,
    "gpus_per_worker": 0,
    "split_points": 8,
}

if __name__ == "__main__":
    address, url = sys.argv[1:]
    report = reembed_on_ray(
        url, NAME, address=address, make_encoder=make_new, load_old=MODELS, **ON_RAY
    )
    print(repr(report))
