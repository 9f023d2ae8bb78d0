"""The only place where a sync call reaches an event loop.

Parts that must work from every loop and every thread write their I/O once, as coroutines, and run them through a
`Runner`: inline when nothing in them waits, on a loop of their own when something does.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from .errors import StoreUnavailableError

T = TypeVar("T")

_CLOSED = "the loop was closed"


class Runner(Protocol):
    """Runs a coroutine to its end for a sync caller (`call`) or an async one on any loop (`acall`)."""

    def call(self, work: Coroutine[Any, Any, T]) -> T: ...

    async def acall(self, work: Coroutine[Any, Any, T]) -> T: ...

    def close(self) -> None: ...


class InlineRunner:
    """For coroutines that never wait: they run on the caller's thread, loop or no loop."""

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            work.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # StopIteration.value is Any
        work.close()
        raise RuntimeError("an inline coroutine must not wait")

    async def acall(self, work: Coroutine[Any, Any, T]) -> T:
        return await work

    def close(self) -> None:
        """Nothing is open."""


class LoopThread:
    """One daemon thread with one event loop of its own, started at the first call.

    A sync caller may sit on the thread of any other running loop: it blocks that loop, but never waits for it. A call
    that is under way when the loop is closed, or made in a forked child, raises `StoreUnavailableError`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        if self.is_current():
            work.close()
            raise RuntimeError(f"{self._name}: a sync call from its own loop would wait for itself")
        future = self._submitted(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def acall(self, work: Coroutine[Any, Any, T]) -> T:
        if self.is_current():
            return await work
        return await asyncio.wrap_future(self._submitted(work))

    def is_current(self) -> bool:
        return self._thread is threading.current_thread()

    def close(self) -> None:
        """Cancel what is left, close the loop and join the thread. Idempotent; a later call starts anew.

        Not from its own loop.
        """
        with self._lock:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def _submitted(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Under the lock: what a loop has accepted before `close`, it ends before it is closed."""
        with self._lock:
            try:
                loop = self._running_loop()
            except BaseException:
                work.close()
                raise
            return asyncio.run_coroutine_threadsafe(self._unless_closed(work), loop)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._run, args=(self._loop,), name=self._name, daemon=True)
            self._thread.start()
        elif self._thread is None or not self._thread.is_alive():
            raise StoreUnavailableError(f"{self._name}: its thread is gone; open it after a fork, not before")
        return self._loop

    async def _unless_closed(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        except asyncio.CancelledError as error:
            if _CLOSED in error.args:
                raise StoreUnavailableError(f"{self._name} was closed while a call was under way") from error
            raise

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            loop.run_until_complete(asyncio.sleep(0))  # a task cancelled before its first step could not say why
            leftovers = asyncio.all_tasks(loop)
            for task in leftovers:
                task.cancel(None if task.cancelling() else _CLOSED)
            loop.run_until_complete(asyncio.gather(*leftovers, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()


class BorrowedLoop:
    """The loop of a borrowed client: async calls on that loop, sync calls from the threads beside it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        loop = self._loop
        if loop is None or _running_loop() is loop:
            work.close()
            raise RuntimeError("a borrowed async client serves sync calls only from threads beside its loop")
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    async def acall(self, work: Coroutine[Any, Any, T]) -> T:
        current = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = current
        if self._loop is not current:
            work.close()
            raise RuntimeError("a borrowed async client belongs to one event loop; this is another")
        return await work

    def adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say which it is, where it is not the first async call that does."""
        self._loop = loop

    def close(self) -> None:
        """The loop is the lender's."""


class AnyLoopLock:
    """One holder at a time, among any number of event loops (`async with`) and threads (`with`).

    For what is rare: a loop that waits for it asks again every few milliseconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()

    async def __aenter__(self) -> None:
        while not self._lock.acquire(blocking=False):  # noqa: ASYNC110  # an event of asyncio belongs to one loop
            await asyncio.sleep(0.002)

    async def __aexit__(self, *exc_info: object) -> None:
        self._lock.release()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
