"""The socket that `serve` listens on."""

from __future__ import annotations

import errno
import math
import socket
from contextlib import closing

import pytest

from deerflow_replica.cli.serve import _listener
from deerflow_replica.cli.server import cut_deaf_clients


def test_accepted_connections_know_that_they_are_tcp() -> None:
    """Otherwise asyncio leaves Nagle's algorithm on, and the first event of each stream is 40 ms late."""
    with _listener("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no TCP_USER_TIMEOUT")
@pytest.mark.parametrize("seconds", [1e12, math.inf])
def test_a_client_may_have_all_the_time_there_is(seconds: float) -> None:
    with closing(_listener("127.0.0.1", 0)) as listener:
        cut_deaf_clients(listener, seconds)
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2**31 - 1


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no TCP_USER_TIMEOUT")
@pytest.mark.faults
def test_a_connection_whose_client_accepts_nothing_ends() -> None:
    """Also when it is closed already, with data that nobody takes."""
    with closing(_listener("127.0.0.1", 0)) as listener, closing(socket.socket()) as deaf:
        cut_deaf_clients(listener, 0.3)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(listener.getsockname())
        served, _ = listener.accept()
        with closing(served):
            served.settimeout(60)
            with pytest.raises(TimeoutError) as ended:
                served.sendall(b"x" * 50_000_000)
            assert ended.value.errno == errno.ETIMEDOUT, "the system's word, not Python's own time limit"
