"""The ``scpalm_*`` metrics: one registry per app. Small label sets exist before the first request."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple, Protocol, get_args

import psutil  # type: ignore[import-untyped, unused-ignore]
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scpalm.app.telemetry.access import CHECKSUM_DIGITS
from scpalm.app.telemetry.request_metrics import ANSWER_BUCKETS, RequestDurations, has_cells, size_class
from scpalm.model.bundle import Identity
from scpalm.model.release import release
from scpalm.model.sessions.session import SessionInfo
from scpalm.model.tasks.registry import task_names

# Creation times of counters would double the lines of a scrape.
disable_created_metrics()

Rejection = Literal[
    "bad_request", "invalid_cells", "media_type", "too_large", "queue_full", "not_ready", "storage_full"
]
Drop = Literal["client_gone", "inference_failed", "dead_letter"]

REJECTIONS: dict[int, Rejection] = {
    400: "bad_request",
    406: "media_type",
    413: "too_large",
    415: "media_type",
    422: "invalid_cells",
    429: "queue_full",
    503: "not_ready",
    507: "storage_full",
}
# Geometric: 30 steps of x 1.5 from 0.1 ms to 12.8 s, so that quantiles have the same relative error everywhere.
DURATION_BUCKETS = tuple(100e-6 * 1.5**step for step in range(30))
ROW_BUCKETS = tuple(float(2**step) for step in range(13))
RATIO_BUCKETS = tuple(step / 10 for step in range(1, 11))


class LaneLoad(NamedTuple):
    """What is unfinished in one lane of the queue."""

    lane: str
    rows: int
    oldest_seconds: float


class _QueueCollector(Collector):
    """Reads the queue at each scrape. A gauge set by the device's loop would be stale while the device hangs."""

    def __init__(self, read: Callable[[], Iterable[LaneLoad]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        rows = GaugeMetricFamily("scpalm_queue_rows", "Cells that are queued or computed.", labels=["lane"])
        oldest = GaugeMetricFamily(
            "scpalm_queue_oldest_seconds", "Age of the oldest cells in the queue.", labels=["lane"]
        )
        for load in self._read():
            rows.add_metric([load.lane], load.rows)
            oldest.add_metric([load.lane], load.oldest_seconds)
        yield from (rows, oldest)

    def describe(self) -> Iterable[Metric]:
        return []


class _MemoryCollector(Collector):
    """Memory of this process. On a CPU that is the device's memory: weights, batches and queued cells."""

    def collect(self) -> Iterator[Metric]:
        memory = GaugeMetricFamily("scpalm_device_memory_bytes", "Resident memory of the process that owns the device.")
        memory.add_metric([], psutil.Process().memory_info().rss)
        yield memory

    def describe(self) -> Iterable[Metric]:
        return []


class HasMemory(Protocol):
    """The budget of the memory that requests take."""

    @property
    def used(self) -> int:
        """Bytes that are held."""
        ...

    @property
    def limit(self) -> int:
        """Most bytes."""
        ...


class _BudgetCollector(Collector):
    """Reads the memory budget at each scrape."""

    def __init__(self, budget: HasMemory) -> None:
        self._budget = budget

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "scpalm_request_memory_bytes", "Memory that requests take, as counted.", value=self._budget.used
        )
        yield GaugeMetricFamily(
            "scpalm_request_memory_limit_bytes", "Memory that requests may take.", value=self._budget.limit
        )

    def describe(self) -> Iterable[Metric]:
        return []


class _JobsCollector(Collector):
    """Reads the counts of jobs at each scrape."""

    def __init__(self, read: Callable[[], Iterable[tuple[str, int]]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("scpalm_jobs", "Jobs in each state.", labels=["state"])
        for state, count in self._read():
            jobs.add_metric([state], count)
        yield jobs

    def describe(self) -> Iterable[Metric]:
        return []


class Metrics:
    """Every metric of one app.

    Args:
        endpoints: paths of routes, the values of the label ``endpoint``; other paths count as ``other``.
        formats: values of the label ``format``.
        lanes: lanes of the queue, the values of the label ``lane``.
    """

    def __init__(self, endpoints: Iterable[str], formats: Iterable[str], lanes: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_MemoryCollector())
        self._formats = set(formats)
        self._lanes = tuple(lanes)
        histogram, counter = self._histogram, self._counter
        self._requests = RequestDurations(endpoints)
        self.registry.register(self._requests)
        self.answer_duration = histogram(
            "answer_duration_seconds",
            "Duration of a request that got a result, by number of cells: cell (1), batch (up to 512), file.",
            ("endpoint", "size"),
            buckets=ANSWER_BUCKETS,
        )
        self.parse_duration = histogram(
            "parse_duration_seconds",
            "Duration of parsing, including the wait for a parser.",
            ("format",),
        )
        self.queue_duration = histogram(
            "queue_duration_seconds", "Time from submission until the first cell reaches the device.", ("lane",)
        )
        self.inference_duration = histogram(
            "inference_duration_seconds", "Duration of one task on one batch.", ("task", "device")
        )
        self.batch_rows = histogram("batch_rows", "Cells per batch.", buckets=ROW_BUCKETS)
        self.batch_fill_ratio = histogram(
            "batch_fill_ratio", "Cells per batch, as a share of the batch size.", buckets=RATIO_BUCKETS
        )
        self.batch_requests = histogram("batch_requests", "Requests per batch.", buckets=ROW_BUCKETS)
        self.genes_matched_ratio = histogram(
            "genes_matched_ratio", "Share of the genes of a request that the model knows.", buckets=RATIO_BUCKETS
        )
        self.rows = counter("rows_total", "Computed cells.", ("lane", "task"))
        self.rejected = counter("rejected_total", "Requests that were refused before they were queued.", ("reason",))
        self.dropped = counter("dropped_total", "Queued requests that ended without a result.", ("reason",))
        self.redeliveries = counter("redeliveries_total", "Work that was leased again because a worker lost its lease.")
        self.device_busy = counter("device_busy_seconds_total", "Seconds that the device spent on batches.")
        self.model_info = Gauge(
            "scpalm_model_info",
            "The model served; always 1. The checksum is the beginning of that of its bundle.",
            ("name", "version", "checksum", "runtime", "device"),
            registry=self.registry,
        )
        Gauge("scpalm_build_info", "The release; always 1.", ("release",), registry=self.registry).labels(
            release()
        ).set(1)
        self.parsers_isolated = Gauge(
            "scpalm_parsers_isolated",
            "1 if the kernel keeps parsers of uploads from other files, the network and programs; 0 if not completely.",
            registry=self.registry,
        )
        self.model_loads = counter(
            "model_loads_total",
            "Models found in a folder, by outcome.",
            ("outcome",),
        )
        self._task_failures = counter(
            "background_failures_total", "Failures of background tasks, which start again.", ("task",)
        )
        self._register_labels()

    def _histogram(
        self, name: str, text: str, labels: tuple[str, ...] = (), buckets: tuple[float, ...] = DURATION_BUCKETS
    ) -> Histogram:
        return Histogram(f"scpalm_{name}", text, labels, buckets=buckets, registry=self.registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"scpalm_{name}", text, labels, registry=self.registry)

    def _register_labels(self) -> None:
        """Make label sets exist from the start, so that a rate over the first event is right."""
        for outcome in ("loaded", "refused"):
            self.model_loads.labels(outcome)
        for format_name in self._formats:
            self.parse_duration.labels(format_name)
        for lane in self._lanes:
            self.queue_duration.labels(lane)
            for task in task_names():
                self.rows.labels(lane, task)
        for reason in get_args(Rejection):
            self.rejected.labels(reason)
        for reason in get_args(Drop):
            self.dropped.labels(reason)

    def watch_queue(self, read: Callable[[], Iterable[LaneLoad]]) -> None:
        """Report the queue at each scrape."""
        self.registry.register(_QueueCollector(read))

    def watch_memory(self, budget: HasMemory) -> None:
        """Report this budget at each scrape."""
        self.registry.register(_BudgetCollector(budget))

    def watch_jobs(self, read: Callable[[], Iterable[tuple[str, int]]]) -> None:
        """Report the number of jobs in each state at each scrape."""
        self.registry.register(_JobsCollector(read))

    def model_loaded(self, identity: Identity, info: SessionInfo) -> None:
        """A model serves from now on."""
        self.model_info.labels(*_bundle_labels(identity), info.runtime, info.device).set(1)
        for task in task_names():
            self.inference_duration.labels(task, info.device)

    def model_gone(self, identity: Identity, info: SessionInfo) -> None:
        """A model no longer serves."""
        with contextlib.suppress(KeyError):  # its workers had other devices when it was loaded
            self.model_info.remove(*_bundle_labels(identity), info.runtime, info.device)

    def observe_request(self, endpoint: str, status: int, seconds: float, num_cells: int | None = None) -> None:
        """Count a request and its duration. ``num_cells`` is None if its body was not opened."""
        self._requests.observe(endpoint, status, seconds)
        if status == 200 and num_cells is not None and has_cells(endpoint):
            self.answer_duration.labels(endpoint, size_class(num_cells)).observe(seconds)

    def observe_rejection(self, status: int) -> None:
        """Count a refused request with cells, by the status of its response. Other statuses are not refusals."""
        if status in REJECTIONS:
            self.rejected.labels(REJECTIONS[status]).inc()

    def task_failed(self, name: str) -> None:
        """Count a failure of a background task."""
        self._task_failures.labels(name).inc()

    def drop(self, reason: Drop) -> None:
        """Count a queued request that ended without a result."""
        self.dropped.labels(reason).inc()


def _bundle_labels(identity: Identity) -> tuple[str, str, str]:
    name, version, checksum = identity
    return name, version, checksum[:CHECKSUM_DIGITS]
