"""Status, metadata and assistant of owned threads, copied from the registry into the thread map."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ..errors import ReplicaError
from ..threads.values import ANY_USER

if TYPE_CHECKING:
    from ..threads.base import ThreadMap
    from .registry.base import RunRegistry
    from .registry.records import ThreadHead

_LOG = logging.getLogger(__name__)
_LONGEST_ASSISTANT_ID = 255
_PATIENCE_SECONDS = 2.0  # an end waits for it


class ThreadMirror:
    """Makes the thread map say of a thread what the registry says, so that it can be searched by it.

    Any number of replicas mirror at once, in any order: each writes what it read, and then looks whether that still
    holds. Threads that nobody owns are not in the map, and hidden ones must not be found.
    """

    def __init__(self, registry: RunRegistry, threads: ThreadMap) -> None:
        self._registry = registry
        self._threads = threads
        self._late: set[str] = set()

    async def mirror(self, thread_id: str) -> bool:
        """Copy a change of this thread. It stands already, so no failure is raised: False, and `retry` tries again."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._copy(thread_id)
        except (ReplicaError, TimeoutError) as error:
            self._late.add(thread_id)
            _LOG.warning("thread %s: its change is not in the thread map yet: %s", thread_id, str(error) or "no answer")
            return False
        self._late.discard(thread_id)
        return True

    async def retry(self) -> None:
        """Copy what could not be copied before, until that fails again."""
        for thread_id in list(self._late):
            if not await self.mirror(thread_id):
                return

    async def _copy(self, thread_id: str) -> None:
        head = await self._registry.get_thread_head(thread_id)
        while head is not None and head.user_id is not None and not head.hidden:
            if not await self._write(head):
                return
            written, head = head, await self._registry.get_thread_head(thread_id)
            if head == written:
                return

    async def _write(self, head: ThreadHead) -> bool:
        """False: the map does not have the thread. Metadata that the map cannot keep stays behind, the status not."""
        try:
            return await self._update(head, metadata=head.metadata, assistant_id=_assistant_id(head))
        except ValueError as error:
            _LOG.warning("thread %s: its metadata is not in the thread map: %s", head.thread_id, error)
            return await self._update(head)

    async def _update(self, head: ThreadHead, **changes: Any) -> bool:
        found = await self._threads.update(head.thread_id, user_id=ANY_USER, status=head.status, **changes)
        return found is not None


def _assistant_id(head: ThreadHead) -> str | None:
    given = head.metadata.get("assistant_id")
    return given if isinstance(given, str) and len(given) <= _LONGEST_ASSISTANT_ID else None
