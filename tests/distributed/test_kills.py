"""An ingest on Ray that loses workers, nodes and its driver ends as one without losses."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs the extra ray: make integrations")

IGNORED = pytest.mark.filterwarnings("ignore")  # of Ray, whose processes end without notice


@pytest.mark.slow
@IGNORED
def test_it_ends_the_same_after_kills() -> None:
    """A few passages, by ten seeds on one cluster, which takes longer to start than an ingest."""
    from tests.distributed.kills import compare, kill_cluster

    with kill_cluster() as cluster:
        kills = [compare(cluster, passages=1200, kills=2, seed=seed) for seed in range(10)]
    assert [2] * 10 == [done.total() for done in kills]
    assert {"worker", "node", "driver"} == {kind for done in kills for kind in done}


@pytest.mark.soak
@IGNORED
@pytest.mark.parametrize("seed", range(10))
def test_the_full_size_ends_the_same_after_kills(seed: int) -> None:
    """The whole counts; `python -m tests.distributed.kills` runs chosen seeds."""
    from tests.distributed.kills import compare, kill_cluster

    with kill_cluster() as cluster:
        assert 20 == compare(cluster, passages=200_000, kills=20, seed=seed).total()
