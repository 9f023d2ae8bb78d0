"""Exchanges with PostgreSQL past psycopg: what arrives, what is prepared, and what leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVarTuple

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.types.numeric import IntLoader

from deerflow_replica._drivers.direct_postgres import DirectConnection, Plan
from deerflow_replica._drivers.pipelined_postgres import Statement
from deerflow_replica._drivers.texts_postgres import Texts
from drivers.kept import Kept, kept_connections, nothing, planned, proxied

pytestmark = pytest.mark.anyio

Ts = TypeVarTuple("Ts")

PID = "SELECT pg_backend_pid()"
MOST_PREPARED = 10
LARGE = planned("SELECT %(text)s::text", text="x" * 16_000_000)


@pytest.fixture
async def kept(postgres_dsn: str) -> AsyncIterator[Kept]:
    async with kept_connections(postgres_dsn) as kept:
        yield kept


@pytest.fixture
async def preparing(postgres_dsn: str) -> AsyncIterator[Kept]:
    async with kept_connections(postgres_dsn, prepare_threshold=0) as kept:
        yield kept


def never(answer: object) -> None:
    raise AssertionError(answer)


async def _prepared(kept: Kept) -> int:
    """Without what this question itself adds."""

    async def count(connection: Any) -> int:
        cursor = await connection.execute("SELECT count(*) FROM pg_prepared_statements", prepare=False)
        return int((await cursor.fetchone())[0])

    return await kept.run(count)


async def test_parameters_and_rows_arrive_as_they_are(kept: Kept) -> None:
    text = "é\U0001f98c % $1 \\ ' \x01"
    columns = ("%(text)s::text", "%(none)s::text", "%(yes)s", "%(no)s", "%(texts)b::text[]", "%(number)s::bigint")
    values = {"text": text, "none": None, "yes": True, "no": False, "texts": Texts([text, ""]), "number": str(2**60)}
    row = (text, None, True, False, [text, ""], 2**60, False)
    assert await kept.ask(
        planned(f"SELECT {', '.join(columns)}, %(text)s = ''", **values),
        planned("SELECT WHERE %(no)s", no=False),
        planned("SELECT n FROM generate_series(1, 3) AS n"),
        planned("SET application_name = 'x'"),
    ) == [[row], [], [(1,), (2,), (3,)], []]


async def test_what_cannot_be_sent_whole_is_not_sent(kept: Kept) -> None:
    await kept.run(nothing)
    for text, error in (("a\x00b", psycopg.DataError), ("\ud800", UnicodeEncodeError)):
        with pytest.raises(error):
            kept.begin([planned("SELECT %(text)s", text=text)], never)
    assert kept.are_at_hand


async def test_what_is_refused_undoes_the_rest(kept: Kept, postgres_schema: str) -> None:
    pid = await kept.value(PID)
    assert await kept.ask(planned(f"CREATE TABLE {postgres_schema}.t (n int)")) == [[]]
    insert = planned(f"INSERT INTO {postgres_schema}.t VALUES (1)")
    assert await kept.ask(insert, planned("SELECT 1/0"), insert) is None
    assert await kept.ask(insert, planned("SELECT nonsense")) is None
    assert await kept.value(f"SELECT count(*) FROM {postgres_schema}.t") == 0
    assert await kept.value(PID) == pid


async def test_what_is_asked_often_is_prepared(postgres_dsn: str) -> None:
    async with kept_connections(postgres_dsn, prepare_threshold=2) as kept:
        statement = planned("SELECT %(text)s::text", text="x")
        for times, count in ((1, 0), (2, 0), (3, 1), (4, 1)):
            assert await kept.ask(statement) == [[("x",)]], times
            assert await _prepared(kept) == count


async def test_nothing_is_prepared_without_a_threshold(kept: Kept) -> None:
    statement = planned("SELECT 1")
    for _ in range(12):
        assert await kept.ask(statement) == [[(1,)]]
    assert await _prepared(kept) == 0


async def test_the_same_text_is_prepared_once(preparing: Kept) -> None:
    for _ in range(3):
        assert await preparing.ask(planned("SELECT 1"), planned("SELECT 1")) == [[(1,)]] * 2
    assert await _prepared(preparing) == 1


async def test_one_exchange_may_hold_a_statement_several_times(preparing: Kept) -> None:
    statement = planned("SELECT 1")
    assert await preparing.ask(statement, statement, statement) == [[(1,)]] * 3
    assert await _prepared(preparing) == 1


async def test_few_are_prepared_even_in_one_exchange(preparing: Kept) -> None:
    statements = [planned(f"SELECT {n}") for n in range(2 * MOST_PREPARED)]
    for _ in range(2):
        assert await preparing.ask(*statements) == [[(n,)] for n in range(2 * MOST_PREPARED)]
    assert await _prepared(preparing) == MOST_PREPARED


async def test_what_could_not_be_prepared_is_prepared_later(preparing: Kept, postgres_schema: str) -> None:
    pid = await preparing.value(PID)
    late = planned(f"SELECT * FROM {postgres_schema}.late")
    assert await preparing.ask(late) is None
    assert await preparing.ask(planned("SELECT 1/0"), late) is None
    assert await preparing.ask(planned(f"CREATE TABLE {postgres_schema}.late ()")) == [[]]
    assert await preparing.ask(late) == [[]]
    assert await preparing.value(PID) == pid


async def test_a_statement_of_that_name_that_others_prepared_comes_to_nothing(preparing: Kept) -> None:
    statement = planned("SELECT 7")
    assert statement.plan is not None
    name = statement.plan.prepared_name.decode()
    assert await preparing.ask(planned(f"PREPARE {name} AS SELECT 7")) == [[]]
    assert await preparing.ask(statement) is None
    assert await preparing.ask(planned(f"DEALLOCATE {name}")) == [[]]
    assert await preparing.ask(statement) == [[(7,)]]


@pytest.mark.parametrize("change", ["DEALLOCATE ALL", "ALTER TABLE SCHEMA.t ADD COLUMN more int"])
async def test_a_connection_whose_statements_are_gone_is_replaced(
    preparing: Kept, postgres_schema: str, change: str
) -> None:
    assert await preparing.ask(planned(f"CREATE TABLE {postgres_schema}.t ()")) == [[]]
    statement = planned(f"SELECT * FROM {postgres_schema}.t")
    pid = await preparing.value(PID)
    for _ in range(2):
        assert await preparing.ask(statement) == [[]]
    # Past the exchanges: they would prepare it.
    await preparing.run(lambda connection: connection.execute(change.replace("SCHEMA", postgres_schema).encode()))
    assert await preparing.ask(statement) is None
    assert await preparing.ask(statement) == [[]]
    assert await preparing.value(PID) != pid


async def test_more_than_the_socket_takes(kept: Kept) -> None:
    """In both directions, and at the same time: the first statement answers while the second is still sent."""
    text = "x" * 4_000_000
    echo = planned("SELECT %(text)s::text", text=text)
    assert await kept.ask(echo, echo) == [[(text,)], [(text,)]]


async def test_a_large_value_and_a_refusal_before_it(kept: Kept) -> None:
    echo = planned("SELECT %(text)s::text", text="x" * 4_000_000)
    assert await kept.ask(planned("SELECT 1/0"), echo) is None
    assert await kept.value("SELECT 1") == 1


async def test_notices_and_notifications_in_between(kept: Kept, postgres_schema: str) -> None:
    noisy = f"{postgres_schema}.noisy"
    body = "BEGIN RAISE NOTICE 'noise'; PERFORM pg_notify('noise', ''); RETURN 1; END"
    await kept.ask(planned(f"CREATE FUNCTION {noisy}() RETURNS int LANGUAGE plpgsql AS $${body}$$"))
    await kept.ask(planned("LISTEN noise"))
    for _ in range(3):
        ask = planned(f"SELECT {noisy}()")
        assert await kept.ask(ask, ask) == [[(1,)], [(1,)]]
    assert await kept.value("SELECT 2") == 2


async def test_texts_that_are_not_sent_as_utf_8_go_another_way(postgres_dsn: str) -> None:
    async with kept_connections(make_conninfo(postgres_dsn, client_encoding="latin1")) as kept:
        await kept.run(nothing)
        assert not kept.begin([planned("SELECT 1")], never)
        assert kept.are_at_hand


async def test_rows_that_cannot_be_read_come_to_nothing(kept: Kept) -> None:
    """And not to a wait for ever."""

    class Unreadable(IntLoader):
        def load(self, data: Any) -> int:
            raise ArithmeticError(bytes(data))

    async def spoil(connection: Any) -> None:
        connection.adapters.register_loader("int4", Unreadable)

    await kept.run(spoil)
    assert await kept.ask(planned("SELECT 1::int4")) is None
    assert await kept.ask(planned("SELECT 1::int4")) == [[(1,)]]  # on another connection


async def test_nothing_of_an_exchange_waits_for_the_garbage_collector(kept: Kept) -> None:
    def done(answer: Any) -> None:
        answers.set_result(answer)

    answers = asyncio.get_running_loop().create_future()
    gone = weakref.ref(done)
    await kept.run(nothing)
    gc.disable()
    try:
        assert kept.begin([planned("SELECT 1")], done)
        del done
        assert await answers == [[(1,)]]
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()

    async def last_result(connection: Any) -> Any:
        assert isinstance(connection, DirectConnection)
        assert connection.line is not None
        return connection.line._loader.pgresult

    assert await kept.run(last_result) is None


class _Loop(asyncio.SelectorEventLoop):
    """One that can do less from some time on."""

    refuses_writers = is_deaf = False

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        if not self.is_deaf:
            super().add_reader(fd, callback, *args)

    def add_writer(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        if self.refuses_writers:
            raise OSError("no writers here")
        super().add_writer(fd, callback, *args)


async def _socket(connection: Any) -> int:
    return int(connection.pgconn.socket)


def test_a_loop_that_refuses_leaves_nothing_behind(postgres_dsn: str) -> None:
    async def ask() -> None:
        async with kept_connections(postgres_dsn) as kept:
            pid = await kept.value(PID)
            socket = await kept.run(_socket)
            loop.refuses_writers = True
            with pytest.raises(OSError, match="no writers"):
                kept.begin([LARGE], never)
            assert not loop.remove_reader(socket)
            loop.refuses_writers = False
            assert await kept.value(PID) != pid

    loop = _Loop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(ask())


def test_an_end_that_is_seen_by_writing_first(postgres_dsn: str) -> None:
    """libpq reads, too, when the socket takes no more."""

    async def ask() -> None:
        async with proxied(postgres_dsn) as (proxy, dsn), kept_connections(dsn) as kept:
            await kept.run(nothing)
            proxy.flows.clear()
            loop.is_deaf = True
            answer = await kept.begun(LARGE)
            loop.is_deaf = False
            proxy.links[0].writers[0].write_eof()
            proxy.flows.set()
            assert await answer is None
            assert await kept.value("SELECT 1") == 1

    loop = _Loop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(ask())


async def test_a_line_that_was_asked_nothing_has_nothing_to_say(kept: Kept) -> None:
    """Rather than that the loop turns for ever."""

    async def hear(connection: Any) -> None:
        with pytest.raises(psycopg.OperationalError, match="closed"):
            connection.line.received([])

    await kept.run(hear)


async def test_a_closed_connection_is_of_no_use(kept: Kept) -> None:
    async def finish(connection: Any) -> None:
        at_hand.append(connection)

    at_hand: list[Any] = []
    await kept.run(finish)
    at_hand[0].pgconn.finish()
    assert not kept.begin([planned("SELECT 1")], never)
    assert await kept.value("SELECT 1") == 1


async def test_only_what_has_a_plan_is_sent(kept: Kept) -> None:
    with_a_plan = planned("SELECT 1")
    assert not kept.begin([with_a_plan], never)  # nothing is at hand
    await kept.run(nothing)
    assert not kept.begin([with_a_plan, Statement(b"SELECT 1", {})], never)
    assert kept.are_at_hand


def test_a_plan_numbers_its_parameters() -> None:
    plan = Plan(b"SELECT %(a)s, %(b)b, %(a)s")
    assert (plan.text, plan.names) == (b"SELECT $1, $2, $1", ["a", "b"])
    assert plan.prepared_name == Plan(b"SELECT %(a)s, %(b)b, %(a)s").prepared_name != Plan(b"SELECT").prepared_name
