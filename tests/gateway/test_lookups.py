"""Requests that come at once ask together, and nobody gets an answer that is older than the question."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from deerflow_replica.gateway.lookups import Together

pytestmark = pytest.mark.anyio


class Answers:
    """Answers questions when it is told to, by what is so at that moment."""

    def __init__(self) -> None:
        self.truth: dict[str, int] = {}
        self.asked: list[list[str]] = []
        self._gates: list[asyncio.Event] = []

    async def ask(self, keys: Sequence[str]) -> Mapping[str, int]:
        self.asked.append(list(keys))
        found = {key: self.truth[key] for key in keys if key in self.truth}
        self._gates.append(asyncio.Event())
        await self._gates[-1].wait()
        if "broken" in keys:
            raise ConnectionError("no answer")
        return found

    async def answer_all(self) -> None:
        while waiting := [gate for gate in self._gates if not gate.is_set()]:
            waiting[0].set()
            await _everybody_moves()


async def _everybody_moves() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_comes_while_some_are_asked_is_asked_together() -> None:
    answers = Answers()
    answers.truth = {f"k{number}": number for number in range(250)}
    together = Together(answers.ask)
    asking = [asyncio.ensure_future(together.get(f"k{number % 250}")) for number in range(1000)]
    await _everybody_moves()
    assert len(answers.asked) == 2
    await answers.answer_all()
    assert await asyncio.gather(*asking) == [number % 250 for number in range(1000)]
    assert sorted(key for keys in answers.asked for key in keys) == sorted(answers.truth)
    assert max(len(keys) for keys in answers.asked) == 100
    assert await _alone(together, answers, "nothing") is None


async def _alone(together: Together[int], answers: Answers, key: str) -> int | None:
    asking = asyncio.ensure_future(together.get(key))
    await _everybody_moves()
    await answers.answer_all()
    return await asking


async def test_an_answer_is_never_older_than_its_question() -> None:
    answers = Answers()
    together = Together(answers.ask)
    early = [asyncio.ensure_future(together.get("k")) for _ in range(3)]
    await _everybody_moves()
    answers.truth["k"] = 1
    late = asyncio.ensure_future(together.get("k"))
    await _everybody_moves()
    await answers.answer_all()
    assert await asyncio.gather(*early) == [None] * 3
    assert await late == 1


async def test_what_cannot_be_asked_is_told_to_those_who_asked_it() -> None:
    answers = Answers()
    answers.truth["well"] = 1
    together = Together(answers.ask)
    first = asyncio.ensure_future(together.get("broken"))
    await _everybody_moves()
    second = asyncio.ensure_future(together.get("well"))
    await _everybody_moves()
    await answers.answer_all()
    with pytest.raises(ConnectionError):
        await first
    assert await second == 1
    assert await _alone(together, answers, "well") == 1


async def test_one_who_leaves_takes_nobodys_answer() -> None:
    answers = Answers()
    answers.truth["k"] = 1
    together = Together(answers.ask)
    leaving, staying = (asyncio.ensure_future(together.get("k")) for _ in range(2))
    await _everybody_moves()
    leaving.cancel()
    await _everybody_moves()
    await answers.answer_all()
    assert await staying == 1
    with pytest.raises(asyncio.CancelledError):
        await leaving
