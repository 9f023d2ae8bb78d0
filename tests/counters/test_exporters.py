"""What a scrape and a meter see of one process's model calls."""

from __future__ import annotations

import builtins
import importlib
import sys
from typing import Any

import pytest
from opentelemetry.metrics import NoOpHistogram, NoOpMeter, NoOpMeterProvider
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deerflow_replica.counters import InMemoryModelCounters, ModelHealth, otel_metrics, prometheus_metrics
from deerflow_replica.errors import MissingExtraError

pytestmark = pytest.mark.anyio

USAGE: Any = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
Labels = tuple[tuple[str, str], ...]


@pytest.fixture
def counters() -> InMemoryModelCounters:
    return InMemoryModelCounters()


def scraped(registry: CollectorRegistry) -> dict[tuple[str, Labels], float]:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_prometheus_sees_what_this_process_counted(counters: InMemoryModelCounters) -> None:
    registry = CollectorRegistry()
    registry.register(prometheus_metrics(counters, health=ModelHealth(counters)))
    counters.record("m", "success", duration_seconds=0.01, usage=USAGE)
    counters.record("m", "parse_error", duration_seconds=1.0)
    counters.record("m", "failure", duration_seconds=1000.0, error_type="auth")
    counters.record("m", "cancelled")
    found = scraped(registry)

    def of(name: str, **labels: str) -> float | None:
        return found.get((f"deerflow_model_{name}", tuple(sorted({"model": "m", **labels}.items()))))

    outcomes = ("success", "failure", "cancelled", "control_flow", "short_circuit")
    assert [of("calls_total", outcome=outcome) for outcome in outcomes] == [2, 1, 1, 0, 0]
    assert (of("failures_total", kind="auth"), of("failures_total", kind="unknown")) == (1, None)
    assert of("parse_errors_total") == 1
    assert (of("tokens_total", type="input"), of("tokens_total", type="output")) == (100, 20)
    seconds = [of("call_duration_seconds_bucket", le=le) for le in ("0.01", "0.64", "1.28", "655.36", "+Inf")]
    assert seconds == [1, 1, 2, 2, 3]
    assert (of("call_duration_seconds_count"), of("call_duration_seconds_sum")) == (3, 1001.01)
    assert of("circuit_open") == 1
    assert {name for _, labels in found for name, _ in labels} == {"model", "outcome", "kind", "type", "le"}


def test_a_name_that_no_text_can_hold_spoils_no_export(counters: InMemoryModelCounters) -> None:
    registry, provider = CollectorRegistry(), RecordingProvider()
    registry.register(prometheus_metrics(counters, health=ModelHealth(counters)))
    otel_metrics(counters, meter_provider=provider)
    for name in ("\ud800", "模型", 'a"b\\c'):
        counters.record(name, "success", duration_seconds=1.0)
    calls = {dict(labels)["model"] for name, labels in scraped(registry) if name == "deerflow_model_calls_total"}
    assert calls == {"\\ud800", "模型", 'a"b\\c'}
    points = provider.histograms["gen_ai.client.operation.duration"].points
    assert {attributes["gen_ai.request.model"] for _, attributes in points} == calls


async def test_prometheus_sees_circuits_change_and_nothing_after_close(counters: InMemoryModelCounters) -> None:
    registry = CollectorRegistry()
    health = ModelHealth(counters, jitter=0)
    registry.register(prometheus_metrics(counters, health=health))
    counters.record("m", "failure", error_type="rate_limit", retry_after_seconds=0)
    key = ("deerflow_model_circuit_open", (("model", "m"),))
    assert scraped(registry)[key] == 0.5
    await counters.close()
    assert not [name for name, _ in scraped(registry) if name.endswith("_total")]


def test_two_collectors_of_one_registry_collide_at_once(counters: InMemoryModelCounters) -> None:
    registry = CollectorRegistry()
    registry.register(prometheus_metrics(counters))
    with pytest.raises(ValueError, match="deerflow_model"):
        registry.register(prometheus_metrics(counters))


class Recorded(NoOpHistogram):
    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(name)
        self.settings = settings
        self.points: list[tuple[float, dict[str, Any]]] = []

    def record(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        self.points.append((amount, dict(attributes)))


class RecordingProvider(NoOpMeterProvider):
    """The SDK's place; the API alone records nothing."""

    def __init__(self) -> None:
        self.histograms: dict[str, Recorded] = {}

    def get_meter(self, name: str, *_: Any, **__: Any) -> Any:
        provider = self

        class Meter(NoOpMeter):
            def create_histogram(self, name: str, unit: str = "", description: str = "", **settings: Any) -> Any:
                return provider.histograms.setdefault(name, Recorded(name, unit=unit, **settings))

        return Meter(name)


def test_opentelemetry_gets_each_call(counters: InMemoryModelCounters) -> None:
    provider = RecordingProvider()
    otel_metrics(counters, meter_provider=provider, provider_of=lambda name: f"of {name}")
    counters.record("m", "success", duration_seconds=0.5, usage=USAGE)
    counters.record("m", "failure", duration_seconds=1.5, error_type="auth")
    counters.record("m", "failure", duration_seconds=2.5, error_type="Odd")
    counters.record("m", "success")
    counters.record("m", "cancelled", duration_seconds=9.0)
    duration = provider.histograms["gen_ai.client.operation.duration"]
    tokens = provider.histograms["gen_ai.client.token.usage"]
    common = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "of m", "gen_ai.request.model": "m"}
    assert duration.points == [
        (0.5, common),
        (1.5, {**common, "error.type": "auth"}),
        (2.5, {**common, "error.type": "unknown"}),
    ]
    assert tokens.points == [
        (100, {**common, "gen_ai.token.type": "input"}),
        (20, {**common, "gen_ai.token.type": "output"}),
    ]
    assert (duration.settings["unit"], tokens.settings["unit"]) == ("s", "{token}")
    bounds = duration.settings["explicit_bucket_boundaries_advisory"]
    assert (bounds[0], bounds[-1]) == (0.01, 81.92)
    assert tokens.settings["explicit_bucket_boundaries_advisory"][:4] == [1, 4, 16, 64]


def test_opentelemetry_without_an_sdk_costs_nothing_but_the_call(counters: InMemoryModelCounters) -> None:
    otel_metrics(counters)
    counters.record("m", "success", duration_seconds=0.5, usage=USAGE)
    assert counters.local_totals()["m"].call_count == 1


@pytest.mark.parametrize(
    ("exporter", "library", "named"),
    [("prometheus", "prometheus_client", "metrics"), ("otel", "opentelemetry", "otel")],
)
def test_a_missing_library_is_named_with_its_extra(
    exporter: str, library: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"deerflow_replica.counters.exporters.{exporter}"
    for loaded in [name for name in sys.modules if name.split(".")[0] == library or name == module]:
        monkeypatch.delitem(sys.modules, loaded)
    real = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.split(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {library!r}", name=library)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=rf"deerflow-replica\[{named}\]"):
        importlib.import_module(module)
