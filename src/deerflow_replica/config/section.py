"""The base of every section: frozen to the leaf, hashable, keeps what it does not know, shows no secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Self, SupportsIndex, cast, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SerializationInfo,
    ValidationError,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from .display import Select, display
from .dumping import jsonable, kept
from .frozen import ALREADY_FROZEN, FrozenDict, freeze, raw_items
from .problems import validated
from .provenance import Provenance


def _frozen_mapping(value: Any) -> Mapping[str, Any]:
    return FrozenDict() if value is None else _mapping(value)


def _frozen_mapping_or_none(value: Any) -> Mapping[str, Any] | None:
    return None if value is None else _mapping(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("should be a mapping")  # noqa: TRY004 Pydantic makes a problem only of ValueError
    return cast(FrozenDict, freeze(value))


_OBJECT = WithJsonSchema({"type": ["object", "null"]})
Opaque = Annotated[Mapping[str, Any], PlainValidator(_frozen_mapping), _OBJECT]
"""A mapping whose content is not ours to check; null is an empty one."""
OptionalOpaque = Annotated[Mapping[str, Any] | None, PlainValidator(_frozen_mapping_or_none), _OBJECT]
"""The same, but null stays null."""


def about(text: str) -> Any:
    """The description of a field, for `Annotated`."""
    return Field(description=text)


_VALUES = BaseModel.__dict__["__dict__"]


class Section(BaseModel, frozen=True):
    """One section of the configuration. Every operation that would change it raises."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True, validate_by_name=True, validate_by_alias=True)

    @model_validator(mode="before")
    @classmethod
    def _take_mapping(cls, data: Any) -> Any:
        if data is None:
            return {}
        if not isinstance(data, Mapping):
            return data
        known = cls.known_names()
        return {key: item if key in known else freeze(item) for key, item in raw_items(data)}

    @property
    def __dict__(self) -> dict[str, Any]:  # pyright: ignore[reportGeneralTypeIssues]  # vars() must be read-only
        copied = dict(_VALUES.__get__(self))  # a proxy hands what is behind it to `==` and `|` of the other side
        return cast(dict[str, Any], MappingProxyType(copied))

    @__dict__.setter
    def __dict__(self, values: dict[str, Any]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]  # as above
        _VALUES.__set__(self, values)  # only Pydantic gets here: __setattr__ refuses the name

    if not TYPE_CHECKING:  # type checkers keep the fields' own signature

        def __init__(self, /, **data: Any) -> None:
            if self._is_sealed():
                self._refuse()
            super().__init__(**data)

        __init__.__pydantic_base_init__ = True  # Pydantic's mark: validation need not come through here

        def _setattr_handler(self, name: str, value: Any) -> Any:
            if name.startswith("_"):
                self._refuse()  # Pydantic would set it while it looks for who sets it
            return super()._setattr_handler(name, value)

    def _is_sealed(self) -> bool:
        return isinstance(getattr(self, "__pydantic_fields_set__", None), frozenset)

    def model_post_init(self, context: Any, /) -> None:
        if self._is_sealed():
            self._refuse()
        self._seal(context)

    def _seal(self, context: Any) -> None:
        values = {name: _sealed(value) for name, value in self.__dict__.items()}
        object.__setattr__(self, "__dict__", values)
        object.__setattr__(self, "__pydantic_extra__", FrozenDict(self.__pydantic_extra__))
        object.__setattr__(self, "__pydantic_fields_set__", frozenset(self.__pydantic_fields_set__))

    @classmethod
    def known_names(cls) -> frozenset[str]:
        """The names of the fields, and their aliases."""
        aliases = (field.alias for field in cls.model_fields.values())
        return frozenset(cls.model_fields) | {alias for alias in aliases if alias}

    def __config_values__(self) -> dict[str, Any]:
        """Everything that holds, defaults too. Unset variables are not read."""
        return {**self.__dict__, **dict(raw_items(self.__pydantic_extra__ or {}))}

    def __config_mapping__(self) -> dict[str, Any]:
        """Only what was given, so that what was not can be derived again."""
        given = {name: value for name, value in self.__dict__.items() if name in self.__pydantic_fields_set__}
        return given | dict(raw_items(self.__pydantic_extra__ or {}))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with whole fields replaced, validated. Raises `ConfigError`."""
        return validated(type(self), {**self.__config_mapping__(), **update}, Provenance()) if update else self

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **values: Any) -> Self:
        """Validates, unlike Pydantic's: an unchecked section would not be frozen."""
        return cls.model_validate(values)

    def copy(self, **options: Any) -> Self:
        return self.model_copy(update=options.get("update"))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            self._refuse()
        raise _frozen(type(self).__name__, name)  # Pydantic's own would quote the value

    def __delattr__(self, name: str) -> None:
        if name.startswith("_"):
            self._refuse()
        super().__delattr__(name)

    def _refuse(self) -> NoReturn:
        raise AttributeError("a configuration cannot be changed; evolve() gives a changed copy")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Section):
            return NotImplemented
        return type(self) is type(other) and self.__config_values__() == other.__config_values__()

    def __hash__(self) -> int:
        return hash((type(self).__name__, frozenset(self.__config_values__().items())))

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        private = dict(self.__pydantic_private__ or {})
        return _rebuilt, (type(self), dict(self.__dict__), self.__pydantic_extra__, self.model_fields_set, private)

    def __setstate__(self, state: dict[Any, Any]) -> None:
        self._refuse()

    def __repr_args__(self) -> Any:
        return list(self._displayed().items()) if self._is_sealed() else []  # a debugger shows what was refused, too

    def _displayed(self, select: Select | None = None) -> dict[str, Any]:
        return cast(dict[str, Any], display(self, select=select))

    @model_serializer(mode="plain")
    def _masked_dump(self, info: SerializationInfo) -> dict[str, Any]:
        shown = kept(self._displayed(lambda section: _selected(section, info)), info)
        return cast(dict[str, Any], jsonable(shown) if info.mode == "json" else shown)


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, if it is one."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def _frozen(title: str, name: str) -> ValidationError:
    details = InitErrorDetails(type="frozen_instance", loc=(name,), input=None)
    return ValidationError.from_exception_data(title, [details], hide_input=True)


def missing_values(title: str, missing: Iterable[tuple[tuple[str, ...], str]]) -> ValidationError:
    """The error for values that are needed and not there, by path and message."""
    details = [
        InitErrorDetails(type=PydanticCustomError("missing", "{reason}", {"reason": message}), loc=path, input=None)
        for path, message in missing
    ]
    return ValidationError.from_exception_data(title, details, hide_input=True)


def with_derived(section: Section, **values: Any) -> Section:
    """The same section with values that still count as not given. They are not validated."""
    held = {**section.__dict__, **values}
    return _rebuilt(type(section), held, section.__pydantic_extra__, section.model_fields_set - values.keys(), {})


def _selected(section: Section, info: SerializationInfo) -> dict[str, Any]:
    """The values that the options of a dump leave, before the names that it includes or excludes."""
    only_given = info.exclude_unset or info.exclude_defaults
    values = section.__config_mapping__() if only_given else section.__config_values__()
    if info.exclude_defaults:
        defaults = {
            name: field.get_default(call_default_factory=True) for name, field in type(section).model_fields.items()
        }
        values = {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}
    return values


def _rebuilt(
    kind: type[Section],
    values: dict[str, Any],
    extra: Mapping[str, Any] | None,
    fields_set: AbstractSet[str],
    private: dict[str, Any],
) -> Section:
    section = kind.__new__(kind)
    object.__setattr__(section, "__dict__", values)
    object.__setattr__(section, "__pydantic_extra__", extra)
    object.__setattr__(section, "__pydantic_fields_set__", frozenset(fields_set))
    object.__setattr__(section, "__pydantic_private__", MappingProxyType(private))
    return section


def _sealed(value: Any) -> Any:
    return value if type(value) in ALREADY_FROZEN or isinstance(value, Section | tuple) else freeze(value)
