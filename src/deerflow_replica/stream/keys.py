"""The names of every Redis key of the bridge. All keys of a run share one slot."""

from __future__ import annotations


class StreamKeys:
    """Names under one prefix. The push channel of a run has the name of its stream."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.rstrip(":")

    def stream(self, run_id: str) -> str:
        return f"{self._prefix}:{run_id}"

    def meta(self, run_id: str) -> str:
        return f"{self._prefix}.meta:{{{self.stream(run_id)}}}"

    def owner(self, bridge_id: str) -> str:
        return f"{self._prefix}.owner:{bridge_id}"

    def wake(self, reader_id: str, number: int) -> str:
        return f"{self._prefix}.wake:{reader_id}:{number}"

    def of_run(self, run_id: str) -> tuple[str, str]:
        return self.stream(run_id), self.meta(run_id)

    def run_of(self, stream: str) -> str:
        return stream[len(self._prefix) + 1 :]
