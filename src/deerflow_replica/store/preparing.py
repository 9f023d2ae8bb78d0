"""LangGraph's operations as checked ones, and the embeddings that they need before they can be sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson
from langgraph.store.base import GetOp, ListNamespacesOp, Op, PutOp, SearchOp

from . import inputs
from .documents import encoded
from .embedding import Embedder, TextIndex, vectors_of
from .values import Get, Place, Read, Search, Write

Texts: TypeAlias = Sequence[tuple[str, str]]


@dataclass(slots=True)
class Batch:
    """What one call asks for. `texts`: path and text of what is still to be embedded, for each write."""

    reads: Sequence[Read] = ()
    writes: Sequence[Write] = ()
    texts: Sequence[Texts] = ()
    needs_embedding: bool = False

    @property
    def is_conditional(self) -> bool:
        return len(self.writes) == 1 and self.writes[0].if_version is not None


class Preparation:
    """Knows what is indexed, and how large a value may be."""

    def __init__(self, embedder: Embedder | None, text_index: TextIndex | None, max_document_bytes: int) -> None:
        self._embedder = embedder
        self._text_index = text_index
        self._max_document_bytes = max_document_bytes

    def read(self, op: Op, scope: tuple[str, ...]) -> Read:
        if isinstance(op, GetOp):
            return Get(inputs.place(scope, op.namespace, op.key), bool(op.refresh_ttl))
        if isinstance(op, SearchOp):
            page = (op.limit, op.offset, op.query)
            return inputs.search(scope, op.namespace_prefix, op.filter, *page, refresh=bool(op.refresh_ttl))
        if isinstance(op, ListNamespacesOp):
            return inputs.list_namespaces(scope, op.match_conditions, op.max_depth, op.limit, op.offset)
        raise ValueError(f"Unknown operation type: {type(op)}")

    def batch(self, ops: Sequence[Op], scope: tuple[str, ...]) -> Batch:
        """Every operation is checked before any is done. Of several puts of one item the last is kept."""
        reads: list[Read] = []
        puts: dict[Place, tuple[Write, Texts]] = {}
        for op in ops:
            if isinstance(op, PutOp):
                place = inputs.place(scope, op.namespace, op.key, put=op.value is not None)
                puts[place] = self._write(place, op.value, op.index, inputs.micros(op.ttl))
            else:
                reads.append(self.read(op, scope))
        writes = [write for write, _ in puts.values()]
        if self._embedder is None:
            return Batch(reads, writes)
        texts = [texts for _, texts in puts.values()]
        return Batch(reads, writes, texts, any(texts) or self._embeds(reads))

    def reading(self, read: Read) -> Batch:
        return Batch([read], needs_embedding=self._embeds([read]))

    def put(
        self,
        place: Place,
        value: Mapping[str, Any] | None,
        index: object = None,
        ttl: int | None = None,
        if_version: int | None = None,
        *,
        keeps_ttl: bool = False,
    ) -> Batch:
        """One put, or one delete when the value is None."""
        write, texts = self._write(place, value, index, ttl, if_version, keeps_ttl=keeps_ttl)
        return Batch((), (write,), (texts,), bool(texts))

    async def embedded(self, batch: Batch) -> tuple[list[Read], list[Write]]:
        """The operations with their vectors; every distinct text is embedded once."""
        assert self._embedder is not None  # noqa: S101  # nobody else needs embeddings
        vectors = await self._embedder.documents([text for texts in batch.texts for _, text in texts])
        queries = {read.query for read in batch.reads if isinstance(read, Search) and read.query is not None}
        asked = {query: await self._embedder.query(query) for query in sorted(queries)}
        reads = [
            read._replace(vector=asked[read.query]) if isinstance(read, Search) and read.query is not None else read
            for read in batch.reads
        ]
        writes = [
            write._replace(vectors=vectors_of(texts, vectors))
            for write, texts in zip(batch.writes, batch.texts, strict=True)
        ]
        return reads, writes

    def _write(
        self,
        place: Place,
        value: Mapping[str, Any] | None,
        index: object,
        ttl: int | None,
        if_version: int | None = None,
        *,
        keeps_ttl: bool = False,
    ) -> tuple[Write, Texts]:
        fields = None if index is None else inputs.index_fields(index)
        if value is None:
            return Write(place, None, if_version=if_version), ()
        write = Write(place, encoded(value, max_bytes=self._max_document_bytes), ttl, keeps_ttl, if_version)
        if self._embedder is None and self._text_index is None:
            return write, ()
        plain = orjson.loads(write.document or b"")
        if self._text_index is not None:
            write = write._replace(text=self._text_index.text(plain, fields))
        return write, self._embedder.texts(plain, fields) if self._embedder is not None else ()

    def _embeds(self, reads: Sequence[Read]) -> bool:
        if self._embedder is None:
            return False
        return any(isinstance(read, Search) and read.query is not None for read in reads)
