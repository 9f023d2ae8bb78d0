"""`AppConfig`: one frozen value that holds a whole configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Self, cast

from pydantic import Field, PlainValidator, PrivateAttr, ValidationError, WithJsonSchema, model_validator

from ..errors import ConfigError, ConfigProblem
from . import loading
from .agents import (
    CircuitBreakerConfig,
    ExtensionsConfig,
    GatewayConfig,
    MemoryConfig,
    ModelConfig,
    ReplicaConfig,
    RunOwnershipConfig,
    TitleConfig,
)
from .connections import DERIVED_TYPE, missing_connections
from .display import Select, display
from .explaining import Change, Explanation, changes, explanation
from .frozen import raw_items, thaw
from .loading import Loaded
from .lookup import look_up
from .names import DEERFLOW_SECTIONS, UnknownName, unknown_names
from .problems import in_file_order, problems_of, validated
from .provenance import Provenance
from .section import Section, about, missing_values, with_derived
from .storage import (
    CheckpointerConfig,
    DatabaseConfig,
    ModelFeedbackConfig,
    StoreConfig,
    StreamBridgeConfig,
    UserThreadMappingConfig,
)
from .variables import dotted

_LOG_LEVELS = frozenset({"critical", "error", "warning", "warn", "info", "debug", "notset", "fatal", "trace"})
_REQUIRED: Any = object()
_ANYTHING = WithJsonSchema({})


def _version(given: Any) -> int:
    """As DeerFlow reads it: whatever is no number is 0."""
    try:
        return int(given)
    except (TypeError, ValueError, OverflowError):
        return 0


class AppConfig(Section, frozen=True):
    """A whole configuration: equal content is an equal, equally hashed value, whatever it was loaded from.

    The constructor reads no environment and raises Pydantic's `ValidationError`; everything else `ConfigError`.
    """

    config_version: Annotated[int, PlainValidator(_version), _ANYTHING, about("DeerFlow's version of the file.")] = 0
    log_level: Annotated[str, about("Level of the log; an unknown one is a warning.")] = "info"
    database: DatabaseConfig = Field(default_factory=DatabaseConfig)
    checkpointer: CheckpointerConfig | None = None
    stream_bridge: StreamBridgeConfig = Field(default_factory=StreamBridgeConfig)
    memory: MemoryConfig = Field(default_factory=MemoryConfig)
    models: Annotated[tuple[ModelConfig, ...], about("The chat models, by name; of equal names the first counts.")] = ()
    title: TitleConfig = Field(default_factory=TitleConfig)
    circuit_breaker: CircuitBreakerConfig = Field(default_factory=CircuitBreakerConfig)
    run_ownership: RunOwnershipConfig = Field(default_factory=RunOwnershipConfig)
    extensions: ExtensionsConfig = Field(default_factory=ExtensionsConfig)
    user_thread_mapping: UserThreadMappingConfig = Field(default_factory=UserThreadMappingConfig)
    model_feedback: ModelFeedbackConfig = Field(default_factory=ModelFeedbackConfig)
    store: StoreConfig = Field(default_factory=StoreConfig)
    replica: ReplicaConfig = Field(default_factory=ReplicaConfig)
    gateway: GatewayConfig = Field(default_factory=GatewayConfig)

    _provenance: Provenance = PrivateAttr(default_factory=Provenance)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        extensions_path: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        strict: bool = False,
    ) -> Self:
        """Load `config.yaml`, and `extensions_config.json` if there is one. Reads, and changes nothing anywhere.

        `path` wins over `DEER_FLOW_CONFIG_PATH`, that over `config.yaml` in `DEER_FLOW_PROJECT_ROOT` or the working
        directory; a variable `DEERFLOW_REPLICA__SECTION__FIELD` wins over the file. `env` stands for `os.environ`.
        `strict` makes every unknown name a problem.
        Raises `ConfigError` with all problems.
        """
        loaded = loading.read_files(path, extensions_path, os.environ if env is None else env, cls)
        return cls._validated(loaded, strict=strict)

    @classmethod
    def from_mapping(
        cls, data: Mapping[str, Any], *, env: Mapping[str, str] | None = None, strict: bool = False
    ) -> Self:
        """The same from plain data, which is copied. Raises `ConfigError` with all problems."""
        loaded = loading.read_mapping(data, os.environ if env is None else env)
        return cls._validated(loaded, strict=strict)

    def evolve(self, changes: Mapping[str, Any], *, env: Mapping[str, str] | None = None) -> Self:
        """A validated copy: mappings merge, lists and scalars replace, `None` for a section restores its default.

        `"$VAR"` is resolved in `changes` only. Raises `ConfigError`.
        """
        loaded = loading.read_changes(self, self._provenance, changes, os.environ if env is None else env)
        return self._validated(loaded)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with whole fields replaced, validated. Raises `ConfigError`."""
        if not update:
            return self
        provenance = self._provenance.without(tuple((name,) for name in update), {})
        return validated(type(self), {**self.__config_mapping__(), **update}, provenance)

    def get(self, key: str | tuple[Any, ...], default: Any = _REQUIRED) -> Any:
        """The value at `"models.0.name"` or `("models", 0, "name")`. `KeyError` suggests what may have been meant."""
        try:
            return look_up(self, key)
        except KeyError:
            if default is _REQUIRED:
                raise
            return default

    def explain(self, key: str | tuple[Any, ...]) -> Explanation:
        """Where the value at that key comes from, its default, and when a change of it takes effect; masked.

        `KeyError` suggests what may have been meant. A variable that is not set is shown, not read.
        """
        return explanation(self, self._provenance, key)

    def diff(self, other: AppConfig) -> tuple[Change, ...]:
        """What is another value in `other`: every leaf that was changed, added or removed, masked, in key order."""
        if not isinstance(other, AppConfig):
            raise TypeError(f"an AppConfig is needed, not {type(other).__name__}")
        return changes(self, self._provenance, other, other._provenance)

    def get_model_config(self, name: str) -> ModelConfig | None:
        """The first model of that name."""
        return next((model for model in self.models if model.name == name), None)

    def to_mapping(self, *, reveal: bool = False) -> dict[str, Any]:
        """Plain dicts and lists, a detached copy, defaults included. Secrets are masked unless `reveal`."""
        return cast(dict[str, Any], thaw(self) if reveal else self._displayed())

    @classmethod
    def model_json_schema(cls, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Draft 2020-12 of what a file may hold: null sections, texts that Pydantic reads as numbers, and `$VAR`."""
        from .schema import file_schema

        return file_schema(super().model_json_schema, *arguments, **options)

    @property
    def unknown_sections(self) -> tuple[str, ...]:
        """The top-level names that neither this package nor DeerFlow knows."""
        return tuple(name for name in self.model_extra or () if name not in DEERFLOW_SECTIONS)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Names that look misspelt and an unknown log level, each with its place. Loading itself logs nothing."""
        found = [_unknown(name, self._provenance) for name in unknown_names(self, type(self)) if name.meant]
        if self.log_level.lower() not in _LOG_LEVELS:
            place = self._provenance.place(("log_level",))
            level = display(self.log_level, self._provenance.variables, path=("log_level",))
            found.append(ConfigProblem("log_level", f"unknown level {level!r}", *(place or (None, None, None))))
        return tuple(str(problem) for problem in in_file_order(found, self._provenance))

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {key: item for key, item in raw_items(data) if item is not None or key not in cls.model_fields}

    @model_validator(mode="after")
    def _connections_are_there(self) -> Self:
        missing = list(missing_connections(self))
        if missing:
            raise missing_values(type(self).__name__, missing)
        return self

    def _seal(self, context: Any) -> None:
        super()._seal(context)
        backend = self.database.backend
        derived = {
            name: with_derived(section, type=backend)
            for name in DERIVED_TYPE
            if "type" not in (section := getattr(self, name)).model_fields_set or section.type is None
        }
        object.__setattr__(self, "__dict__", {**self.__dict__, **derived})
        provenance = context if isinstance(context, Provenance) else Provenance()
        object.__setattr__(self, "__pydantic_private__", MappingProxyType({"_provenance": provenance}))

    @classmethod
    def _validated(cls, loaded: Loaded, *, strict: bool = False) -> Self:
        data, provenance, problems = loaded
        found = list(problems)
        if strict:
            found += [_unknown(name, provenance) for name in unknown_names(data, cls)]
        try:
            config = cls.model_validate(data, context=provenance)
        except ValidationError as error:
            found += [*problems_of(error, provenance), *cls._further_problems(loaded, error)]
        else:
            if not found:
                return config
        raise ConfigError(*in_file_order(found, provenance))  # out here: nothing that holds the input is behind it

    @classmethod
    def _further_problems(cls, loaded: Loaded, error: ValidationError) -> list[ConfigProblem]:
        """What only shows between sections, when the sections it is about are right in themselves."""
        failed = {details["loc"][0] for details in error.errors() if details["loc"]}
        if not failed or failed & {"database", "stream_bridge"}:
            return []
        sound = {key: item for key, item in raw_items(loaded.data) if key not in failed}
        try:
            cls.model_validate(sound, context=loaded.provenance)
        except ValidationError as further:
            return problems_of(further, loaded.provenance)
        return []

    def _displayed(self, select: Select | None = None) -> dict[str, Any]:
        return cast(dict[str, Any], display(self, self._provenance.variables, select))


def _unknown(name: UnknownName, provenance: Provenance) -> ConfigProblem:
    meant = f", did you mean {name.meant}?" if name.meant else ""
    place = provenance.key_place(name.path) or provenance.place(name.path)
    return ConfigProblem(dotted(name.path), f"unknown name{meant}", *(place or (None, None, None)))
