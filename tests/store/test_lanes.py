"""How many calls of a kind may run: what is slow holds up nothing that is quick, and keeps nothing idle either."""

from __future__ import annotations

from deerflow_replica.store.lanes import Lane, Slots


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def slots(count: int = 4) -> tuple[Slots, Clock]:
    clock = Clock()
    return Slots(count, clock), clock


def test_scans_take_all_while_nothing_else_is_called() -> None:
    four, _ = slots()
    four.use(Lane.SCAN)
    assert four.free(Lane.SCAN) == 4


def test_scans_and_writes_leave_a_slot_to_what_was_used_lately() -> None:
    four, clock = slots()
    four.use(Lane.GET)
    assert (four.free(Lane.SCAN), four.free(Lane.WRITE), four.free(Lane.GET)) == (3, 3, 4)
    four.use(Lane.WRITE)
    assert (four.free(Lane.SCAN), four.free(Lane.WRITE), four.free(Lane.GET)) == (2, 3, 4)
    clock.now += 2
    assert four.free(Lane.SCAN) == 4


def test_no_more_run_than_there_are_slots() -> None:
    four, _ = slots()
    for lane in (Lane.GET, Lane.GET, Lane.WRITE):
        four.begin(lane)
    assert [four.free(lane) for lane in Lane] == [1, 1, 1]
    four.begin(Lane.SCAN)
    assert [four.free(lane) for lane in Lane] == [0, 0, 0]
    four.end(Lane.WRITE, 0.0)
    assert four.free(Lane.SCAN) == 1


def test_one_slot_is_for_everybody() -> None:
    one, _ = slots(1)
    for lane in Lane:
        one.use(lane)
    assert [one.free(lane) for lane in Lane] == [1, 1, 1]


def test_slow_scans_are_spread_and_quick_ones_go_together() -> None:
    four, clock = slots()
    assert four.share(4) == 1  # nobody knows yet
    four.begin(Lane.SCAN)
    assert four.share(3) == 1
    four.end(Lane.SCAN, 0.001)
    clock.now += 0.001
    assert four.share(10) == 10
    four.begin(Lane.SCAN)
    four.end(Lane.SCAN, 0.2)
    assert four.share(10) == 3
    clock.now += 10
    assert four.share(10) == 10
