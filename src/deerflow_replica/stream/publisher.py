"""The writers' side on Redis: a bounded buffer, one batch in flight, retried until it is stored exactly once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from .._drivers.redis import Command, Lane, RedisServer, ResponseError, Script, is_transient
from ..errors import StreamError, StreamUnavailableError
from .buffer import Buffer, Item, Run
from .keys import StreamKeys
from .lease import Lease

_LOG = logging.getLogger(__name__)
_YIELD_EVERY = 64
_BACKOFF_SECONDS = (0.02, 0.5)
_GRACE_MS = 1000
_PUSH_LIMIT = 64 * 1024

APPEND = Script(__package__ or "", "append.lua")


class Limits(NamedTuple):
    """How a stream is kept, as the append script takes it."""

    queue_maxsize: int
    max_stream_bytes: int
    ttl_ms: int

    def arguments(self, writer: str, *, owns: bool, runs: int) -> tuple[str | int, ...]:
        return (writer, int(owns), *self, _GRACE_MS, _PUSH_LIMIT, runs)


class Publisher:
    """Stores what is accepted. Starts its one task when there is something to store; it ends when there is not."""

    def __init__(
        self,
        bridge_id: str,
        server: RedisServer,
        lane: Lane,
        keys: StreamKeys,
        limits: Limits,
        lease: Lease,
        *,
        max_pending_events: int,
        max_pending_bytes: int,
        timeout_seconds: float,
    ) -> None:
        self._bridge_id = bridge_id
        self._server = server
        self._lane = lane
        self._keys = keys
        self._limits = limits
        self._lease = lease
        self._timeout_seconds = timeout_seconds
        self._task: asyncio.Task[None] | None = None
        self._trouble: BaseException | None = None
        self.buffer = Buffer(max_pending_events, max_pending_bytes, self._accepted)
        self.published = 0
        self.retried = 0

    async def publish(self, run_id: str, event: str, data: bytes, *, wait: bool) -> None:
        run = self.buffer.run(run_id)
        item = Item(run, "event", event, data, len(data) + len(event), is_awaited=wait)
        await self._accept(item)
        if wait:
            await self._stored_or_withdrawn(item)
        elif self.published % _YIELD_EVERY == 0:
            await asyncio.sleep(0)

    async def publish_end(self, run_id: str, reason: str) -> None:
        over = self.buffer.ended.get(run_id)
        if over is not None:
            over.problem = None
            if over.was_refused:
                raise over.ended_error()
            return
        run = self.buffer.known(run_id) or self.buffer.run(run_id)
        run.report()
        if run.end is None:
            await self._accept(Item(run, "end", "", reason.encode(), len(reason), is_awaited=True))
        end = run.end
        if end is not None:
            await self._wait(end)
            if end.problem is not None:
                raise end.problem

    async def flush(self, run_id: str | None) -> None:
        item = self.buffer.last(run_id)
        if item is not None:
            await self._wait(item)
            if isinstance(item.problem, StreamUnavailableError):
                raise item.problem  # closed meanwhile
        for run in self._runs(run_id):
            run.report()

    async def close(self, timeout_seconds: float) -> None:
        """Raises `StreamUnavailableError` with the number of events that are not stored."""
        try:
            item = self.buffer.last(None)
            if item is not None:
                await self._wait(item, timeout_seconds)
        except StreamError:
            _LOG.debug("the last flush of the stream bridge failed", exc_info=True)
        finally:
            await self._stop()
        left = len(self.buffer)
        if left:
            problem = StreamUnavailableError(f"the stream bridge was closed with {left} events not stored")
            self.buffer.close(problem)
            raise problem from self._trouble
        self.buffer.close(StreamUnavailableError("the stream bridge is closed"))

    def forget(self, run_id: str) -> None:
        self.buffer.forget(run_id)
        self._lease.release(run_id)

    def _runs(self, run_id: str | None) -> list[Run]:
        if run_id is None:
            return [*self.buffer.runs.values(), *self.buffer.ended.values()]
        run = self.buffer.known(run_id)
        return [run] if run is not None else []

    async def _accept(self, item: Item) -> None:
        if self.buffer.offer(item):
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self.buffer.accept(item)
        except TimeoutError as error:
            if not item.number:
                raise StreamUnavailableError(
                    f"no room for an event of run {item.run.run_id!r} within {self._timeout_seconds} s: "
                    f"{len(self.buffer)} events wait for {self._server.name}"
                ) from (self._trouble or error)
        if item.problem is not None:
            raise item.problem

    def _accepted(self, item: Item) -> None:
        self.published += not item.is_end
        self._lease.hold(item.run.run_id)
        if self._task is None:
            self._task = asyncio.create_task(self._pump(), name="stream-publisher")

    async def _wait(self, item: Item, timeout_seconds: float | None = None) -> None:
        limit = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        try:
            async with asyncio.timeout(limit):
                await item.settled()
        except TimeoutError as error:
            raise StreamUnavailableError(
                f"{len(self.buffer)} events are not stored after {limit} s, and still wait for {self._server.name}"
            ) from (self._trouble or error)

    async def _stored_or_withdrawn(self, item: Item) -> None:
        try:
            await self._wait(item)
        except StreamUnavailableError:
            item.is_awaited = False
            if not item.was_sent:
                self.buffer.settle([(item, None)])
                self.published -= 1
            raise
        if item.problem is not None:
            raise item.problem

    async def _pump(self) -> None:
        wait = _BACKOFF_SECONDS[0]
        try:
            while batch := self.buffer.batch():
                if await self._store(batch):
                    wait = _BACKOFF_SECONDS[0]
                else:
                    self.retried += 1
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, _BACKOFF_SECONDS[1])
        finally:
            self._task = None

    async def _stop(self) -> None:
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _store(self, batch: list[Item]) -> bool:
        """Whether all went well: stored, refused or failed for good, but nothing to repeat."""
        runs = _by_run(batch)
        try:
            if self._trouble is not None:
                # After a failure nothing is sent in doubt: what was never sent can still be withdrawn.
                await self._lane.call(("PING",))
            for item in batch:
                item.was_sent = True
            replies = await self._send(runs)
        except StreamUnavailableError as error:
            if self._trouble is None:
                _LOG.warning("%s; %d events wait", error, len(self.buffer))
            self._trouble = error
            return False
        except ResponseError as error:
            if len(runs) > 1:
                return all([await self._store(items) for items in runs.values()])
            self._drop(batch[0].run, self._failure(batch[0].run, error))
            return True
        self._trouble = None
        outcomes = [self._settle(items, reply) for items, reply in zip(runs.values(), replies, strict=True)]
        return all(outcomes)

    async def _send(self, runs: dict[str, list[Item]]) -> Sequence[Any]:
        commands: list[Command] = self._lease.renewal()
        keys = [key for run_id in runs for key in self._keys.of_run(run_id)]
        arguments: list[str | bytes | int] = [
            *self._limits.arguments(self._bridge_id, owns=self._lease.is_on, runs=len(runs))
        ]
        for items in runs.values():
            arguments.append(len(items))
            for item in items:
                arguments += (item.number, item.kind, item.event, item.data)
        *renewed, reply = await self._lane.call(*commands, APPEND.command(keys, arguments))
        if renewed:
            self._lease.renewed()
        if isinstance(reply, Exception):
            raise reply
        result: Sequence[Any] = reply
        return result

    def _settle(self, items: list[Item], reply: Sequence[Any]) -> bool:
        status, last, text = int(reply[0]), int(reply[1]), bytes(reply[2]).decode("utf-8", "replace")
        run = items[0].run
        stored = [item for item in items if item.number <= last]
        self.buffer.settle([(item, None) for item in stored])
        if status == 1:
            self._refuse(run)
        elif status == 2 and is_transient(text):
            self._trouble = StreamUnavailableError(f"{self._server.name} cannot serve now: {text}")
            return False
        elif status == 2:
            self._drop(run, self._failure(run, text))
        elif run.end is not None and run.end.is_settled:
            self._end(run)
        return True

    def _refuse(self, run: Run) -> None:
        """The stream ended before these: an END is not needed any more, an event is lost."""
        error = run.ended_error()
        items = self.buffer.of_run(run)
        run.was_refused = run.was_refused or any(not item.is_end and not item.is_awaited for item in items)
        run.problem = error if run.was_refused and not _has_end(items) else None
        self.buffer.settle([(item, error if run.was_refused or not item.is_end else None) for item in items])
        self._end(run)

    def _drop(self, run: Run, error: StreamError) -> None:
        items = self.buffer.of_run(run)
        run.problem = None if _has_end(items) or all(item.is_awaited for item in items) else error
        run.end = None
        self.buffer.settle([(item, error) for item in items])

    def _end(self, run: Run) -> None:
        self.buffer.over(run)
        self._lease.release(run.run_id)

    def _failure(self, run: Run, cause: object) -> StreamError:
        error = StreamError(f"events of run {run.run_id!r} were refused by {self._server.name}: {cause}")
        error.__cause__ = cause if isinstance(cause, Exception) else StreamError(str(cause))
        return error


def _by_run(batch: list[Item]) -> dict[str, list[Item]]:
    runs: dict[str, list[Item]] = {}
    for item in batch:
        runs.setdefault(item.run.run_id, []).append(item)
    return runs


def _has_end(items: list[Item]) -> bool:
    """Whether a waiting `publish_end` tells."""
    return any(item.is_end for item in items)
