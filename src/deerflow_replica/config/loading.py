"""The only reader of configuration files and of the environment. It reads; it changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from ..errors import ConfigError, ConfigProblem
from .documents import Document, read_json, read_yaml
from .frozen import FrozenDict, raw_items, raw_values
from .names import DEERFLOW_SECTIONS
from .overrides import apply_overrides
from .provenance import Path as KeyPath
from .provenance import Provenance
from .section import Section
from .variables import Resolver

_EXTENSION_FILES = ("extensions_config.json", "mcp_config.json")
_BRIDGE_URL = ("DEER_FLOW_STREAM_BRIDGE_REDIS_URL", "REDIS_URL")
_ALIASES = MappingProxyType({"mcp_servers": "mcpServers"})
Value = TypeVar("Value")


class Loaded(NamedTuple):
    """Frozen input, what is known of it, and what is already wrong with it."""

    data: Mapping[str, Any]
    provenance: Provenance
    problems: tuple[ConfigProblem, ...] = ()


def read_files(
    path: str | os.PathLike[str] | None,
    extensions_path: str | os.PathLike[str] | None,
    env: Mapping[str, str],
    model: type[Section],
) -> Loaded:
    """Both files, and the overrides of the environment for a configuration of class `model`. Raises `ConfigError` for
    what cannot be read at all.
    """
    root = _project_root(env)
    document = _main_document(path, env, root)
    reading = _Reading(document, env)
    extensions = _extensions_document(extensions_path, env, root)
    if extensions is not None:
        reading.merge_extensions(extensions)
    reading.override(model)
    reading.fill_bridge_url()
    return reading.loaded(root)


def has_file(env: Mapping[str, str] | None = None) -> bool:
    """Whether the environment names a main file, or one is where it is looked for."""
    env = os.environ if env is None else env
    return bool(env.get("DEER_FLOW_CONFIG_PATH")) or os.path.lexists(_project_root(env) / "config.yaml")


def read_mapping(data: Mapping[str, Any], env: Mapping[str, str]) -> Loaded:
    root = Path(env.get("DEER_FLOW_PROJECT_ROOT") or working_directory()).absolute()
    resolved, variables = _resolved("a configuration is", data, env)
    return Loaded(
        resolved, Provenance(variables=variables, project_root=str(root), home=env.get("DEER_FLOW_HOME") or None)
    )


def read_changes(config: Section, old: Provenance, changes: Mapping[str, Any], env: Mapping[str, str]) -> Loaded:
    """What was given to `config` merged with `changes`."""
    resolved, variables = _resolved("changes are", changes, env)
    changed: list[KeyPath] = []
    merged = _merged(config, resolved, (), changed)
    return Loaded(merged, old.without(tuple(changed), variables))


def _resolved(what: str, data: Any, env: Mapping[str, str]) -> tuple[FrozenDict, dict[KeyPath, str]]:
    plain = data.__config_mapping__() if isinstance(data, Section) else data
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{what} a mapping, not {type(data).__name__}")
    resolver = Resolver(env)
    resolved = resolver.resolve(plain)
    if resolver.problems:
        raise ConfigError(*resolver.problems)
    return resolved, resolver.variables


def _merged(base: Any, changes: FrozenDict, path: KeyPath, changed: list[KeyPath]) -> dict[Any, Any]:
    names = _names_by_alias(base)
    result: dict[Any, Any] = base.__config_mapping__() if isinstance(base, Section) else dict(raw_items(base))
    for given, value in raw_items(changes):
        key = names.get(given, given)
        old = _old_value(base, result, key)
        if isinstance(value, FrozenDict) and isinstance(old, Section | Mapping):
            result[key] = _merged(old, value, (*path, key), changed)
        else:
            result[key] = value
            changed.append((*path, key))
    return result


def _names_by_alias(base: Any) -> dict[str, str]:
    if not isinstance(base, Section):
        return {}
    return {field.alias: name for name, field in type(base).model_fields.items() if field.alias}


def _old_value(base: Any, result: Mapping[Any, Any], key: Any) -> Any:
    if isinstance(base, Section) and key in type(base).model_fields:
        return getattr(base, key)
    return result.get(key)


def _project_root(env: Mapping[str, str]) -> Path:
    named = env.get("DEER_FLOW_PROJECT_ROOT")
    if not named:
        return working_directory()
    root = Path(named).absolute()
    if not root.is_dir():
        raise ConfigError(f"DEER_FLOW_PROJECT_ROOT names {named}, which is no directory")
    return root


def working_directory() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigError(f"the working directory cannot be found: {error.strerror}") from error


def _main_document(path: str | os.PathLike[str] | None, env: Mapping[str, str], root: Path) -> Document:
    if path is not None:
        given = os.fspath(path)
        return read_yaml(_text(given, "path"), given)
    if named := env.get("DEER_FLOW_CONFIG_PATH"):
        return read_yaml(_text(named, "DEER_FLOW_CONFIG_PATH"), named)
    default = "config.yaml" if not env.get("DEER_FLOW_PROJECT_ROOT") else str(root / "config.yaml")
    return read_yaml(_text(default, None), default)


def _extensions_document(path: str | os.PathLike[str] | None, env: Mapping[str, str], root: Path) -> Document | None:
    if path is not None:
        given = os.fspath(path)
        return read_json(_text(given, "extensions_path"), given)
    if named := env.get("DEER_FLOW_EXTENSIONS_CONFIG_PATH"):
        return read_json(_text(named, "DEER_FLOW_EXTENSIONS_CONFIG_PATH"), named)
    for name in _EXTENSION_FILES:
        if (root / name).is_file():
            found = name if not env.get("DEER_FLOW_PROJECT_ROOT") else str(root / name)
            return read_json(_text(found, None), found)
    return None


def _text(path: str, named_by: str | None) -> str:
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _unreadable(path, named_by, reason or type(error).__name__) from error
    return _decoded(content, path)


def _unreadable(path: str, named_by: str | None, reason: str) -> ConfigError:
    """Only what somebody named is a source."""
    if named_by:
        return ConfigError(ConfigProblem("", f"(named by {named_by}) cannot be read: {reason}", path))
    hint = "name one with path (--config) or DEER_FLOW_CONFIG_PATH, or use AppConfig() for the defaults"
    return ConfigError(f"{path} cannot be read: {reason}; {hint}")


def _decoded(content: bytes, path: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
    raise ConfigError(ConfigProblem("", "not UTF-8", path, line, 1))  # out here: the other error quotes the file


class _Reading:
    """The main file's data while the extensions file and the environment are added to it."""

    def __init__(self, document: Document, env: Mapping[str, str]) -> None:
        resolver = Resolver(env, document.places)
        self._env = env
        self._data: dict[str, Any] = dict(raw_items(resolver.resolve(document.data)))
        self._places, self._key_places = document.places, document.key_places
        self._variables = resolver.variables
        self._problems = [*document.problems, *resolver.problems]

    def merge_extensions(self, document: Document) -> None:
        """Keys of `config.yaml` win, key by key."""
        self._problems += document.problems
        own = self._data.get("extensions")
        if own is not None and not isinstance(own, Mapping):
            return
        resolver = Resolver(self._env, document.places, when_unset="empty")
        loaded = _by_alias(resolver.resolve(document.data))
        mine = _by_alias(own or {})
        self._data["extensions"] = FrozenDict({**loaded, **mine})
        if own is None:
            self._places["extensions",] = document.places[()]
        self._places |= _under_extensions(document.places, mine)
        self._key_places |= _under_extensions(document.key_places, mine)
        self._variables |= _under_extensions(resolver.variables, mine)
        self._problems += [replace(problem, key=f"extensions.{problem.key}") for problem in resolver.problems]

    def override(self, model: type[Section]) -> None:
        self._data, applied, problems = apply_overrides(self._data, self._env, model, DEERFLOW_SECTIONS)
        self._problems += problems
        for variable, path, value in applied:
            self._put(path, value, variable)

    def _put(self, path: KeyPath, value: Any, variable: str) -> None:
        """Forget what was known of the value there: now it is one from the environment."""
        for table in (self._places, self._key_places, self._variables):
            for known in [known for known in table if known[: len(path)] == path]:
                del table[known]
        for below, part in _parts(value, path):
            self._places[below] = (variable, None, None)
            if isinstance(part, str):
                self._variables[below] = variable

    def fill_bridge_url(self) -> None:
        """The URL of a redis bridge from the environment; a section made by it when there is none."""
        section = self._data.get("stream_bridge")
        if section is None and self._env.get(_BRIDGE_URL[0]):
            section = FrozenDict({"type": "redis"})
            self._put(("stream_bridge",), section, _BRIDGE_URL[0])
            del self._variables["stream_bridge", "type"]
        if not isinstance(section, FrozenDict):
            return
        given = dict(raw_items(section))
        name = next((name for name in _BRIDGE_URL if self._env.get(name)), None)
        if name is not None and given.get("type") == "redis" and not given.get("redis_url"):
            self._data["stream_bridge"] = FrozenDict({**given, "redis_url": self._env[name]})
            self._put(("stream_bridge", "redis_url"), self._env[name], name)

    def loaded(self, root: Path) -> Loaded:
        home = self._env.get("DEER_FLOW_HOME") or None
        known = Provenance(self._places, self._key_places, self._variables, str(root.absolute()), home)
        return Loaded(self._data, known, tuple(self._problems))


def _parts(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """The value and everything in it, each with its path."""
    yield path, value
    if isinstance(value, Mapping | tuple):
        for key, item in raw_items(value) if isinstance(value, Mapping) else enumerate(raw_values(value)):
            yield from _parts(item, (*path, key))


def _by_alias(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    return {_ALIASES.get(key, key): item for key, item in raw_items(mapping)}


def _under_extensions(table: Mapping[KeyPath, Value], mine: Mapping[Any, Any]) -> dict[KeyPath, Value]:
    return {
        ("extensions", *path): value
        for path, value in table.items()
        if path and _ALIASES.get(path[0], path[0]) not in mine
    }
