"""How `serve` leaves, and what becomes of its runs: real processes, real signals."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest

from cli.serve_process import START_SECONDS, Sleeper, gone, is_ready, replica_of, serving, timeouts
from deerflow_replica.cli.supervisor import pause_after
from waiting import eventually_sync


def test_serves_the_graph_and_ends_with_zero_on_sigterm(free_port: int, local_config: Path) -> None:
    with serving(free_port, local_config) as process:
        replica_id, pid = replica_of(free_port)
        assert replica_id
        assert pid == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def test_a_run_that_is_shorter_than_the_drain_ends_well(free_port: int, local_config: Path) -> None:
    with serving(free_port, local_config) as process:
        sleeper = Sleeper(free_port, 1.0)
        process.send_signal(signal.SIGTERM)
        assert sleeper.events()[-1] == "values"
        assert process.wait(timeout=60) == 0


def test_a_run_that_is_longer_than_the_drain_ends_as_an_error(free_port: int, local_config: Path) -> None:
    timeouts(local_config, drain_timeout_seconds=0.5)
    with serving(free_port, local_config) as process:
        sleeper = Sleeper(free_port, 300.0)
        process.send_signal(signal.SIGTERM)
        assert sleeper.events()[-1] == "error"
        assert process.wait(timeout=60) == 0


def test_a_second_sigterm_skips_the_wait(free_port: int, local_config: Path) -> None:
    with serving(free_port, local_config) as process:
        sleeper = Sleeper(free_port, 300.0)
        process.send_signal(signal.SIGTERM)
        eventually_sync(lambda: not is_ready(free_port), what="the drain")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        with closing(sleeper._client), suppress(httpx.TransportError):
            sleeper.events()


def test_a_client_that_never_sends_its_body_does_not_keep_the_replica(free_port: int, local_config: Path) -> None:
    with serving(free_port, local_config) as process, socket.create_connection(("127.0.0.1", free_port)) as client:
        client.sendall(b"POST /threads HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        assert httpx.get(f"http://127.0.0.1:{free_port}/ok", timeout=60).is_success
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=25) == 0


@pytest.mark.faults
def test_ctrl_c_lets_the_runs_of_every_replica_end(free_port: int, shared_config: Path) -> None:
    with serving(free_port, shared_config, "--replicas", "2") as parent:
        sleeper = Sleeper(free_port, 1.5)
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to the parent and its children alike
        assert sleeper.events()[-1] == "values"
        assert parent.wait(timeout=60) == 0


@pytest.mark.faults
def test_a_dead_replica_is_replaced_and_sigterm_ends_them_all(free_port: int, shared_config: Path) -> None:
    with serving(free_port, shared_config, "--replicas", "2") as parent:
        replica_id, pid = replica_of(free_port)
        assert pid != parent.pid
        os.kill(pid, signal.SIGKILL)
        seen: dict[str, int] = {}

        def two_others() -> bool:
            if is_ready(free_port):
                seen.update([replica_of(free_port)])
            return len(seen.keys() - {replica_id}) == 2

        eventually_sync(two_others, timeout=START_SECONDS, what="two living replicas")
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(timeout=60) == 0
        assert all(gone(pid) for pid in seen.values())


def test_a_replica_that_keeps_dying_is_replaced_more_and_more_slowly() -> None:
    pauses = [0.0]
    for served in (5.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 61.0, 0.1):
        pauses.append(pause_after(served, pauses[-1]))
    assert pauses[1:] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 1.0, 2.0]


@pytest.mark.faults
def test_a_second_sigterm_reaches_every_replica(free_port: int, shared_config: Path) -> None:
    with serving(free_port, shared_config, "--replicas", "2") as parent:
        sleeper = Sleeper(free_port, 300.0)
        parent.send_signal(signal.SIGTERM)
        eventually_sync(lambda: not is_ready(free_port), what="the drain")
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(timeout=20) == 0
        with closing(sleeper._client), suppress(httpx.TransportError):
            assert sleeper.events()[-1] == "error"


@pytest.mark.faults
def test_children_go_with_a_parent_that_is_killed(free_port: int, shared_config: Path) -> None:
    with serving(free_port, shared_config, "--replicas", "2") as parent:
        _, pid = replica_of(free_port)
        parent.kill()
        parent.wait()
        eventually_sync(lambda: gone(pid), what="the end of the child")
