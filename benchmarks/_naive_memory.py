"""The file storage of one process: a cache by modification time, whose documents it hands out as they are."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class NaiveFileStorage:
    def __init__(self, base_dir: Path) -> None:
        self._base_dir = base_dir
        self._lock = threading.Lock()
        self._cache: dict[tuple[str | None, str | None], tuple[dict[str, Any], float | None]] = {}

    def load(self, agent_name: str | None = None, *, user_id: str | None = None) -> dict[str, Any]:
        path = self._path(agent_name, user_id)
        try:
            modified = path.stat().st_mtime if path.exists() else None
        except OSError:
            modified = None
        with self._lock:
            cached = self._cache.get((user_id, agent_name))
            if cached is not None and cached[1] == modified:
                return cached[0]
        document = json.loads(path.read_text(encoding="utf-8")) if modified is not None else {"facts": []}
        with self._lock:
            self._cache[user_id, agent_name] = document, modified
        return document

    def save(self, document: dict[str, Any], agent_name: str | None = None, *, user_id: str | None = None) -> bool:
        path = self._path(agent_name, user_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {**document, "lastUpdated": datetime.now(UTC).isoformat()}
        pending = path.with_suffix(f".{os.getpid()}.tmp")
        pending.write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8")
        pending.replace(path)
        with self._lock:
            self._cache[user_id, agent_name] = document, path.stat().st_mtime
        return True

    def _path(self, agent_name: str | None, user_id: str | None) -> Path:
        folder = self._base_dir
        if user_id is not None:
            folder = folder / "users" / user_id
        if agent_name is not None:
            folder = folder / "agents" / agent_name.lower()
        return folder / "memory.json"
