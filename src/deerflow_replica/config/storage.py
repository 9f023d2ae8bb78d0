"""Where things are kept: `database`, `checkpointer`, `store`, `user_thread_mapping`, `model_feedback`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from .section import Opaque, OptionalOpaque, Section, missing_values

PostgresSchema = Annotated[str, StringConstraints(pattern=r"^([a-z_][a-z0-9_]{0,62})?$")]
TableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,47}$")]
TenantName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
NonEmpty = Annotated[str, StringConstraints(min_length=1)]
Size = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]
PositiveSeconds = Annotated[float, Field(gt=0)]


class DatabaseConfig(Section, frozen=True):
    """The database of everything that names none of its own."""

    backend: Literal["memory", "sqlite", "postgres"] = "sqlite"
    sqlite_dir: str = ".deer-flow/data"
    postgres_url: str = ""
    postgres_schema: PostgresSchema = ""
    pool_size: Size = 5
    pool_recycle: int = 300
    command_timeout: PositiveSeconds | None = 30
    echo_sql: bool = False
    checkpoint_channel_mode: str = "full"
    checkpoint_delta: Opaque = Field(default_factory=dict)
    checkpoint_graph_cache: Opaque = Field(default_factory=dict)
    checkpoint_cache: Opaque = Field(default_factory=dict)


class CheckpointerConfig(Section, frozen=True):
    """LangGraph's saver, when it is not to follow `database`."""

    type: Literal["memory", "sqlite", "postgres"]
    connection_string: str | None = None
    postgres_schema: PostgresSchema = ""


class UserThreadMappingConfig(Section, frozen=True):
    """Who owns which thread. An unset `type` is `database.backend`."""

    enabled: bool = True
    type: Literal["memory", "sqlite", "postgres", "postgres-legacy", "mongo", "redis"] | None = None
    connection_string: str | None = None
    postgres_schema: PostgresSchema | None = None
    table: TableName = "user_thread_mappings"
    mongo_collection: str | None = None
    mongo_database: str = "deerflow"
    redis_key_prefix: NonEmpty = "deerflow:utm"
    tenant: TenantName = "default"
    ttl_seconds: PositiveSeconds | None = None
    tombstone_seconds: Seconds = 2592000
    anonymous: Literal["open", "user", "deny"] = "open"
    anonymous_user_id: NonEmpty = "default"


class ModelHealthConfig(Section, frozen=True):
    """When the circuit of a model opens: the keywords of `ModelHealth`."""

    failure_threshold: Size = 5
    failure_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    min_calls: Size = 20
    window_seconds: Annotated[float, Field(ge=10, le=900)] = 60.0
    open_seconds: PositiveSeconds = 30.0
    max_open_seconds: PositiveSeconds = 300.0
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.1
    lease_seconds: PositiveSeconds = 900.0
    refresh_seconds: PositiveSeconds = 1.0


class ModelFeedbackConfig(Section, frozen=True):
    """Calls, failures and votes per model. An unset `type` is `database.backend`."""

    enabled: bool = True
    type: Literal["memory", "sqlite", "postgres", "mongo", "redis"] | None = None
    connection_string: str | None = None
    postgres_schema: PostgresSchema | None = None
    table: TableName = "model_usage_stats"
    mongo_collection: str | None = None
    mongo_database: str = "deerflow"
    redis_key_prefix: NonEmpty = "deerflow:model_feedback"
    durability: Literal["batched", "sync"] = "batched"
    flush_interval_seconds: PositiveSeconds = 1.0
    flush_max_events: Size = 256
    max_models: Size = 256
    health: ModelHealthConfig = Field(default_factory=ModelHealthConfig)


class StoreConfig(Section, frozen=True):
    """LangGraph's `BaseStore` of the replica. An unset `type` is `database.backend`."""

    type: Literal["memory", "sqlite", "postgres", "mongo"] | None = None
    connection_string: str | None = None
    postgres_schema: PostgresSchema | None = None
    mongo_database: str = "deerflow"
    index: OptionalOpaque = None
    text_index: OptionalOpaque = None
    ttl: OptionalOpaque = None


class StreamBridgeConfig(Section, frozen=True):
    """The run's events. The fields beyond DeerFlow's are the keywords of `RedisStreamBridge`."""

    type: Literal["memory", "redis"] = "memory"
    redis_url: str | None = None
    queue_maxsize: Size = 256
    max_connections: Annotated[int, Field(ge=3)] | None = None
    stream_ttl_seconds: Annotated[int, Field(ge=0)] | None = 86400
    recovered_stream_cleanup_delay_seconds: Seconds = 60.0
    heartbeat_interval_seconds: PositiveSeconds = 15.0
    key_prefix: NonEmpty = "deerflow:stream_bridge"
    push: Literal["pubsub", "xread"] = "pubsub"
    ack: Literal["pipelined", "server"] = "pipelined"
    invalid_cursor: Literal["replay", "tail"] = "replay"
    resume_gap: Literal["exact", "strict"] = "exact"
    max_event_bytes: Size = 8 * 2**20
    max_stream_bytes: Size = 64 * 2**20
    live_window: Size = 8192
    max_pending_events: Size = 10_000
    max_pending_bytes: Size = 32 * 2**20
    publish_timeout_seconds: Seconds = 30.0
    connect_timeout_seconds: Seconds = 5.0
    close_timeout_seconds: Seconds = 5.0
    check_interval_seconds: Seconds = 5.0
    unavailable_after_seconds: Seconds = 60.0
    lease_seconds: PositiveSeconds | None = 15.0

    @model_validator(mode="after")
    def _redis_needs_a_url(self) -> Self:
        if self.type == "redis" and not self.redis_url:
            message = "type redis needs redis_url; a file's may also be REDIS_URL in the environment"
            raise missing_values(type(self).__name__, [(("redis_url",), message)])
        return self
