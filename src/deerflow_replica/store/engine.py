"""Which loop a call runs on: the caller's own where it can, and one private loop thread for everybody else.

An engine is a backend and its scheduler on one event loop. The first loop that calls gets one: its calls change no
thread. Sync callers, and the other loops, share another on a private thread, which starts when it is needed.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable

from .._sync import AnyLoopLock, BorrowedLoop, LoopThread, Runner
from ..errors import StoreUnavailableError
from .backend import Backend
from .batching import Scheduler

_CLOSE_SECONDS = 5.0


class Engine:
    """A backend on the loop that it was made on, opened by the first call."""

    def __init__(self, backend: Backend) -> None:
        self.loop = asyncio.get_running_loop()
        self.backend = backend
        self.scheduler = Scheduler(backend, self.open)
        self.is_open = False
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        if not self.is_open:
            async with self._opening:
                await self._open()

    async def close(self) -> None:
        await self.scheduler.close(_CLOSE_SECONDS)
        async with self._opening:
            self.is_open = False
            await self.backend.close()

    async def _open(self) -> None:
        if self.is_open:
            return
        try:
            await self.backend.open()
        except BaseException:
            await self.backend.close()
            raise
        self.is_open = True


class Engines:
    """The engines of one store, at most two: that of the first loop, and that of the private thread."""

    def __init__(self, new_backend: Callable[[], Backend], name: str, *, is_borrowed: bool = False) -> None:
        """`is_borrowed`: the backend belongs to one loop of the caller's, and there is no private one."""
        self._new_backend = new_backend
        self._name = name
        self._is_borrowed = is_borrowed
        self._lock = threading.Lock()
        self._closing = AnyLoopLock()
        self._is_closed = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self.runner: Runner = BorrowedLoop() if self._is_borrowed else LoopThread(f"deerflow-replica-{self._name}")
        self._home: Engine | None = None
        self._private: Engine | None = None

    def check_open(self) -> None:
        """After a fork the parent's engines are the parent's: the child begins anew."""
        if self._is_closed:
            raise StoreUnavailableError("the store is closed")
        if self._pid != os.getpid():
            self._lock = threading.Lock()
            self._begin()

    def here(self) -> Engine | None:
        """The engine of the running loop; None when that is a loop without one."""
        self.check_open()
        loop = asyncio.get_running_loop()
        home, private = self._home, self._private
        if home is not None and home.loop is loop:
            return home
        if private is not None and private.loop is loop:
            return private
        with self._lock:
            return self._adopted(loop)

    async def close(self) -> None:
        """From any loop, any number of times. Calls under way have 5 s to finish."""
        async with self._closing:
            home, private = self._closed()
            if home is not None and not home.loop.is_closed():
                await _on(home.loop, home)
            if private is not None:
                await self.runner.acall(private.close())
            await asyncio.to_thread(self.runner.close)

    def close_sync(self) -> None:
        """From a thread without a loop."""
        with self._closing:
            home, private = self._closed()
            if home is not None and home.loop.is_running():
                asyncio.run_coroutine_threadsafe(home.close(), home.loop).result()
            if private is not None:
                self.runner.call(private.close())
            self.runner.close()

    def _closed(self) -> tuple[Engine | None, Engine | None]:
        with self._lock:
            engines = (self._home, self._private) if self._pid == os.getpid() else (None, None)
            self._is_closed, self._home, self._private = True, None, None
            return engines

    def _adopted(self, loop: asyncio.AbstractEventLoop) -> Engine | None:
        if isinstance(self.runner, LoopThread) and self.runner.is_current():
            self._private = Engine(self._new_backend())
            return self._private
        if self._home is None or self._home.loop.is_closed():
            self._home = Engine(self._new_backend())
            if isinstance(self.runner, BorrowedLoop):
                self.runner.adopt(loop)
            return self._home
        return None


async def _on(loop: asyncio.AbstractEventLoop, engine: Engine) -> None:
    if loop is asyncio.get_running_loop():
        await engine.close()
    elif loop.is_running():
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(engine.close(), loop))
