"""Durations of requests by route and status, with few lines for routes that do not compute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from scpalm.model.tasks.registry import task_names

_NAME = "scpalm_request_duration_seconds"
_TEXT = "Duration of a request, from its headers to the last byte of the response."
# By status, so few: 8 steps of x 5.1 from 0.1 ms to 8.5 s. Every bound is one of the finer DURATION_BUCKETS, too.
_BUCKETS = tuple(100e-6 * 1.5 ** (4 * step) for step in range(8))
# Durations of answers to requests with cells. Fine from 1 to 10 ms, where the time of a single cell is.
ANSWER_BUCKETS = (
    *(0.0005, 0.001, 0.0015, 0.002, 0.0025, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 0.009, 0.01),
    *(0.0125, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0),
)
SIZES = ("cell", "batch", "file")
# The most cells that are computed as one work item.
_BATCH_ROWS = 512
# Other routes matter less, and there are many of them.
_FEW_BUCKETS = (0.01, 0.1, 1.0, 10.0)
# Present from the start, so that a rate over the first failure is right.
_FIRST_STATUSES = ("200", "500", "503")
STATUSES = (
    "200",
    "202",
    "400",
    "401",
    "403",
    "404",
    "405",
    "406",
    "408",
    "409",
    "413",
    "415",
    "422",
    "429",
    "499",
    "500",
    "503",
    "504",
    "507",
)


def size_class(num_cells: int) -> str:
    """The class of a request in SIZES: one cell, at most 512 (a batch), or more (a file)."""
    if num_cells <= 1:
        return "cell"
    return "batch" if num_cells <= _BATCH_ROWS else "file"


class RequestDurations(Collector):
    """One histogram with two kinds of buckets. Label sets are made when they are first used.

    Args:
        endpoints: paths of routes, the values of the label ``endpoint``; other paths count as ``other``. Statuses of
            routes without cells are reported by their class, such as 400 for 404.
    """

    def __init__(self, endpoints: Iterable[str]) -> None:
        self._endpoints = {*endpoints, "other"}
        labels = ("endpoint", "status")
        self._with_cells = Histogram(_NAME, _TEXT, labels, buckets=_BUCKETS, registry=None)
        self._others = Histogram(_NAME, _TEXT, labels, buckets=_FEW_BUCKETS, registry=None)
        for endpoint in filter(has_cells, self._endpoints):
            for status in _FIRST_STATUSES:
                self._with_cells.labels(endpoint, status)

    def observe(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request and its duration."""
        if endpoint not in self._endpoints:
            endpoint = "other"
        # No route answers with a status outside the list; its class is enough.
        exact = str(status) in STATUSES and (has_cells(endpoint) or endpoint == "other")
        histogram = self._with_cells if has_cells(endpoint) else self._others
        histogram.labels(endpoint, str(status) if exact else f"{status // 100}00").observe(seconds)

    def collect(self) -> Iterator[Metric]:
        joined = Metric(_NAME, _TEXT, "histogram")
        for histogram in (self._with_cells, self._others):
            for metric in histogram.collect():
                joined.samples += metric.samples
        yield joined

    def describe(self) -> Iterable[Metric]:
        return [Metric(_NAME, _TEXT, "histogram")]


def has_cells(endpoint: str) -> bool:
    """Whether requests to this route have cells."""
    return endpoint.endswith("/infer") or endpoint.removeprefix("/") in task_names()
