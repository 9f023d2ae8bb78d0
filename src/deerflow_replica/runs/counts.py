"""What the runs of one process came to, in plain numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .registry.rules import is_terminal
from .request import Run, RunRequest


@dataclass(slots=True)
class RunCounts:
    """`ended`: runs that came to their end in this process, by graph and status. `orphans`: runs of replicas that were
    gone, which were ended here.
    """

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    orphans: int = 0

    def over(self, request: RunRequest, run: Run) -> None:
        if not is_terminal(run.status):
            return  # another replica goes on with it
        graph = request.thread_metadata.get("graph_id")
        self.ended[str(graph or ""), run.status] += 1
