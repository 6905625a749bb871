"""Threads in each of which torch computes alone.

torch keeps the number of its threads for each thread, and gives a new thread the one that was set
last anywhere.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

# At the top: this module is imported when a model is loaded.
import torch

_SETTING = threading.Lock()


def single_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Return threads in each of which torch computes in that thread alone."""
    return ThreadPoolExecutor(
        count, thread_name_prefix=f"msmarco-qdrant-{name}", initializer=_compute_alone
    )


def _compute_alone() -> None:
    """Let torch compute in the current thread alone; another short thread sets the number back."""
    with _SETTING:
        usual = torch.get_num_threads()
        torch.set_num_threads(1)
        restoring = threading.Thread(target=torch.set_num_threads, args=(usual,))
        restoring.start()
        restoring.join()
