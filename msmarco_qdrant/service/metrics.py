"""What the sidecar counts and times, in a registry of its own, for Prometheus to read.

Seconds are histograms, so that percentiles can be had over several sidecars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from msmarco_qdrant._version import __version__
from msmarco_qdrant.reports import StageShare
from msmarco_qdrant.service.outcomes import BatchId, BatchState
from msmarco_qdrant.service.ports import Backlog

_PREFIX: Final = "msmarco_qdrant_"
_QUICK: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_OUTCOMES: Final = ("written", "unchanged", "rejected", "deleted", "superseded")


class Metrics:
    """The counters, all of them there from the beginning. Thread-safe.

    Args:
        backlog: What waits in the spool, asked whenever the metrics are read.
    """

    media_type = CONTENT_TYPE_PLAIN_1_0_0

    def __init__(self, backlog: Callable[[], Backlog]) -> None:
        registry = CollectorRegistry(auto_describe=True)
        self._registry = registry
        self._passages = Counter(
            _PREFIX + "passages", "Passages of finished batches.", ["outcome"], registry=registry
        )
        self._batches = Counter(
            _PREFIX + "batches", "Batches finished.", ["state"], registry=registry
        )
        self._batch_s = Histogram(
            _PREFIX + "batch_seconds",
            "Of the last attempt at a batch.",
            buckets=_SLOW,
            registry=registry,
        )
        self._stage_s = Histogram(
            _PREFIX + "stage_seconds",
            "Of a batch, by stage.",
            ["stage"],
            buckets=_SLOW,
            registry=registry,
        )
        self._retries = Counter(
            _PREFIX + "batch_retries",
            "Attempts at a batch that failed and are followed by another.",
            ["error"],
            registry=registry,
        )
        self._optimize_s = Histogram(
            _PREFIX + "optimize_seconds",
            "Of building the indexes.",
            buckets=_SLOW,
            registry=registry,
        )
        self._search_s = Histogram(
            _PREFIX + "search_seconds",
            "From a search's body to its answer.",
            ["mode"],
            buckets=_QUICK,
            registry=registry,
        )
        self._searches = Gauge(
            _PREFIX + "searches_in_flight", "Searches under way.", registry=registry
        )
        self._requests = Counter(
            _PREFIX + "requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._request_s = Histogram(
            _PREFIX + "request_seconds",
            "From a request to the end of its answer.",
            ["method", "route"],
            buckets=_QUICK,
            registry=registry,
        )
        self._info = Info(_PREFIX + "sidecar", "Versions and model at work.", registry=registry)
        registry.register(_Spool(backlog))
        self._begin()

    def tell(self, info: Mapping[str, str]) -> None:
        """Say which versions, model and collection are at work."""
        self._info.info({"version": __version__, **info})

    def batch_ended(self, batch: BatchState, stages: Mapping[str, float] | None = None) -> None:
        """Count a batch that is done or failed, with the seconds it took, in all and by stage."""
        self._batches.labels(batch.state).inc()
        self._batch_s.observe(batch.report.seconds)
        for outcome in _OUTCOMES:
            self._passages.labels(outcome).inc(getattr(batch.report, outcome))
        for stage, taken in (stages or {}).items():
            self._stage_s.labels(stage).observe(taken)

    def batch_failing(self, error: BaseException) -> None:
        """Count an attempt at a batch that another will follow, by the kind of its error."""
        self._retries.labels(type(error).__name__).inc()

    def optimized(self, seconds: float) -> None:
        """Count a time that the indexes were built."""
        self._optimize_s.observe(seconds)

    def searched(self, mode: str, seconds: float) -> None:
        """Count a search that was answered."""
        self._search_s.labels(mode).observe(seconds)

    def searching(self, searches: int) -> None:
        """Say how many searches are under way."""
        self._searches.set(searches)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request, under the template of its path."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_s.labels(method, route).observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self._registry)

    def _begin(self) -> None:
        """Let what has labels stand at zero, so that a rate can be had of the first one."""
        for outcome in _OUTCOMES:
            self._passages.labels(outcome)
        for state in ("done", "failed"):
            self._batches.labels(state)
        for mode in ("dense", "bm25", "hybrid"):
            self._search_s.labels(mode)
        self.tell({})


class MetricsEvents:
    """Counts what a worker tells; see `WorkerEvents`.

    Args:
        metrics: Where.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def ended(self, state: BatchState, stages: Sequence[StageShare]) -> None:
        """A batch is done or has failed."""
        self._metrics.batch_ended(state, {stage.name: stage.seconds for stage in stages})

    def failing(self, batch: BatchId, attempt: int, error: BaseException) -> None:  # noqa: ARG002
        """An attempt has failed, and another will follow."""
        self._metrics.batch_failing(error)

    def optimized(self, seconds: float) -> None:
        """The indexes were built."""
        self._metrics.optimized(seconds)


class _Spool(Collector):
    """Asks the spool when it is asked."""

    def __init__(self, backlog: Callable[[], Backlog]) -> None:
        self._backlog = backlog

    def collect(self) -> Iterator[Metric]:
        backlog = self._backlog()
        yield GaugeMetricFamily(
            _PREFIX + "spool_batches", "Batches that wait.", value=backlog.batches
        )
        yield GaugeMetricFamily(
            _PREFIX + "spool_oldest_seconds",
            "Age of the oldest batch that waits.",
            value=backlog.oldest_s,
        )

    def describe(self) -> Iterator[Metric]:
        """Names alone: the spool may not be there yet."""
        yield GaugeMetricFamily(_PREFIX + "spool_batches", "Batches that wait.")
        yield GaugeMetricFamily(
            _PREFIX + "spool_oldest_seconds", "Age of the oldest batch that waits."
        )
