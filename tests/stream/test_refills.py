"""What a reader that is behind makes of an answer, which is older than what was pushed meanwhile."""

from __future__ import annotations

import pytest

from deerflow_replica.stream import RedisStreamBridge, StreamGap
from deerflow_replica.stream.hub import Subscriber
from deerflow_replica.stream.messages import Page
from deerflow_replica.stream.reads import _on_refill
from deerflow_replica.stream.ring import Entry, Ring

pytestmark = pytest.mark.anyio

EPOCH = 7


async def behind(next_seq: int) -> Subscriber:
    """A reader of a stream of which this process holds 15..19."""
    ring = Ring(EPOCH)
    for number in range(20):
        ring.append("n", b"%d" % number)
    ring.drop_below(15)
    reader = RedisStreamBridge()._feed.hub.attach("r", None)  # touches no server
    reader.read(ring, next_seq)
    return reader


def page(*seqs: int, epoch: int = EPOCH, floor: int = 0, tail: int = 19) -> Page:
    return Page(epoch, floor, tail, False, "", "", [Entry(epoch, seq, "n", b"0") for seq in seqs])


async def test_an_empty_answer_from_before_there_was_more_is_no_gap() -> None:
    reader = await behind(10)
    _on_refill(reader, page(tail=9))
    assert (reader.is_supplied, reader._conclusion()) == (False, None)  # it asks again
    _on_refill(reader, page(10, 11))
    assert [reader.take(), reader.take()] == [entry.as_event() for entry in page(10, 11).entries]


@pytest.mark.parametrize(
    "answer",
    [page(12, 13, floor=12), page(floor=20), page(10, 11, epoch=8), None],
    ids=["trimmed", "all", "anew", "gone"],
)
async def test_an_answer_without_what_is_needed_is_a_gap(answer: Page | None) -> None:
    reader = await behind(10)
    _on_refill(reader, answer)
    assert isinstance(reader.take(), StreamGap)


async def test_what_was_asked_for_twice_is_given_once() -> None:
    reader = await behind(10)
    for _ in range(2):
        _on_refill(reader, page(*range(10, 15)))
    _on_refill(reader, None)
    items = [reader.take() for _ in range(10)]
    assert [getattr(item, "id", None) for item in items] == [f"{EPOCH}-{seq}" for seq in range(10, 20)]
    assert reader.take() is None
