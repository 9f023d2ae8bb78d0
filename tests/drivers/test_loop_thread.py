"""The private loop under every database: closing it, forking, and locks across loops."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from deerflow_replica._sync import AnyLoopLock, LoopThread
from deerflow_replica.errors import StoreUnavailableError


async def one() -> int:
    await asyncio.sleep(0)
    return 1


async def never(started: threading.Event) -> None:
    started.set()
    await asyncio.Event().wait()


def test_a_call_that_races_a_close_ends() -> None:
    """With its result or `StoreUnavailableError`, but it ends."""
    for _ in range(100):
        thread, results = LoopThread("test"), list[object]()
        thread.call(one())
        callers = [threading.Thread(target=_ask, args=(thread, results), daemon=True) for _ in range(3)]
        closer = threading.Thread(target=thread.close, daemon=True)
        for each in (*callers[:2], closer, callers[2]):
            each.start()
        for each in (*callers, closer):
            each.join(10)
            assert not each.is_alive()
        thread.close()
        assert all(result == 1 or isinstance(result, StoreUnavailableError) for result in results), results
        assert len(results) == 3


def _ask(thread: LoopThread, results: list[object]) -> None:
    try:
        results.append(thread.call(one()))
    except BaseException as error:  # whatever it is, the test looks at it
        results.append(error)


@pytest.mark.anyio
async def test_a_call_under_way_at_the_close_is_an_error_not_a_cancellation() -> None:
    thread, started = LoopThread("test"), threading.Event()
    asked = asyncio.ensure_future(thread.acall(never(started)))
    await asyncio.to_thread(started.wait, 10)
    await asyncio.to_thread(thread.close)
    with pytest.raises(StoreUnavailableError, match="closed while"):
        await asked


def test_a_sync_call_under_way_at_the_close_is_an_error() -> None:
    thread, started, results = LoopThread("test"), threading.Event(), list[object]()

    def ask() -> None:
        try:
            thread.call(never(started))
        except StoreUnavailableError as error:
            results.append(error)

    caller = threading.Thread(target=ask, daemon=True)
    caller.start()
    assert started.wait(10)
    thread.close()
    caller.join(10)
    assert len(results) == 1


def test_a_forked_child_is_told_instead_of_waiting_for_ever() -> None:
    thread = LoopThread("test")
    thread.call(one())
    child = os.fork()
    if child == 0:
        try:
            thread.call(one())
        except StoreUnavailableError:
            os._exit(7)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert thread.call(one()) == 1
    thread.close()


def test_a_lock_for_any_loop_has_one_holder() -> None:
    lock, inside, most = AnyLoopLock(), 0, 0

    async def enter() -> None:
        nonlocal inside, most
        async with lock:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    async def many() -> None:
        await asyncio.gather(*(enter() for _ in range(20)))

    threads = [threading.Thread(target=asyncio.run, args=(many(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
