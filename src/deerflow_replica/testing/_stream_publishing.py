"""The publishing table: what is stored, in which order, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ..errors import ConfigError, StreamEndedError, StreamUnavailableError
from ..stream import END_SENTINEL, HEARTBEAT_SENTINEL, StreamBridge, StreamEvent, StreamGap
from ._contract import for_one_of
from ._stream_common import (
    DEADLINE_SECONDS,
    Build,
    Open,
    StreamFixtures,
    ids,
    numbers,
    publish_all,
    read,
    reading,
    until,
)


class PublishingContract(StreamFixtures):
    """In order, exactly once, and nothing after END."""

    async def test_ids_count_from_zero_in_one_epoch(self, bridge: StreamBridge, run_id: str) -> None:
        await publish_all(bridge, run_id, 5, end=True)
        *events, end = await read(bridge, run_id)
        assert [event.id for event in events if isinstance(event, StreamEvent)] == await ids(bridge, run_id, 5)
        assert end is END_SENTINEL

    async def test_ids_go_on_across_trimming(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(queue_maxsize=2)
        await publish_all(bridge, run_id, 100)
        known = await ids(bridge, run_id, 100)
        items = await read(bridge, run_id, items=2)
        assert [event.id for event in items if isinstance(event, StreamEvent)] == known[-2:]

    async def test_concurrent_calls_are_stored_in_the_order_in_which_they_began(
        self, bridge: StreamBridge, run_id: str
    ) -> None:
        await asyncio.gather(*(bridge.publish(run_id, "n", number) for number in range(200)))
        await bridge.publish_end(run_id)
        assert numbers(await read(bridge, run_id)) == list(range(200))

    async def test_runs_do_not_mix(self, bridge: StreamBridge, run_id: str) -> None:
        names = [f"{run_id}-{number}" for number in range(10)]
        await asyncio.gather(*(publish_all(bridge, name, 20, end=True) for name in names))
        for name in names:
            assert numbers(await read(bridge, name)) == list(range(20))

    async def test_many_readers_get_everything(self, bridge: StreamBridge, run_id: str) -> None:
        readers = [asyncio.ensure_future(read(bridge, run_id)) for _ in range(10)]
        await publish_all(bridge, run_id, 100, end=True)
        for found in await asyncio.gather(*readers):
            assert numbers(found) == list(range(100))

    async def test_readers_that_begin_while_it_is_published_get_everything(
        self, open_bridge: Open, run_id: str
    ) -> None:
        bridge = await open_bridge(queue_maxsize=1000)
        readers = []
        for number in range(600):
            await bridge.publish(run_id, "n", number)
            if number % 20 == 0:
                readers += [asyncio.ensure_future(read(bridge, run_id, cursor)) for cursor in (None, "0")]
                await asyncio.sleep(0)
        await bridge.publish_end(run_id)
        for found in await asyncio.gather(*readers):
            assert numbers(found) == list(range(600))
            assert found[-1] is END_SENTINEL

    async def test_nothing_follows_end(self, bridge: StreamBridge, run_id: str) -> None:
        await publish_all(bridge, run_id, 1, end=True)
        with pytest.raises(StreamEndedError, match=run_id):
            await bridge.publish(run_id, "n", 1)
        await bridge.flush(run_id)
        assert await read(bridge, run_id) == [*(await read(bridge, run_id, items=1)), END_SENTINEL]

    async def test_the_first_end_stays(self, bridge: StreamBridge, run_id: str) -> None:
        assert await bridge.end_reason(run_id) is None
        await publish_all(bridge, run_id, 1)
        assert await bridge.end_reason(run_id) is None
        await bridge.publish_end(run_id, reason="first")
        await bridge.publish_end(run_id, reason="second")
        assert await bridge.end_reason(run_id) == "first"
        assert len(await read(bridge, run_id)) == 2

    async def test_after_cleanup_a_run_begins_anew(self, bridge: StreamBridge, run_id: str) -> None:
        await publish_all(bridge, run_id, 3, end=True)
        await bridge.cleanup(run_id)
        assert not await bridge.stream_exists(run_id)
        assert await bridge.end_reason(run_id) is None
        await publish_all(bridge, run_id, 1, start=7, end=True)
        assert numbers(await read(bridge, run_id)) == [7]

    async def test_what_exists(self, bridge: StreamBridge, run_id: str) -> None:
        assert not await bridge.stream_exists(run_id)
        await bridge.publish(run_id, "n", 0)
        assert await bridge.stream_exists(run_id)
        await bridge.publish_end(run_id)
        assert await bridge.stream_exists(run_id)

    async def test_cleanup_with_a_delay_is_not_put_off_by_publishing(self, bridge: StreamBridge, run_id: str) -> None:
        async def is_gone_all_the_same(delay: float) -> bool:
            name = f"{run_id}-{delay}"
            async with reading(bridge, name) as next_item:
                await publish_all(bridge, name, 1)
                assert (await next_item()).data == 0
                await bridge.cleanup(name, delay=delay)
                await publish_all(bridge, name, 1, start=1)
                item = await next_item()
                return isinstance(item, StreamEvent) and isinstance(await next_item(), StreamGap)

        assert await for_one_of((0.3, 3.0, 30.0), is_gone_all_the_same)

    async def test_a_second_cleanup_replaces_the_first(self, bridge: StreamBridge, run_id: str) -> None:
        await publish_all(bridge, run_id, 1)
        await bridge.cleanup(run_id, delay=3600)
        await bridge.cleanup(run_id, delay=0.05)
        await self._gone(bridge, run_id)

        async def is_replaced(delay: float) -> bool:
            await publish_all(bridge, run_id, 1)
            await bridge.cleanup(run_id, delay=delay)
            await bridge.cleanup(run_id, delay=3600)
            async with reading(bridge, f"{run_id}-clock", heartbeat_interval=delay * 2) as tick:
                assert await tick(beats=True) is HEARTBEAT_SENTINEL
            return await bridge.stream_exists(run_id)

        assert await for_one_of((0.2, 2.0, 20.0), is_replaced)

    async def test_a_silent_stream_expires_and_publishing_puts_it_off(self, open_bridge: Open, run_id: str) -> None:
        async def is_put_off(seconds: float) -> bool:
            bridge, name = await open_bridge(stream_ttl_seconds=seconds), f"{run_id}-{seconds}"
            published = asyncio.ensure_future(read(bridge, name))
            async with reading(bridge, f"{run_id}-clock", heartbeat_interval=seconds / 5) as tick:
                for number in range(8):
                    await publish_all(bridge, name, 1, start=number)
                    assert await tick(beats=True) is HEARTBEAT_SENTINEL
            await self._gone(bridge, name)
            await asyncio.wait([published], timeout=DEADLINE_SECONDS / 4)
            published.cancel()
            await asyncio.wait([published])
            if published.cancelled():
                return False
            *events, gap = published.result()
            return numbers(events) == list(range(8)) and isinstance(gap, StreamGap)

        assert await for_one_of((0.5, 5.0, 50.0), is_put_off)

    @pytest.mark.parametrize("delay", [-1, -0.001, float("nan"), float("inf")])
    async def test_a_negative_delay_is_a_value_error(self, bridge: StreamBridge, run_id: str, delay: float) -> None:
        with pytest.raises(ValueError, match="delay"):
            await bridge.cleanup(run_id, delay=delay)

    async def test_wrong_types_and_values(self, bridge: StreamBridge, run_id: str) -> None:
        wrong: Any = b"bytes"
        for call in (
            lambda: bridge.publish(wrong, "e", 1),
            lambda: bridge.publish(run_id, wrong, 1),
            lambda: bridge.publish_end(wrong),
            lambda: bridge.publish_end(run_id, reason=wrong),
            lambda: bridge.stream_exists(wrong),
            lambda: bridge.end_reason(wrong),
            lambda: bridge.cleanup(wrong),
        ):
            with pytest.raises(TypeError):
                await call()
        for event in ("", "a\nb", "a\rb", "a\0b", "__end__", "__heartbeat__", "\ud800"):
            with pytest.raises(ValueError, match="event"):
                await bridge.publish(run_id, event, 1)
        for empty in (bridge.publish("", "e", 1), bridge.publish_end(""), bridge.stream_exists(""), bridge.cleanup("")):
            with pytest.raises(ValueError, match="run_id"):
                await empty
        assert not await bridge.stream_exists(run_id)

    @pytest.mark.parametrize("name", ["a b", "ünïcode", "a:b", "{x}", "x" * 500, "a|b", "*?[a]"])
    async def test_any_other_name_will_do(self, bridge: StreamBridge, run_id: str, name: str) -> None:
        named = f"{run_id}{name}"
        await bridge.publish(named, name, 1)
        await bridge.publish_end(named, reason=name)
        event, _ = await read(bridge, named)
        assert isinstance(event, StreamEvent)
        assert event.event == name
        assert await bridge.end_reason(named) == name

    async def test_after_close_every_method_says_so(self, build: Build, run_id: str) -> None:
        bridge = build()
        async with bridge:
            await publish_all(bridge, run_id, 1)
        await bridge.close()
        for call in (
            lambda: bridge.publish(run_id, "e", 1),
            lambda: bridge.publish_end(run_id),
            lambda: bridge.stream_exists(run_id),
            lambda: bridge.end_reason(run_id),
            lambda: bridge.cleanup(run_id),
            lambda: bridge.flush(),
            lambda: anext(bridge.subscribe(run_id)),
            bridge.__aenter__,
        ):
            with pytest.raises(StreamUnavailableError, match="closed"):
                await call()
        assert bridge.stats().published == 1

    async def test_close_ends_the_subscriptions(self, build: Build, run_id: str) -> None:
        async with build() as bridge:
            feed = bridge.subscribe(run_id, heartbeat_interval=0.05)
            await anext(feed)
            waiting = asyncio.ensure_future(self._exhaust(feed))
        with pytest.raises(StreamUnavailableError, match="closed"):
            async with asyncio.timeout(DEADLINE_SECONDS):
                await waiting

    async def test_it_works_without_being_entered_and_leaves_no_task(self, build: Build, run_id: str) -> None:
        before = asyncio.all_tasks()
        bridge = build()
        await publish_all(bridge, run_id, 2, end=True)
        assert numbers(await read(bridge, run_id)) == [0, 1]
        await bridge.close()
        assert asyncio.all_tasks() == before

    async def test_stats_count(self, bridge: StreamBridge, run_id: str) -> None:
        await publish_all(bridge, run_id, 3, end=True)
        await read(bridge, run_id)
        await read(bridge, run_id, "1-0")
        stats = bridge.stats()
        assert (stats.published, stats.delivered, stats.gaps) == (3, 3, 1)
        assert (stats.pending_events, stats.pending_bytes, stats.subscribers) == (0, 0, 0)

    async def test_another_event_loop_is_refused(self, bridge: StreamBridge, run_id: str) -> None:
        await bridge.flush()
        with pytest.raises(RuntimeError, match="loop"):
            await asyncio.to_thread(asyncio.run, bridge.publish(run_id, "e", 1))

    async def test_a_subscription_of_another_loop_leaves_nothing(self, bridge: StreamBridge, run_id: str) -> None:
        async def first_item() -> object:
            return await anext(bridge.subscribe(run_id))

        await bridge.flush()
        with pytest.raises(RuntimeError, match="loop"):
            await asyncio.to_thread(asyncio.run, first_item())
        assert bridge.stats().topics == 0
        async with reading(bridge, run_id) as next_item:
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
        assert bridge.stats().subscribers == 0
        await until(lambda: not bridge.stats().topics, timeout_seconds=2.5)

    @pytest.mark.parametrize(
        "options",
        [
            {"queue_maxsize": 0},
            {"max_event_bytes": 0},
            {"max_stream_bytes": -1},
            {"live_window": 0},
            {"queue_maxsize": True},
            {"invalid_cursor": "reply"},
            {"resume_gap": ""},
            {"stream_ttl_seconds": -1},
        ],
        ids=str,
    )
    async def test_values_that_cannot_be_meant_are_config_errors(self, build: Build, options: dict[str, Any]) -> None:
        (name,) = options
        with pytest.raises(ConfigError, match=name):
            build(**options)

    async def _gone(self, bridge: StreamBridge, run_id: str) -> None:
        async def is_gone() -> bool:
            return not await bridge.stream_exists(run_id)

        await until(is_gone)

    async def _exhaust(self, feed: Any) -> None:
        async for _ in feed:
            pass
