"""Nothing public changes a configuration, at any depth."""

from __future__ import annotations

import contextlib
import copy
import enum
import pickle
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import pytest

from deerflow_replica import AppConfig
from deerflow_replica.config import MemoryConfig, Section
from deerflow_replica.config.frozen import FrozenDict, FrozenList
from deerflow_replica.errors import ConfigError
from rich_config import RICH

MAPPING_ATTACKS: tuple[Callable[[Any], object], ...] = (
    lambda m: m.__setitem__("new", 1),
    lambda m: m.__delitem__(next(iter(m))),
    lambda m: m.update({"new": 1}),
    lambda m: m.setdefault("new", 1),
    lambda m: m.pop(next(iter(m))),
    lambda m: m.popitem(),
    lambda m: m.clear(),
    lambda m: m.__ior__({"new": 1}),
    lambda m: setattr(m, "new", 1),
    lambda m: setattr(m, "_data", {}),
    lambda m: delattr(m, "_data"),
    lambda m: m._data.update({"new": 1}),
)
TUPLE_ATTACKS: tuple[Callable[[Any], object], ...] = (
    lambda t: t.__setitem__(0, 1),
    lambda t: t.__delitem__(0),
    lambda t: t.append(1),
    lambda t: t.extend([1]),
    lambda t: t.insert(0, 1),
    lambda t: t.pop(),
    lambda t: t.remove(t[0]),
    lambda t: t.clear(),
    lambda t: t.sort(),
    lambda t: t.reverse(),
)
SET_ATTACKS: tuple[Callable[[Any], object], ...] = (
    lambda s: s.add(1),
    lambda s: s.discard(1),
    lambda s: s.pop(),
    lambda s: s.clear(),
    lambda s: s.update({1}),
)
SECTION_ATTACKS: tuple[Callable[[Any], object], ...] = (
    lambda s: setattr(s, next(iter(type(s).model_fields)), 1),
    lambda s: setattr(s, "enabled", False),
    lambda s: setattr(s, "new", 1),
    lambda s: setattr(s, "_new", 1),
    lambda s: setattr(s, "__dict__", {}),
    lambda s: setattr(s, "__class__", MemoryConfig),
    lambda s: setattr(s, "__pydantic_extra__", {}),
    lambda s: setattr(s, "__pydantic_fields_set__", set()),
    lambda s: setattr(s, "__pydantic_private__", {}),
    lambda s: delattr(s, next(iter(type(s).model_fields))),
    lambda s: delattr(s, "_provenance"),
    lambda s: vars(s).update({"new": 1}),
    lambda s: s.__dict__.__setitem__(next(iter(type(s).model_fields)), 1),
    lambda s: s.model_fields_set.add("new"),
    lambda s: s.model_extra.update({"new": 1}),
    lambda s: s.__pydantic_extra__.__setitem__("new", 1),
    lambda s: s.__pydantic_private__.update({"new": 1}),
    lambda s: s.__setstate__({"__dict__": {}}),
    lambda s: s.__init__(),
)


def nodes(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, Section):
        children: list[Any] = [getattr(value, name) for name in type(value).model_fields]
        children.append(value.model_extra)
    else:
        children = list(value.values()) if isinstance(value, Mapping) else list(value)
    for child in children:
        if isinstance(child, Section | Mapping | tuple | frozenset):
            yield from nodes(child)


def attacks_on(node: Any) -> tuple[Callable[[Any], object], ...]:
    for kind, attacks in (
        (Section, SECTION_ATTACKS),
        (Mapping, MAPPING_ATTACKS),
        (tuple, TUPLE_ATTACKS),
        (frozenset, SET_ATTACKS),
    ):
        if isinstance(node, kind):
            return attacks
    raise AssertionError(f"a mutable {type(node)} in the configuration")


@pytest.fixture
def config() -> AppConfig:
    return AppConfig.from_mapping(RICH, env={})


def test_every_attack_on_every_path_fails(config: AppConfig) -> None:
    before, digest = config.to_mapping(reveal=True), hash(config)
    tried = 0
    for node in nodes(config):
        for attack in attacks_on(node):
            with pytest.raises((TypeError, AttributeError, ValueError, KeyError)):
                attack(node)
            tried += 1
        if isinstance(node, FrozenDict):
            node.__init__({"new": 1})  # type: ignore[misc]  # does nothing
    assert tried > 500
    assert config.to_mapping(reveal=True) == before
    assert hash(config) == digest
    assert config == AppConfig.from_mapping(RICH, env={})


OF_THE_CLASS = frozenset(
    {
        "__class__", "__init_subclass__", "__pydantic_init_subclass__", "__pydantic_on_complete__", "model_rebuild",
        "model_parametrized_name", "__class_getitem__", "__subclasshook__", "update_forward_refs",
    }
)  # fmt: skip
ARGUMENTS: tuple[tuple[Any, ...], ...] = (
    (), ("enabled",), ("enabled", False), ({"enabled": False, "new": 1},), (0,), (0, 1), ([1],), (None,),
    ("__dict__", {}), ({"__dict__": {"a": 1}, "__pydantic_extra__": {}, "__pydantic_fields_set__": set()},),
)  # fmt: skip
KEYWORDS: tuple[dict[str, Any], ...] = ({"enabled": False}, {"update": {"new": 1}}, {"new": 1})


@pytest.mark.filterwarnings("ignore")
def test_nothing_that_can_be_called_on_a_part_changes_it() -> None:
    small = {name: RICH[name] for name in ("log_level", "memory", "models", "tools", "names")}
    config = AppConfig.from_mapping(small, env={})
    before = (config.to_mapping(reveal=True), hash(config))
    called = 0
    seen: set[type] = set()
    for node in nodes(config):
        if type(node) in seen:
            continue
        seen.add(type(node))
        for name in [name for name in dir(node) if name not in OF_THE_CLASS]:
            calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [(given, {}) for given in ARGUMENTS]
            calls += [((), given) for given in KEYWORDS]
            for arguments, keywords in calls:
                with contextlib.suppress(Exception):
                    getattr(node, name)(*arguments, **keywords)
                    called += 1
        assert (config.to_mapping(reveal=True), hash(config)) == before, type(node).__name__
    assert called > 1000
    assert len(seen) > 15


def test_there_is_no_mutable_container_anywhere(config: AppConfig) -> None:
    assert not [node for node in nodes(config) if isinstance(node, dict | list | set)]


def test_later_changes_of_the_input_change_nothing() -> None:
    data: dict[str, Any] = {"tools": [{"a": [1]}], "memory": {"backend_config": {"k": [1]}}}
    config = AppConfig.from_mapping(data, env={})
    built = AppConfig(memory=MemoryConfig(backend_config=data["memory"]["backend_config"]))
    data["tools"][0]["a"].append(2)
    data["memory"]["backend_config"]["k"].append(2)
    assert config.get("tools.0.a") == (1,)
    assert config.memory.backend_config["k"] == (1,)
    assert built.memory.backend_config["k"] == (1,)


def test_the_mapping_of_a_configuration_is_detached(config: AppConfig) -> None:
    config.to_mapping(reveal=True)["tools"].clear()
    config.to_mapping()["memory"].clear()
    assert len(config.get("tools")) == 2


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles(config: AppConfig, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(config, protocol))  # noqa: S301 our own bytes
    assert again == config
    assert hash(again) == hash(config)
    assert type(again.get("tools.0")) is FrozenDict
    assert again.evolve({"database": {"backend": "memory"}}).user_thread_mapping.type == "memory"


def test_copies_are_equal(config: AppConfig) -> None:
    for again in (copy.copy(config), copy.deepcopy(config), config.model_copy(), config.model_copy(deep=True)):
        assert again == config


def test_equal_content_is_equal_whatever_its_origin(config: AppConfig) -> None:
    built = AppConfig(**RICH)
    assert built == config
    assert hash(built) == hash(config)
    assert {built: 1}[config] == 1
    assert built != built.evolve({"tools": []})
    assert AppConfig() == AppConfig.from_mapping({"user_thread_mapping": {"type": "sqlite"}}, env={})


def test_sections_of_different_kinds_differ() -> None:
    assert MemoryConfig() != AppConfig()
    assert MemoryConfig() != {"enabled": True}


def test_names_of_our_own_methods_are_kept_as_data(config: AppConfig) -> None:
    assert config.get(("copy", "self", "a.b", 0)) == 0
    odd = AppConfig.from_mapping({"memory": {"json": 1, "model_config": 2, "self": 3, "model_copy": 4}}, env={})
    assert dict(odd.memory.model_extra or {}) == {"json": 1, "model_config": 2, "self": 3, "model_copy": 4}


ODD_NAMES = (
    "model_config", "self", "json", "copy", "a.b", "model_fields", "__dict__", "_provenance", "__class__", "cls",
    "strict", "data", "model_extra", "__pydantic_extra__", "explain", "model_post_init", "", "__init__", "context",
)  # fmt: skip
BUILDS: tuple[Callable[[dict[str, Any]], AppConfig], ...] = (
    lambda data: AppConfig.from_mapping(data, env={}),
    lambda data: AppConfig(**data),
    lambda data: AppConfig.model_validate(data),
    lambda data: AppConfig().evolve(data, env={}),
    lambda data: AppConfig().model_copy(update=data),
)


@pytest.mark.parametrize("build", BUILDS)
def test_sections_may_be_called_anything(build: Callable[[dict[str, Any]], AppConfig]) -> None:
    odd = {name: {"x": number} for number, name in enumerate(ODD_NAMES)}
    config = build({**odd, "memory": odd})
    assert {name: config.get((name,)) for name in odd} == odd
    assert config.memory.model_extra == odd
    assert config.explain(("self", "x")).value == 1
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 our own bytes
    assert AppConfig.from_mapping(config.to_mapping(reveal=True), env={}) == config


def test_model_copy_validates() -> None:
    with pytest.raises(ConfigError, match="max_words"):
        AppConfig().title.model_copy(update={"max_words": 99})
    assert AppConfig().title.model_copy(update={"max_words": 9}).max_words == 9
    with pytest.raises(ConfigError, match="title"):
        AppConfig().model_copy(update={"title": 5})
    assert AppConfig().model_copy(update={"log_level": "debug"}).log_level == "debug"


def test_unchecked_constructors_check() -> None:
    with pytest.raises(ValueError, match="enabled"):
        MemoryConfig.model_construct(enabled="maybe")
    assert isinstance(MemoryConfig.model_construct(x=[1]).model_extra, FrozenDict)


@pytest.mark.parametrize("foreign", [object(), len, 1j, bytearray(b"x"), iter(())])
def test_only_plain_data_enters(foreign: object) -> None:
    with pytest.raises(ValueError, match=r"x\.y: only plain data"):
        AppConfig.from_mapping({"x": {"y": foreign}}, env={})
    with pytest.raises(ValueError, match="plain data"):
        AppConfig.model_validate({"x": {"y": foreign}})


class Text(str):
    """Has attributes that could change."""


class Level(enum.StrEnum):
    HIGH = "high"


class Number(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize("value", [Text("high"), Level.HIGH, Number.ONE, True, Decimal(1)])
def test_subclasses_of_plain_values_become_plain(value: Any) -> None:
    config = AppConfig.from_mapping({"x": value, "y": {value: [value]}}, env={})
    for found in (config.get("x"), next(iter(config.get("y"))), config.get(("y", value, 0))):
        assert type(found) in (str, int, bool, Decimal)
        assert found == value


def test_not_a_number_equals_itself_wherever_it_came_from() -> None:
    config = AppConfig.from_mapping({"x": [float("nan")]}, env={})
    other = AppConfig.from_mapping({"x": [-float("nan")]}, env={})
    assert config == other == pickle.loads(pickle.dumps(config))  # noqa: S301 our own bytes
    assert hash(config) == hash(other)


def test_a_comparison_is_not_handed_what_is_inside(config: AppConfig) -> None:
    class Thief:
        __hash__ = None  # type: ignore[assignment]  # only compared

        def __eq__(self, other: object) -> bool:
            assert isinstance(other, dict)
            other["log_level"] = "stolen"
            return True

    assert vars(config) == Thief()
    assert config.log_level != "stolen"


def test_a_cycle_is_refused() -> None:
    cycle: dict[str, Any] = {}
    cycle["again"] = [cycle]
    with pytest.raises(ValueError, match="refers to itself"):
        AppConfig.from_mapping({"x": cycle}, env={})
    with pytest.raises(ValueError, match="refers to itself"):
        AppConfig.model_validate({"x": cycle})


def test_frozen_containers_behave_like_their_models() -> None:
    mapping = FrozenDict({"a": [1, {"b": 2}]})
    assert mapping == {"a": [1, {"b": 2}]}
    assert mapping["a"][1] == {"b": 2}
    assert mapping["a"][:1] == (1,)
    assert isinstance(mapping["a"], FrozenList)
    assert {**mapping} == dict(mapping)
    assert mapping != {"a": object()}
    assert len({mapping, FrozenDict({"a": (1, {"b": 2})})}) == 1
