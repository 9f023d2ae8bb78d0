from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deerflow_replica.config import AppConfig
from deerflow_replica.replica import Replica, open_replica
from replicas.processes import Settings, shared_settings


@pytest.fixture
def settings(postgres_dsn: str, postgres_schema: str, redis_url: str, key_prefix: str, tmp_path: Path) -> Settings:
    """Of replicas in several processes."""
    return shared_settings(postgres_dsn, postgres_schema, redis_url, key_prefix, tmp_path)


@pytest.fixture
async def replica(settings: Settings) -> AsyncIterator[Replica]:
    """The replica of this process."""
    async with open_replica(AppConfig.from_mapping(settings)) as replica:
        yield replica
