"""Servers as they are run: behind TLS, with users who may do little, and replaced by a Sentinel in mid-stream."""

from __future__ import annotations

import asyncio
import math
import shutil
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel

from deerflow_replica.errors import StreamError, StreamUnavailableError
from deerflow_replica.stream import END_SENTINEL, RedisStreamBridge, StreamEvent, StreamGap
from deerflow_replica.testing._stream_common import numbers, publish_all, read, reading
from redis_servers import Node, SentinelNode, TlsRedis, tls_front
from waiting import eventually_sync

pytestmark = [pytest.mark.anyio, pytest.mark.faults]
Make = Callable[..., RedisStreamBridge]

# What the bridge asks of a server; everything else can be forbidden.
COMMANDS = (
    "ping", "eval", "evalsha", "set", "exists", "time", "unlink", "del",
    "xadd", "xlen", "xrange", "xrevrange", "xtrim", "xinfo|stream", "hget", "hmget", "hset", "pexpire", "pexpireat",
)  # fmt: skip
COMMANDS_OF = {"pubsub": ("publish", "subscribe", "unsubscribe"), "xread": ("xread",)}


@pytest.fixture
def make(redis_url: str, key_prefix: str) -> Make:
    return partial(RedisStreamBridge, redis_url=redis_url, key_prefix=key_prefix, check_interval_seconds=0.3)


class Certificates:
    """An authority, and what it signed for a server on loopback and for a client."""

    def __init__(self, directory: Path) -> None:
        self.authority = directory / "ca.pem"
        self.server = directory / "server.pem"
        self.client = directory / "client.pem"
        signer = trustme.CA()
        signer.cert_pem.write_to_path(self.authority)
        signer.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(self.server)
        signer.issue_cert("client.test").private_key_and_cert_chain_pem.write_to_path(self.client)

    def url(self, port: int) -> str:
        files = f"ssl_ca_certs={self.authority}&ssl_certfile={self.client}&ssl_keyfile={self.client}"
        return f"rediss://127.0.0.1:{port}/0?{files}"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def tls_port(kind: str, certificates: Certificates, redis_url: str) -> AsyncIterator[int]:
    if kind == "a front":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.authority)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(certificates.server)
        async with tls_front(redis_url, context) as port:
            yield port
    else:
        if shutil.which("redis-server") is None:
            pytest.skip("there is no redis-server here, and the embedded Valkey is built without TLS")
        with TlsRedis(certificates.authority, certificates.server) as server:
            yield server.number


@pytest.mark.parametrize("kind", ["a front", "redis-server"])
async def test_tls_with_certificates_on_both_sides(
    certificates: Certificates, redis_url: str, key_prefix: str, kind: str
) -> None:
    async with tls_port(kind, certificates, redis_url) as port:
        url = certificates.url(port)
        async with (
            RedisStreamBridge(redis_url=url, key_prefix=key_prefix) as bridge,
            reading(bridge, "r") as next_item,
        ):
            await publish_all(bridge, "r", 100)
            assert [(await next_item()).data for _ in range(100)] == list(range(100))
            await bridge.publish("r", "n", "x" * 200_000)
            assert len((await next_item()).data) == 200_000
        async with Redis.from_url(url) as client, RedisStreamBridge(client=client, key_prefix=key_prefix) as borrowing:
            await borrowing.publish_end("r")
            assert len(await read(borrowing, "r")) == 102
        for query in ("", f"?ssl_ca_certs={certificates.authority}", "?ssl_cert_reqs=none"):
            stranger = RedisStreamBridge(redis_url=f"rediss://127.0.0.1:{port}/0{query}", connect_timeout_seconds=2)
            with pytest.raises(StreamUnavailableError, match="cannot reach"):
                await stranger.__aenter__()
            await stranger.close()


@contextmanager
def user(redis_url: str, name: str, **rights: Any) -> Iterator[Redis]:
    """A client of a user who has these rights."""
    with redis.Redis.from_url(redis_url) as owner:
        owner.acl_setuser(name, enabled=True, passwords=["+s3cret"], reset=True, **rights)
        try:
            yield Redis.from_url(redis_url, username=name, password="s3cret")  # noqa: S106  # made for this test
        finally:
            owner.acl_deluser(name)


async def test_a_user_needs_few_commands_and_its_own_keys(
    make: Make, redis_url: str, key_prefix: str, push: Any
) -> None:
    commands = [f"+{name}" for name in (*COMMANDS, *COMMANDS_OF[push])]
    channels = [f"{key_prefix}*"] if push == "pubsub" else []
    with user(redis_url, f"least-{push}", commands=commands, keys=[f"{key_prefix}*"], channels=channels) as client:
        async with client, make(redis_url=None, client=client, lease_seconds=0.3, push=push) as bridge:
            async with reading(bridge, "r", heartbeat_interval=0.2) as next_item:
                await publish_all(bridge, "r", 3)
                assert [(await next_item()).data for _ in range(3)] == [0, 1, 2]
                for _ in range(4):
                    await next_item(beats=True)
                async with reading(bridge, "late") as late:
                    await publish_all(bridge, "late", 1)
                    assert (await late()).data == 0
                await bridge.publish_end("r", reason="why")
                assert await next_item() is END_SENTINEL
            assert await bridge.end_reason("r") == "why"
            await bridge.cleanup("r", delay=60)
            await bridge.cleanup("r")
            assert not await bridge.stream_exists("r")
            assert bridge.stats().reconnects == 0
    with redis.Redis.from_url(redis_url) as owner:
        refused: Any = owner.acl_log()
        missed = {entry["object"] for entry in refused if entry["username"] == f"least-{push}"}
        assert missed <= {"info", "client|setinfo"}  # asked for by the way


async def test_keys_that_are_not_the_users_fail_that_run_alone(make: Make, redis_url: str, key_prefix: str) -> None:
    own = [f"{key_prefix}:own*", f"{key_prefix}.*own*", f"{key_prefix}.owner:*"]
    with user(redis_url, "keys", categories=["+@all"], keys=own, channels=["*"]) as client:
        async with client, make(redis_url=None, client=client) as bridge:
            await bridge.publish("own", "n", 0)
            await bridge.publish("other", "n", 0)
            with pytest.raises(StreamError, match=r"other.*(NOPERM|permission)") as caught:
                await bridge.flush("other")
            assert isinstance(caught.value.__cause__, redis.ResponseError)
            with pytest.raises(StreamError, match=r"NOPERM|permission"):
                await read(bridge, "other")
            await bridge.publish_end("own")
            assert numbers(await read(bridge, "own")) == [0]


async def test_without_the_right_to_subscribe_a_reader_is_told_at_once(
    make: Make, redis_url: str, key_prefix: str
) -> None:
    with user(redis_url, "mute", categories=["+@all", "-@pubsub"], keys=["*"]) as client:
        async with client, make(redis_url=None, client=client) as bridge:
            await publish_all(bridge, "r", 3)
            for _ in range(2):
                with pytest.raises(StreamError, match=r"(?i)subscribe.*xread"):
                    await read(bridge, "r")
            await bridge.publish_end("r")
        async with make() as other:
            assert numbers(await read(other, "r")) == [0, 1, 2]


async def test_without_the_right_to_read_in_blocks_a_reader_is_told_at_once(
    make: Make, redis_url: str, key_prefix: str
) -> None:
    with user(redis_url, "blockless", categories=["+@all"], commands=["-xread"], keys=["*"]) as client:
        async with client, make(redis_url=None, client=client, push="xread") as bridge:
            await publish_all(bridge, "r", 3)
            for _ in range(2):
                async with asyncio.timeout(5):
                    with pytest.raises(StreamError, match=r"(?i)refused XREAD") as caught:
                        await read(bridge, "waits")
                assert isinstance(caught.value.__cause__, redis.ResponseError)
            await bridge.publish_end("r")
        async with make() as other:
            assert numbers(await read(other, "r")) == [0, 1, 2]


async def test_a_wrong_password_is_told_without_quoting_it(redis_url: str) -> None:
    with user(redis_url, "locked", keys=["*"]):
        bridge = RedisStreamBridge(client=Redis.from_url(redis_url, username="locked", password="wr0ng"))  # noqa: S106  # it is wrong
        with pytest.raises(StreamUnavailableError) as caught:
            await bridge.__aenter__()
        assert "wr0ng" not in str(caught.value)
        await bridge.close()


class Deployment:
    """A master with a replica, a Sentinel, and clients that find the master through it."""

    def __init__(self, master: Node, replica: Node, sentinel: SentinelNode) -> None:
        self.master = master
        self.replica = replica
        self.sentinel = sentinel

    @asynccontextmanager
    async def bridge(self, **options: Any) -> AsyncIterator[RedisStreamBridge]:
        finder: Any = Sentinel
        sentinel = finder([("127.0.0.1", self.sentinel.number)])
        client: Redis = sentinel.master_for("main", decode_responses=True)
        options = {"queue_maxsize": 5000, "check_interval_seconds": 0.3, "publish_timeout_seconds": 120, **options}
        async with AsyncExitStack() as stack:
            for asked in sentinel.sentinels:
                await stack.enter_async_context(asked)
            await stack.enter_async_context(client)
            yield await stack.enter_async_context(RedisStreamBridge(client=client, **options))

    def replicated(self) -> bool:
        """Whether the replica has all that the master has."""
        with direct(self.master) as master, direct(self.replica) as replica:
            found: Any = replica.info("replication")
            said: Any = master.info("replication")
            return bool(
                found["master_link_status"] == "up" and found["slave_repl_offset"] == said["master_repl_offset"]
            )

    def cut(self) -> None:
        """Nothing reaches the replica any more."""
        with direct(self.replica) as replica:
            replica.config_set("masterauth", "wrong")
            replica.execute_command("CLIENT", "KILL", "TYPE", "master")
            eventually_sync(lambda: _status(replica) == "down")

    def kill(self) -> None:
        """The master is gone, and soon missed."""
        with direct(self.sentinel) as sentinel:
            sentinel.execute_command("SENTINEL", "SET", "main", "down-after-milliseconds", "500")
        self.master.kill()

    def order(self) -> None:
        """The Sentinel makes the replica the master, and the master a replica."""
        eventually_sync(self._obeys)

    def _obeys(self) -> bool:
        with direct(self.sentinel) as sentinel:
            try:
                sentinel.execute_command("SENTINEL", "FAILOVER", "main")
            except redis.ResponseError:
                return False  # it has not heard of the replica yet
            return True


def _status(replica: redis.Redis) -> str:
    found: Any = replica.info("replication")
    return str(found["master_link_status"])


def direct(node: Node | SentinelNode) -> redis.Redis:
    return redis.Redis(port=node.number)


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    with Node() as master, Node(master=master) as replica:
        with direct(replica) as client:
            eventually_sync(lambda: _status(client) == "up")
        with SentinelNode(master) as sentinel:
            yield Deployment(master, replica, sentinel)


@pytest.mark.parametrize("how", ["killed", "ordered"])
async def test_a_failover_in_mid_stream_loses_nothing_or_says_so(deployment: Deployment, how: str, push: str) -> None:
    async with deployment.bridge(push=push) as writer, deployment.bridge(push=push) as reader:
        found = asyncio.ensure_future(_follow(reader))
        await publish_all(writer, "r", 100)
        await asyncio.to_thread(eventually_sync, deployment.replicated)
        await asyncio.to_thread(deployment.kill if how == "killed" else deployment.order)
        for number in range(100, 400):
            await writer.publish("r", "n", number)
            if number % 20 == 0:
                await asyncio.wait([found], timeout=0.2)  # over the whole of the failover
        await writer.publish_end("r")
        items = await found
        # An ordered failover leaves the old master writing for a moment, and what it wrote then is lost.
        if how == "killed":
            assert numbers(items) == list(range(400))
        _assert_nothing_was_lost_in_silence(items)
        rest = await read(reader, "r", "0")
        _assert_nothing_was_lost_in_silence(rest)
        assert rest[-1] is END_SENTINEL
        with direct(deployment.replica) as replica:
            assert replica.role()[0] == b"master"


async def test_what_replication_lost_is_a_gap(deployment: Deployment, push: str) -> None:
    async with deployment.bridge(push=push) as writer, deployment.bridge(push=push) as reader:
        found = asyncio.ensure_future(_follow(reader))
        await publish_all(writer, "r", 10)
        await asyncio.to_thread(eventually_sync, deployment.replicated)
        await asyncio.to_thread(deployment.cut)
        await publish_all(writer, "r", 10, start=10)
        before = await read(writer, "r", items=20)
        await asyncio.to_thread(deployment.kill)
        for number in range(20, 30):
            await writer.publish("r", "n", number)
        await writer.publish_end("r")
        *events, gap = await found
        assert events == before
        assert isinstance(events[-1], StreamEvent)
        assert gap == StreamGap(events[-1].id, None, None)
        assert isinstance((await read(reader, "r", events[-1].id))[0], StreamGap)
        rest = await read(reader, "r")
        assert numbers(rest)[-10:] == list(range(20, 30))


async def _follow(bridge: RedisStreamBridge) -> list[Any]:
    return [item async for item in bridge.subscribe("r", heartbeat_interval=math.inf)]


def _assert_nothing_was_lost_in_silence(items: list[Any]) -> None:
    *events, last = items
    data = [event.data for event in events]
    assert data == list(range(data[0] if data else 0, (data[0] if data else 0) + len(data)))
    assert last is END_SENTINEL or isinstance(last, StreamGap)
