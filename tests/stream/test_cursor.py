"""The resume rules as a function, against the plain statement of them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from deerflow_replica.stream.base import StreamGap
from deerflow_replica.stream.cursor import Position, StreamState, parse_cursor, place

states = st.builds(
    lambda epoch, floor, count, ended: StreamState(epoch, floor, floor + count - 1 + ended, ended),
    st.integers(1, 5),
    st.integers(0, 10),
    st.integers(1, 5),
    st.booleans(),
)


@given(st.text() | st.from_regex(r"\d+-\d+", fullmatch=True) | st.from_regex(re.compile(r"[0-9]+-[0-9]+", re.ASCII)))
def test_no_text_breaks_the_parser_and_ids_round_trip(text: str) -> None:
    after = parse_cursor(text).after
    if isinstance(after, Position):
        assert text == f"{after.epoch}-{after.seq}"
        assert max(after.epoch, after.seq) < 2**64
    else:
        assert after == ("start" if text in ("0", "0-0") else "invalid")


@given(states, st.integers(0, 6), st.integers(0, 20))
def test_an_id_resumes_after_itself_or_is_a_gap(state: StreamState, epoch: int, seq: int) -> None:
    cursor = f"{epoch}-{seq}"
    placed = place(parse_cursor(cursor), state, invalid_cursor="replay", resume_gap="exact")
    if cursor == "0-0":
        assert placed == (0 if state.floor == 0 else state.gap(cursor))
    elif epoch != state.epoch or seq > state.tail or seq + 1 < state.floor:
        assert isinstance(placed, StreamGap)
        assert placed.requested_event_id == cursor
    else:
        assert placed == (seq if state.ended and seq == state.tail else seq + 1)
