"""Which of LangChain's runs are counted as part of a model call, so that callbacks leave them alone."""

from __future__ import annotations

from collections.abc import Hashable, Iterable


class CountedRuns:
    """Run ids of calls under way. Thread-safe: each step is one of a set's own. Empty unless somebody asks."""

    def __init__(self) -> None:
        self.are_asked_for = False
        self._named: set[Hashable] = set()

    def name(self, run_id: Hashable) -> None:
        self._named.add(run_id)

    def forget(self, run_ids: Iterable[Hashable]) -> None:
        self._named.difference_update(run_ids)

    def __contains__(self, run_id: Hashable) -> bool:
        return run_id in self._named
