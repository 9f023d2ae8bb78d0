"""Configurations for `serve`, and a port."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ports import free_port as one_free_port


@pytest.fixture
def free_port() -> int:
    return one_free_port()


@pytest.fixture
def local_config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"database": {"backend": "memory"}}))
    return path


@pytest.fixture
def shared_config(tmp_path: Path, postgres_dsn: str, postgres_schema: str, redis_url: str, key_prefix: str) -> Path:
    path = tmp_path / "config.yaml"
    sections = {
        "database": {"backend": "postgres", "postgres_url": postgres_dsn, "postgres_schema": postgres_schema},
        "stream_bridge": {"type": "redis", "redis_url": redis_url, "key_prefix": key_prefix},
        "user_thread_mapping": {"postgres_schema": postgres_schema},
        "model_feedback": {"postgres_schema": postgres_schema},
        "memory": {"backend_config": {"storage_path": str(tmp_path / "memory")}},
    }
    path.write_text(yaml.safe_dump(sections))
    return path
