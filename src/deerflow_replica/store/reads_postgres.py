"""The reads of a batch as few statements, and the rows of these as the reads' answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from .._drivers.direct_postgres import Rows
from .._drivers.pipelined_postgres import Statement
from .._drivers.texts_postgres import Texts
from .sql_postgres import Statements
from .values import Count, Get, ListNamespaces, Read, Row, Search

_Reader = Callable[[Rows, list[Any]], None]


class Reads:
    """All gets are one statement, and so are all plain searches. `asked` are sent together, in this order."""

    def __init__(self, statements: Statements, reads: Sequence[Read], *, live: bool, walks: bool) -> None:
        """`walks`: an index of vectors is to be walked until there are enough that fit."""
        self.asked: list[Statement] = []
        self._statements = statements
        self._live = live
        self._count = len(reads)
        self._readers: list[_Reader] = []
        if walks and any(isinstance(read, Search) and read.vector is not None for read in reads):
            self._ask(statements.walk(), _nothing)
        gets, searches = dict[int, Get](), dict[int, Search]()
        for place, read in enumerate(reads):
            if isinstance(read, Get):
                gets[place] = read
            elif isinstance(read, Search) and statements.is_plain(read):
                searches[place] = read
            else:
                self._ask_alone(place, read)
        self._ask_gets(gets)
        self._ask_searches(searches)

    def answers(self, found: Sequence[Rows]) -> list[Any]:
        """`found` is what each of `asked` found, and whatever was asked after them."""
        answers: list[Any] = [None] * self._count
        for reader, rows in zip(self._readers, found, strict=False):
            reader(rows, answers)
        return answers

    def _ask(self, statement: Statement, reader: _Reader) -> None:
        self.asked.append(statement)
        self._readers.append(reader)

    def _ask_gets(self, gets: dict[int, Get]) -> None:
        if len(gets) == 1:
            [(place, get)] = gets.items()
            self._ask(self._statements.fixed("get_one", **get.place._asdict(), live=self._live), _one_item(place))
        elif gets:
            each = [get.place for get in gets.values()]
            namespaces, keys = Texts(place.namespace for place in each), Texts(place.key for place in each)
            asked = self._statements.fixed("get", namespaces=namespaces, keys=keys, live=self._live)
            self._ask(asked, _items(list(gets)))

    def _ask_searches(self, searches: dict[int, Search]) -> None:
        if len(searches) == 1:
            [(place, search)] = searches.items()
            self._ask_alone(place, search)
        elif searches:
            self._ask(self._statements.pages(list(searches.values()), self._live), _pages(list(searches)))

    def _ask_alone(self, place: int, read: Read) -> None:
        if isinstance(read, Search):
            self._ask(self._statements.search(read, self._live), _page(place))
        elif isinstance(read, Count):
            self._ask(self._statements.count(read, self._live), _count(place))
        elif isinstance(read, ListNamespaces):
            self._ask(self._statements.namespaces(read, self._live), _namespaces(place))


def _nothing(rows: Rows, answers: list[Any]) -> None:
    """A statement that only sets something."""


def _one_item(at: int) -> _Reader:
    def read(rows: Rows, answers: list[Any]) -> None:
        answers[at] = _row(rows[0]) if rows else None

    return read


def _items(at: Sequence[int]) -> _Reader:
    def read(rows: Rows, answers: list[Any]) -> None:
        for place, *values in rows:
            answers[at[place - 1]] = _row(values)

    return read


def _page(at: int) -> _Reader:
    def read(rows: Rows, answers: list[Any]) -> None:
        answers[at] = [_row(values) for values in rows]

    return read


def _pages(at: Sequence[int]) -> _Reader:
    def read(rows: Rows, answers: list[Any]) -> None:
        pages = [list[Row]() for _ in at]
        for place, page in zip(at, pages, strict=True):
            answers[place] = page
        for place, namespace, key, document, version, created_at, updated_at, has_ttl in rows:
            # There may be thousands: few steps, and no argument by its name, for each.
            updated = _stamp(updated_at)
            created = updated if created_at == updated_at else _stamp(created_at)
            row = _new(Row, (namespace, key, document, version, created, updated, has_ttl, None))
            pages[place - 1].append(row)

    return read


def _count(at: int) -> _Reader:
    def read(rows: Rows, answers: list[Any]) -> None:
        answers[at] = rows[0][0]

    return read


def _namespaces(at: int) -> _Reader:
    def read(rows: Rows, answers: list[Any]) -> None:
        answers[at] = [namespace for (namespace,) in rows]

    return read


_new = tuple.__new__
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT_BELOW = 2**52


def _row(values: Sequence[Any]) -> Row:
    namespace, key, document, version, created_at, updated_at, has_ttl, *score = values
    updated = _stamp(updated_at)
    created = updated if created_at == updated_at else _stamp(created_at)
    return _new(Row, (namespace, key, document, version, created, updated, has_ttl, *(score or (None,))))


def _stamp(micros: int) -> datetime:
    """From microseconds since 1970: the quick way is exact for a century and more."""
    if 0 <= micros < _EXACT_BELOW:
        return datetime.fromtimestamp(micros / 1_000_000, UTC)
    return _EPOCH + timedelta(microseconds=micros)
