"""What every request about a run asks the databases, asked together by requests that come at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from ..replica import Replica

V = TypeVar("V")
Ask = Callable[[Sequence[str]], Awaitable[Mapping[str, V]]]

_AT_ONCE = 2  # of each kind: the smallest pools of connections have five, and others want some, too
_MOST = 100


class Together(Generic[V]):
    """A question by key. While some are under way, further ones wait and are then asked together, each key once.

    A question is never answered by what was asked before it came.
    """

    def __init__(self, ask: Ask[V]) -> None:
        self._ask = ask
        self._waiting: dict[str, asyncio.Future[V | None]] = {}
        self._busy = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, key: str) -> V | None:
        """None: it is not there. Raises what asking raises."""
        answer = self._waiting.get(key)
        if answer is None:
            answer = self._waiting[key] = asyncio.get_running_loop().create_future()
            answer.add_done_callback(_retrieved)
        if self._busy < _AT_ONCE:
            self._busy += 1
            task = asyncio.create_task(self._ask_on())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(answer)

    async def _ask_on(self) -> None:
        try:
            while self._waiting:
                await self._ask_for({key: self._waiting.pop(key) for key in list(islice(self._waiting, _MOST))})
        finally:
            self._busy -= 1

    async def _ask_for(self, asked: Mapping[str, asyncio.Future[V | None]]) -> None:
        try:
            found = await self._ask(list(asked))
        except Exception as error:  # whoever asked is to know
            for answer in asked.values():
                answer.set_exception(error)
        else:
            for key, answer in asked.items():
                answer.set_result(found.get(key))


class Lookups:
    """Of one app: runs by id, owners of threads, and which threads are nobody's, and never were anybody's."""

    def __init__(self, replica: Replica) -> None:
        async def are_free(thread_ids: Sequence[str]) -> dict[str, bool]:
            check = replica.threads.check_access
            return {key: await check(key, None, require_existing=False) for key in thread_ids}

        self.runs = Together(replica.runs.get_owned)
        self._owners = Together[str | None](replica.threads.owners_of)
        self._free = Together(are_free)

    async def by_map(self, thread_id: str, user_id: str | None) -> bool:
        """Whether the thread map lets this user use a thread: it is theirs, or was never anybody's for nobody."""
        if user_id is None:
            return bool(await self._free.get(thread_id))
        return await self._owners.get(thread_id) == user_id


def _retrieved(answer: asyncio.Future[V | None]) -> None:
    """All who asked may be gone."""
    if not answer.cancelled():
        answer.exception()
