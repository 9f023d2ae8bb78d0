"""Texts of a value and their embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from langgraph.store.base import IndexConfig, ensure_embeddings, get_text_at_path, tokenize_path

from ..errors import ConfigError
from .values import Vector


class AnnIndexConfig(TypedDict, total=False):
    """How PostgreSQL indexes vectors. Any further key is a parameter of the index: `m`, `ef_construction`, `lists`."""

    kind: Literal["hnsw", "ivfflat", "flat"]
    vector_type: Literal["vector", "halfvec"]


class VectorIndexConfig(IndexConfig, total=False):
    """LangGraph's `IndexConfig`, the distance that ranks, and the index of the vectors."""

    distance_type: Literal["cosine", "l2", "inner_product"]
    ann_index_config: AnnIndexConfig


class TextIndexConfig(TypedDict, total=False):
    """`fields`: paths as in `IndexConfig`, default the whole value. `language`: a text search configuration."""

    fields: list[str]
    language: str


class Embedder:
    """What to embed of a value, and the vectors of it."""

    def __init__(self, index: VectorIndexConfig) -> None:
        self.dims = _dims(index)
        self.distance = _one_of("distance_type", index.get("distance_type", "cosine"), _DISTANCES)
        self.ann: Mapping[str, Any] = index.get("ann_index_config") or {}
        self._embeddings = ensure_embeddings(index.get("embed"))
        self._fields = _paths("index", index.get("fields"))

    def texts(self, value: Mapping[str, Any], fields: Sequence[str] | Literal[False] | None) -> list[tuple[str, str]]:
        """Path and text of everything to embed. Several texts at one path are told apart by their number."""
        if fields is False:
            return []
        return texts_of(value, self._fields if fields is None else fields)

    async def documents(self, texts: Sequence[str]) -> dict[str, tuple[float, ...]]:
        """Each distinct text once."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        vectors = await self._embeddings.aembed_documents(distinct)
        if len(vectors) != len(distinct):
            raise ValueError(f"the embedder made {len(vectors)} vectors of {len(distinct)} texts")
        return {text: self._checked(vector) for text, vector in zip(distinct, vectors, strict=True)}

    async def query(self, text: str) -> tuple[float, ...]:
        return self._checked(await self._embeddings.aembed_query(text))

    def _checked(self, vector: Sequence[float]) -> tuple[float, ...]:
        numbers = tuple(map(float, vector))
        if len(numbers) != self.dims:
            raise ValueError(f"the embedder made {len(numbers)} dimensions, index.dims is {self.dims}")
        return numbers


class TextIndex:
    """What full-text search finds of a value."""

    def __init__(self, text_index: TextIndexConfig) -> None:
        self.language = text_index.get("language", "simple")
        self._fields = _paths("text_index", text_index.get("fields"))

    def text(self, value: Mapping[str, Any], fields: Sequence[str] | Literal[False] | None) -> str | None:
        if fields is False:
            return None
        found = texts_of(value, self._fields if fields is None else fields)
        return "\n".join(text for _, text in found) or None


def texts_of(value: Mapping[str, Any], fields: Sequence[str]) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for path in fields:
        texts = get_text_at_path(value, path if path == "$" else tokenize_path(path))
        found |= {f"{path}.{place}" if len(texts) > 1 else path: text for place, text in enumerate(texts)}
    return list(found.items())


def vectors_of(texts: Sequence[tuple[str, str]], vectors: Mapping[str, tuple[float, ...]]) -> tuple[Vector, ...]:
    return tuple((path, vectors[text]) for path, text in texts)


_DISTANCES = ("cosine", "l2", "inner_product")


def _dims(index: VectorIndexConfig) -> int:
    dims = index.get("dims")
    if not isinstance(dims, int) or isinstance(dims, bool) or dims < 1:
        raise ConfigError(f"index.dims must be an int of at least 1, not {dims!r}")
    return dims


def _paths(name: str, fields: object) -> tuple[str, ...]:
    if not fields:
        return ("$",)
    if not isinstance(fields, (list, tuple)) or not all(isinstance(path, str) for path in fields):
        raise ConfigError(f"{name}.fields must be a list of paths, not {fields!r}")
    return tuple(fields)


def _one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ConfigError(f"index.{name} must be one of {', '.join(allowed)}, not {value!r}")
    return value
