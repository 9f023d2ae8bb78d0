"""A server farther away, or one whose round trips are counted: a process, or threads, between it and its clients."""

from __future__ import annotations

import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

Address = tuple[str, int]


@contextmanager
def longer_wire(server: Address, seconds: float) -> Iterator[Address]:
    """Every piece that a client sends is held back that long; what the server sends is not."""
    command = [sys.executable, __file__, server[0], str(server[1]), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            yield "127.0.0.1", int(proxy.stdout.readline())
        finally:
            proxy.kill()


class Trips:
    """How often a client sent something and then had an answer, on all connections together."""

    def __init__(self) -> None:
        self.count = 0


@contextmanager
def counted_wire(server: Address) -> Iterator[tuple[Address, Trips]]:
    trips = Trips()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_stand_between, args=(listener, server, 0.0, trips), daemon=True).start()
        yield listener.getsockname(), trips
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _stand_between(listener: socket.socket, server: Address, seconds: float, trips: Trips) -> None:
    with suppress(OSError):
        while True:
            near, _ = listener.accept()
            _Link(near, socket.create_connection(server), seconds, trips).start()


class _Link:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(self, near: socket.socket, far: socket.socket, seconds: float, trips: Trips) -> None:
        self._near = near
        self._far = far
        self._seconds = seconds
        self._trips = trips
        self._has_asked = False
        self._pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def start(self) -> None:
        for end in (self._near, self._far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for work in (self._take, self._give, self._answer):
            threading.Thread(target=work, daemon=True).start()

    def _take(self) -> None:
        with suppress(OSError):
            while piece := self._near.recv(65536):
                self._pieces.put((time.monotonic() + self._seconds, piece))
        self._pieces.put((0.0, b""))

    def _give(self) -> None:
        with suppress(OSError):
            while True:
                due, piece = self._pieces.get()
                if not piece:
                    self._far.shutdown(socket.SHUT_RDWR)
                    return
                time.sleep(max(0.0, due - time.monotonic()))
                self._has_asked = True
                self._far.sendall(piece)

    def _answer(self) -> None:
        with suppress(OSError):
            while piece := self._far.recv(65536):
                self._trips.count += self._has_asked
                self._has_asked = False
                self._near.sendall(piece)
        with suppress(OSError):
            self._near.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as opened:
        print(opened.getsockname()[1], flush=True)
        _stand_between(opened, (sys.argv[1], int(sys.argv[2])), float(sys.argv[3]), Trips())
