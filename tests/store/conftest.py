"""Whether the tests' PostgreSQL has pgvector: the one of the wheel has, a distribution's often has not."""

from __future__ import annotations

import psycopg
import pytest


@pytest.fixture(scope="session")
def has_vectors(postgres_dsn: str) -> bool:
    with psycopg.connect(postgres_dsn) as connection:
        found = connection.execute("SELECT FROM pg_available_extensions WHERE name = 'vector'").fetchone()
    return found is not None


@pytest.fixture
def vectors(has_vectors: bool) -> None:
    if not has_vectors:
        pytest.skip("this PostgreSQL has no pgvector")
