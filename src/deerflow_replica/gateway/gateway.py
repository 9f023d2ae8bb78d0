"""What all requests of one app share: the replica, its graphs, who may ask, and the streams that are open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from ..runs.registry.records import RunRecord
from .adopting import adopting
from .auth import Authenticate
from .graphs import GraphSource, ServedGraph
from .ids import system_assistant_id
from .lookups import Lookups
from .problems import THREAD_NOT_FOUND, not_found
from .sse import StreamedResponse
from .tallies import Tallies

if TYPE_CHECKING:
    from ..config import AppConfig
    from ..replica import Replica
    from ..runs.request import RunRequest


_LAST_EVENTS_SECONDS = 2.0
_LOOK_AGAIN_SECONDS = 0.02


class Gateway:
    """One app's state: nothing of it is shared with another app of the process."""

    def __init__(
        self, replica: Replica | None, graphs: Mapping[str, GraphSource], authenticate: Authenticate | None
    ) -> None:
        self._replica: Replica | None = None
        self.graphs = {name: ServedGraph(name, source) for name, source in graphs.items()}
        self.authenticate = authenticate
        self.draining = False
        self._hurried = asyncio.Event()
        self.tallies = Tallies()
        self._streams: dict[StreamedResponse, RunRecord] = {}
        self.use(replica)

    @property
    def replica(self) -> Replica:
        if self._replica is None:
            raise RuntimeError("the app opens its replica in the ASGI lifespan, which has not begun, or has ended")
        return self._replica

    @property
    def lookups(self) -> Lookups:
        if self._lookups is None:
            raise RuntimeError("the app has no replica now")
        return self._lookups

    @property
    def replica_id(self) -> str | None:
        """None while there is no replica."""
        return None if self._replica is None else self._replica.replica_id

    @property
    def config(self) -> AppConfig:
        return self.replica.config

    def use(self, replica: Replica | None) -> None:
        """The replica that the lifespan opened, and None once it is closed."""
        self._replica = replica
        self._lookups = None if replica is None else Lookups(replica)
        if replica is not None:
            replica._manager.adopt_with(adopting(self))

    def graph_of(self, assistant_id: str) -> ServedGraph | None:
        """The graph of an assistant: by the graph's name, or by the id of its assistant."""
        if assistant_id in self.graphs:
            return self.graphs[assistant_id]
        return next((graph for name, graph in self.graphs.items() if system_assistant_id(name) == assistant_id), None)

    def graph_of_run(self, run: RunRecord) -> ServedGraph | None:
        """By the name that the run was accepted with, whatever became of its assistant meanwhile."""
        return self.graphs.get(run.kwargs.get("graph_id", "")) or self.graph_of(run.assistant_id or "")

    async def start(self, request: RunRequest) -> RunRecord:
        """Begin a run here; its record as it was admitted. 404 when the thread is gone meanwhile."""
        try:
            run = await self.replica._manager.start(request)
        except LookupError as error:
            raise not_found(THREAD_NOT_FOUND) from error
        return replace(run._admitted, status="pending")  # as the LangGraph API says it, whether it waits or not

    def watched(self, response: StreamedResponse, run: RunRecord) -> ASGIApp:
        """The response, within reach of a drain while it streams."""

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            self._streams[response] = run
            try:
                await response(scope, receive, send)
            finally:
                del self._streams[response]

        return watched

    @property
    def open_event_streams(self) -> int:
        return sum(response.is_event_stream for response in self._streams)

    def refuse_while_draining(self) -> None:
        """503 for what would begin something here."""
        if self.draining:
            raise HTTPException(503, "this replica is being shut down", {"retry-after": "1"})

    async def drain(self) -> None:
        """Begin nothing more, leave to other replicas what waits here, send the readers of what does not execute here
        there too, and wait for the runs that execute here, at most `gateway.drain_timeout_seconds`; end those that are
        left as `ReplicaShutdown`, and let their readers see it. Idempotent.
        """
        self.draining = True
        manager = self.replica._manager
        self._cut_streams(lambda run: run.owner != self.replica_id and not manager.executes(run.run_id))
        released = await manager.release_pending()
        self._cut_streams(lambda run: run.run_id in released)
        await self._own_runs_over(self.config.gateway.drain_timeout_seconds)
        await self.replica._manager.end_runs()
        await self._own_streams_over()

    def hurry(self) -> None:
        """A drain does not wait for the runs any longer."""
        self._hurried.set()

    def close_streams(self) -> None:
        """Cut what still streams: the replica is about to close."""
        self._cut_streams(lambda run: True)

    def _cut_streams(self, is_elsewhere: Callable[[RunRecord], bool]) -> None:
        for response, run in self._streams.items():
            if is_elsewhere(run):
                response.cut()

    async def _own_runs_over(self, timeout_seconds: float) -> None:
        waits = [asyncio.ensure_future(wait) for wait in (self.replica._manager.idle(), self._hurried.wait())]
        await asyncio.wait(waits, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _own_streams_over(self) -> None:
        """The runs are over: their readers are about to see it, and are given a moment for that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_EVENTS_SECONDS):
                while any(run.owner == self.replica_id for run in self._streams.values()):  # noqa: ASYNC110  # seconds at most, once in a process
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
