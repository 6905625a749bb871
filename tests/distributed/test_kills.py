"""An ingest on Ray that loses workers, nodes and its driver ends as one without losses."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs the extra ray: make integrations")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray, whose processes end without notice
def test_it_ends_the_same_after_kills() -> None:
    """A few passages and kills."""
    from tests.distributed.kills import compare

    assert 3 == sum(compare(passages=3000, kills=3, seed=2).values())


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(10))
def test_the_full_size_ends_the_same_after_kills(seed: int) -> None:
    """The whole counts; `python -m tests.distributed.kills` runs chosen seeds."""
    from tests.distributed.kills import compare

    assert 20 == sum(compare(passages=200_000, kills=20, seed=seed).values())
