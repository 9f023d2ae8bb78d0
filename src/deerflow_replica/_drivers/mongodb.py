"""MongoDB through pymongo's native async client: the loop it lives on, and pymongo's errors as ours."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from .._extras import extra
from .._sync import BorrowedLoop, LoopThread, Runner
from ..config.masking import masked
from ..errors import ConfigError, ConfigProblem, StoreUnavailableError
from .shared import SharedDatabase

with extra("mongodb"):
    from bson.codec_options import CodecOptions
    from pymongo import AsyncMongoClient, ReadPreference
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.errors import (
        ConfigurationError,
        ConnectionFailure,
        DocumentTooLarge,
        ExecutionTimeout,
        InvalidOperation,
        InvalidURI,
        OperationFailure,
        PyMongoError,
        ServerSelectionTimeoutError,
        WTimeoutError,
    )

Document = dict[str, Any]
Client = AsyncMongoClient[Document]
Collection = AsyncCollection[Document]
T = TypeVar("T")

# NotWritablePrimary and its kin, shutting down, out of reach, Unauthorized, AuthenticationFailed
_AWAY_CODES = {6, 7, 13, 18, 89, 91, 134, 189, 262, 9001, 10058, 10107, 11600, 11602, 13435, 13436}
_ADDENDA = re.compile(r" \(configured timeouts: |, Timeout: |, full error: ")
_FORBIDDEN = '/\\. "$*<>:|?'
_DATABASE = re.compile(rf"[^{re.escape(_FORBIDDEN)}\x00-\x1f\ud800-\udfff]{{1,63}}")
_COLLECTION = re.compile(r"(?!system\.)[^$\x00-\x1f\ud800-\udfff]{1,120}")
_POLL_SECONDS = 0.02
_CLOSE_SECONDS = 1.0  # for calls that are under way


@contextmanager
def mongo_errors(name: str = "MongoDB") -> Iterator[None]:
    """A lost, refused or slow server becomes `StoreUnavailableError`; anything else passes as it is."""
    try:
        yield
    except (ConnectionFailure, ExecutionTimeout, WTimeoutError, TimeoutError, OSError) as error:
        raise StoreUnavailableError(f"{name} is not available: {_reason(error)}") from error
    except InvalidOperation as error:
        if "close" not in str(error):
            raise
        raise StoreUnavailableError(f"{name} is not available: its client is closed") from error
    except OperationFailure as error:
        if error.code not in _AWAY_CODES and not error.has_error_label("RetryableWriteError"):
            raise
        raise StoreUnavailableError(f"{name} is not available: {_reason(error)}") from error


@contextmanager
def refusals(name: str = "MongoDB") -> Iterator[None]:
    """What nobody expects of the server: a document too large is a `ValueError`, all else makes it unavailable."""
    try:
        yield
    except DocumentTooLarge as error:
        raise ValueError(f"{name} refused a document: {_reason(error)}") from error
    except PyMongoError as error:
        raise StoreUnavailableError(f"{name} refused: {_reason(error)}") from error


class MongoServer:
    """How a server is reached, and how its errors are told. Has no connections itself."""

    def __init__(self, url: str | None, *, max_size: int = 5, timeout_seconds: float = 10.0) -> None:
        """`url` is None for a client that the caller brings."""
        self._url = url
        self._max_size = max_size
        self._timeout_seconds = timeout_seconds
        self.name = "MongoDB" if url is None else f"MongoDB at {masked(url)}"

    async def connect(self) -> Client:
        """A client on the running loop, once the server has answered. Raises `StoreUnavailableError`."""
        client = self._new_client()
        try:
            with mongo_errors(self.name):
                async with asyncio.timeout(self._timeout_seconds):
                    await _reached(client)
        except BaseException:
            await client.close()
            raise
        return client

    async def run(self, client: Client, work: Callable[[Client], Awaitable[T]], *, retry: bool = True) -> T:
        """Run `work` on the client's loop, for at most `timeout_seconds`.

        With `retry` (for work that may run twice), work that lost its connection runs once more on a fresh one, so a
        restart of the server between two calls is not seen.
        """
        with mongo_errors(self.name):
            task = asyncio.ensure_future(_tried(client, work, retry=retry))
            try:
                # Not cancelled at the end: the driver, when it is giving up itself, would lose a lock for ever.
                await asyncio.wait([task], timeout=self._timeout_seconds)
            except asyncio.CancelledError:
                task.cancel()
                await asyncio.wait([task])
                raise
            if task.done():
                return await task
            task.add_done_callback(_forgotten)
            _check_servers(client)
            raise TimeoutError

    def _new_client(self) -> Client:
        """The driver gives up before our own timeout does, as it can say why; it looks every half second."""
        milliseconds = max(1, int(self._timeout_seconds * 1000 - min(600, self._timeout_seconds * 500)))
        with contextlib.suppress(InvalidURI, ConfigurationError, ValueError):  # their texts can quote the password
            return AsyncMongoClient(
                self._url,
                connectTimeoutMS=milliseconds,
                serverSelectionTimeoutMS=milliseconds,
                waitQueueTimeoutMS=milliseconds,
                socketTimeoutMS=milliseconds,
                maxPoolSize=self._max_size,
                appname="deerflow-replica",
            )
        raise ConfigError(ConfigProblem("url", f"{masked(self._url or '')!r} is not a MongoDB URL"))


class MongoDatabase(SharedDatabase):
    """A client on a private loop, usable from any loop and thread; or a borrowed client, on its owner's loop.

    `execute` runs a piece of work with the client, as `MongoServer.run` does. Parts that share a URL share one of
    these. A borrowed client is never closed.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Client | None = None,
        max_size: int = 5,
        timeout_seconds: float = 10.0,
    ) -> None:
        if (url is None) == (client is None):
            raise ValueError("pass either url or client")
        super().__init__()
        self._server = MongoServer(url, max_size=max_size, timeout_seconds=timeout_seconds)
        self._client = client
        self._owns_client = client is None
        self._under_way: set[asyncio.Task[Any]] = set()
        self.runner: Runner = LoopThread("deerflow-replica-mongodb") if self._owns_client else BorrowedLoop()

    async def touch(self) -> None:
        """Find out whether the server answers; leaves nothing open."""
        await self.open()
        await self.close()

    async def execute(self, work: Callable[[Client], Awaitable[T]], *, retry: bool = True) -> T:
        client = self._opened()  # asked here, too: what is closed starts no thread to say so
        return await self.runner.acall(self._carried_through(client, work, retry=retry))

    def execute_sync(self, work: Callable[[Client], Awaitable[T]], *, retry: bool = True) -> T:
        """The same for a caller without a loop, or on the thread of another one."""
        return self.runner.call(self._server.run(self._opened(), work, retry=retry))

    async def _carried_through(self, client: Client, work: Callable[[Client], Awaitable[T]], *, retry: bool) -> T:
        """A cancelled caller stops waiting; the driver, which would leak the socket that it was opening, does not."""
        task = asyncio.ensure_future(self._server.run(client, work, retry=retry))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be left to whom it could be told

    async def _connect(self) -> None:
        if self._client is None:
            self._client = await self._server.connect()

    async def _disconnect(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            if self._under_way:
                await asyncio.wait(self._under_way, timeout=_CLOSE_SECONDS)
            await client.close()

    def _opened(self) -> Client:
        if self._client is None:
            raise StoreUnavailableError(f"{self._server.name} is not open here: it was closed, or never opened")
        return self._client

    def _give_back(self) -> None:
        if self._owns_client:
            super()._give_back()


async def _tried(client: Client, work: Callable[[Client], Awaitable[T]], *, retry: bool) -> T:
    try:
        return await work(client)
    except ConnectionFailure:
        if not retry:
            raise
    return await work(client)


def _forgotten(task: asyncio.Task[Any]) -> None:
    """Its caller was told that it takes too long."""
    if not task.cancelled():
        task.exception()


def check_names(database: str, collection: str) -> None:
    """Raises `ConfigError` for names that MongoDB does not take."""
    if not _DATABASE.fullmatch(database):
        raise ConfigError(
            ConfigProblem("database", f"{database!r} is no name: 1 to 63 characters, none of {_FORBIDDEN}")
        )
    if not _COLLECTION.fullmatch(collection) or collection[0] == "." or ".." in collection or collection[-1] == ".":
        raise ConfigError(ConfigProblem("collection", f"{collection!r} is no name: 1 to 120 characters, no $"))


def collection_of(client: Client, database: str, name: str) -> Collection:
    """Read on the primary and decoded plainly, whatever the client's own settings: a finished write is seen by all."""
    options: CodecOptions[Document] = CodecOptions()
    return client.get_database(database, codec_options=options, read_preference=ReadPreference.PRIMARY)[name]


async def _reached(client: Client) -> None:
    """As a command that selects a server, but one that no server can be reached for fails at once, not in the end."""
    ping = asyncio.ensure_future(client.admin.command("ping"))
    try:
        while not (await asyncio.wait([ping], timeout=_POLL_SECONDS))[0]:
            _check_servers(client)
        await ping
    except ServerSelectionTimeoutError:
        _check_servers(client)  # in fewer words
        raise
    finally:
        ping.cancel()
        await asyncio.wait([ping])


def _check_servers(client: Client) -> None:
    """Raises what is wrong, where no server can be reached."""
    servers = client.topology_description.server_descriptions().values()
    errors = [server.error for server in servers if server.error is not None]
    if errors and len(errors) == len(servers):
        raise ConnectionFailure(_reason(errors[0])) from errors[0]


def _reason(error: BaseException) -> str:
    text = str(error).strip() or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
    return masked(_ADDENDA.split(text.splitlines()[0])[0])
