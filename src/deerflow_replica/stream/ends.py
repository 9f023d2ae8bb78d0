"""ENDs that a server lost in a crash: the bridge that knows of them writes them again.

Its lease may go on for the sake of other runs, so that nobody else would ever end those streams.
"""

from __future__ import annotations

import logging

from .._drivers.redis import Command, Lane, Script, server_identity
from .buffer import Buffer
from .contact import parts
from .keys import StreamKeys

_LOG = logging.getLogger(__name__)
_RUNS_PER_TRIP = 256

AGAIN = Script(__package__ or "", "again.lua")


class Ends:
    """Looks at the runs that this bridge knows to be over, once for every server that it finds at the other end."""

    def __init__(self, bridge_id: str, lane: Lane, keys: StreamKeys, buffer: Buffer, *, pushes: bool) -> None:
        self._bridge_id = bridge_id
        self._lane = lane
        self._keys = keys
        self._buffer = buffer
        self._pushes = pushes
        self._checked = 0
        self._server = ""

    async def restore(self) -> None:
        """Raises `StreamUnavailableError`, after which it is still to be done."""
        made = self._lane.connections_made
        if made == self._checked:
            return
        server = await server_identity(self._lane)
        if not server or server != self._server:
            await self._restore_all()
        self._server = server
        self._checked = made

    async def _restore_all(self) -> None:
        ended = self._buffer.ended.values()
        commands = {run.run_id: self._command(run.run_id, *run.ending) for run in ended if run.ending}
        for names in parts(commands, _RUNS_PER_TRIP):
            replies = await self._lane.call(*(commands[name] for name in names))
            for name, reply in zip(names, replies, strict=True):
                if isinstance(reply, Exception):
                    _LOG.warning("whether run %r is still ended cannot be seen from here: %s", name, reply)
                elif reply:
                    _LOG.warning("the server lost the end of run %r: it is written again", name)

    def _command(self, run_id: str, epoch: str, seq: int, reason: str) -> Command:
        return AGAIN.command(self._keys.of_run(run_id), (epoch, seq, reason, self._bridge_id, int(self._pushes)))
