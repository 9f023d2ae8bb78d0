"""The writers' side on Redis: a bounded buffer, one batch in flight, retried until it is stored exactly once."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from .._drivers.redis import Command, Lane, RedisServer, ResponseError, Script, is_transient
from ..errors import StreamError, StreamUnavailableError
from .backoff import Backoff
from .base import StreamSettings
from .buffer import MAX_RUN_BYTES, Buffer, Item, Run
from .keys import StreamKeys
from .lease import Lease

_LOG = logging.getLogger(__name__)
_YIELD_EVERY = 64
_GRACE_MS = 1000
_NO_PUSH = -1
_EVENT, _END = 0, 1

APPEND = Script(__package__ or "", "append.lua")


class Limits(NamedTuple):
    """How a stream is kept, as the append script takes it."""

    queue_maxsize: int
    max_stream_bytes: int
    ttl_ms: int
    grace_ms: int
    push_bytes: int

    @classmethod
    def of(cls, settings: StreamSettings, *, pushes: bool) -> Limits:
        ttl_ms = math.ceil((settings.stream_ttl_seconds or 0) * 1000)
        # Who lets readers lag exactly what is retained wants exactly that retained.
        grace_ms = 0 if settings.live_window == settings.queue_maxsize else _GRACE_MS
        push_bytes = MAX_RUN_BYTES if pushes else _NO_PUSH
        return cls(settings.queue_maxsize, settings.max_stream_bytes, ttl_ms, grace_ms, push_bytes)

    def arguments(self, writer: str, *, owns: bool) -> tuple[str | int, ...]:
        return (writer, int(owns), *self)


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
        name = event.encode()
        item = Item(run, name, data, len(data) + len(name), is_awaited=wait)
        if not self.buffer.offer(item):
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
            data = reason.encode()
            item = Item(run, b"", data, len(data), is_end=True, is_awaited=True)
            if not self.buffer.offer(item):
                await self._accept(item)
        end = run.end
        if end is not None:
            await self._wait(end)
            if end.problem is not None:
                raise end.problem

    async def flush(self, run_id: str | None) -> None:
        last = self.buffer.last(run_id)
        if last is not None:
            await self._wait(last)
            # One run may be stored before what was accepted earlier of another.
            while run_id is None and (item := self.buffer.oldest()) and item.number < last.number:
                await self._wait(item)
            if isinstance(last.problem, StreamUnavailableError):
                raise last.problem  # closed meanwhile
        for run in self._runs(run_id):
            run.report()

    async def close(self, timeout_seconds: float) -> None:
        """Raises `StreamUnavailableError` with the number of events that are not stored."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while (item := self.buffer.last(None)) is not None:
                    await item.settled()
        except TimeoutError:
            _LOG.debug("the last flush of the stream bridge took too long", exc_info=True)
        finally:
            left, task = len(self.buffer), self._task
            what = f"was closed with {left} events not stored" if left else "is closed"
            problem = StreamUnavailableError(f"the stream bridge {what}")
            self.buffer.close(problem)
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if left:
            raise problem from self._trouble

    def forget(self, run_id: str) -> None:
        if self.buffer.forget(run_id):
            self._lease.release(run_id)

    def _runs(self, run_id: str | None) -> list[Run]:
        if run_id is None:
            return [*self.buffer.runs.values(), *self.buffer.ended.values()]
        run = self.buffer.known(run_id)
        return [run] if run is not None else []

    async def _accept(self, item: Item) -> None:
        """In its turn, when there is room."""
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
        if item.run.pending == 1:
            self._lease.hold(item.run.run_id)
        if self._task is None:
            self._task = asyncio.create_task(self._pump(), name="stream-publisher")

    async def _wait(self, item: Item) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await item.settled()
        except TimeoutError as error:
            raise StreamUnavailableError(
                f"{len(self.buffer)} events are not stored after {self._timeout_seconds} s, "
                f"and still wait for {self._server.name}"
            ) from (self._trouble or error)

    async def _stored_or_withdrawn(self, item: Item) -> None:
        try:
            await self._wait(item)
        except StreamUnavailableError:
            item.is_awaited = False
            if not item.was_sent:
                self.buffer.settle([item])
                self.published -= 1
            raise
        except asyncio.CancelledError:
            item.is_awaited = False  # what becomes of it is for the next call to tell
            raise
        if item.problem is not None:
            raise item.problem

    async def _pump(self) -> None:
        backoff = Backoff()
        try:
            while len(self.buffer):
                if await self._reach() and await self._store(self.buffer.batch()):
                    backoff.reset()
                else:
                    self.retried += 1
                    await backoff.wait()
        finally:
            self._task = None

    async def _reach(self) -> bool:
        """Whether the server is there. Nothing is sent in doubt: what was never sent can still be withdrawn."""
        if self._trouble is None and self._lane.is_open:
            return True
        try:
            await self._lane.call(("PING",))
        except StreamUnavailableError as error:
            self._lost(error)
            return False
        return True

    def _lost(self, error: StreamUnavailableError) -> None:
        if self._trouble is None:
            _LOG.warning("%s; %d events wait", error, len(self.buffer))
        self._trouble = error

    async def _store(self, runs: dict[str, list[Item]]) -> bool:
        """Whether all went well: stored, refused or failed for good, but nothing to repeat."""
        for items in runs.values():
            for item in items:
                item.was_sent = True
        try:
            replies = await self._send(runs) if runs else []
        except StreamUnavailableError as error:
            self._lost(error)
            return False
        except ResponseError as error:
            if len(runs) > 1:
                return all([await self._store({run_id: items}) for run_id, items in runs.items()])
            (items,) = runs.values()
            self._drop(items[0].run, self._failure(items[0].run, error))
            return True
        self._trouble = None
        outcomes = [self._settle(items, reply) for items, reply in zip(runs.values(), replies, strict=True)]
        if not all(outcomes):
            await self._lane.disconnect()  # a master that became a replica has a successor, at the same address or not
        return all(outcomes)

    async def _send(self, runs: dict[str, list[Item]]) -> Sequence[Any]:
        commands: list[Command] = self._lease.renewal()
        keys = [key for run_id in runs for key in self._keys.of_run(run_id)]
        arguments: list[str | bytes | int] = [*self._limits.arguments(self._bridge_id, owns=self._lease.is_on)]
        for items in runs.values():
            arguments += (items[0].run.epoch, items[0].run.stored, *_packed(items))
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
        epoch, tail = bytes(reply[3]).decode(), int(reply[4])
        if last:
            run.epoch, run.stored = epoch, last
        stored = [item for item in items if item.number <= last]
        for item in items[len(stored) :]:
            item.was_sent = False
        self.buffer.settle(stored)
        if status == 1:
            run.ending = (epoch, tail, text)
            self._refuse(run)
        elif status == 2 and is_transient(text):
            self._trouble = StreamUnavailableError(f"{self._server.name} cannot serve now: {text}")
            return False
        elif status == 2:
            self._drop(run, self._failure(run, text))
        elif run.end is not None and run.end.is_settled:
            run.ending = (epoch, tail, run.end.data.decode())
            self._end(run)
        return True

    def _refuse(self, run: Run) -> None:
        """The stream ended before these: an END is not needed any more, an event is lost."""
        error = run.ended_error()
        items = self.buffer.of_run(run)
        run.was_refused = run.was_refused or any(not item.is_end and not item.is_awaited for item in items)
        run.problem = error if run.was_refused and not _has_end(items) else None
        needed = [item for item in items if run.was_refused or not item.is_end]
        self.buffer.settle(needed, error)
        self.buffer.settle(item for item in items if not item.is_settled)
        self._end(run)

    def _drop(self, run: Run, error: StreamError) -> None:
        items = self.buffer.of_run(run)
        run.problem = None if _has_end(items) or all(item.is_awaited for item in items) else error
        run.end = None
        self.buffer.settle(items, error)

    def _end(self, run: Run) -> None:
        self.buffer.over(run)
        self._lease.release(run.run_id)

    def _failure(self, run: Run, cause: object) -> StreamError:
        error = StreamError(f"events of run {run.run_id!r} were refused by {self._server.name}: {cause}")
        error.__cause__ = cause if isinstance(cause, Exception) else ResponseError(str(cause))
        return error


def _packed(items: list[Item]) -> tuple[str, bytes]:
    """Heads and body, as the append script takes them."""
    heads = ",".join(
        [f"{item.number},{_END if item.is_end else _EVENT},{len(item.event)},{len(item.data)}" for item in items]
    )
    return heads, b"".join([part for item in items for part in (item.event, item.data)])


def _has_end(items: list[Item]) -> bool:
    """Whether a waiting `publish_end` tells."""
    return any(item.is_end for item in items)
