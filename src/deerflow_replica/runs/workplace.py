"""What the runs of one replica share."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import StreamEndedError
from .registry.base import RunRegistry
from .registry.records import Json, Waiting
from .tail import ends_with_error

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from ..stream.base import StreamBridge

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Workplace:
    """`moved(thread_id, next)` is told of each thread whose row changed, with the run that may begin in it now.

    `checkpointer` is where threads keep their state, as far as it is known here.
    """

    bridge: StreamBridge
    registry: RunRegistry
    lease_seconds: float
    retention_seconds: float
    checkpointer: BaseCheckpointSaver[Any] | None
    moved: Callable[[str, Waiting | None], Awaitable[None]]

    async def close_stream(self, run_id: str, error: Any, reason: str) -> None:
        """End a stream in its executor's stead, and remember that it ended."""
        await end_stream(self.bridge, run_id, error, reason)
        await self.registry.close_run(run_id)
        await self.bridge.cleanup(run_id, delay=self.retention_seconds)


async def end_stream(bridge: StreamBridge, run_id: str, error: Json | None, reason: str) -> None:
    """End a stream for an executor that cannot. That it has ended meanwhile is as good.

    The executor may have died between its `error` and END: there is one `error` at most.
    """
    try:
        if error is not None and not await ends_with_error(bridge, run_id):
            await bridge.publish(run_id, "error", error)
        await bridge.publish_end(run_id, reason=reason)
    except StreamEndedError:
        _LOG.debug("run %s: its stream had ended already", run_id)
