"""Any sequence of calls gives the same on Redis, through two bridges, as in process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from deerflow_replica.errors import StreamEndedError
from deerflow_replica.stream import (
    END_SENTINEL,
    HEARTBEAT_SENTINEL,
    InMemoryStreamBridge,
    RedisStreamBridge,
    StreamBridge,
    StreamEvent,
    StreamGap,
)
from deerflow_replica.testing._stream_common import DEADLINE_SECONDS

RUNS = st.sampled_from(["a", "b"])
RETAINED = 4


class BridgeMachine(RuleBasedStateMachine):
    """`expected` is the in-process bridge; the same calls go to one of two Redis bridges at random."""

    url: ClassVar[str]
    prefix: ClassVar[str]
    examples: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        type(self).examples += 1
        self.count = 0
        self.ack = ""
        self.refused: set[tuple[int, str]] = set()
        self.knows_end: set[tuple[int, str]] = set()
        self.ours: list[StreamBridge] = []
        self.expected: StreamBridge = InMemoryStreamBridge(queue_maxsize=RETAINED)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(asyncio.wait_for(work, DEADLINE_SECONDS))

    @initialize(ack=st.sampled_from(["pipelined", "server"]), push=st.sampled_from(["pubsub", "xread"]))
    def open(self, ack: Any, push: Any) -> None:
        self.ack = ack
        prefix = f"{self.prefix}:{self.examples}"
        self.ours = [
            RedisStreamBridge(redis_url=self.url, key_prefix=prefix, queue_maxsize=RETAINED, ack=ack, push=push)
            for _ in range(2)
        ]

    @rule(run=RUNS, which=st.integers(0, 1), count=st.integers(1, 7))
    def publish(self, run: str, which: int, count: int) -> None:
        for _ in range(count):
            self.count += 1
            wanted = self.run(_outcome(self.expected.publish(run, "n", self.count)))
            found = self.run(_outcome(self._publish(self.ours[which], run, self.count)))
            assert found == wanted
            if found == "ended" and self.ack == "pipelined" and (which, run) not in self.knows_end:
                self.refused.add((which, run))
            if found == "ended":
                self.knows_end.add((which, run))

    @rule(run=RUNS, which=st.integers(0, 1), reason=st.sampled_from(["done", "error", ""]))
    def end(self, run: str, which: int, reason: str) -> None:
        self.run(self.expected.publish_end(run, reason=reason))
        found = self.run(_outcome(self.ours[which].publish_end(run, reason=reason)))
        # An END by the other bridge, after which an accepted event of this one was refused: that is told.
        assert found == ("ended" if (which, run) in self.refused else "stored")
        self.knows_end.add((which, run))

    @rule(run=RUNS, which=st.integers(0, 1))
    def delete(self, run: str, which: int) -> None:
        async def everywhere() -> None:
            await self.expected.cleanup(run)
            await self.ours[1 - which].cleanup(run)
            await self.ours[which].cleanup(run)

        self.run(everywhere())
        for known in (self.refused, self.knows_end):
            known -= {(0, run), (1, run)}

    @rule(
        run=RUNS,
        which=st.integers(0, 1),
        cursor=st.sampled_from([None, "0", "0-0", "-1", "x", "7-7"]) | st.integers(0, 12),
    )
    def read(self, run: str, which: int, cursor: str | int | None) -> None:
        wanted = self.run(_read(self.expected, run, cursor))
        # A heartbeat is the proof that nothing more is there, and a slow machine may give it too early: ask again.
        for patience in (0.1, 0.5, 2.0):
            found = self.run(_read(self.ours[which], run, cursor, patience))
            if found == wanted:
                break
        assert found == wanted

    @rule(run=RUNS, which=st.integers(0, 1))
    def look(self, run: str, which: int) -> None:
        for name in ("stream_exists", "end_reason"):
            found = self.run(getattr(self.ours[which], name)(run))
            assert found == self.run(getattr(self.expected, name)(run))

    @invariant()
    def nothing_is_pending(self) -> None:
        for bridge in self.ours:
            assert bridge.stats().pending_events == 0

    def teardown(self) -> None:
        for bridge in (*self.ours, self.expected):
            self.run(bridge.close())
        self.runner.close()

    async def _publish(self, bridge: StreamBridge, run: str, number: int) -> None:
        await bridge.publish(run, "n", number)
        await bridge.flush(run)


async def _outcome(work: Coroutine[Any, Any, Any]) -> str:
    try:
        await work
    except StreamEndedError:
        return "ended"
    return "stored"


async def _read(bridge: StreamBridge, run: str, cursor: str | int | None, patience: float = 0.01) -> list[Any]:
    """What there is now, with ids as the numbers they count; an int cursor is that number of the present stream."""
    epoch = await _epoch(bridge, run, patience)
    if isinstance(cursor, int):
        if epoch is None:
            return []
        cursor = f"{epoch}-{cursor}"
    found: list[Any] = []
    feed = bridge.subscribe(run, last_event_id=cursor, heartbeat_interval=patience)
    async for item in feed:
        if item is HEARTBEAT_SENTINEL:
            break
        found.append(_plain(item, epoch))
    await feed.aclose()
    return found


async def _epoch(bridge: StreamBridge, run: str, patience: float) -> str | None:
    feed = bridge.subscribe(run, heartbeat_interval=patience)
    item = await anext(feed)
    await feed.aclose()
    return item.id.partition("-")[0] if isinstance(item, StreamEvent) and item.id else None


def _plain(item: Any, epoch: str | None) -> Any:
    if item is END_SENTINEL:
        return "END"
    if isinstance(item, StreamGap):
        ids = (item.requested_event_id, item.earliest_available_event_id, item.latest_available_event_id)
        return tuple(text.replace(f"{epoch}-", "") if text else text for text in ids)
    return item.id.replace(f"{epoch}-", ""), item.data


def test_any_calls_give_the_same_as_in_process(redis_url: str, key_prefix: str) -> None:
    BridgeMachine.url, BridgeMachine.prefix = redis_url, key_prefix
    run_state_machine_as_test(
        BridgeMachine,
        settings=settings(max_examples=25, stateful_step_count=20, suppress_health_check=[HealthCheck.too_slow]),
    )
