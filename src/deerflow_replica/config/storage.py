"""Where things are kept: `database`, `checkpointer`, `store`, `user_thread_mapping`, `model_feedback`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from .section import Opaque, OptionalOpaque, Section, about, missing_values

PostgresSchema = Annotated[str, StringConstraints(pattern=r"^([a-z_][a-z0-9_]{0,62})?$")]
TableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,47}$")]
TenantName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
NonEmpty = Annotated[str, StringConstraints(min_length=1)]
Size = Annotated[int, Field(ge=1)]
LONGEST_SECONDS = 1e9  # 31 years: no database takes a time without end
Seconds = Annotated[float, Field(ge=0, le=LONGEST_SECONDS)]
PositiveSeconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS)]


class DatabaseConfig(Section, frozen=True):
    """The database of everything that names none of its own."""

    backend: Annotated[
        Literal["memory", "sqlite", "postgres"],
        about(
            "Where checkpoints, threads, counters and runs are kept: in the process, in SQLite files, or in PostgreSQL."
        ),
    ] = "sqlite"
    sqlite_dir: Annotated[str, about("Folder of the SQLite files; a relative one starts at the project root.")] = (
        ".deer-flow/data"
    )
    postgres_url: Annotated[str, about("DSN of PostgreSQL; needed for the backend postgres.")] = ""
    postgres_schema: Annotated[PostgresSchema, about("Schema of all tables; empty: the server's search path.")] = ""
    pool_size: Annotated[Size, about("Most connections in one pool.")] = 5
    pool_recycle: Annotated[int, about("DeerFlow's: seconds until it renews a pooled connection.")] = 300
    command_timeout: Annotated[
        Annotated[float, Field(gt=0)] | None, about("DeerFlow's: seconds until it gives a statement up; null: never.")
    ] = 30
    echo_sql: Annotated[bool, about("DeerFlow's: write every statement to its log.")] = False
    checkpoint_channel_mode: Annotated[str, about("DeerFlow's: how its saver stores channels.")] = "full"
    checkpoint_delta: Annotated[Opaque, about("DeerFlow's settings of checkpoints kept as differences.")] = Field(
        default_factory=dict
    )
    checkpoint_graph_cache: Annotated[Opaque, about("DeerFlow's settings of its cache of graphs.")] = Field(
        default_factory=dict
    )
    checkpoint_cache: Annotated[Opaque, about("DeerFlow's settings of its cache of checkpoints.")] = Field(
        default_factory=dict
    )


class CheckpointerConfig(Section, frozen=True):
    """LangGraph's saver, when it is not to follow `database`."""

    type: Annotated[Literal["memory", "sqlite", "postgres"], about("Where LangGraph keeps its checkpoints.")]
    connection_string: Annotated[
        str | None, about("SQLite file (store.db if unset) or DSN of PostgreSQL (needed).")
    ] = None
    postgres_schema: Annotated[
        PostgresSchema, about("Schema of LangGraph's tables; empty: the server's search path.")
    ] = ""


class UserThreadMappingConfig(Section, frozen=True):
    """Who owns which thread. An unset `type` is `database.backend`."""

    enabled: Annotated[bool, about("Whether runs are checked against the thread's owner.")] = True
    type: Annotated[
        Literal["memory", "sqlite", "postgres", "postgres-legacy", "mongo", "redis"] | None,
        about("Where the thread map is kept; unset: database.backend."),
    ] = None
    connection_string: Annotated[
        str | None, about("SQLite file, DSN or URL; unset: that of database or stream_bridge.")
    ] = None
    postgres_schema: Annotated[
        PostgresSchema | None, about("Schema of the table; unset: database.postgres_schema.")
    ] = None
    table: Annotated[TableName, about("Name of the table.")] = "user_thread_mappings"
    mongo_collection: Annotated[str | None, about("Name of the collection.")] = None
    mongo_database: Annotated[str, about("Name of the database.")] = "deerflow"
    redis_key_prefix: Annotated[NonEmpty, about("What all keys begin with.")] = "deerflow:utm"
    tenant: Annotated[TenantName, about("Whose threads these are; tenants do not see each other's.")] = "default"
    ttl_seconds: Annotated[
        PositiveSeconds | None, about("Seconds without use after which a thread is forgotten; null: never.")
    ] = None
    tombstone_seconds: Annotated[
        Seconds, about("Seconds for which a deleted thread's id stays its former owner's; 0: not at all.")
    ] = 2592000
    anonymous: Annotated[
        Literal["open", "user", "deny"],
        about("What a run without user may do: use threads that nobody owns, act as anonymous_user_id, or nothing."),
    ] = "open"
    anonymous_user_id: Annotated[
        NonEmpty, about("The user that a run without user acts as when anonymous is user.")
    ] = "default"


class ModelHealthConfig(Section, frozen=True):
    """When the circuit of a model opens: the keywords of `ModelHealth`."""

    failure_threshold: Annotated[
        Size, about("Consecutive failures, seen by one replica, that open a model's circuit.")
    ] = 5
    failure_rate: Annotated[float, Field(gt=0, le=1), about("Share of failures in the window that opens it.")] = 0.5
    min_calls: Annotated[Size, about("Fewest calls in the window for the share to count.")] = 20
    window_seconds: Annotated[float, Field(ge=10, le=900), about("Length of the window.")] = 60.0
    open_seconds: Annotated[PositiveSeconds, about("Seconds that a circuit stays open the first time.")] = 30.0
    max_open_seconds: Annotated[PositiveSeconds, about("Most seconds that it stays open.")] = 300.0
    jitter: Annotated[float, Field(ge=0, le=1), about("Share of the open time that is added at random.")] = 0.1
    lease_seconds: Annotated[PositiveSeconds, about("Seconds that one replica has for trying a half-open circuit.")] = (
        900.0
    )
    refresh_seconds: Annotated[PositiveSeconds, about("Seconds until an opening elsewhere is known here.")] = 1.0


class ModelFeedbackConfig(Section, frozen=True):
    """Calls, failures and votes per model. An unset `type` is `database.backend`."""

    enabled: Annotated[bool, about("Whether agents count their model calls.")] = True
    type: Annotated[
        Literal["memory", "sqlite", "postgres", "mongo", "redis"] | None,
        about("Where the counters are kept; unset: database.backend."),
    ] = None
    connection_string: Annotated[
        str | None, about("SQLite file, DSN or URL; unset: that of database or stream_bridge.")
    ] = None
    postgres_schema: Annotated[
        PostgresSchema | None, about("Schema of the tables; unset: database.postgres_schema.")
    ] = None
    table: Annotated[TableName, about("Name of the table.")] = "model_usage_stats"
    mongo_collection: Annotated[str | None, about("Name of the collection.")] = None
    mongo_database: Annotated[str, about("Name of the database.")] = "deerflow"
    redis_key_prefix: Annotated[NonEmpty, about("What all keys begin with.")] = "deerflow:model_feedback"
    durability: Annotated[
        Literal["batched", "sync"],
        about("batched: a killed process loses the last interval; sync: each call waits until it is stored."),
    ] = "batched"
    flush_interval_seconds: Annotated[PositiveSeconds, about("Seconds between two writes.")] = 1.0
    flush_max_events: Annotated[Size, about("Events that start a write at once.")] = 256
    max_models: Annotated[Size, about("Most model names counted by one process; the rest is counted together.")] = 256
    health: Annotated[ModelHealthConfig, about("When the circuit of a failing model opens.")] = Field(
        default_factory=ModelHealthConfig
    )


class StoreConfig(Section, frozen=True):
    """LangGraph's `BaseStore` of the replica. An unset `type` is `database.backend`."""

    type: Annotated[
        Literal["memory", "sqlite", "postgres", "mongo"] | None,
        about("Where LangGraph's store is kept; unset: database.backend."),
    ] = None
    connection_string: Annotated[str | None, about("SQLite file, DSN or URL; unset: that of database.")] = None
    postgres_schema: Annotated[
        PostgresSchema | None, about("Schema of the tables; unset: database.postgres_schema.")
    ] = None
    mongo_database: Annotated[str, about("Name of the database.")] = "deerflow"
    index: Annotated[OptionalOpaque, about("LangGraph's settings of semantic search.")] = None
    text_index: Annotated[OptionalOpaque, about("Settings of text search.")] = None
    ttl: Annotated[OptionalOpaque, about("LangGraph's settings of how long items live.")] = None


class StreamBridgeConfig(Section, frozen=True):
    """The run's events. The fields beyond DeerFlow's are the keywords of `RedisStreamBridge`."""

    type: Annotated[
        Literal["memory", "redis"], about("memory: one process; redis: any replica reads what any other publishes.")
    ] = "memory"
    redis_url: Annotated[
        str | None, about("URL of Redis; in a file that has none, DEER_FLOW_STREAM_BRIDGE_REDIS_URL, else REDIS_URL.")
    ] = None
    queue_maxsize: Annotated[Size, about("Newest events of a run that a reader can come back to.")] = 256
    max_connections: Annotated[
        Annotated[int, Field(ge=3)] | None, about("Most connections to Redis; null: no bound.")
    ] = None
    stream_ttl_seconds: Annotated[
        Annotated[int, Field(ge=0)] | None, about("Seconds that a stream lives after its last event; 0: for ever.")
    ] = 86400
    recovered_stream_cleanup_delay_seconds: Annotated[
        float, Field(ge=0), about("DeerFlow's: seconds until it deletes the stream of a recovered run.")
    ] = 60.0
    heartbeat_interval_seconds: Annotated[
        PositiveSeconds, about("Seconds of silence after which a reader gets a heartbeat.")
    ] = 15.0
    key_prefix: Annotated[NonEmpty, about("What all keys begin with.")] = "deerflow:stream_bridge"
    push: Annotated[Literal["pubsub", "xread"], about("How Redis tells readers of new events.")] = "pubsub"
    ack: Annotated[
        Literal["pipelined", "server"], about("pipelined: a publisher does not wait for each answer; server: it does.")
    ] = "pipelined"
    invalid_cursor: Annotated[
        Literal["replay", "tail"],
        about("What a reader with a malformed cursor gets: everything retained, or only what is new."),
    ] = "replay"
    resume_gap: Annotated[
        Literal["exact", "strict"],
        about("exact: a gap only where events are missing; strict: also when the cursor's own event is gone."),
    ] = "exact"
    max_event_bytes: Annotated[Size, about("Largest event.")] = 8 * 2**20
    max_stream_bytes: Annotated[Size, about("Most bytes retained of one run.")] = 64 * 2**20
    live_window: Annotated[Size, about("Events that an attached reader may lag behind.")] = 8192
    max_pending_events: Annotated[Size, about("Events that may wait for Redis; then publishers wait.")] = 10_000
    max_pending_bytes: Annotated[Size, about("Bytes that may wait for Redis; then publishers wait.")] = 32 * 2**20
    publish_timeout_seconds: Annotated[Seconds, about("Seconds that a publisher waits for room.")] = 30.0
    connect_timeout_seconds: Annotated[Seconds, about("Seconds that a connection may take.")] = 5.0
    close_timeout_seconds: Annotated[Seconds, about("Seconds that closing waits for what is not stored yet.")] = 5.0
    check_interval_seconds: Annotated[Seconds, about("Seconds between two looks at silent streams.")] = 5.0
    unavailable_after_seconds: Annotated[Seconds, about("Seconds without Redis after which readers are told.")] = 60.0
    lease_seconds: Annotated[
        PositiveSeconds | None,
        about("Seconds without a sign of life after which a producer counts as dead; null: never."),
    ] = 15.0

    @model_validator(mode="after")
    def _redis_needs_a_url(self) -> Self:
        if self.type == "redis" and not self.redis_url:
            message = "type redis needs redis_url; a file's may also be REDIS_URL in the environment"
            raise missing_values(type(self).__name__, [(("redis_url",), message)])
        return self
