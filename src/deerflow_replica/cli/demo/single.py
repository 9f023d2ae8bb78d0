"""The demo in one process: no server at all, the stream in memory, threads and counters in SQLite, memory in files."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...config import AppConfig
from ...replica import Replica, open_replica
from ...stream import END_SENTINEL, StreamEvent
from .report import Check, Progress, Skipped
from .script import MODEL_NAME, make_agent, script

NEEDS_REPLICAS = ("rejoined_at_other_replica", "facts_at_both_replicas", "seconds_to_terminal_event")


def skipped(reason: str) -> tuple[Skipped, ...]:
    return tuple(Skipped(name, reason) for name in NEEDS_REPLICAS)


async def measure(progress: Progress) -> tuple[Check, ...]:
    """Run the agent once, leave its stream in the middle, come back, and compare."""
    progress.step("one process, no server: the stream in memory, the rest in SQLite and files")
    with TemporaryDirectory(prefix="deerflow-replica-demo-") as folder:
        async with open_replica(_config(Path(folder))) as replica:
            run = await replica.start_run(
                make_agent(replica),
                script("likes tea", 80),
                thread_id="demo-thread",
                user_id="alice",
                stream_mode=["updates", "messages-tuple"],
            )
            progress.step("a run is streaming; its reader leaves in mid-stream and comes back")
            head = await _read(replica, run.run_id, stop_after=30)
            tail = await _read(replica, run.run_id, last_event_id=head[-1].id)
            stored = await _read(replica, run.run_id, last_event_id="0-0")
            await run.wait()
            return (*_stream_checks([*head, *tail], stored), *await _state_checks(replica, stored))


def _config(folder: Path) -> AppConfig:
    return AppConfig.from_mapping(
        {
            "database": {"backend": "sqlite", "sqlite_dir": str(folder)},
            "checkpointer": {"type": "memory"},
            "store": {"type": "memory"},
            "stream_bridge": {"queue_maxsize": 10_000},
            "memory": {"backend_config": {"storage_path": str(folder / "memory")}},
        }
    )


async def _read(
    replica: Replica, run_id: str, *, last_event_id: str | None = None, stop_after: int | None = None
) -> list[StreamEvent]:
    events: list[StreamEvent] = []
    async for item in replica.bridge.subscribe(run_id, last_event_id=last_event_id):
        if item is END_SENTINEL or len(events) == stop_after:
            break
        if isinstance(item, StreamEvent) and item.id:
            events.append(item)
    return events


def _stream_checks(seen: list[StreamEvent], stored: list[StreamEvent]) -> tuple[Check, ...]:
    ids = [event.id for event in seen]
    lost, duplicated = len({event.id for event in stored} - set(ids)), len(ids) - len(set(ids))
    return (
        Check("events_lost", f"a reader that leaves loses none of {len(stored)} events", lost, 0, lost == 0, "lost"),
        Check("events_duplicated", "and sees none of them twice", duplicated, 0, duplicated == 0, "doubled"),
    )


async def _state_checks(replica: Replica, stored: list[StreamEvent]) -> tuple[Check, ...]:
    calls = (await replica.counters.totals())[MODEL_NAME].call_count
    answers = sum(1 for event in stored if event.event == "updates" and _has_answer(event.data))
    threads = len((await replica.threads.list("alice")).items)
    facts = len(replica.memory.load(user_id="alice")["facts"])
    return (
        Check("model_counters", "the count of model calls is exact", calls, answers, calls == answers, "calls"),
        Check("user_threads", "a user's threads are listed", threads, 1, threads == 1, "threads"),
        Check("memory_facts", "what the agent kept is remembered", facts, 1, facts == 1, "facts"),
    )


def _has_answer(update: dict[str, Any]) -> bool:
    messages = [message for part in update.values() if part for message in part.get("messages", ())]
    return any(message["type"] == "ai" for message in messages)
