"""The demo with replicas: cut the client, kill a replica, and measure what the client saw."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ..._extras import extra
from .fleet import REPLICA_HEADER, Fleet, running_fleet
from .report import Check, Progress
from .script import script

with extra("embedded"):
    import httpx
    from langgraph_sdk import get_client
    from langgraph_sdk.client import LangGraphClient
    from langgraph_sdk.schema import StreamMode, StreamPart

MODES: tuple[StreamMode, ...] = ("updates", "messages-tuple")
TERMINAL_SECONDS_LIMIT = 15.0


@dataclass(slots=True)
class Seen:
    """What one client received of one run, in order of arrival, over all its connections."""

    events: list[StreamPart] = field(default_factory=list)
    replicas: list[str] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events if event.id]

    @property
    def run_id(self) -> str:
        run_id: str = self.events[0].data["run_id"]
        return run_id

    @property
    def duplicated(self) -> int:
        return len(self.ids) - len(set(self.ids))

    @property
    def model_answers(self) -> int:
        """Model calls that ended well, as their answers arrived in `updates`."""
        updates = [event.data for event in self.events if event.event == "updates"]
        messages = [m for update in updates for part in update.values() if part for m in part.get("messages", ())]
        return len({message["id"] for message in messages if message["type"] == "ai"})

    def lost(self, reference: Seen) -> int:
        return len(set(reference.ids) - set(self.ids))


@dataclass(slots=True)
class User:
    """A user of the fleet, through the official client and the proxy."""

    name: str
    client: LangGraphClient
    replicas: list[str] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    facts: set[str] = field(default_factory=set)
    model_answers: int = 0

    @classmethod
    @asynccontextmanager
    async def of(cls, fleet: Fleet, name: str) -> AsyncIterator[User]:
        async with get_client(url=fleet.proxy.url, api_key=None, headers={"x-demo-user": name}) as client:
            user = cls(name, client)

            async def note_replica(response: httpx.Response) -> None:
                user.replicas.append(response.headers[REPLICA_HEADER])

            client.http.client.event_hooks["response"].append(note_replica)
            yield user

    async def create_thread(self) -> str:
        thread = await self.client.threads.create()
        self.threads.add(thread["thread_id"])
        return thread["thread_id"]

    async def talk(self, thread_id: str, fact: str, words: int, seen: Seen) -> AsyncIterator[StreamPart]:
        """Run the script on a thread; `seen` fills as the events arrive."""
        self.replicas.clear()
        stream = self.client.runs.stream(
            thread_id, "agent", input=script(fact, words), stream_mode=MODES, stream_resumable=True
        )
        async for event in stream:
            seen.events.append(event)
            seen.replicas = list(self.replicas)
            yield event
        self.facts.add(fact)
        self.model_answers += seen.model_answers

    async def replay(self, thread_id: str, run_id: str) -> Seen:
        """Everything that is stored of a run, read in one piece from its start."""
        stream = self.client.runs.join_stream(thread_id, run_id, stream_mode=MODES, last_event_id="0-0")
        return Seen([event async for event in stream])


async def measure(progress: Progress) -> tuple[Check, ...]:
    """Run the fleet and give every promise its number."""
    progress.step("starting PostgreSQL, Valkey and two replicas")
    async with running_fleet() as fleet, User.of(fleet, "alice") as alice, User.of(fleet, "bob") as bob:
        cut = await _cut_in_mid_stream(fleet, alice, progress)
        shared = await _told_and_asked(fleet, alice, progress)
        killed = await _kill_in_mid_run(fleet, alice, progress)
        progress.step("reading counters, threads and memory at the replica that is left")
        return (*cut, shared, killed, *await _shared_state(alice, bob))


async def _cut_in_mid_stream(fleet: Fleet, user: User, progress: Progress) -> tuple[Check, ...]:
    progress.step("a run is streaming; its client's connection is cut in mid-stream")
    thread_id, seen = await user.create_thread(), Seen()
    async for _ in user.talk(thread_id, "likes tea", 120, seen):
        if len(seen.events) == 40:
            fleet.proxy.cut()
    stored = await user.replay(thread_id, seen.run_id)
    rejoined = len(seen.replicas) > 1 and seen.replicas[0] != seen.replicas[-1]
    lost, duplicated = seen.lost(stored), seen.duplicated
    return (
        Check("events_lost", f"a cut client loses none of {len(stored.ids)} events", lost, 0, lost == 0, "lost"),
        Check("events_duplicated", "and sees none of them twice", duplicated, 0, duplicated == 0, "doubled"),
        Check("rejoined_at_other_replica", "it goes on at the other replica", rejoined, True, rejoined),
    )


async def _told_and_asked(fleet: Fleet, user: User, progress: Progress) -> Check:
    """A cut connection is opened anew at the next replica."""
    progress.step("each replica is told a fact, and asked for all of them")
    told, known = set[str](), dict[str, set[str]]()
    for fact in ("reads novels", "sings alto", "has a cat"):
        fleet.proxy.cut()
        seen = Seen()
        async for _ in user.talk(await user.create_thread(), fact, 2, seen):
            pass
        told.add(seen.replicas[0])
    for _ in user.facts:
        fleet.proxy.cut()
        report = await _report(user)
        known[report["replica_id"]] = set(report["facts"])
    shared = sum(facts == user.facts for facts in known.values())
    ok = len(told) == shared == len(fleet.pids)
    promise = "a fact told to one replica is known at both"
    return Check("facts_at_both_replicas", promise, shared, len(fleet.pids), ok, "replicas")


async def _kill_in_mid_run(fleet: Fleet, user: User, progress: Progress) -> Check:
    progress.step("a second run is streaming; its replica is killed with SIGKILL")
    thread_id, seen, killed_at = await user.create_thread(), Seen(), 0.0
    async for _ in user.talk(thread_id, "plays chess", 4000, seen):
        if len(seen.events) == 120:
            killed_at = time.monotonic()
            fleet.kill(seen.replicas[0])
    seconds, terminal = time.monotonic() - killed_at, seen.events[-1].event == "error"
    progress.step("the same thread runs again, at the replica that is left")
    again = Seen()
    async for _ in user.talk(thread_id, "speaks Danish", 5, again):
        pass
    usable = again.model_answers == 2 and again.events[-1].event != "error"
    ok = terminal and usable and seconds <= TERMINAL_SECONDS_LIMIT
    promise = "a killed replica's run ends, its thread goes on"
    return Check("seconds_to_terminal_event", promise, round(seconds, 2), TERMINAL_SECONDS_LIMIT, ok, "s")


async def _shared_state(alice: User, bob: User) -> tuple[Check, ...]:
    report = await _report(alice)
    facts, calls, answers = set(report["facts"]), report["model_calls"], alice.model_answers
    own = {thread["thread_id"] for thread in await alice.client.threads.search(limit=100)}
    foreign = {thread["thread_id"] for thread in await bob.client.threads.search(limit=100)}
    exact = calls == answers
    listed = own == alice.threads and not foreign
    kept = facts == alice.facts
    return (
        Check("model_counters", "the fleet's count of model calls is exact", calls, answers, exact, "calls"),
        Check("user_threads", "only a user's own threads are listed", len(own), len(alice.threads), listed, "threads"),
        Check("memory_facts", "what a killed replica kept is remembered", len(facts), len(alice.facts), kept, "facts"),
    )


async def _report(user: User) -> dict[str, Any]:
    thread_id = await user.create_thread()
    stream = user.client.runs.stream(thread_id, "report", input={}, stream_mode="values")
    return [event.data async for event in stream if event.event == "values"][-1]
