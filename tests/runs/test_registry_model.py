"""Random histories of several owners: the in-process registry is the oracle of the databases."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from deerflow_replica.errors import RunConflictError
from deerflow_replica.runs.registry import rules
from deerflow_replica.runs.registry.base import RunRegistry
from deerflow_replica.runs.registry.inmemory import InMemoryRunRegistry
from deerflow_replica.runs.registry.records import Admission, Lease, NewRun, RunOutcome, RunStatus
from deerflow_replica.runs.registry.sqlite import SqliteRunRegistry

LONG = 3600.0
THREADS = st.sampled_from(["t1", "t2"])
OWNERS = st.sampled_from(["a", "b"])
OUTCOMES = [rules.succeeded({"n": 1}, {}), rules.succeeded(None, {"x": [1]}), rules.failed(rules.SHUTDOWN)]


class Histories(RuleBasedStateMachine):
    """Does everything to each registry and compares the answers."""

    leases = Bundle("leases")

    def __init__(self, others: list[RunRegistry], runner: asyncio.Runner) -> None:
        super().__init__()
        self.registries = [InMemoryRunRegistry(), *others]
        self.runner = runner
        self.number = 0
        self.ended: dict[str, tuple[RunStatus, Any]] = {}
        self.begun: dict[str, list[str]] = {}
        self.admitted: dict[str, list[str]] = {}
        self.held: dict[str, Lease] = {}
        self.gone: set[str] = set()

    def ask(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """The answer of all registries, which must be the same."""

        async def answer(registry: RunRegistry) -> Any:
            try:
                return await getattr(registry, method)(*arguments, **keywords)
            except (RunConflictError, LookupError) as error:
                return type(error)

        answers = [self.runner.run(answer(registry)) for registry in self.registries]
        assert all(_comparable(one) == _comparable(answers[0]) for one in answers)
        return answers[0]

    @initialize(target=leases, waiting=st.integers(0, 4))
    def open(self, waiting: int) -> Any:
        """Begin with a line: an empty one rarely grows."""
        for registry in self.registries:
            self.runner.run(registry.open())
        return multiple(*(self.admit("t1", "ab"[number % 2], "enqueue", LONG) for number in range(waiting)))

    @rule(
        target=leases,
        thread=THREADS,
        owner=OWNERS,
        strategy=st.sampled_from(["enqueue", "enqueue", "reject", "interrupt", "rollback"]),
        lease_seconds=st.sampled_from([LONG, LONG, 0.0]),
        assistant_id=st.sampled_from([None, "a"]),
        graph=st.sampled_from([None, 1, 2]),
    )
    def admit(
        self,
        thread: str,
        owner: str,
        strategy: Any,
        lease_seconds: float,
        assistant_id: str | None = None,
        graph: int | None = None,
    ) -> Any:
        self.number += 1
        run = NewRun(
            run_id=f"r{self.number}",
            thread_id=thread,
            owner=owner,
            multitask_strategy=strategy,
            assistant_id=assistant_id,
            thread_metadata={} if graph is None else {"graph": graph},
        )
        answer = self.ask("admit", run, lease_seconds=lease_seconds)
        if answer is RunConflictError:
            return multiple()
        self.gone.update(one.run_id for one in answer.cancelled if one.ended and one.action == "rollback")
        self.admitted.setdefault(thread, []).append(run.run_id)
        self.held[run.run_id] = answer.lease
        if answer.record.status == "running":
            self.begun.setdefault(thread, []).append(run.run_id)
        return answer.lease

    @rule(lease=leases)
    def start(self, lease: Lease) -> None:
        before = self.runner.run(self.registries[0].get(lease.run_id))
        status = self.ask("start", lease, lease_seconds=LONG)
        if before is not None and before.status == "pending" and status == "running":
            self.begun.setdefault(before.thread_id, []).append(lease.run_id)

    @rule(thread=THREADS, outcome=st.sampled_from(OUTCOMES))
    def end_the_running_one(self, thread: str, outcome: RunOutcome) -> None:
        for run_id in self._of(thread, "running"):
            if not self.ask("finish", self.held[run_id], outcome):
                assert self._rolled_back(self.held[run_id])

    @rule(thread=THREADS)
    def start_from_the_back(self, thread: str) -> None:
        for run_id in self._of(thread, "pending"):
            self.start(self.held[run_id])

    def _of(self, thread: str, status: RunStatus) -> list[str]:
        """Newest first."""
        records = self.runner.run(self.registries[0].list(thread, limit=1000, status=status))
        return [record.run_id for record in records]

    @rule(lease=leases, stolen=st.booleans(), outcome=st.sampled_from(OUTCOMES))
    def finish(self, lease: Lease, stolen: bool, outcome: RunOutcome) -> None:
        used = replace(lease, fence=lease.fence + 10) if stolen else lease
        done = self.ask("finish", used, outcome)
        assert not (done and used != self.held[lease.run_id])

    @rule(lease=leases)
    def roll_back(self, lease: Lease) -> None:
        self._rolled_back(lease)

    def _rolled_back(self, lease: Lease) -> Any:
        done = self.ask("roll_back", lease)
        if done:
            assert lease == self.held[lease.run_id]
            self.gone.add(lease.run_id)
        return done

    @rule(held=st.lists(leases, max_size=4, unique=True))
    def renew(self, held: list[Lease]) -> None:
        assert set(self.ask("renew", held, lease_seconds=LONG)) <= {
            lease.run_id for lease in held if lease == self.held[lease.run_id]
        }

    @rule(lease=leases, action=st.sampled_from(["interrupt", "rollback"]))
    def cancel(self, lease: Lease, action: Any) -> None:
        before = self.runner.run(self.registries[0].get(lease.run_id))
        if self.ask("cancel", lease.run_id, action=action) and before and before.status == "pending":
            self.gone.update([lease.run_id] if action == "rollback" else [])

    @rule(lease=leases)
    def close(self, lease: Lease) -> None:
        self.ask("close_run", lease.run_id)

    @rule(lease=leases)
    def delete(self, lease: Lease) -> None:
        if self.ask("delete", lease.run_id):
            self.gone.add(lease.run_id)

    @rule(thread=THREADS)
    def delete_thread(self, thread: str) -> None:
        if self.ask("delete_thread", thread):
            self.gone.update(self.admitted.get(thread, []))

    @rule(thread=THREADS, outcome=st.sampled_from(OUTCOMES))
    def settle(self, thread: str, outcome: RunOutcome) -> None:
        self.ask("settle_thread", thread, outcome)

    @rule(adoption_seconds=st.sampled_from([0.0, LONG]))
    def sweep(self, adoption_seconds: float) -> None:
        self.ask("sweep", adoption_seconds=adoption_seconds)
        for run_id, held in self.held.items():
            record = self.runner.run(self.registries[0].get(run_id))
            if record is not None and record.error == rules.ORPHANED:
                self.held[run_id] = replace(held, fence=-1)

    @rule(target=leases, owner=OWNERS)
    def adopt(self, owner: str) -> Any:
        taken = []
        for record in self.ask("adoptable"):
            admission = self.ask("adopt", record.run_id, owner, lease_seconds=LONG)
            assert admission.lease != self.held[record.run_id]
            self.held[record.run_id] = admission.lease
            taken.append(admission.lease)
        return multiple(*taken)

    @rule(held=st.lists(leases, max_size=4, unique=True))
    def release(self, held: list[Lease]) -> None:
        for run_id in self.ask("release", held):
            self.held[run_id] = replace(self.held[run_id], fence=-1)

    @invariant()
    def one_runs_in_order_and_ends_once(self) -> None:
        for thread, admitted in self.admitted.items():
            records = self.ask("list", thread, limit=1000)
            assert [record.run_id for record in reversed(records)] == [one for one in admitted if one not in self.gone]
            running = [record for record in records if record.status == "running"]
            assert len(running) <= 1
            begun = self.begun.get(thread, [])
            assert begun == [run_id for run_id in admitted if run_id in begun]
            for record in records:
                if rules.is_terminal(record.status):
                    now = (record.status, record.error)
                    assert self.ended.setdefault(record.run_id, now) == now
            row = self.ask("get_thread", thread)
            assert row is not None or not records
            assert (row is not None and row.status == "busy") == any(
                record.status in rules.UNFINISHED for record in records
            )

    def teardown(self) -> None:
        for registry in self.registries:
            self.runner.run(registry.close())


def _comparable(answer: Any) -> str:
    """Without the times: each registry has its own clock."""
    if isinstance(answer, Admission):
        answer = (answer.record, answer.lease, answer.cancelled)
    if isinstance(answer, (tuple, list)):
        return repr([_comparable(one) for one in answer])
    if isinstance(answer, Mapping):
        answer = sorted(answer.items())
    fields = getattr(type(answer), "__dataclass_fields__", None)
    if fields is None:
        return repr(answer)
    return repr({name: getattr(answer, name) for name in fields if not name.endswith("_at")})


def test_sqlite_follows_the_in_process_registry() -> None:
    class OnSqlite(Histories):
        def __init__(self) -> None:
            super().__init__([SqliteRunRegistry()], runner)

    with asyncio.Runner() as runner:
        run_state_machine_as_test(OnSqlite, settings=settings(max_examples=100, stateful_step_count=30))


def test_postgres_follows_the_in_process_registry(postgres_dsn: str, postgres_schema: str) -> None:
    import psycopg

    from deerflow_replica.runs.registry.postgres import PostgresRunRegistry

    class OnPostgres(Histories):
        def __init__(self) -> None:
            with psycopg.connect(postgres_dsn, autocommit=True) as connection:
                tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [postgres_schema])
                for (table,) in tables.fetchall():
                    connection.execute(f'TRUNCATE "{postgres_schema}"."{table}" CASCADE'.encode())
            super().__init__([PostgresRunRegistry(postgres_dsn, schema=postgres_schema)], runner)

    with asyncio.Runner() as runner:
        run_state_machine_as_test(OnPostgres, settings=settings(max_examples=25, stateful_step_count=25))
