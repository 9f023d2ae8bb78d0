"""Model counters in Redis or Valkey."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .._drivers.redis import Command, Script
from .._drivers.redis_database import Ask, RedisDatabase
from ..errors import ConfigError, ConfigProblem
from ._circuit import Circuit, StoredCircuit, circuit_of
from ._counts import Counts, add
from ._fleet import BASE, FOLDED_KEPT_SECONDS, StoredRow, Vote, dump, restored, storable, unfolded, vote_counts
from ._ledger import BUCKET_SECONDS, KEPT_BUCKETS, Row, Snapshot
from .base import ModelCounters

if TYPE_CHECKING:
    from redis.asyncio import Redis

_PACKAGE = __package__ or ""
WRITE = Script(_PACKAGE, "redis_write.lua")
READ = Script(_PACKAGE, "redis_read.lua")
DEAD = Script(_PACKAGE, "redis_dead.lua")
FOLD = Script(_PACKAGE, "redis_fold.lua")
FORGET = Script(_PACKAGE, "redis_forget.lua")
VOTE = Script(_PACKAGE, "redis_vote.lua")
SWAP = Script(_PACKAGE, "redis_swap.lua")
_ROWS_AT_ONCE = 500
_BUCKET_KEPT_SECONDS = (KEPT_BUCKETS + 6) * BUCKET_SECONDS
_CIRCUITS_KEPT_SECONDS = 30 * 86400


class CounterKeys:
    """The names of the keys, all in one slot. Buckets and circuits have a time to live; the rest is for good."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix + "{counters}:"
        self.totals = self._prefix + "totals"
        self.written = self._prefix + "written"
        self.folded = self._prefix + "folded"
        self.folded_at = self._prefix + "folded_at"
        self.votes = self._prefix + "votes"
        self.vote_sums = self._prefix + "vote_sums"
        self.circuits = self._prefix + "circuits"

    def bucket(self, number: int) -> str:
        return f"{self._prefix}bucket:{number}"

    @property
    def folding(self) -> tuple[str, ...]:
        return self.totals, self.written, self.folded, self.folded_at


class RedisModelCounters(ModelCounters):
    """Counters on one Redis >= 7.0 or Valkey >= 7.2, shared by every replica.

    Totals and votes have no time to live: keep the server from evicting, and let it write to disk. A `client` is
    borrowed: a connection of ours is made with its settings, and it is never changed or closed.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        client: Redis | None = None,
        key_prefix: str = "deerflow:model_feedback",
        _database: RedisDatabase | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if not key_prefix or "{}" in key_prefix:
            raise ConfigError(
                ConfigProblem("key_prefix", "must not be empty, nor have {} in it: keys share no slot then")
            )
        self._keys = CounterKeys(key_prefix)
        self._database = _database or RedisDatabase(redis_url, client=client)
        self._database.know(WRITE, READ, DEAD, FOLD, FORGET, VOTE, SWAP)
        self._runner = self._database.runner

    async def _open(self) -> None:
        await self._database.open()

    async def _shut(self) -> None:
        await self._database.close()

    async def _write(self, snapshot: Snapshot) -> None:
        for start in range(0, len(snapshot.rows), _ROWS_AT_ONCE):
            await self._asked(self._writing(snapshot.number, snapshot.rows[start : start + _ROWS_AT_ONCE]))

    async def _read_rows(self, first_bucket: int, last_bucket: int) -> list[StoredRow]:
        if last_bucket == 0:
            totals, folded = await self._asked(READ.command([self._keys.totals, self._keys.folded], []))
            parts = {field: _counts(text) for field, text in _pairs(folded)}
            return [StoredRow(*_names(field), _counts(text), parts.get(field, {})) for field, text in _pairs(totals)]
        keys = [self._keys.bucket(number) for number in range(first_bucket, last_bucket + 1)]
        found = await self._asked(READ.command(keys, []))
        return [StoredRow(*_names(field), _counts(text)) for bucket in found for field, text in _pairs(bucket)]

    async def _read_votes(self) -> list[StoredRow]:
        [found] = await self._asked(READ.command([self._keys.vote_sums], []))
        sums = {field.decode(): text for field, text in _pairs(found)}
        names = sorted({field[1:] for field in sums if field[0] != "@"})
        return [
            StoredRow(
                BASE,
                restored(name),
                vote_counts(int(sums.get(f"+{name}", 0)), int(sums.get(f"-{name}", 0)), float(sums[f"@{name}"])),
            )
            for name in names
        ]

    async def _vote(self, vote: Vote) -> bool:
        sentiment = "" if vote.sentiment is None else str(vote.sentiment)
        keys = [self._keys.votes, self._keys.vote_sums]
        return bool(await self._asked(VOTE.command(keys, [vote.key, sentiment, storable(vote.model_name)])))

    async def _fold(self, dead_after_seconds: float) -> int:
        folded, batch = 0, None
        while batch is None or batch == _ROWS_AT_ONCE:  # fewer were all: those who live write new ones without end
            batch = await self._fold_batch(dead_after_seconds)
            folded += batch or 0
        forgetting = FORGET.command(self._keys.folding, [int(FOLDED_KEPT_SECONDS), _ROWS_AT_ONCE])
        while await self._asked(forgetting) == _ROWS_AT_ONCE:
            pass
        return folded

    async def _fold_batch(self, dead_after_seconds: float) -> int | None:
        """How many were folded; None where another replica was faster with some of them."""
        keys = list(self._keys.folding)
        dead = await self._asked(DEAD.command(keys[:3], [min(dead_after_seconds, 1e9), _ROWS_AT_ONCE]))
        if not dead:
            return 0
        rows = [StoredRow(*_names(field), _counts(text), _counts(part)) for field, text, part in dead]
        bases = sorted({_field(BASE, row.model_name) for row in rows})
        texts = await self._asked(("HMGET", self._keys.totals, *bases))
        sums = [_sum(field, text, rows) for field, text in zip(bases, texts, strict=True)]
        before = [text or b"" for text in texts]
        changed: list[Any] = [value for base in zip(bases, before, sums, strict=True) for value in base]
        marked: list[Any] = [value or b"" for row in dead for value in row]
        done = await self._asked(FOLD.command(keys, [len(bases), *changed, *marked]))
        return len(dead) if done else None

    async def _read_circuits(self) -> tuple[float, dict[str, StoredCircuit]]:
        async def work(ask: Ask) -> list[Any]:
            return await ask(("TIME",), READ.command([self._keys.circuits], []))

        clock, [circuits] = await self._database.execute(work)
        found = {}
        for name, text in _pairs(circuits):
            version, _, circuit = text.decode().partition(" ")
            found[restored(name.decode())] = StoredCircuit(int(version), circuit_of(circuit))
        return int(clock[0]) + int(clock[1]) / 1e6, found

    async def _swap_circuit(self, model_name: str, version: int, circuit: Circuit) -> bool:
        values: list[str | int] = [storable(model_name), version, circuit.dump(), _CIRCUITS_KEPT_SECONDS]
        return bool(await self._asked(SWAP.command([self._keys.circuits], values)))

    def _writing(self, number: int, rows: Sequence[Row]) -> Command:
        keys = [self._keys.totals, self._keys.written]
        places = {0: 1}
        values: list[str | int] = [number, _BUCKET_KEPT_SECONDS]
        for row in rows:
            if row.bucket not in places:
                keys.append(self._keys.bucket(row.bucket))
                places[row.bucket] = len(keys)
            values += [places[row.bucket], _field(self._boot_id, row.model_name), dump(row.counts)]
        return WRITE.command(keys, values)

    async def _asked(self, command: Command) -> Any:
        async def work(ask: Ask) -> Any:
            [reply] = await ask(command)
            return reply

        return await self._database.execute(work)


def _field(boot_id: str, model_name: str) -> str:
    return json.dumps([boot_id, model_name])


def _names(field: bytes) -> tuple[str, str]:
    boot_id, model_name = json.loads(field)
    return boot_id, model_name


def _counts(text: bytes | None) -> Counts:
    """After the number that it was written under."""
    return {} if text is None else dict(json.loads(text.partition(b" ")[2]))


def _pairs(reply: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(reply[::2], reply[1::2], strict=True)


def _sum(field: str, text: bytes | None, rows: Sequence[StoredRow]) -> str:
    """The base row as it is after folding those of its model."""
    _, model_name = _names(field.encode())
    counts = _counts(text)
    number = int(text.partition(b" ")[0]) if text else 0
    for row in rows:
        if row.model_name == model_name:
            add(counts, unfolded(row))
    return f"{number + 1} {dump(counts)}"
