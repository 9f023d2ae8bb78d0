"""The only reader of configuration files and of the environment. It reads; it changes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ConfigProblem
from .documents import Document, read_json, read_yaml
from .frozen import FrozenDict, raw_items
from .provenance import Path as KeyPath
from .provenance import Place, Provenance
from .section import Section
from .variables import Resolver

_EXTENSION_FILES = ("extensions_config.json", "mcp_config.json")
_BRIDGE_URL = ("DEER_FLOW_STREAM_BRIDGE_REDIS_URL", "REDIS_URL")
_ALIASES = {"mcp_servers": "mcpServers"}
Loaded = tuple[Mapping[str, Any], Provenance]


def read_files(
    path: str | os.PathLike[str] | None, extensions_path: str | os.PathLike[str] | None, env: Mapping[str, str]
) -> Loaded:
    """Both files as frozen data with its provenance. Raises `ConfigError`."""
    root = _project_root(env)
    document = _main_document(path, env, root)
    resolver = Resolver(env, document.places)
    data = dict(raw_items(resolver.resolve(document.data)))
    places, key_places, variables = dict(document.places), dict(document.key_places), dict(resolver.variables)
    extensions = _extensions_document(extensions_path, env, root)
    if extensions is not None:
        _merge_extensions(data, extensions, env, places, key_places, variables)
    _fill_bridge_url(data, variables, env)
    if resolver.problems:
        raise ConfigError(*resolver.problems)
    return data, _provenance(env, root, places, key_places, variables)


def read_mapping(data: Mapping[str, Any], env: Mapping[str, str]) -> Loaded:
    if isinstance(data, Section):
        data = data.__config_mapping__()
    if not isinstance(data, Mapping):
        raise ConfigError(f"a configuration is a mapping, not {type(data).__name__}")
    resolver = Resolver(env)
    resolved = resolver.resolve(data)
    if resolver.problems:
        raise ConfigError(*resolver.problems)
    root = Path(env.get("DEER_FLOW_PROJECT_ROOT") or Path.cwd())
    return resolved, _provenance(env, root, {}, {}, resolver.variables)


def read_changes(config: Section, old: Provenance, changes: Mapping[str, Any], env: Mapping[str, str]) -> Loaded:
    """What was given to `config` merged with `changes`."""
    if not isinstance(changes, Mapping):
        raise ConfigError(f"changes are a mapping, not {type(changes).__name__}")
    resolver = Resolver(env)
    resolved = resolver.resolve(changes)
    if resolver.problems:
        raise ConfigError(*resolver.problems)
    changed: list[KeyPath] = []
    merged = _merged(config, resolved, (), changed)
    return merged, old.without(tuple(changed), resolver.variables)


def _merged(base: Any, changes: FrozenDict, path: KeyPath, changed: list[KeyPath]) -> dict[Any, Any]:
    names = _names_by_alias(base)
    result = base.__config_mapping__() if isinstance(base, Section) else dict(raw_items(base))
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
        return Path.cwd()
    root = Path(named).absolute()
    if not root.is_dir():
        raise ConfigError(f"DEER_FLOW_PROJECT_ROOT names {named}, which is no directory")
    return root


def _main_document(path: str | os.PathLike[str] | None, env: Mapping[str, str], root: Path) -> Document:
    if path is not None:
        return read_yaml(_text(os.fspath(path), "path"), os.fspath(path))
    if named := env.get("DEER_FLOW_CONFIG_PATH"):
        return read_yaml(_text(named, "DEER_FLOW_CONFIG_PATH"), named)
    default = "config.yaml" if not env.get("DEER_FLOW_PROJECT_ROOT") else str(root / "config.yaml")
    return read_yaml(_text(default, None), default)


def _extensions_document(path: str | os.PathLike[str] | None, env: Mapping[str, str], root: Path) -> Document | None:
    if path is not None:
        return read_json(_text(os.fspath(path), "extensions_path"), os.fspath(path))
    if named := env.get("DEER_FLOW_EXTENSIONS_CONFIG_PATH"):
        return read_json(_text(named, "DEER_FLOW_EXTENSIONS_CONFIG_PATH"), named)
    for name in _EXTENSION_FILES:
        if (root / name).is_file():
            return read_json(_text(str(root / name), None), str(root / name))
    return None


def _text(path: str, named_by: str | None) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(ConfigProblem("", "not UTF-8", path, line, 1)) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        who = f"{path}, named by {named_by}," if named_by else f"{path}"
        hint = "" if named_by else "; name one with path or DEER_FLOW_CONFIG_PATH, or use AppConfig() for the defaults"
        raise ConfigError(f"{who} cannot be read: {reason}{hint}") from error


def _merge_extensions(
    data: dict[str, Any],
    document: Document,
    env: Mapping[str, str],
    places: dict[KeyPath, Place],
    key_places: dict[KeyPath, Place],
    variables: dict[KeyPath, str],
) -> None:
    """Keys of `config.yaml` win, key by key."""
    own = data.get("extensions")
    if own is not None and not isinstance(own, Mapping):
        return
    resolver = Resolver(env, when_unset="empty")
    loaded = {_ALIASES.get(key, key): item for key, item in raw_items(resolver.resolve(document.data))}
    mine = {_ALIASES.get(key, key): item for key, item in raw_items(own or {})}
    data["extensions"] = FrozenDict({**loaded, **mine})
    for table, added in ((places, document.places), (key_places, document.key_places), (variables, resolver.variables)):
        for key, value in added.items():
            if key and key[0] not in mine:
                table[("extensions", *key)] = value  # type: ignore[index]  # each table has its own kind of value


def _fill_bridge_url(data: dict[str, Any], variables: dict[KeyPath, str], env: Mapping[str, str]) -> None:
    section = data.get("stream_bridge")
    if section is None and env.get(_BRIDGE_URL[0]):
        section = FrozenDict({"type": "redis"})
    if not isinstance(section, Mapping) or section.get("type") != "redis" or section.get("redis_url"):
        return
    name = next((name for name in _BRIDGE_URL if env.get(name)), None)
    if name is not None:
        data["stream_bridge"] = FrozenDict({**dict(raw_items(section)), "redis_url": env[name]})
        variables[("stream_bridge", "redis_url")] = name


def _provenance(
    env: Mapping[str, str],
    root: Path,
    places: Mapping[KeyPath, Place],
    key_places: Mapping[KeyPath, Place],
    variables: Mapping[KeyPath, str],
) -> Provenance:
    return Provenance(places, key_places, variables, str(root.absolute()), env.get("DEER_FLOW_HOME") or None)
