"""The Grafana dashboard asks for what the collector exports."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from deerflow_replica.counters import InMemoryModelCounters, ModelHealth, prometheus_metrics

DASHBOARD = Path(__file__).parents[2] / "examples" / "deploy" / "grafana" / "models.json"


def test_every_metric_of_the_dashboard_is_exported() -> None:
    counters = InMemoryModelCounters()
    registry = CollectorRegistry()
    registry.register(prometheus_metrics(counters, health=ModelHealth(counters)))
    counters.record("m", "failure", duration_seconds=1.0)
    exported = {sample.name: set(sample.labels) for family in registry.collect() for sample in family.samples}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {name: panel for panel in panels for one in panel["targets"] for name in names(one["expr"])}
    assert len({panel["id"] for panel in panels}) == len(panels) == 7
    assert set(asked) <= set(exported)
    assert {name.removesuffix("_bucket") for name in asked} == {
        name.removesuffix("_bucket") for name in exported if not name.endswith(("_count", "_sum"))
    }


def names(expression: str) -> list[str]:
    return re.findall(r"deerflow_\w+", expression)
