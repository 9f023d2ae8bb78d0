"""What is offered is there: names, extras, types and the files that code reads."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import re
from pathlib import Path

import pytest

import deerflow_replica

PACKAGES = ["deerflow_replica"] + [
    f"deerflow_replica.{module.name}"
    for module in pkgutil.iter_modules(deerflow_replica.__path__)
    if not module.name.startswith("_")
]
EXTRAS = {"redis", "postgres", "sqlite", "mongodb", "gateway", "metrics", "otel"}


def requirements(extra: str) -> set[str]:
    """The distributions that an extra adds, our own extras among them in brackets."""
    lines = importlib.metadata.requires("deerflow-replica") or []
    chosen = [line for line in lines if re.search(rf"extra == ['\"]{extra}['\"]", line)]
    return {re.split(r"[<>=!~; ]", line)[0] for line in chosen}


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_there(name: str) -> None:
    package = importlib.import_module(name)
    for public in getattr(package, "__all__", ()):
        assert getattr(package, public) is not None, public


@pytest.mark.parametrize("name", PACKAGES)
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    package = importlib.import_module(name)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name


def test_the_extras() -> None:
    offered = set(importlib.metadata.metadata("deerflow-replica").get_all("Provides-Extra") or [])
    assert offered == EXTRAS | {"embedded", "testing", "all"}


def test_all_is_every_extra_but_those_for_trying_and_testing() -> None:
    everything = set().union(*(requirements(extra) for extra in EXTRAS))
    assert everything
    named = {part for line in requirements("all") for part in re.findall(r"[\w-]+", line.partition("[")[2])}
    assert named == EXTRAS or everything <= requirements("all")


def test_the_version_is_the_distribution_s() -> None:
    assert importlib.metadata.version("deerflow-replica") == deerflow_replica.__version__


def test_types_and_queries_are_shipped() -> None:
    shipped = {path.suffix for path in Path(deerflow_replica.__file__).parent.rglob("*") if path.is_file()}
    assert (Path(deerflow_replica.__file__).parent / "py.typed").is_file()
    assert {".py", ".sql"} <= shipped
