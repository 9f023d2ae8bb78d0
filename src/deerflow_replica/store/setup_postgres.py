"""Creating and migrating the tables of `PostgresStore`: the only place with DDL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._drivers.postgres import exclusive
from .._drivers.statements import load_statements, quoted
from .._extras import extra
from ..errors import ConfigError, ConfigProblem
from .sql_postgres import Dialect, Statements, tables

with extra("postgres"):
    import psycopg

if TYPE_CHECKING:
    from .._drivers.postgres import Connection

VERSION = 2

_PACKAGE = __name__.rpartition(".")[0]
_OPERATORS = {"cosine": "cosine_ops", "l2": "l2_ops", "inner_product": "ip_ops"}
_INDEXED_DIMS = {"vector": 2000, "halfvec": 4000}  # pgvector's limits for its indexes
_KINDS = ("hnsw", "ivfflat", "flat")
_OPTIONS = {"m", "ef_construction", "lists"}


async def set_up(connection: Connection, dialect: Dialect, *, create_schema: bool) -> None:
    """Under a lock that goes with its transaction, unless everything is there."""
    wanted = _wanted(dialect)
    await _check_language(connection, dialect)
    if not _missing(await about(connection, dialect), wanted):
        return
    async with exclusive(connection, f"deerflow_replica:{dialect.schema}:store"):
        if create_schema:
            await connection.execute(_create_schema(dialect.schema).encode())
        noted = await about(connection, dialect)
        missing = _missing(noted, wanted)
        extension = noted.get("extension") or await _extension(connection, dialect)
        for statement in ddl(dialect, extension or "public"):
            await connection.execute(statement.encode())
        note = Statements(dialect).fixed("note").text
        for name, value in (missing | ({"extension": extension} if extension else {})).items():
            await connection.execute(note, {"name": name, "value": value})


async def about(connection: Connection, dialect: Dialect) -> dict[str, str]:
    """What set-ups have noted; empty when there was none. Fails no transaction that it is asked in."""
    named = {"table": tables(dialect.schema)["about"]}
    cursor = await connection.execute("SELECT to_regclass(%(table)s) IS NOT NULL", named)
    row = await cursor.fetchone()
    if row is None or not row[0]:
        return {}
    cursor = await connection.execute(Statements(dialect).fixed("about").text)
    return dict(await cursor.fetchall())


def check(noted: Mapping[str, str], dialect: Dialect) -> None:
    """Raise `ConfigError` unless the tables are there, and of this version."""
    if _missing(noted, _wanted(dialect)):
        raise not_set_up(dialect.schema)


def not_set_up(schema: str) -> ConfigError:
    return ConfigError(f"the store's tables are not in schema {schema!r}, or not all of them: call setup() once")


def ddl(dialect: Dialect, extension: str = "public") -> list[str]:
    """The statements that make the tables, in their order."""
    files = ["schema.sql"]
    identifiers = tables(dialect.schema) | {"extension": quoted(extension)}
    if dialect.embedder is not None:
        files.append("vectors.sql")
        identifiers |= _vector_index(dialect)
    if dialect.text_index is not None:
        files.append("texts.sql")
    statements = {
        name: text
        for file in files
        for name, text in load_statements(_PACKAGE, f"sql/postgres/{file}", **identifiers).items()
    }
    if dialect.embedder is not None and identifiers["kind"] == "flat":
        del statements["vectors_by_distance"]
    return list(statements.values())


def _create_schema(schema: str) -> str:
    """Only when it is missing: `IF NOT EXISTS` asks for the right to create schemas even when it does nothing."""
    name = quoted(schema)
    return f"DO $$ BEGIN IF to_regnamespace('{name}') IS NULL THEN CREATE SCHEMA {name}; END IF; END $$"


def _wanted(dialect: Dialect) -> dict[str, str]:
    wanted = {"version": str(VERSION)}
    if dialect.embedder is not None:
        wanted |= {"dims": str(dialect.embedder.dims), "vector_type": dialect.vector_type}
    if dialect.text_index is not None:
        wanted["language"] = dialect.text_index.language
    return wanted


def _missing(noted: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """What is not there yet; `ConfigError` for what is there and differs."""
    if int(noted.get("version", 0)) > VERSION:
        raise ConfigError(f"the store was set up by a newer version of this package: its tables are {noted['version']}")
    for name, place in (("dims", "index"), ("vector_type", "index.ann_index_config"), ("language", "text_index")):
        if name in noted and name in wanted and noted[name] != wanted[name]:
            raise ConfigError(f"{place}.{name} is {wanted[name]}, what is stored was made for {noted[name]}")
    return {name: value for name, value in wanted.items() if noted.get(name) != value}


def _vector_index(dialect: Dialect) -> dict[str, str]:
    """The identifiers of vectors.sql; `ConfigError` for an index that pgvector does not have."""
    embedder = dialect.embedder
    assert embedder is not None  # noqa: S101  # only asked for with one
    kind, vector_type = embedder.ann.get("kind", "hnsw"), dialect.vector_type
    if kind not in _KINDS or vector_type not in _INDEXED_DIMS:
        raise ConfigError(ConfigProblem("index.ann_index_config", f"no index {kind!r} of {vector_type!r}"))
    if kind != "flat" and embedder.dims > _INDEXED_DIMS[vector_type]:
        message = (
            f"{kind} indexes at most {_INDEXED_DIMS[vector_type]} dimensions of type {vector_type}; "
            'say {"vector_type": "halfvec"} or {"kind": "flat"} in ann_index_config'
        )
        raise ConfigError(ConfigProblem("index.dims", message))
    return {
        "dims": str(embedder.dims),
        "vector_type": vector_type,
        "kind": str(kind),
        "operators": f"{vector_type}_{_OPERATORS[embedder.distance]}",
        "options": _options(embedder.ann),
    }


def _options(ann: Mapping[str, Any]) -> str:
    given = {"lists" if name == "nlist" else name: value for name, value in ann.items()}
    pairs = [f"{name} = {int(value)}" for name, value in given.items() if name in _OPTIONS]
    return f"WITH ({', '.join(pairs)})" if pairs else ""


async def _check_language(connection: Connection, dialect: Dialect) -> None:
    if dialect.text_index is None:
        return
    language = dialect.text_index.language
    try:
        await connection.execute("SELECT CAST(%(language)s AS regconfig)", {"language": language})
    except (psycopg.ProgrammingError, psycopg.DataError) as error:
        message = f"PostgreSQL has no text search configuration {language!r}"
        raise ConfigError(ConfigProblem("text_index.language", message)) from error


async def _extension(connection: Connection, dialect: Dialect) -> str | None:
    """The schema that pgvector is in, which is installed when it is missing; None when nobody needs it."""
    if dialect.embedder is None:
        return None
    # Stores in other schemas of this database may want it at the same time.
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('deerflow_replica:vector', 0))")
    try:
        async with connection.transaction():
            await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
        raise ConfigError("index needs the extension pgvector, which this PostgreSQL does not have") from error
    cursor = await connection.execute(
        "SELECT nspname FROM pg_extension JOIN pg_namespace AS home ON home.oid = extnamespace WHERE extname = 'vector'"
    )
    row = await cursor.fetchone()
    return str(row[0]) if row is not None else "public"
