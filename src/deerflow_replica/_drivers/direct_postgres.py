"""Statements sent straight through libpq: a round trip without a task, which takes half of psycopg's time for one.

Only what succeeds is settled here. Whatever does not leaves nothing behind, and is the caller's to run in another way,
which tells what is wrong.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias

from .._extras import extra
from .texts_postgres import ARRAY, Texts, binary

with extra("postgres"):
    import psycopg
    from psycopg import AsyncConnection
    from psycopg.adapt import Transformer
    from psycopg.postgres import types
    from psycopg.pq import DiagnosticField, ExecStatus, Format

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

Rows = list[tuple[Any, ...]]
Outcome: TypeAlias = list[Rows] | Exception | None
Parameters: TypeAlias = tuple[list[bytes | None], list[int], list[int]]
"""Values, types, and formats."""

_MOST_PREPARED = 10  # statements on one connection
_PLACEHOLDER = re.compile(rb"%\((\w+)\)[sb]")
_BOOL = types["bool"].oid
_UNKNOWN = 0  # the server infers it, as from a literal
_DONE = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
_FORGOTTEN = (b"26000", b"0A000")  # invalid_sql_statement_name; a plan that does not fit the tables any more


class Plan:
    """A statement that stays the same, as the server knows it: with `$1` for `%(name)s`."""

    def __init__(self, text: bytes) -> None:
        self.names: list[str] = []
        self.text = _PLACEHOLDER.sub(self._numbered, text)
        # Behind a pooler, what another client has prepared under a name of ours is the same statement.
        self.prepared_name = b"deerflow_replica_" + sha256(self.text).hexdigest()[:24].encode()

    def encoded(self, parameters: Mapping[str, Any]) -> Parameters:
        values, kinds, formats = list[bytes | None](), list[int](), list[int]()
        for name in self.names:
            value, kind, form = _encoded(parameters[name])
            values.append(value)
            kinds.append(kind)
            formats.append(form)
        return values, kinds, formats

    def _numbered(self, placeholder: re.Match[bytes]) -> bytes:
        name = placeholder[1].decode()
        if name not in self.names:
            self.names.append(name)
        return b"$%d" % (self.names.index(name) + 1)


_Command: TypeAlias = tuple[Plan, bool]
"""What was sent, and whether it only prepares that."""


class Line:
    """A connection in autocommit, and what is prepared on it. Nobody else uses it during an exchange."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._pgconn = connection.pgconn
        self._prepare_threshold = connection.prepare_threshold
        self._loader = Transformer(connection)
        self._uses: Counter[bytes] = Counter()
        self._prepared: set[bytes] = set()

    @property
    def socket(self) -> int:
        return self._pgconn.socket

    def send(self, asked: Sequence[tuple[Plan, Parameters]]) -> list[_Command]:
        """All of them in one transaction. What was sent: there will be an answer to each."""
        sent: list[_Command] = []
        self._pgconn.enter_pipeline_mode()
        for plan, (values, kinds, formats) in asked:
            if self._is_to_prepare(plan):
                self._pgconn.send_prepare(plan.prepared_name, plan.text, kinds)
                self._prepared.add(plan.prepared_name)
                sent.append((plan, True))
            if plan.prepared_name in self._prepared:
                self._pgconn.send_query_prepared(plan.prepared_name, values, formats)
            else:
                self._pgconn.send_query_params(plan.text, values, kinds, formats)
            sent.append((plan, False))
        self._pgconn.pipeline_sync()
        return sent

    def flush(self) -> bool:
        """Whether libpq has handed everything to the socket."""
        return not self._pgconn.flush()

    def received(self, results: list[PGresult]) -> bool:
        """Take what has come, and add it. Whether that was all. Raises `OperationalError` when there is no more."""
        self._pgconn.consume_input()
        was_none = False
        while not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is None:
                if was_none:
                    raise psycopg.OperationalError("the server closed the connection")
                was_none = True
                continue
            was_none = False
            if result.status == ExecStatus.PIPELINE_SYNC:
                self._pgconn.exit_pipeline_mode()
                return True
            results.append(result)
        return False

    def rows(self, sent: Sequence[_Command], results: Sequence[PGresult]) -> list[Rows] | None:
        """Those of each statement; None when something was refused. Raises `OperationalError` when the server does
        not know what was prepared.
        """
        found: list[Rows] = []
        is_refused = False
        for (plan, is_preparation), result in zip(sent, results, strict=True):
            if result.status not in _DONE:
                is_refused = True
                if is_preparation:
                    self._prepared.discard(plan.prepared_name)
                if result.error_field(DiagnosticField.SQLSTATE) in _FORGOTTEN:
                    raise psycopg.OperationalError("the server has forgotten a prepared statement")
            elif not is_preparation:
                found.append(self._rows(result))
        return None if is_refused else found

    def _is_to_prepare(self, plan: Plan) -> bool:
        name = plan.prepared_name
        if name in self._prepared or self._prepare_threshold is None or len(self._prepared) >= _MOST_PREPARED:
            return False
        self._uses[name] += 1
        return self._uses[name] > self._prepare_threshold

    def _rows(self, result: PGresult) -> Rows:
        count = result.ntuples
        if not count:
            return []
        self._loader.set_pgresult(result)
        rows = self._loader.load_rows(0, count, tuple)
        self._loader.set_pgresult(None)  # it may be large
        return rows


class DirectConnection(AsyncConnection[Any]):
    """One of psycopg's that exchanges can also be made on."""

    @cached_property
    def line(self) -> Line | None:
        """None where texts are not sent as UTF-8."""
        return Line(self) if self.info.encoding == "utf-8" else None


class Exchange:
    """One round trip on a line. `end` is called once: with the rows of each statement; with None, when they were
    refused; or with an error, when the line is of no more use.
    """

    def __init__(self, line: Line, end: Callable[[Outcome], None]) -> None:
        self._line = line
        self._end = end
        self._results: list[PGresult] = []
        self._loop = asyncio.get_running_loop()

    def begin(self, asked: Sequence[tuple[Plan, Parameters]], timeout_seconds: float) -> None:
        """Raises `psycopg.Error` when the line is of no use; then, as after every error, `end` is not called."""
        self._sent = self._line.send(asked)
        self._is_writing = not self._line.flush()
        self._socket = self._line.socket
        self._timer = self._loop.call_later(timeout_seconds, self.give_up, TimeoutError())
        try:
            self._loop.add_reader(self._socket, self._read)
            if self._is_writing:
                self._loop.add_writer(self._socket, self._write)
        except BaseException:
            self._stop()
            raise

    def give_up(self, error: Exception) -> None:
        """Not after the end."""
        self._finish(error)

    def _read(self) -> None:
        outcome: Outcome
        try:
            if not self._line.received(self._results):
                return
            outcome = self._line.rows(self._sent, self._results)
        except Exception as error:  # whatever it is, who asked is to know that nothing came of it
            outcome = error
        self._finish(outcome)

    def _write(self) -> None:
        """What was too much for the socket at once."""
        if not self._is_writing:  # the end came in this very turn of the loop
            return
        try:
            is_flushed = self._line.flush()
        except psycopg.Error as error:
            self._finish(error)
        else:
            if is_flushed:
                self._stop_writing()

    def _finish(self, outcome: Outcome) -> None:
        self._stop()
        end = self._end
        del self._end  # it knows this exchange: the results would wait for the garbage collector
        end(outcome)

    def _stop(self) -> None:
        self._timer.cancel()
        if self._is_writing:
            self._stop_writing()
        self._loop.remove_reader(self._socket)

    def _stop_writing(self) -> None:
        self._is_writing = False
        with suppress(OSError):  # libpq closes the socket when it finds it dead
            self._loop.remove_writer(self._socket)


def _encoded(value: str | bool | Texts | None) -> tuple[bytes | None, int, Format]:
    if value is None:
        return None, _UNKNOWN, Format.TEXT
    if isinstance(value, Texts):
        return binary(value), ARRAY, Format.BINARY
    if isinstance(value, bool):
        return b"t" if value else b"f", _BOOL, Format.TEXT
    text = value.encode()
    if b"\0" in text:
        raise psycopg.DataError("libpq would cut a text at U+0000")
    return text, _UNKNOWN, Format.TEXT
