"""Redis through redis-py: connections of our own from a URL or a borrowed client, and its errors as ours.

Each `Lane` is one connection that sends a whole batch and then reads the replies. Retries belong to the callers, who
know what may be repeated: the driver's own are off.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from .._extras import extra
from ..config.masking import masked
from ..errors import ConfigError, ConfigProblem, StreamUnavailableError

with extra("redis"):
    from redis.asyncio import ConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.exceptions import InvalidResponse, NoScriptError, RedisError, ResponseError
    from redis.exceptions import TimeoutError as RedisTimeoutError

__all__ = [
    "Command",
    "Connection",
    "Lane",
    "RedisServer",
    "ResponseError",
    "Script",
    "check_version",
    "is_transient",
    "server_identity",
]

Command = tuple[Any, ...]
OLDEST_VERSION = (7, 0)
_TRANSIENT = (
    "LOADING",
    "READONLY",
    "OOM",
    "BUSY",
    "MASTERDOWN",
    "TRYAGAIN",
    "MISCONF",
    "NOREPLICAS",
    "CLUSTERDOWN",
    "UNBLOCKED",
)
_TRANSIENT_NAMES = frozenset(
    {"OutOfMemoryError", "ReadOnlyError", "BusyLoadingError", "MasterDownError", "TryAgainError"}
)


class Script:
    """A Lua file beside the code that runs it."""

    def __init__(self, package: str, file: str) -> None:
        self.source = files(package).joinpath(file).read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.source.encode()).hexdigest()  # noqa: S324  # the name EVALSHA gives it

    def command(self, keys: Sequence[str], arguments: Sequence[str | bytes | int | float]) -> Command:
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


def is_transient(code: str) -> bool:
    """Whether an error reply only says: not now."""
    return code.startswith(_TRANSIENT)


class RedisServer:
    """Where connections come from. A borrowed client lends its settings (address, password, TLS, Sentinel) alone.

    Raises `ConfigError` for a URL that cannot be read.
    """

    def __init__(self, *, url: str | None, client: Redis | None, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self.open_connections = 0
        if client is not None:
            self._pool: Any = client.connection_pool
            self.name = "the Redis server of the client passed in"
        else:
            url = url or "redis://localhost:6379/0"
            self.name = masked(url)
            self._pool = _pool(url, timeout_seconds)

    def connection(self) -> Any:
        """A connection of ours, not yet open."""
        connection = self._pool.make_connection()
        connection.retry = Retry(NoBackoff(), 0)
        # Our calls have time limits of their own, and the driver's `wait_for` can lose a cancellation.
        connection.socket_timeout = None
        # A borrowed client may have another encoding, for texts of its own.
        connection.encoder = type(connection.encoder)("utf-8", "strict", False)
        return connection

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What says that the server cannot be reached, or not now, becomes `StreamUnavailableError`."""
        try:
            yield
        except (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError) as error:
            raise StreamUnavailableError(f"cannot reach {self.name}: {_reason(error)}") from error
        except InvalidResponse as error:
            raise StreamUnavailableError(f"cannot reach {self.name}: what answers there is no Redis") from error
        except ResponseError as error:
            if type(error).__name__ in _TRANSIENT_NAMES or is_transient(str(error)):
                raise StreamUnavailableError(f"{self.name} cannot serve now: {error}") from error
            raise


class Connection:
    """One connection that opens when it is needed. Used by one task at a time for reading, and one for sending."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.made = 0
        self._connection: Any = None

    @property
    def is_open(self) -> bool:
        return self._connection is not None and bool(self._connection.is_connected)

    async def open(self) -> None:
        """Raises `StreamUnavailableError`."""
        if self.is_open:
            return
        await self.close()
        made = self.server.connection()
        try:
            with self.server.errors():
                async with asyncio.timeout(self.server.timeout_seconds):
                    await made.connect()
        except BaseException:
            await _disconnect(made)
            raise
        self._connection = made
        self.made += 1
        self.server.open_connections += 1

    async def send(self, *commands: Command) -> None:
        if not self.is_open:
            raise StreamUnavailableError(f"the connection to {self.server.name} is lost")
        with self.server.errors():
            packed = self._connection.pack_commands(commands)
            await self._connection.send_packed_command(packed, check_health=False)

    async def read(self, timeout_seconds: float) -> Any:
        """One reply, undecoded; None after the timeout."""
        if not self.is_open:
            raise StreamUnavailableError(f"the connection to {self.server.name} is lost")
        with self.server.errors():
            return await self._connection.read_response(
                disable_decoding=True, timeout=timeout_seconds, disconnect_on_error=False, push_request=True
            )

    async def ask(self, command: Command, timeout_seconds: float) -> Any:
        """One command that may block, and its reply. Whoever is cancelled here has to close the connection."""
        with self.server.errors():
            async with asyncio.timeout(timeout_seconds):
                await self.send(command)
                return await self.read(math.inf)

    async def close(self) -> None:
        """The socket is closed at once, without a word to the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self.server.open_connections -= 1
            await _disconnect(connection)


class Lane:
    """One connection for commands, in batches: all are sent, then all replies are read. Callers take turns."""

    def __init__(self, server: RedisServer, scripts: Sequence[Script]) -> None:
        self._connection = Connection(server)
        self._server = server
        self._sources = {script.sha: script.source for script in scripts}
        self._turn = asyncio.Lock()
        self._is_closed = False
        self._shielded: set[asyncio.Task[list[Any]]] = set()

    def know(self, *scripts: Script) -> None:
        """Scripts that may be called from now on."""
        self._sources |= {script.sha: script.source for script in scripts}

    async def call(self, *commands: Command) -> list[Any]:
        """The replies, in order; one that is an error is its exception, as a value.

        Raises `StreamUnavailableError` if any reply did not come or says "not now": all may be repeated, or not have
        been received at all. A cancelled call closes the connection, which reads half of its replies otherwise.
        """
        async with self._turn:
            if self._is_closed:
                raise StreamUnavailableError(f"the connection to {self._server.name} is closed")
            try:
                return await self._call(commands)
            except BaseException:
                await self._connection.close()
                raise

    async def shielded(self, *commands: Command) -> list[Any]:
        """`call` for a caller that may be cancelled, which would cost the connection."""
        task = asyncio.ensure_future(self._call_until_closed(commands))
        self._shielded.add(task)
        task.add_done_callback(self._shielded.discard)
        return await asyncio.shield(task)

    @property
    def is_open(self) -> bool:
        return self._connection.is_open

    @property
    def connections_made(self) -> int:
        """A later connection may lead to a server that has restarted, or to another."""
        return self._connection.made

    async def disconnect(self) -> None:
        """The next call connects anew."""
        await self._connection.close()

    async def close(self) -> None:
        """Calls that wait, and all later ones, raise `StreamUnavailableError`."""
        self._is_closed = True
        for task in self._shielded:
            task.cancel()
        if self._shielded:
            await asyncio.wait(self._shielded)
        await self._connection.close()

    async def _call_until_closed(self, commands: Sequence[Command]) -> list[Any]:
        try:
            return await self.call(*commands)
        except asyncio.CancelledError:
            if not self._is_closed:
                raise
            raise StreamUnavailableError(f"the connection to {self._server.name} is closed") from None

    async def _call(self, commands: Sequence[Command]) -> list[Any]:
        replies = await self._exchange(commands)
        unknown = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = [("EVAL", self._sources[commands[index][1]], *commands[index][2:]) for index in unknown]
            for index, reply in zip(unknown, await self._exchange(again), strict=True):
                replies[index] = reply
        return replies

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        await self._connection.open()
        with self._server.errors():
            async with asyncio.timeout(self._server.timeout_seconds):
                await self._connection.send(*commands)
                return [await self._reply() for _ in commands]

    async def _reply(self) -> Any:
        try:
            reply = await self._connection.read(math.inf)
        except ResponseError as error:
            return error
        return reply


async def check_version(lane: Lane, name: str) -> None:
    """Raises `ConfigError` for a server that is too old; one that does not tell its version is taken as it is."""
    value = await _server_info(lane, "redis_version")
    version = tuple(int(part) for part in value.split(".")[:2] if part.isdigit())
    if value and version < OLDEST_VERSION:
        raise ConfigError(f"{name} is version {value}; Redis 7.0 or Valkey 7.2 is the oldest that will do")


async def server_identity(lane: Lane) -> str:
    """Another one after every restart and fail-over; empty if the server does not tell."""
    return await _server_info(lane, "run_id")


async def _server_info(lane: Lane, wanted: str) -> str:
    (info,) = await lane.call(("INFO", "server"))
    for line in info.decode("utf-8", "replace").splitlines() if isinstance(info, bytes) else ():
        key, _, value = line.partition(":")
        if key == wanted:
            return str(value)
    return ""


def _pool(url: str, timeout_seconds: float) -> ConnectionPool:
    with contextlib.suppress(ValueError):  # its text can quote a part of the password, so nothing is chained
        return ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=timeout_seconds,
            health_check_interval=0,
        )
    raise ConfigError(ConfigProblem("redis_url", f"{masked(url)!r} is not a Redis URL: redis://, rediss:// or unix://"))


async def _disconnect(connection: Any) -> None:
    with contextlib.suppress(RedisError, OSError):  # the socket may have been broken before
        await connection.disconnect(nowait=True)


def _reason(error: BaseException) -> str:
    text = str(error).strip() or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
    return masked(text.splitlines()[0])
