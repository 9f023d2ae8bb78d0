"""The statements of `PostgresStore`, for one schema and one kind of index, and searches as statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._drivers.direct_postgres import Plan
from .._drivers.pipelined_postgres import Statement
from .._drivers.statements import load_statements, quoted
from .._drivers.texts_postgres import Texts
from .embedding import Embedder, TextIndex
from .listing import first_labels
from .postgres_filters import Compilation
from .values import Count, ListNamespaces, Search

_PACKAGE = __name__.rpartition(".")[0]
_FOLDER = "sql/postgres"
_FRAGMENTS = ("live", "columns", "kept", "below", "within", "vector_scores", "text_scores", "fused_scores")
_MOST = 2**63 - 1
_VECTORS_PER_ITEM = 4  # so many are looked at for each item wanted; where that is too few, all are

_DISTANCES = {"cosine": "<=>", "l2": "<->", "inner_product": "<#>"}
_SCORES = {
    # The distance to a vector of zeros is NaN; it resembles nothing.
    "cosine": "1 - min(coalesce(nullif({distance}, 'NaN'), 1))",
    "l2": "-min({distance})",
    "inner_product": "-min({distance})",
}


@dataclass(frozen=True)
class Dialect:
    """What of the SQL depends on the store's arguments."""

    schema: str
    embedder: Embedder | None
    text_index: TextIndex | None

    @property
    def vector_type(self) -> str:
        return str(self.embedder.ann.get("vector_type", "vector")) if self.embedder is not None else "vector"

    @property
    def index_kind(self) -> str:
        return str(self.embedder.ann.get("kind", "hnsw")) if self.embedder is not None else "flat"


class Statements:
    """The statements by name. `extension` is the schema that pgvector is in; `few`: so many vectors are compared one
    by one, index or not.
    """

    def __init__(self, dialect: Dialect, extension: str = "public", *, few: int = 2_000) -> None:
        self._dialect = dialect
        self._few = few
        self._identifiers = tables(dialect.schema) | {
            "extension": quoted(extension),
            "vector_type": dialect.vector_type,
        }
        texts = load_statements(_PACKAGE, f"{_FOLDER}/statements.sql", **self._identifiers)
        fragments = self._ranks() | {name: texts[name] for name in _FRAGMENTS}
        for _ in range(4):  # they hold each other, at most that deep
            texts = {name: _filled(text, fragments) for name, text in texts.items()}
        self._texts = texts
        unfiltered = {f"{name}_unfiltered": texts[name].replace("{filter}", "true") for name in ("page", "page_of_all")}
        encoded = {name: text.encode() for name, text in (texts | unfiltered).items()}
        self._fixed = {name: (text, Plan(text)) for name, text in encoded.items()}

    def fixed(self, name: str, **parameters: Any) -> Statement:
        text, plan = self._fixed[name]
        return Statement(text, parameters, plan)

    @property
    def walks_index(self) -> bool:
        """Whether ranked searches may use an index, which gives its answers one by one."""
        return self._ranking() == "vector" and self._dialect.index_kind != "flat"

    def walk(self) -> Statement:
        """To be sent before such searches, in their transaction: go on until there are enough that fit the filter."""
        kind = self._dialect.index_kind
        order = "strict_order" if kind == "hnsw" else "relaxed_order"
        return self.fixed("walk_the_index", setting=f"{kind}.iterative_scan", order=order)

    def is_plain(self, search: Search) -> bool:
        """Neither ranked nor filtered, and within a namespace."""
        return bool(search.prefix) and not search.condition.conditions and not self._ranks_by(search)

    def pages(self, searches: Sequence[Search], live: bool) -> Statement:
        """Plain searches; each row begins with the place of its search, from 1. The rows of one are in its order."""
        return self.fixed(
            "pages",
            prefixes=Texts([search.prefix for search in searches]),
            offsets=Texts([str(search.offset) for search in searches]),
            ends=Texts([_end(search) for search in searches]),
            live=live,
        )

    def search(self, search: Search, live: bool) -> Statement:
        parameters = self._page(search, live)
        if not self._ranks_by(search):
            name = "page" if search.prefix else "page_of_all"
            if not search.condition.conditions:
                return self.fixed(f"{name}_unfiltered", **parameters)
            return self._filtered(self._texts[name], search, parameters)
        parameters |= self._question(search)
        if self.walks_index:
            text = self._texts["near_page"]
        else:
            text = self._texts["ranked_page"].replace("{scores}", self._texts[f"{self._ranking()}_scores"])
        return self._filtered(_anywhere(text, self._texts, search.prefix), search, parameters)

    def count(self, count: Count, live: bool) -> Statement:
        text = _anywhere(self._texts["count"], self._texts, count.prefix)
        return self._filtered(text, count, {"prefix": count.prefix, "live": live})

    def namespaces(self, wanted: ListNamespaces, live: bool) -> Statement:
        compiled = _Patterns(wanted)
        depth = None if wanted.max_depth is None else str(min(wanted.max_depth, 1024))
        parameters = {
            "prefix": first_labels(wanted),
            "live": live,
            "max_depth": depth or "1024",
            # Cut namespaces may come twice: "a", and later what is below it.
            "enough": str(min((wanted.offset + wanted.limit) * (2 if depth else 1), _MOST)),
            "limit": str(wanted.limit),
            "offset": str(wanted.offset),
        }
        text = self._texts["namespaces"].replace("{wanted}", compiled.text)
        return Statement(text.encode(), parameters | compiled.parameters)

    def _page(self, search: Search, live: bool) -> dict[str, Any]:
        """Numbers as text: psycopg tells their sizes apart, and the server would plan the statement for each."""
        return {
            "prefix": search.prefix,
            "live": live,
            "limit": str(search.limit),
            "offset": str(search.offset),
            "end": _end(search),
        }

    def _question(self, search: Search) -> dict[str, Any]:
        asked: dict[str, Any] = {}
        if self._dialect.text_index is not None:
            asked |= {"query": search.query, "language": self._dialect.text_index.language}
        if search.vector is not None:
            depth = (search.offset + search.limit) * _VECTORS_PER_ITEM
            asked |= {"vector": vector_text(search.vector), "few": str(self._few), "depth": str(min(depth, _MOST))}
        return asked

    def _ranks_by(self, search: Search) -> bool:
        return search.query is not None and bool(self._dialect.embedder or self._dialect.text_index)

    def _ranking(self) -> str:
        if self._dialect.embedder is None:
            return "text"
        return "vector" if self._dialect.text_index is None else "fused"

    def _ranks(self) -> dict[str, str]:
        kind = self._dialect.embedder.distance if self._dialect.embedder is not None else "cosine"
        distance = f"embedding OPERATOR({{extension}}.{_DISTANCES[kind]}) %(vector)s::{{extension}}.{{vector_type}}"
        return {"score": _SCORES[kind], "distance": _filled(distance, self._identifiers)}

    def _filtered(self, text: str, asked: Search | Count, parameters: dict[str, Any]) -> Statement:
        if not asked.condition.conditions:
            return Statement(text.replace("{filter}", "true").encode(), parameters)
        compiled = Compilation(asked.condition, "value")
        return Statement(text.replace("{filter}", compiled.text).encode(), parameters | compiled.parameters)


class _Patterns:
    """Which namespaces are wanted, as a condition on `labels`."""

    def __init__(self, wanted: ListNamespaces) -> None:
        self.parameters: dict[str, str] = {}
        conditions = []
        for pattern in wanted.patterns:
            conditions.append(f"cardinality(labels) >= {pattern.after + len(pattern.labels)}")
            for place, label in enumerate(pattern.labels):
                if label is not None:
                    start = (
                        str(pattern.after) if pattern.at == "prefix" else f"cardinality(labels) - {len(pattern.labels)}"
                    )
                    conditions.append(f"labels[{start} + {place + 1}] = {self._named(label)}")
        self.text = " AND ".join(conditions) or "true"

    def _named(self, label: str) -> str:
        name = f"label_{len(self.parameters)}"
        self.parameters[name] = label
        return f"%({name})s::text"


def tables(schema: str) -> dict[str, str]:
    """What a schema holds, qualified, and the indexes to be made, which are not."""
    held = ("about", "versions", "items", "vectors", "texts", "items_by_update")
    names = {name: quoted(schema, f"store_{name}") for name in held}
    indexes = ("items_by_time", "items_by_expiry", "vectors_by_distance", "texts_by_word")
    return names | {name: quoted(f"store_{name}") for name in indexes}


def _end(search: Search) -> str:
    return str(min(search.offset + search.limit, _MOST))


def vector_text(vector: Sequence[float]) -> str:
    return f"[{','.join(map(repr, vector))}]"


def _anywhere(text: str, texts: Mapping[str, str], prefix: str) -> str:
    """Without a prefix there is nothing to be within."""
    return text if prefix else text.replace(texts["within"], "true")


def _filled(text: str, parts: Mapping[str, str]) -> str:
    for name, part in parts.items():
        text = text.replace("{" + name + "}", part)
    return text
