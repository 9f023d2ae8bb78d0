"""Reaching every server that a configuration names, all at once, and saying which ones cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from .config import AppConfig
from .config.targets import Target, masked, place_of, problem_at, target_of
from .errors import ConfigError, ReplicaError, StoreUnavailableError, StreamUnavailableError

Connect = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class _Attempt:
    target: Target
    connect: Connect


async def reach_all(config: AppConfig, sections: Sequence[str], connect_bridge: Connect | None) -> None:
    """Reach the bridge, by `connect_bridge`, and every database and file that the sections name.

    Raises `StreamUnavailableError` if the bridge's server is among those that cannot be reached, else
    `StoreUnavailableError`, within `replica.connect_timeout_seconds`: one line for each, the bridge's first. Nothing is
    still being tried when it returns.
    """
    attempts = [_Attempt(target_of(config, "stream_bridge"), connect_bridge)] if connect_bridge else []
    attempts += _attempts(config, [target_of(config, section) for section in sections])
    outcomes = await asyncio.gather(*(_outcome(config, one.connect) for one in attempts))
    failed = [(one.target, error) for one, error in zip(attempts, outcomes, strict=True) if error is not None]
    for _, error in failed:
        if not isinstance(error, (StreamUnavailableError, StoreUnavailableError, TimeoutError)):
            raise error
    if failed:
        lines = "\n".join(_line(config, target, error) for target, error in failed)
        kind = StreamUnavailableError if failed[0][0].key.startswith("stream_bridge") else StoreUnavailableError
        raise kind(lines) from _cause(failed[0][1])


async def _outcome(config: AppConfig, connect: Connect) -> Exception | None:
    """What went wrong. An attempt that was given up is let go whole: its frames would keep its socket open."""
    seconds = config.replica.connect_timeout_seconds
    try:
        async with asyncio.timeout(seconds):
            await connect()
    except TimeoutError:
        pass
    except Exception as error:  # every server is asked, whatever another one answers; the caller raises it
        return error
    else:
        return None
    return TimeoutError(f"no answer within {seconds:g} seconds")


def _attempts(config: AppConfig, targets: Sequence[Target]) -> list[_Attempt]:
    """One for each server or file, under the first key that held it."""
    distinct: dict[str, list[Target]] = {}
    for target in targets:
        if target.kind != "memory" and target.url != ":memory:":
            distinct.setdefault(target.url, []).append(target)
    return [_Attempt(same[0], _connect(config, same)) for same in distinct.values()]


def _connect(config: AppConfig, same: Sequence[Target]) -> Connect:
    url, key = same[0].url, same[0].key
    if same[0].kind == "sqlite":
        from ._drivers.sqlite import SqliteDatabase

        return SqliteDatabase(url).touch
    if same[0].kind == "mongo":
        return partial(_reach_mongo, config, key, url)
    if same[0].kind == "redis":
        return partial(_reach_redis, config, key, url)
    schemas = sorted({target.schema for target in same if target.schema})

    async def connect() -> None:
        from ._drivers.langgraph_postgres import reach
        from ._drivers.postgres import is_dsn

        if not is_dsn(url):
            raise problem_at(config, key, "neither a postgresql:// URL nor a connection string")
        await reach(url, schemas)

    return connect


async def _reach_mongo(config: AppConfig, key: str, url: str) -> None:
    from ._drivers.mongodb import MongoServer

    try:
        client = await MongoServer(url, timeout_seconds=config.replica.connect_timeout_seconds).connect()
    except ConfigError:
        raise problem_at(config, key, "not a mongodb:// URL") from None
    await client.close()


async def _reach_redis(config: AppConfig, key: str, url: str) -> None:
    from ._drivers.redis import Lane, RedisServer, check_version

    try:
        server = RedisServer(url=url, client=None, timeout_seconds=config.replica.connect_timeout_seconds)
    except ConfigError:
        raise problem_at(config, key, "not a redis:// URL") from None
    lane = Lane(server, [])
    try:
        await check_version(lane, server.name)
    finally:
        await lane.close()


def _line(config: AppConfig, target: Target, error: BaseException) -> str:
    verb = "cannot use" if target.kind == "sqlite" else "cannot reach"
    text = f"{target.key}: {verb} {masked(target.url)}: {masked(_reason(error))}"
    place = place_of(config, target.key)
    return f"{place} {text}" if place else text


def _reason(error: BaseException) -> str:
    cause = _cause(error) or error
    text = str(cause).strip() or type(cause).__name__
    return text.splitlines()[0]


def _cause(error: BaseException) -> BaseException | None:
    """The driver's own error."""
    return error.__cause__ if isinstance(error, ReplicaError) else error
