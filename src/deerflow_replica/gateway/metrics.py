"""What one app counted, for Prometheus, on a registry of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .._extras import extra
from ..counters import prometheus_metrics

with extra("metrics"):
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client import Metric

    from .gateway import Gateway

_PREFIX = "deerflow_gateway"


def exposition(gateway: Gateway, accept: str) -> tuple[bytes, str]:
    """The page for a scrape and its content type, in the format that `accept` asks for.

    Process-wide registries stay untouched: two apps of one process export each its own numbers.
    """
    registry = CollectorRegistry()
    registry.register(_GatewayCollector(gateway))
    registry.register(prometheus_metrics(gateway.replica.counters, health=gateway.replica.health))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _GatewayCollector(Collector):
    """What this process itself did, so that `sum()` over the replicas is the fleet's."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[Metric]:
        tallies, manager = self._gateway.tallies, self._gateway.replica._manager
        yield _counter("runs", "Runs that ended in this process.", ("graph", "status"), manager.counts.ended)
        yield _gauge("runs_active", "Runs that execute in this process.", manager.active_runs)
        yield _gauge("sse_connections", "Streams that are open.", self._gateway.open_event_streams)
        yield _total("events_sent", "Events that were sent on streams.", tallies.events_sent)
        yield _total("stream_gaps", "Streams that ended because events were no longer retained.", tallies.stream_gaps)
        yield _total("orphans", "Runs of lost replicas that were ended here.", manager.counts.orphans)
        labels = ("method", "route", "status")
        yield _counter("requests", "Requests, by the template of their route.", labels, tallies.requests)


def _counter(name: str, text: str, labels: Iterable[str], counts: Mapping[Any, int]) -> Metric:
    """`counts` by tuples of the labels' values."""
    family = CounterMetricFamily(f"{_PREFIX}_{name}", text, labels=list(labels))
    for values, count in sorted(counts.items(), key=str):
        family.add_metric([str(value) for value in values], count)
    return family


def _total(name: str, text: str, count: int) -> Metric:
    return CounterMetricFamily(f"{_PREFIX}_{name}", text, value=count)


def _gauge(name: str, text: str, value: int) -> Metric:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=value)
