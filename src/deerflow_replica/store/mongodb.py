"""The store in MongoDB."""

from __future__ import annotations

from typing import Self

from langgraph.store.base import TTLConfig

from .._drivers.mongodb import Client, MongoServer, check_names
from .backend import Backend
from .backend_mongodb import SCANS, MongoBackend
from .base import SharedStore


class MongoStore(SharedStore):
    """LangGraph's `BaseStore` in a collection of MongoDB, for any number of replicas.

    `conn` is a URL, or a client that is left open and used on its own loop. Puts of one call are applied in order, not
    all or none. A `query` is ignored: there is no vector search here.
    """

    _max_document_bytes = 15 * 2**20

    def __init__(
        self,
        conn: str | Client,
        *,
        database: str = "deerflow",
        collection: str = "store",
        timeout_seconds: float = 10.0,
        ttl: TTLConfig | None = None,
    ) -> None:
        check_names(database, collection)
        self._client = None if isinstance(conn, str) else conn
        url = conn if isinstance(conn, str) else None
        self._server = MongoServer(url, max_size=SCANS + MongoBackend.slots, timeout_seconds=timeout_seconds)
        self._names = (database, collection)
        super().__init__("mongo-store", ttl=ttl, is_borrowed=self._client is not None)

    @classmethod
    def from_conn_string(
        cls,
        conn: str,
        *,
        database: str = "deerflow",
        collection: str = "store",
        timeout_seconds: float = 10.0,
        ttl: TTLConfig | None = None,
    ) -> Self:
        """The same as the constructor."""
        return cls(conn, database=database, collection=collection, timeout_seconds=timeout_seconds, ttl=ttl)

    def _new_backend(self) -> Backend:
        return MongoBackend(self._server, self._client, *self._names)
