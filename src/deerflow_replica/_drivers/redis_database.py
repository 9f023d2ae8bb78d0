"""Redis for what is kept: one connection for any number of callers, of any loop and thread.

What is asked while an answer is on its way waits and then goes out together, so many callers cost few round trips.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from .._sync import BorrowedLoop, LoopThread, Runner
from ..errors import StoreUnavailableError, StreamUnavailableError
from .redis import Command, Lane, RedisServer, ResponseError, Script, check_version
from .shared import SharedDatabase

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")

_MOST_CALLS = 200  # in one batch: those that come meanwhile wait no longer than this takes


class Ask(Protocol):
    async def __call__(self, *commands: Command) -> list[Any]:
        """The replies, in order. Raises the first error among them."""
        ...


@contextmanager
def store_errors(name: str) -> Iterator[None]:
    """A lost, refused or slow server becomes `StoreUnavailableError`, and so does one that refuses a command."""
    try:
        yield
    except StreamUnavailableError as error:
        raise StoreUnavailableError(str(error)) from (error.__cause__ or error)
    except TimeoutError as error:
        raise StoreUnavailableError(f"cannot reach {name}: no answer in time") from error
    except ResponseError as error:
        raise StoreUnavailableError(f"{name} refused: {error}") from error


class RedisDatabase(SharedDatabase):
    """A connection on a private loop, or one with a borrowed client's settings, on the client's own loop.

    Parts that share a URL share one of these. A borrowed client is never closed.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Redis | None = None,
        timeout_seconds: float = 10.0,
    ) -> None:
        super().__init__()
        self._server = RedisServer(url=url, client=client, timeout_seconds=timeout_seconds)
        self._timeout_seconds = timeout_seconds
        self._batches: _Batches | None = None
        self._scripts: list[Script] = []
        self.runner: Runner = LoopThread("deerflow-replica-redis") if client is None else BorrowedLoop()

    def know(self, *scripts: Script) -> None:
        """Scripts that may be called from now on; a server that does not know one is given its text."""
        self._scripts += scripts
        if self._batches is not None:
            self._batches.lane.know(*scripts)

    async def touch(self) -> None:
        """Find out whether the server answers; leaves nothing open."""
        await self.open()
        await self.close()

    async def execute(self, work: Callable[[Ask], Awaitable[T]], *, retry: bool = True) -> T:
        """Run `work` on the connection's loop, for at most `timeout_seconds`; it asks with commands.

        With `retry` (for work that may run twice), work that lost the connection runs once more on a fresh one, so a
        restart of the server between two calls is not seen. Raises `StoreUnavailableError`.
        """
        self._opened()  # asked here, too: what is closed starts no thread to say so
        return await self.runner.acall(self._run(work, retry=retry))

    async def _run(self, work: Callable[[Ask], Awaitable[T]], *, retry: bool) -> T:
        ask = self._opened().ask
        with store_errors(self._server.name):
            async with asyncio.timeout(self._timeout_seconds):
                try:
                    return await work(ask)
                except StreamUnavailableError:
                    if not retry:
                        raise
                return await work(ask)

    async def _connect(self) -> None:
        if self._batches is not None:
            return
        lane = Lane(self._server, self._scripts)
        try:
            with store_errors(self._server.name):
                async with asyncio.timeout(self._timeout_seconds):
                    await check_version(lane, self._server.name)
        except BaseException:
            await lane.close()
            raise
        self._batches = _Batches(lane)

    async def _disconnect(self) -> None:
        if self._batches is not None:
            batches, self._batches = self._batches, None
            await batches.close()

    def _opened(self) -> _Batches:
        if self._batches is None:
            raise StoreUnavailableError(f"{self._server.name} is not open here: it was closed, or never opened")
        return self._batches


class _Call(NamedTuple):
    commands: Sequence[Command]
    answer: asyncio.Future[list[Any]]


class _Batches:
    """Calls that wait for one lane: one batch is on its way, the next is whatever came meanwhile."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self._waiting: deque[_Call] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def ask(self, *commands: Command) -> list[Any]:
        """A caller that is cancelled costs nothing: its answer is read and dropped."""
        call = _Call(commands, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._sending is None:
            self._sending = asyncio.ensure_future(self._send())
        return await call.answer

    async def close(self) -> None:
        """What is under way raises `StreamUnavailableError`."""
        await self.lane.close()
        if self._sending is not None:
            await asyncio.wait([self._sending])

    async def _send(self) -> None:
        try:
            while self._waiting:
                some = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_CALLS))]
                if wanted := [call for call in some if not call.answer.done()]:
                    await self._exchange(wanted)
        finally:
            self._sending = None

    async def _exchange(self, calls: Sequence[_Call]) -> None:
        try:
            replies = iter(await self.lane.call(*(command for call in calls for command in call.commands)))
        except Exception as error:  # whatever it is, those who wait get it
            for call in calls:
                _end(call, _own(error))
            return
        for call in calls:
            answers = list(islice(replies, len(call.commands)))
            _end(call, next((reply for reply in answers if isinstance(reply, Exception)), answers))


def _end(call: _Call, outcome: list[Any] | Exception) -> None:
    if call.answer.done():
        return
    if isinstance(outcome, Exception):
        call.answer.set_exception(outcome)
    else:
        call.answer.set_result(outcome)


def _own(error: Exception) -> Exception:
    """One for each caller: an exception that several raise grows by all their tracebacks."""
    copied = copy.copy(error).with_traceback(None)
    copied.__cause__ = error.__cause__
    return copied
