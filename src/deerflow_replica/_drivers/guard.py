"""The process between us and a server we started: when we go, however we go, it ends the server and its directory.

Run as a script (`python guard.py OWNER_PID BASE_DIRECTORY UID GID`), so it imports only the standard library. It makes
the private directory, then answers one JSON line on stdout for each JSON line on stdin:

    {"do": "spawn", "argv", "env", "log", "uid", "gid", "end_signal"}   -> {"pid"} | {"error"}
    {"do": "poll"}                                                      -> {"exit": null or a code}
    {"do": "end", "signal", "within_seconds"}                           -> {"exit"}

At the end of its input, or when its parent is no longer OWNER_PID (a forked sibling may hold the pipe open), it ends
the server and removes the directory. Never mind SIGKILL: whoever kills this process takes the server along.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PARENT_CHECK_SECONDS = 0.5
_END_SECONDS = 5.0
_POLL_SECONDS = 0.002
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Child:
    """The one server process, and whatever it leaves behind: as a subreaper we inherit its orphans."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.exit: int | None = None
        self._end_signal = signal.SIGTERM

    def spawn(self, order: dict[str, Any]) -> dict[str, Any]:
        self.end(self._end_signal, _END_SECONDS)
        with Path(order["log"]).open("ab") as log:
            process = subprocess.Popen(  # noqa: S603  # the owner's own command line
                order["argv"],
                env=order["env"],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_guard,  # this process has one thread
                **_credentials(order["uid"], order["gid"]),
            )
        self.pid, self.exit, self._end_signal = process.pid, None, signal.Signals(order["end_signal"])
        process.returncode = 0  # reaped in _reap, with the orphans
        return {"pid": self.pid}

    def poll(self) -> int | None:
        self._reap()
        return self.exit

    def end(self, number: int, within_seconds: float) -> int | None:
        """Signal the server, wait, and kill it if it stays; then the same for what it left."""
        if self.pid is not None and self.poll() is None:
            os.kill(self.pid, number)
            if not self._gone(within_seconds):
                os.kill(self.pid, signal.SIGKILL)
        if not self._gone(_END_SECONDS):
            self._kill_children()
            self._gone(_END_SECONDS)
        return self.exit

    def end_now(self) -> None:
        self.end(self._end_signal, _END_SECONDS)

    def _gone(self, within_seconds: float) -> bool:
        deadline = time.monotonic() + within_seconds
        while self._reap():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _reap(self) -> bool:
        """Collect the dead; true while some child lives."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid:
                self.exit = os.waitstatus_to_exitcode(status)

    def _kill_children(self) -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        for pid in children.read_text().split() if children.exists() else ():
            os.kill(int(pid), signal.SIGKILL)


def main(owner_pid: int, base: str, uid: int, gid: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _wait_for_owner)  # a handler, unlike SIG_IGN, is not inherited by the server
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    directory = tempfile.mkdtemp(prefix="dfr-", dir=base)
    child = Child()
    try:
        if uid >= 0:
            os.chown(directory, uid, gid)
        _reply({"directory": directory})
        for order in _orders(owner_pid):
            _reply(_obey(child, order))
    except BrokenPipeError:
        pass  # the owner went while it was answered
    finally:
        child.end_now()
        _remove(directory)


def _obey(child: Child, order: dict[str, Any]) -> dict[str, Any]:
    if order["do"] == "spawn":
        try:
            return child.spawn(order)
        except (OSError, subprocess.SubprocessError) as error:
            return {"error": f"{order['argv'][0]}: {error}"}
    if order["do"] == "end":
        return {"exit": child.end(order["signal"], order["within_seconds"])}
    return {"exit": child.poll()}


def _orders(owner_pid: int) -> Iterator[dict[str, Any]]:
    pending = b""
    while os.getppid() == owner_pid:
        readable, _, _ = select.select([0], [], [], _PARENT_CHECK_SECONDS)
        if not readable:
            continue
        received = os.read(0, 65536)
        if not received:
            return
        *lines, pending = (pending + received).split(b"\n")
        yield from map(json.loads, lines)


def _reply(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _credentials(uid: int, gid: int) -> dict[str, Any]:
    return {"user": uid, "group": gid, "extra_groups": []} if uid >= 0 else {}


def _die_with_guard() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _wait_for_owner(number: int, frame: object) -> None:
    """Ctrl-C and the like are for the owner: we end when it has ended."""


def _remove(directory: str) -> None:
    deadline = time.monotonic() + _END_SECONDS
    while Path(directory).exists() and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
