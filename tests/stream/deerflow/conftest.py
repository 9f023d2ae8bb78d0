"""DeerFlow's place in these tests: a package of our own that has its names, importable only while a test runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from deerflow_replica.stream.deerflow import make_stream_bridge

if TYPE_CHECKING:
    from deerflow_replica.stream.deerflow import DeerFlowStreamBridge

STAND_INS = Path(__file__).parents[2] / "stand_ins"
Make = Callable[..., Awaitable["DeerFlowStreamBridge"]]


@pytest.fixture
def without_deerflow() -> Iterator[None]:
    """Nothing of DeerFlow is loaded before the test, nor after it."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if is_deerflows(name)}
    yield
    for name in [name for name in sys.modules if is_deerflows(name)]:
        del sys.modules[name]
    sys.modules.update(kept)


@pytest.fixture
def deerflow(without_deerflow: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module with DeerFlow's bridge, events and sentinels."""
    monkeypatch.syspath_prepend(STAND_INS)
    for variable in ("DEER_FLOW_STREAM_BRIDGE_REDIS_URL", "REDIS_URL"):
        monkeypatch.delenv(variable, raising=False)
    return importlib.import_module("deerflow.runtime.stream_bridge.base")


@pytest.fixture(params=["memory", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
async def make(kind: str, redis_url: str, key_prefix: str, deerflow: Any) -> AsyncIterator[Make]:
    """`await make(**section)`: the drop-in for a configuration whose `stream_bridge` has these fields."""
    place = {"redis_url": redis_url, "key_prefix": key_prefix} if kind == "redis" else {}
    async with AsyncExitStack() as stack:

        async def made(**section: Any) -> DeerFlowStreamBridge:
            config = SimpleNamespace(stream_bridge=SimpleNamespace(type=kind, **place, **section))
            return await stack.enter_async_context(make_stream_bridge(config))

        yield made


def is_deerflows(name: str) -> bool:
    return name.partition(".")[0] == "deerflow" or name == "deerflow_replica.stream.deerflow_bridge"
