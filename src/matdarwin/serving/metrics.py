"""What is counted, in Prometheus' text form, in a registry of the server's own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server.

    Args:
        queued: Gives the number of rows that wait.
    """

    def __init__(self, queued: Callable[[], int]) -> None:
        own = self._registry = CollectorRegistry()
        self.requests = Counter("darwin_requests", "Requests", ["route", "status"], registry=own)
        self.latency = Histogram(
            "darwin_request_seconds", "Seconds a request", ["route"], registry=own, buckets=_LATENCIES
        )
        self.batches = Histogram("darwin_batch_rows", "Rows a batch", registry=own, buckets=_SIZES)
        self.rows = Counter("darwin_rows_predicted", "Rows predicted", ["task"], registry=own)
        self.dropped = Counter("darwin_rows_dropped", "Rows whose client left or whose time was up", registry=own)
        self.rejects = Counter("darwin_rejects", "Requests refused before any work", ["reason"], registry=own)
        Gauge("darwin_queue_rows", "Rows that wait", registry=own).set_function(queued)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)
