"""A configuration with something of everything in it."""

from __future__ import annotations

from typing import Any

SECRET = "geheim-5f1c"  # noqa: S105 planted to be looked for

RICH: dict[str, Any] = {
    "config_version": 33,
    "log_level": "debug",
    "database": {
        "backend": "postgres",
        "postgres_url": f"postgresql://u:{SECRET}@db/x",
        "checkpoint_delta": {"a": [1]},
    },
    "checkpointer": {"type": "sqlite", "connection_string": "sqlite:///saved.db"},
    "stream_bridge": {"type": "redis", "redis_url": f"redis://:{SECRET}@h:6379/0"},
    "memory": {"backend_config": {"storage_path": "mem", "model": {"api_key": SECRET, "list": [{"x": [1, 2]}]}}},
    "models": [
        {"name": "one", "api_key": SECRET, "extra_body": {"thinking": {"type": "enabled"}, "stop": ["a", "b"]}},
        {"name": "two", "max_tokens": 5},
    ],
    "title": {"max_words": 3},
    "extensions": {"middlewares": ["a:B"], "mcpServers": {"s": {"env": {"GITHUB_TOKEN": SECRET}, "args": ["-x"]}}},
    "user_thread_mapping": {"tenant": "acme", "future": {"k": [1, {"z": 1}]}},
    "model_feedback": {"health": {"min_calls": 3}},
    "store": {"ttl": {"default_ttl": 5}},
    "tools": [{"name": "web", "args": ["x", {"y": 1}]}, [1, [2, 3]]],
    "copy": {"json": 1, "self": {"a.b": [0]}},
    "names": {"a", "b"},
}
