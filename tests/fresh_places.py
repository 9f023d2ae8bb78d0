"""Places in shared servers that no other test uses."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def fresh_schema(dsn: str) -> Iterator[str]:
    """The name of a new, empty schema; dropped at the end."""
    import psycopg

    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA "{name}"'.encode())
        yield name
        connection.execute(f'DROP SCHEMA "{name}" CASCADE'.encode())


@contextmanager
def fresh_prefix(url: str) -> Iterator[str]:
    """What keys begin with, or hold in braces; they are removed at the end."""
    import redis

    prefix = f"test:{uuid.uuid4().hex[:12]}"
    yield prefix
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(match=f"*{prefix}*", count=1000):
            client.delete(key)
