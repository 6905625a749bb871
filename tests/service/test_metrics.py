"""What is counted, and what the log says of a request."""

from __future__ import annotations

import json
import logging

import pytest

from msmarco_qdrant import __version__
from msmarco_qdrant.core.reports import StageTiming
from msmarco_qdrant.errors import StoreUnavailableError
from msmarco_qdrant.service.interfaces import Backlog, BatchReport, BatchState
from msmarco_qdrant.service.logs import JsonFormatter
from msmarco_qdrant.service.metrics import Metrics
from tests.service.http.driver import Driver, drive


def test_a_batch_is_counted_by_outcome() -> None:
    """Passages, seconds, stages, the spool, and the versions at work."""
    metrics = Metrics(lambda: Backlog(3, 4.5))
    report = BatchReport(written=2, unchanged=1, superseded=3, seconds=0.5)
    metrics.failing("b", 1, StoreUnavailableError("away"))
    metrics.ended(BatchState("b", "done", 0.0, 1.0, report), [StageTiming("forward", 0.25, 0.5)])
    metrics.optimized(0.75)
    metrics.set_info({"model": "m"})
    lines = metrics.text().decode().splitlines()
    for expected in (
        'msmarco_qdrant_passages_total{outcome="written"} 2.0',
        'msmarco_qdrant_passages_total{outcome="deleted"} 0.0',
        'msmarco_qdrant_batches_total{state="done"} 1.0',
        "msmarco_qdrant_batch_seconds_sum 0.5",
        'msmarco_qdrant_passages_total{outcome="superseded"} 3.0',
        'msmarco_qdrant_batches_total{state="failed"} 0.0',
        'msmarco_qdrant_batch_retries_total{error="StoreUnavailableError"} 1.0',
        'msmarco_qdrant_stage_seconds_sum{stage="forward"} 0.25',
        "msmarco_qdrant_optimize_seconds_sum 0.75",
        "msmarco_qdrant_spool_batches 3.0",
        "msmarco_qdrant_spool_oldest_seconds 4.5",
        f'msmarco_qdrant_sidecar_info{{model="m",version="{__version__}"}} 1.0',
    ):
        assert expected in lines


def test_v5_points_left_out_are_counted() -> None:
    """As read from the search client when the metrics are."""
    metrics = Metrics(lambda: Backlog(0, 0.0), lambda: 3)
    assert "msmarco_qdrant_foreign_points_total 3.0" in metrics.text().decode().splitlines()


def test_series_tell_values_alone() -> None:
    """No `_created` beside each; each has its help once, and stands at zero from the beginning."""
    text = Metrics(lambda: Backlog(0, 0.0)).text().decode()
    assert "_created" not in text
    helps = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert len(set(helps)) == len(helps)
    for labels in ('passages_total{outcome="rejected"}', 'search_seconds_count{mode="hybrid"}'):
        assert f"msmarco_qdrant_{labels} 0.0" in text


def test_a_request_is_logged_and_counted_by_its_route(caplog: pytest.LogCaptureFixture) -> None:
    """The template of the path, never the path, the body or a token; unknown methods are one."""
    caplog.set_level(logging.DEBUG, "msmarco_qdrant.service.http.middleware")

    async def use(driver: Driver) -> None:
        token = {"authorization": "Bearer sesame"}
        await driver.client.delete("/passages/private", headers=token)
        await driver.client.request("BREW", "/private")
        await driver.client.head("/healthz")
        text = driver.metrics.text().decode()
        assert 'requests_total{method="DELETE",route="/passages/{pid:path}",status="202"}' in text
        assert 'requests_total{method="other",route="none",status="404"}' in text
        assert 'requests_total{method="HEAD",route="/healthz",status="200"}' in text

    drive(use)
    lines = [JsonFormatter().format(record) for record in caplog.records]
    assert ["DELETE", "other", "HEAD"] == [json.loads(line)["method"] for line in lines]
    assert not any(word in line for line in lines for word in ("private", "sesame", "BREW"))
