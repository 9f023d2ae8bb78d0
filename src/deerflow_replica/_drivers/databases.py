"""The databases that the parts of one replica share: one for each distinct file or server."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .mongodb import MongoDatabase
    from .postgres import PostgresDatabase
    from .redis_database import RedisDatabase
    from .sqlite import SqliteDatabase


class Databases:
    """Hands out one database object for each file, DSN or URL. Nothing is opened here: each part opens and closes its
    own share, the last one closes for good.
    """

    def __init__(self, *, timeout_seconds: float = 10.0, pool_size: int = 5) -> None:
        self._timeout_seconds = timeout_seconds
        self._pool_size = pool_size
        self._sqlite: dict[str, SqliteDatabase] = {}
        self._postgres: dict[str, PostgresDatabase] = {}
        self._mongo: dict[str, MongoDatabase] = {}
        self._redis: dict[str, RedisDatabase] = {}

    def sqlite(self, path: str) -> SqliteDatabase:
        from .sqlite import SqliteDatabase

        if path == ":memory:":
            return SqliteDatabase(path)
        return self._sqlite.setdefault(path, SqliteDatabase(path, busy_timeout_seconds=self._timeout_seconds))

    def postgres(self, dsn: str) -> PostgresDatabase:
        from .postgres import PostgresDatabase

        if dsn not in self._postgres:
            self._postgres[dsn] = PostgresDatabase(dsn, max_size=self._pool_size, timeout_seconds=self._timeout_seconds)
        return self._postgres[dsn]

    def mongo(self, url: str) -> MongoDatabase:
        from .mongodb import MongoDatabase

        if url not in self._mongo:
            self._mongo[url] = MongoDatabase(url, max_size=self._pool_size, timeout_seconds=self._timeout_seconds)
        return self._mongo[url]

    def redis(self, url: str) -> RedisDatabase:
        from .redis_database import RedisDatabase

        if url not in self._redis:
            self._redis[url] = RedisDatabase(url, timeout_seconds=self._timeout_seconds)
        return self._redis[url]
