"""What agents and processes do: `memory`, `models`, `title`, `extensions`, `replica`, `gateway` and their like."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .section import Opaque, Section, about
from .storage import LONGEST_SECONDS, PositiveSeconds, Seconds, Size

_TITLE_PROMPT = (
    "Generate a concise title (max {max_words} words) for this conversation.\n"
    "User: {user_msg}\nAssistant: {assistant_msg}\n\nReturn ONLY the title, no quotes, no explanation."
)


class MemoryConfig(Section, frozen=True):
    """What agents remember between runs."""

    enabled: Annotated[bool, about("Whether agents have a memory.")] = True
    mode: Annotated[
        Literal["middleware", "tool"],
        about("middleware: memory is put into the model's prompt; tool: the model asks for it."),
    ] = "middleware"
    injection_enabled: Annotated[bool, about("Whether memory is put into the model's prompt.")] = True
    shutdown_flush_timeout_seconds: Annotated[
        float, Field(ge=1, le=300), about("Seconds that a leaving replica has for writing memory.")
    ] = 30.0
    manager_class: Annotated[str, about("DeerFlow's: the class that manages memory.")] = "deermem"
    backend_config: Annotated[
        Opaque, about("Settings of the memory's backend, not checked here; storage_path is the folder of its files.")
    ] = Field(default_factory=dict)
    storage: Annotated[
        Literal["file", "store"], about("file: one file for each user and agent; store: the replica's store.")
    ] = "file"
    storage_class: Annotated[str | None, about("DeerFlow's: the class that stores memory.")] = None


class ModelConfig(Section, frozen=True):
    """One chat model. Whatever its class takes besides is kept as it is."""

    name: Annotated[str, about("How the model is called in this configuration.")]
    use: Annotated[str | None, about("Its class, as package.module:Class.")] = None
    model: Annotated[str | None, about("How its provider calls it.")] = None
    display_name: Annotated[str | None, about("How people see it.")] = None
    description: Annotated[str | None, about("What it is good for.")] = None
    context_window: Annotated[Annotated[int, Field(gt=0)] | None, about("Tokens of prompt and answer together.")] = None
    supports_thinking: Annotated[bool, about("Whether it can think before it answers.")] = False
    supports_vision: Annotated[bool, about("Whether it takes images.")] = False
    supports_reasoning_effort: Annotated[bool, about("Whether its effort can be chosen.")] = False


class TitleConfig(Section, frozen=True):
    """The title of a new thread."""

    enabled: Annotated[bool, about("Whether new threads get a title.")] = True
    max_words: Annotated[int, Field(ge=1, le=20), about("Most words of a title.")] = 6
    max_chars: Annotated[int, Field(ge=10, le=200), about("Most characters of a title.")] = 60
    model_name: Annotated[str | None, about("The model that writes it; null: the first one.")] = None
    prompt_template: Annotated[
        str, about("What the model is asked, with {max_words}, {user_msg} and {assistant_msg}.")
    ] = _TITLE_PROMPT


class CircuitBreakerConfig(Section, frozen=True):
    """DeerFlow's names for when a failing model rests."""

    failure_threshold: Annotated[Size, about("Consecutive failures after which a model rests.")] = 5
    recovery_timeout_sec: Annotated[int, about("Seconds that it rests.")] = 60


class RunOwnershipConfig(Section, frozen=True):
    """DeerFlow's own leases; nothing here reads them."""

    lease_seconds: Annotated[int, Field(ge=5), about("Seconds until an unrenewed lease ends.")] = 30
    grace_seconds: Annotated[int, Field(ge=0), about("Seconds that clocks may differ.")] = 10
    heartbeat_enabled: Annotated[bool, about("Whether leases are renewed.")] = False


class ExtensionsConfig(Section, frozen=True):
    """Middlewares, MCP servers and skills, from `config.yaml` and `extensions_config.json`."""

    middlewares: Annotated[tuple[str, ...], about("Middleware classes, as package.module:Class.")] = ()
    mcp_servers: Annotated[Opaque, about("MCP servers by name.")] = Field(default_factory=dict, alias="mcpServers")
    skills: Annotated[Opaque, about("Skills by name, and whether they are enabled.")] = Field(default_factory=dict)


class ReplicaConfig(Section, frozen=True):
    """This process among its peers."""

    id: Annotated[str | None, about("Name of this replica; unset: the host's name.")] = None
    connect_timeout_seconds: Annotated[PositiveSeconds, about("Seconds in which all servers must be reached.")] = 10.0
    shutdown_grace_seconds: Annotated[Seconds, about("Seconds that running runs have when the replica is left.")] = 10.0


class GatewayConfig(Section, frozen=True):
    """The HTTP side of a replica."""

    lease_seconds: Annotated[
        float,
        Field(ge=1, le=LONGEST_SECONDS),
        about("Seconds without a sign of life after which a replica's runs count as lost."),
    ] = 10.0
    heartbeat_interval_seconds: Annotated[PositiveSeconds, about("Seconds between two heartbeats of a stream.")] = 5.0
    drain_timeout_seconds: Annotated[Seconds, about("Seconds that running runs have when the gateway stops.")] = 20.0
    emit_end_event: Annotated[bool, about("Whether a stream that ended well gets a last event called end.")] = False
    retention_seconds: Annotated[Seconds, about("Seconds that a finished run's stream can be read.")] = 600.0
    max_body_bytes: Annotated[Size, about("Largest request body.")] = 16 * 2**20
    send_timeout_seconds: Annotated[
        PositiveSeconds, about("Seconds after which a client that takes nothing is cut.")
    ] = 30.0
    max_concurrent_runs: Annotated[int, Field(ge=0), about("Most runs at once; further ones wait; 0: no bound.")] = 0
