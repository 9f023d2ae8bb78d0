"""A collector for `prometheus_client`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from ..._extras import extra
from ...errors import StoreUnavailableError
from ..base import ModelCounters
from ..values import LATENCY_BOUNDS, LatencyHistogram, ModelTotals
from . import label

with extra("metrics"):
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client import Metric

    from ..health import ModelHealth

_OUTCOMES = ("success", "failure", "cancelled", "control_flow", "short_circuit")
_TOKENS = ("input", "output")
_CIRCUIT = {"closed": 0.0, "half_open": 0.5, "open": 1.0}
_LIMITS = (*(str(bound) for bound in LATENCY_BOUNDS), "+Inf")

Totals = Mapping[str, ModelTotals]


def prometheus_metrics(counters: ModelCounters, *, health: ModelHealth | None = None) -> Collector:
    """For `registry.register`: what this process itself counted, read at each scrape, so `sum()` is the fleet's.

    `deerflow_model_calls_total{model,outcome}`, `deerflow_model_failures_total{model,kind}`,
    `deerflow_model_parse_errors_total{model}`, `deerflow_model_tokens_total{model,type}`,
    `deerflow_model_call_duration_seconds{model}`, and with `health` `deerflow_model_circuit_open{model}` (1 open,
    0.5 half open, 0 closed). Closed counters export nothing. `MissingExtraError` without `prometheus_client`.
    """
    return _Collector(counters, health)


class _Collector(Collector):
    def __init__(self, counters: ModelCounters, health: ModelHealth | None) -> None:
        self._counters = counters
        self._health = health

    def describe(self) -> Iterable[Metric]:
        """The names, for a registry that looks for collisions."""
        return self._families({})

    def collect(self) -> Iterator[Metric]:
        try:
            totals: Totals = self._counters.local_totals()
        except StoreUnavailableError:
            totals = {}
        yield from self._families(totals)

    def _families(self, totals: Totals) -> Iterator[Metric]:
        yield _calls(totals)
        yield _failures(totals)
        yield _parse_errors(totals)
        yield _tokens(totals)
        yield _durations(totals)
        if self._health is not None:
            yield _circuits(self._health, totals)


def _calls(totals: Totals) -> Metric:
    family = CounterMetricFamily("deerflow_model_calls", "Finished model calls.", labels=["model", "outcome"])
    for name, total in totals.items():
        for outcome in _OUTCOMES:
            family.add_metric([label(name), outcome], getattr(total, f"{outcome}_count"))
    return family


def _failures(totals: Totals) -> Metric:
    family = CounterMetricFamily("deerflow_model_failures", "Failed model calls.", labels=["model", "kind"])
    for name, total in totals.items():
        for kind, count in sorted(total.failures_by_kind.items()):
            family.add_metric([label(name), kind], count)
    return family


def _parse_errors(totals: Totals) -> Metric:
    family = CounterMetricFamily("deerflow_model_parse_errors", "Answers that did not parse.", labels=["model"])
    for name, total in totals.items():
        family.add_metric([label(name)], total.parse_error_count)
    return family


def _tokens(totals: Totals) -> Metric:
    family = CounterMetricFamily("deerflow_model_tokens", "Tokens of answers.", labels=["model", "type"])
    for name, total in totals.items():
        for kind in _TOKENS:
            family.add_metric([label(name), kind], getattr(total, f"{kind}_tokens"))
    return family


def _durations(totals: Totals) -> Metric:
    family = HistogramMetricFamily(
        "deerflow_model_call_duration_seconds", "How long answers and failures took.", labels=["model"]
    )
    for name, total in totals.items():
        family.add_metric([label(name)], _cumulated(total.latency), total.latency.sum_seconds)
    return family


def _cumulated(latency: LatencyHistogram) -> list[tuple[str, float]]:
    return list(zip(_LIMITS, map(float, accumulate(latency.buckets)), strict=True))


def _circuits(health: ModelHealth, totals: Totals) -> Metric:
    text = "1: the model's circuit is open, 0.5: half open, 0: closed."
    family = GaugeMetricFamily("deerflow_model_circuit_open", text, labels=["model"])
    for name in sorted({*totals, *health.known_models()}):
        family.add_metric([label(name)], _CIRCUIT[health.state(name).state])
    return family
