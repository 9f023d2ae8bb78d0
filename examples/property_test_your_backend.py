"""Hold a stream bridge of yours to our contract, and to a property. Runs alone, or under pytest (extra `testing`)."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deerflow_replica.stream import END_SENTINEL, InMemoryStreamBridge, StreamBridge, StreamEvent
from deerflow_replica.testing import StreamBridgeContract

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


class YourBridge(InMemoryStreamBridge):
    """Your backend."""


class TestYourBridge(StreamBridgeContract):
    """Every rule that our own bridges keep: order, ids, cursors, gaps, payloads, END."""

    @pytest.fixture
    def build(self) -> type[StreamBridge]:
        return YourBridge


@given(payloads=st.lists(JSON, max_size=20), visits=st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_a_reader_that_comes_and_goes_misses_nothing(payloads: list[object], visits: list[int]) -> None:
    assert asyncio.run(read_in_visits(YourBridge(), payloads, visits)) == payloads


async def read_in_visits(bridge: StreamBridge, payloads: list[object], visits: list[int]) -> list[object]:
    """Publish; then read some events a visit, each from the last id of the one before; then the rest."""
    async with bridge:
        for payload in payloads:
            await bridge.publish("run", "values", payload)
        await bridge.publish_end("run")
        seen: list[StreamEvent] = []
        for wanted in (*visits, len(payloads) + 1):
            subscription = bridge.subscribe("run", last_event_id=seen[-1].id if seen else None)
            for _ in range(wanted):
                item = await anext(subscription)
                if item is END_SENTINEL:
                    break
                assert isinstance(item, StreamEvent), f"lost something: {item}"
                seen.append(item)
            await subscription.aclose()
    return [event.data for event in seen]


if __name__ == "__main__":
    sys.exit(subprocess.call([sys.executable, "-m", "pytest", "-q", __file__]))  # noqa: S603  # this very file
