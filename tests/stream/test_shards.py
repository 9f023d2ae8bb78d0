"""The plan of the blocking reads: every stream in one shard, few shards, few streams beside those with news."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deerflow_replica.stream.shards import STREAMS_PER_SHARD, Plan

_STEPS = st.lists(
    st.tuples(st.sampled_from(["hot", "cold", "drop"]), st.integers(0, 1500), st.integers(0, 700)), max_size=12
)


@pytest.mark.parametrize("max_shards", [None, 1, 2, 3, 5])
@given(steps=_STEPS)
def test_every_stream_is_in_one_shard_of_its_kind(max_shards: int | None, steps: list[tuple[str, int, int]]) -> None:
    plan = Plan(max_shards)
    kinds: dict[str, bool] = {}
    for step, start, count in steps:
        names = [str(number) for number in range(start, start + count)]
        if step == "drop":
            plan.drop(names)
            kinds = {name: is_hot for name, is_hot in kinds.items() if name not in names}
        else:
            plan.put(names, is_hot=step == "hot")
            kinds |= dict.fromkeys(names, step == "hot" or max_shards == 1)
        plan.tidy()
        found = [name for shard in plan.shards for name in shard.names]
        assert sorted(found) == sorted(kinds)
        assert plan.names() == set(kinds)
        assert all(kinds[name] == shard.is_hot for shard in plan.shards for name in shard.names)
        empty = [shard for shard in plan.shards if not shard.names]
        assert len(plan.shards) - len(empty) <= min(_wanted(kinds), max_shards or 100)
        assert len(plan.shards) <= (max_shards or 100)
        assert len(empty) <= 1
        if max_shards is None:
            assert all(len(shard) <= STREAMS_PER_SHARD for shard in plan.shards)


def _wanted(kinds: dict[str, bool]) -> int:
    hot = sum(kinds.values())
    return ceil(hot / STREAMS_PER_SHARD) + ceil((len(kinds) - hot) / STREAMS_PER_SHARD)


@pytest.mark.parametrize("hot", [0, 1, 255, 256, 1000, 2000])
def test_two_thousand_streams_need_ten_connections(hot: int) -> None:
    names = [str(number) for number in range(2000)]
    plan = Plan(None)
    plan.put(names[:hot], is_hot=True)
    plan.put(names[hot:], is_hot=False)
    plan.tidy()
    assert len(plan.shards) + 2 <= 4 + 2000 / STREAMS_PER_SHARD


def test_what_had_to_grow_is_divided_when_there_is_room() -> None:
    plan = Plan(2)
    plan.put(map(str, range(1000)), is_hot=False)
    plan.put(["hot"], is_hot=True)
    plan.tidy()
    assert sorted(map(len, plan.shards)) == [1, 1000]
    plan.put(map(str, range(1000)), is_hot=True)
    plan.drop(["hot"])
    plan.tidy()
    assert sorted(map(len, plan.shards)) == [500, 500]


def test_the_other_streams_stay_where_they_are() -> None:
    plan = Plan(None)
    plan.put(map(str, range(600)), is_hot=False)
    plan.tidy()
    before = {name: shard for shard in plan.shards for name in shard.names}
    plan.put(["3", "500"], is_hot=True)
    plan.tidy()
    after = {name: shard for shard in plan.shards for name in shard.names}
    assert {name for name in before if before[name] is not after[name]} == {"3", "500"}
