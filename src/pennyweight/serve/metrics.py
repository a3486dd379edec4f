"""Metrics for Prometheus, at `/metrics`."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one server, in a registry of its own.

    Attributes:
        requests: requests by route, status and classifier; the classifier is empty where a request
            names none or several.
        rows: classified texts by classifier.
        request_seconds: from the first byte to the answer, by route.
        queue_rows: texts that wait.
        queue_seconds: how long the texts of a request waited before they were computed.
        batch_rows: texts of each batch.
        batch_seconds: how long each batch took.
        classifiers: how many are loaded.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "pennyweight_requests",
            "Requests by route, status and classifier.",
            ("route", "status", "classifier"),
            registry=self._registry,
        )
        self.rows = Counter(
            "pennyweight_rows",
            "Classified texts by classifier.",
            ("classifier",),
            registry=self._registry,
        )
        self.request_seconds = Histogram(
            "pennyweight_request_seconds",
            "Seconds from the beginning of a request to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.queue_rows = Gauge(
            "pennyweight_queue_rows", "Texts that wait to be computed.", registry=self._registry
        )
        self.queue_seconds = Histogram(
            "pennyweight_queue_seconds",
            "Seconds for which the texts of a request waited.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.batch_rows = Histogram(
            "pennyweight_batch_rows", "Texts of a batch.", buckets=_ROWS, registry=self._registry
        )
        self.batch_seconds = Histogram(
            "pennyweight_batch_seconds",
            "Seconds for which a batch was computed.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.classifiers = Gauge(
            "pennyweight_classifiers", "Loaded classifiers.", registry=self._registry
        )

    def forget(self, classifier: str) -> None:
        """Drop the series of a classifier that was unloaded."""
        for counter in (self.requests, self.rows):
            counter.remove_by_labels({"classifier": classifier})

    def page(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
