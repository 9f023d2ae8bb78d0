"""What agents and processes do: `memory`, `models`, `title`, `extensions`, `replica`, `gateway` and their like."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .section import Opaque, Section
from .storage import PositiveSeconds, Seconds, Size

_TITLE_PROMPT = (
    "Generate a concise title (max {max_words} words) for this conversation.\n"
    "User: {user_msg}\nAssistant: {assistant_msg}\n\nReturn ONLY the title, no quotes, no explanation."
)


class MemoryConfig(Section, frozen=True):
    """What agents remember between runs."""

    enabled: bool = True
    mode: Literal["middleware", "tool"] = "middleware"
    injection_enabled: bool = True
    shutdown_flush_timeout_seconds: Annotated[float, Field(ge=1, le=300)] = 30.0
    manager_class: str = "deermem"
    backend_config: Opaque = Field(default_factory=dict)
    storage: Literal["file", "store"] = "file"
    storage_class: str | None = None


class ModelConfig(Section, frozen=True):
    """One chat model. Whatever its class takes besides is kept as it is."""

    name: str
    use: str | None = None
    model: str | None = None
    display_name: str | None = None
    description: str | None = None
    context_window: Annotated[int, Field(gt=0)] | None = None
    supports_thinking: bool = False
    supports_vision: bool = False
    supports_reasoning_effort: bool = False


class TitleConfig(Section, frozen=True):
    """The title of a new thread."""

    enabled: bool = True
    max_words: Annotated[int, Field(ge=1, le=20)] = 6
    max_chars: Annotated[int, Field(ge=10, le=200)] = 60
    model_name: str | None = None
    prompt_template: str = _TITLE_PROMPT


class CircuitBreakerConfig(Section, frozen=True):
    """DeerFlow's names for when a failing model rests."""

    failure_threshold: Size = 5
    recovery_timeout_sec: Annotated[int, Field(ge=1)] = 60


class RunOwnershipConfig(Section, frozen=True):
    """DeerFlow's own leases; nothing here reads them."""

    lease_seconds: Annotated[int, Field(ge=5)] = 30
    grace_seconds: Annotated[int, Field(ge=0)] = 10
    heartbeat_enabled: bool = False


class ExtensionsConfig(Section, frozen=True):
    """Middlewares, MCP servers and skills, from `config.yaml` and `extensions_config.json`."""

    middlewares: tuple[str, ...] = ()
    mcp_servers: Opaque = Field(default_factory=dict, alias="mcpServers")
    skills: Opaque = Field(default_factory=dict)


class ReplicaConfig(Section, frozen=True):
    """This process among its peers."""

    id: str | None = None
    connect_timeout_seconds: PositiveSeconds = 10.0
    shutdown_grace_seconds: Seconds = 10.0


class GatewayConfig(Section, frozen=True):
    """The HTTP side of a replica."""

    lease_seconds: Annotated[float, Field(ge=1)] = 10.0
    heartbeat_interval_seconds: PositiveSeconds = 5.0
    drain_timeout_seconds: Seconds = 20.0
    emit_end_event: bool = False
    retention_seconds: Seconds = 600.0
    max_body_bytes: Size = 16 * 2**20
    send_timeout_seconds: PositiveSeconds = 30.0
    max_concurrent_runs: Annotated[int, Field(ge=0)] = 0
