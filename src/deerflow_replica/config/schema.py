"""The JSON schema of a configuration file: wider than the models where loading is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

_BOOLEANS = ("0", "1", "false", "true", "f", "t", "no", "yes", "n", "y", "off", "on")


def _any_case(word: str) -> str:
    return "".join(f"[{letter}{letter.upper()}]" if letter.isalpha() else letter for letter in word)


def _text(pattern: str) -> JsonSchemaValue:
    return {"type": "string", "pattern": f"^({pattern})$"}


_VARIABLE = _text(r"\$[A-Za-z_][A-Za-z0-9_]*")
_BOOLEAN = _text("|".join(map(_any_case, _BOOLEANS)))
_INTEGER = _text(r"\s*[+-]?[0-9][0-9_]*(\.0*)?\s*")
_NUMBER = _text(
    r"\s*[+-]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][+-]?[0-9]+)?\s*|\s*[+-]?([iI][nN][fF]([iI][nN][iI][tT][yY])?|[nN][aA][nN])\s*"
)


class FileSchema(GenerateJsonSchema):
    """Every value that loading accepts is valid: also `"$VAR"`, `"7"` for a number, `"on"` or 1 for a boolean."""

    def generate(self, schema: core_schema.CoreSchema, mode: Any = "validation") -> JsonSchemaValue:
        return {"$schema": self.schema_dialect, **super().generate(schema, mode)}

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        return _either(super().bool_schema(schema), {"enum": [0, 1]}, _BOOLEAN, _VARIABLE)

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        return _either(super().int_schema(schema), {"type": "boolean"}, _INTEGER, _VARIABLE)

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return _either(super().float_schema(schema), {"type": "boolean"}, _NUMBER, _VARIABLE)

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        plain = super().str_schema(schema)
        return plain if plain == {"type": "string"} else _either(plain, _VARIABLE)

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        return _either(super().literal_schema(schema), _VARIABLE)


def file_schema(
    generate: Callable[..., JsonSchemaValue],
    by_alias: bool = True,
    ref_template: str = "#/$defs/{model}",
    schema_generator: type[GenerateJsonSchema] = FileSchema,
    **options: Any,
) -> JsonSchemaValue:
    """Pydantic's schema, in which every section may be null and every field goes by each of its names."""
    schema = generate(by_alias, ref_template, schema_generator, **options)
    sections = ref_template.format(model="")
    for definition in schema.get("$defs", {}).values():
        _with_names(definition)
        _with_null(definition, lambda value: str(value.get("$ref", "")).startswith(sections))
    _with_null(schema, lambda _: True)
    return schema


def _either(*alternatives: JsonSchemaValue) -> JsonSchemaValue:
    return {"anyOf": list(alternatives)}


def _with_null(model: JsonSchemaValue, may_be_null: Callable[[JsonSchemaValue], bool]) -> None:
    properties = model.get("properties", {})
    for name, value in properties.items():
        if may_be_null(value):
            about = {key: value[key] for key in ("title", "description", "default") if key in value}
            rest = {key: item for key, item in value.items() if key not in about}
            properties[name] = {**about, **(_either(rest, {"type": "null"}) if rest else {})}


def _with_names(model: JsonSchemaValue) -> None:
    """An alias is camel case, its field's name is not; files may have either."""
    properties = model.get("properties", {})
    for alias in [alias for alias in properties if re.search("[A-Z]", alias)]:
        properties.setdefault(re.sub("([A-Z])", r"_\1", alias).lower(), properties[alias])
