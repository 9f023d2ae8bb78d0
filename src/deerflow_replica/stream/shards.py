"""Which blocking read has which streams: a pure plan, without any I/O.

A read of many streams costs the server and us for every one of them whenever one of them has news. So the streams that
have news often are kept apart from those that are silent.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

STREAMS_PER_SHARD = 256
FEW_STREAMS = 32  # which cost no more than what keeping them apart would


class Shard:
    """The streams of one blocking read."""

    def __init__(self, number: int, *, is_hot: bool) -> None:
        self.number = number
        self.is_hot = is_hot
        self.names: set[str] = set()

    def __len__(self) -> int:
        return len(self.names)


class Plan:
    """At most `max_shards` (None: any number); beyond that they grow. With one shard all streams are in it.

    There are never more shards than full ones would do, and one hot and one cold more.
    """

    def __init__(self, max_shards: int | None) -> None:
        self._max_shards = max_shards
        self._numbers = 0
        self._shard_of: dict[str, Shard] = {}
        self.shards: list[Shard] = []

    def names(self) -> set[str]:
        return set(self._shard_of)

    def put(self, names: Iterable[str], *, is_hot: bool) -> None:
        """Place streams, or move them. Call `tidy` when all are placed."""
        is_hot = is_hot or self._max_shards == 1
        for name in names:
            shard = self._shard_of.get(name)
            if shard is None or shard.is_hot != is_hot:
                self._remove(name)
                self._place(name, is_hot=is_hot)

    def drop(self, names: Iterable[str]) -> None:
        for name in names:
            self._remove(name)

    def tidy(self) -> None:
        """Dissolve what is not needed any more, and divide what had to grow. A hot shard stays for what has news."""
        for is_hot in (True, False):
            while len(shards := self._kind(is_hot=is_hot)) > self._needed(shards, is_hot=is_hot):
                self._dissolve(min(shards, key=len))
        for shard in list(self.shards):
            while len(shard) > STREAMS_PER_SHARD and self._may_add():
                surplus = list(shard.names)[STREAMS_PER_SHARD:]
                self.drop(surplus)
                self.put(surplus, is_hot=shard.is_hot)

    def _needed(self, shards: list[Shard], *, is_hot: bool) -> int:
        least = int(is_hot and bool(self._shard_of))
        return max(least, ceil(sum(map(len, shards)) / STREAMS_PER_SHARD))

    def _kind(self, *, is_hot: bool) -> list[Shard]:
        return [shard for shard in self.shards if shard.is_hot == is_hot]

    def _may_add(self) -> bool:
        return self._max_shards is None or len(self.shards) < self._max_shards

    def _remove(self, name: str) -> None:
        shard = self._shard_of.pop(name, None)
        if shard is not None:
            shard.names.discard(name)

    def _place(self, name: str, *, is_hot: bool) -> None:
        shard = self._with_room(is_hot=is_hot)
        shard.names.add(name)
        self._shard_of[name] = shard

    def _with_room(self, *, is_hot: bool) -> Shard:
        same = self._kind(is_hot=is_hot)
        for shard in same:
            if len(shard) < STREAMS_PER_SHARD:
                return shard
        if self._may_add():
            return self._add(is_hot=is_hot)
        if same:
            return min(same, key=len)
        shard = self._add(is_hot=is_hot)
        self._dissolve(min(self._kind(is_hot=not is_hot), key=len))
        return shard

    def _add(self, *, is_hot: bool) -> Shard:
        self._numbers += 1
        shard = Shard(self._numbers, is_hot=is_hot)
        self.shards.append(shard)
        return shard

    def _dissolve(self, shard: Shard) -> None:
        self.shards.remove(shard)
        names, shard.names = shard.names, set()
        for name in names:
            del self._shard_of[name]
            self._place(name, is_hot=shard.is_hot)
