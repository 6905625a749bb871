"""Counters and timings of the sidecar for Prometheus, in a registry of their own.

Seconds are histograms, so that percentiles can be computed over several sidecars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from msmarco_qdrant import __version__
from msmarco_qdrant.core.reports import StageTiming
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.service.interfaces import (
    COUNTS,
    Backlog,
    BatchId,
    BatchState,
    SpoolUse,
    WorkerEvents,
    counts_of,
)

_PREFIX: Final = "msmarco_qdrant_"
_QUICK: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class Metrics(WorkerEvents):
    """The counters, which all exist from the start. Thread-safe.

    Args:
        backlog: Returns the batches that wait; called when the metrics are read.
        foreign_points: Returns the points left out of answers; called when the metrics are read.
        spool_use: Returns the use of the spool's disk; called when the metrics are read.
        request_failures: Returns failed requests to a server, by "retried" or "raised" and status;
            called when the metrics are read.
    """

    media_type = CONTENT_TYPE_PLAIN_1_0_0

    def __init__(
        self,
        backlog: Callable[[], Backlog],
        foreign_points: Callable[[], int] = lambda: 0,
        request_failures: Callable[[], Mapping[tuple[str, str], int]] = dict,
        spool_use: Callable[[], SpoolUse] = SpoolUse,
    ) -> None:
        made = _Registry(auto_describe=True)
        self._registry = made
        self._passages = made.counter("passages", "Passages of finished batches.", "outcome")
        self._batches = made.counter("batches", "Batches finished.", "state")
        self._batch_s = made.seconds(
            "batch_seconds", "Seconds of the last attempt at a batch.", _SLOW
        )
        self._stage_s = made.seconds(
            "stage_seconds", "Seconds of a batch, by stage.", _SLOW, "stage"
        )
        self._retries = made.counter(
            "batch_retries", "Failed attempts at a batch that are retried.", "error"
        )
        self._optimize_s = made.seconds("optimize_seconds", "Seconds to build the indexes.", _SLOW)
        self._search_s = made.seconds(
            "search_seconds", "Seconds from the body of a search to its answer.", _QUICK, "mode"
        )
        self._searches = Gauge(
            _PREFIX + "searches_in_flight", "Searches that run now.", registry=made
        )
        self._requests = made.counter("requests", "Requests answered.", "method", "route", "status")
        self._request_s = made.seconds(
            "request_seconds",
            "Seconds from a request to the end of its answer.",
            _QUICK,
            "method",
            "route",
        )
        self._info = Info(_PREFIX + "sidecar", "Versions and model in use.", registry=made)
        made.register(_Spool(backlog))
        made.register(_SpoolDisk(spool_use))
        made.register(_ForeignPoints(foreign_points))
        made.register(_RequestFailures(request_failures))
        self._begin()

    def set_info(self, info: Mapping[str, str]) -> None:
        """Set the versions, model and collection in use."""
        self._info.info({"version": __version__, **info})

    def ended(self, state: BatchState, stages: Sequence[StageTiming]) -> None:
        """Count a batch that is done or failed, with its seconds in total and by stage."""
        self._batches.labels(state.state).inc()
        self._batch_s.observe(state.report.seconds)
        for outcome, passages in counts_of(state.report).items():
            self._passages.labels(outcome).inc(passages)
        for stage in stages:
            self._stage_s.labels(stage.name).observe(stage.seconds)

    def failing(self, batch: BatchId, attempt: int, error: BaseException) -> None:  # noqa: ARG002
        """Count a failed attempt at a batch that will be retried, by its error."""
        self._retries.labels(type(error).__name__).inc()

    def optimized(self, seconds: float) -> None:
        """Count one build of the indexes."""
        self._optimize_s.observe(seconds)

    def searched(self, mode: str, seconds: float) -> None:
        """Count an answered search."""
        self._search_s.labels(mode).observe(seconds)

    def searching(self) -> AbstractContextManager[object]:
        """Count a search as running while the block runs."""
        return self._searches.track_inprogress()

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request, under the template of its path."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_s.labels(method, route).observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def _begin(self) -> None:
        """Start labeled metrics at zero, so that the first event gives a rate."""
        for outcome in COUNTS:
            self._passages.labels(outcome)
        for state in ("done", "failed"):
            self._batches.labels(state)
        for mode in get_args(SearchMode):
            self._search_s.labels(mode)
        self.set_info({})


class _Registry(CollectorRegistry):
    """Makes and registers metrics; shows their values without their start times."""

    def counter(self, name: str, help_text: str, *labels: str) -> Counter:
        """Make a counter by its labels."""
        return Counter(_PREFIX + name, help_text, labels, registry=self)

    def seconds(
        self, name: str, help_text: str, buckets: Sequence[float], *labels: str
    ) -> Histogram:
        """Make a histogram by its labels."""
        return Histogram(_PREFIX + name, help_text, labels, buckets=buckets, registry=self)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics without `_created`, a gauge for each series that nobody reads."""
        for metric in super().collect():
            metric.samples = [
                sample for sample in metric.samples if not sample.name.endswith("_created")
            ]
            yield metric


class _Spool(Collector):
    """Reads the spool when the metrics are read."""

    def __init__(self, backlog: Callable[[], Backlog]) -> None:
        self._backlog = backlog

    def collect(self) -> Iterator[Metric]:
        backlog = self._backlog()
        return _waiting(backlog.batches, backlog.oldest_s)

    def describe(self) -> Iterator[Metric]:
        """Return names alone: the spool may not exist yet."""
        return _waiting(None, None)


class _SpoolDisk(Collector):
    """Reads the use of the spool's disk when the metrics are read."""

    def __init__(self, use: Callable[[], SpoolUse]) -> None:
        self._use = use

    def collect(self) -> Iterator[Metric]:
        use = self._use()
        yield GaugeMetricFamily(
            _PREFIX + "spool_bytes", "Bytes of all batches, with ended ones.", value=use.bytes
        )
        yield GaugeMetricFamily(
            _PREFIX + "spool_failed", "Failed batches in the spool.", value=use.failed
        )
        yield CounterMetricFamily(
            _PREFIX + "spool_failed_dropped",
            "Failed batches removed because of the spool's size limit.",
            value=use.dropped,
        )

    def describe(self) -> Iterator[Metric]:
        """Return nothing: the spool may not exist yet."""
        return iter(())


class _ForeignPoints(Collector):
    """Reads the number of points left out when the metrics are read."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            _PREFIX + "foreign_points",
            "Points left out of answers, because they are not passages.",
            value=self._count(),
        )


class _RequestFailures(Collector):
    """Reads the failed requests to a server when the metrics are read."""

    def __init__(self, counts: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        counts = self._counts()
        for event, name, help_text in (
            ("retried", "server_retries", "Requests to the server that failed and were retried."),
            ("raised", "server_errors", "Requests to the server whose error was passed on."),
        ):
            family = CounterMetricFamily(_PREFIX + name, help_text, labels=["status"])
            for (found, status), count in sorted(counts.items()):
                if found == event:
                    family.add_metric([status], count)
            yield family


def _waiting(batches: int | None, oldest_s: float | None) -> Iterator[Metric]:
    for name, help_text, value in (
        ("spool_batches", "Batches that wait to be written.", batches),
        ("spool_oldest_seconds", "Age of the oldest batch that waits.", oldest_s),
    ):
        yield GaugeMetricFamily(_PREFIX + name, help_text, value=value)
