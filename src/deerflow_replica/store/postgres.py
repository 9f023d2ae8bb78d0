"""The store in PostgreSQL, for any number of replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from langgraph.store.base import TTLConfig

from .._drivers.statements import quoted
from ..errors import ConfigError
from .backend import Backend
from .backend_postgres import PostgresBackend
from .base import SharedStore
from .embedding import TextIndexConfig, VectorIndexConfig
from .setup_postgres import ddl
from .sql_postgres import Dialect

if TYPE_CHECKING:
    from .._drivers.postgres import Pool


class PostgresStore(SharedStore):
    """A `SharedStore` in a schema of its own, in PostgreSQL 14 or later.

    Concurrent calls are sent together, several batches at a time, over a pool of at most `pool_max_size` connections
    on the loop of the caller; sync callers share another. With `prepare_threshold=None` nothing stays on a connection
    between two transactions, as poolers like PgBouncer demand. A pool that is passed in is borrowed and never closed:
    async calls only on its loop then, sync ones from the threads beside it.
    """

    def __init__(
        self,
        conn: str | Pool,
        *,
        schema: str = "deerflow_replica",
        pool_min_size: int = 1,
        pool_max_size: int = 8,
        prepare_threshold: int | None = 2,
        timeout_seconds: float = 10.0,
        index: VectorIndexConfig | None = None,
        text_index: TextIndexConfig | None = None,
        ttl: TTLConfig | None = None,
    ) -> None:
        """`index` ranks by pgvector, `text_index` by full-text search, both together by reciprocal rank.

        A call takes at most `timeout_seconds`, then it raises `StoreUnavailableError`.
        """
        quoted(schema)
        if pool_max_size < 1 or not 0 <= pool_min_size <= pool_max_size:
            raise ConfigError("pool_max_size must be at least 1, and pool_min_size between 0 and that")
        is_borrowed = not isinstance(conn, str)
        super().__init__("postgres-store", index=index, text_index=text_index, ttl=ttl, is_borrowed=is_borrowed)
        self._conn = conn
        self._pool_sizes = (pool_min_size, pool_max_size)
        self._prepare_threshold = prepare_threshold
        self._timeout_seconds = timeout_seconds
        self._dialect = Dialect(schema, self._embedder, self._text_index)
        ddl(self._dialect)

    @classmethod
    def from_conn_string(
        cls,
        conn: str,
        *,
        schema: str = "deerflow_replica",
        pool_min_size: int = 1,
        pool_max_size: int = 8,
        prepare_threshold: int | None = 2,
        timeout_seconds: float = 10.0,
        index: VectorIndexConfig | None = None,
        text_index: TextIndexConfig | None = None,
        ttl: TTLConfig | None = None,
    ) -> Self:
        """The same as the constructor: a context manager, as LangGraph's is."""
        return cls(
            conn,
            schema=schema,
            pool_min_size=pool_min_size,
            pool_max_size=pool_max_size,
            prepare_threshold=prepare_threshold,
            timeout_seconds=timeout_seconds,
            index=index,
            text_index=text_index,
            ttl=ttl,
        )

    def ddl(self) -> str:
        """The statements of `setup()`, for who runs them by hand; pgvector is taken to be in `public`."""
        return "\n\n".join(f"{statement};" for statement in ddl(self._dialect))

    def _new_backend(self) -> Backend:
        dsn = self._conn if isinstance(self._conn, str) else None
        pool = None if isinstance(self._conn, str) else self._conn
        min_size, max_size = self._pool_sizes
        return PostgresBackend(
            self._dialect,
            dsn=dsn,
            pool=pool,
            min_size=min_size,
            max_size=pool.max_size if pool is not None else max_size,
            prepare_threshold=self._prepare_threshold,
            timeout_seconds=self._timeout_seconds,
        )
