"""The socket that `serve` listens on."""

from __future__ import annotations

import socket

from deerflow_replica.cli.serve import _listener


def test_accepted_connections_know_that_they_are_tcp() -> None:
    """Otherwise asyncio leaves Nagle's algorithm on, and the first event of each stream is 40 ms late."""
    with _listener("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP
