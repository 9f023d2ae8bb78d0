"""What may be shown of a configuration: names, sizes and hosts, never a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

MASK = "***"
_SECRET_ENDINGS = (
    "password", "passwd", "secret", "token", "apikey", "accesskey", "privatekey",
    "credential", "credentials", "authorization", "cookie",
)  # fmt: skip
_SEPARATORS = str.maketrans("", "", "-_")
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>[^\s'\"<>]+)")
_USER_AND_PORT = re.compile(r"[^:/?#]*:\d*(?:[/?#]|$)")
_ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z_][\w-]*)(?P<equals>\s*=\s*)(?P<value>'(?:[^'\\]|\\.)*'|[^\s&;#,]+)")


def is_secret_name(name: object) -> bool:
    """Whether the texts under this key are secrets: `api_key`, `X-Auth-Token`, `DB_PASSWORD`; not `max_tokens`."""
    return isinstance(name, str) and name.lower().translate(_SEPARATORS).endswith(_SECRET_ENDINGS)


def masked(text: str) -> str:
    """The text with URL passwords, `password=` of a DSN and secret query parameters replaced by `***`."""
    if "://" in text:
        text = _URL.sub(_masked_url, text)
    return _ASSIGNMENT.sub(_masked_assignment, text) if "=" in text else text


def _masked_url(match: re.Match[str]) -> str:
    rest = match["rest"]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        userinfo, _, after = authority.rpartition("@")
        after += rest[len(authority) :]
    elif "@" in rest and not _USER_AND_PORT.match(rest):
        userinfo, _, after = rest.rpartition("@")  # a password with an unescaped slash
    else:
        return match[0]
    user, colon, _ = userinfo.partition(":")
    return f"{match['scheme']}{user}{colon}{MASK if colon else ''}@{after}"


def _masked_assignment(match: re.Match[str]) -> str:
    return f"{match['name']}{match['equals']}{MASK}" if is_secret_name(match["name"]) else match[0]


def display(value: Any, variables: Mapping[tuple[Any, ...], str] | None = None) -> Any:
    """Plain, masked data for every output. `variables` tells by path which texts came from the environment."""
    return _display(value, variables or {}, (), secret=False)


def _display(value: Any, variables: Mapping[tuple[Any, ...], str], path: tuple[Any, ...], *, secret: bool) -> Any:
    from .frozen import UnsetVariable, raw_items, raw_values

    if path in variables:
        return f"${variables[path]}"
    if isinstance(value, UnsetVariable):
        return repr(value)
    if isinstance(value, str | bytes) or _is_number(value):
        return _display_scalar(value, secret=secret)
    if isinstance(value, tuple | list):
        return [_display(item, variables, (*path, i), secret=secret) for i, item in enumerate(raw_values(value))]
    if isinstance(value, AbstractSet):
        return {_display(item, {}, (), secret=secret) for item in value}
    effective = getattr(value, "__config_values__", None)
    if effective is not None or isinstance(value, Mapping):
        items = raw_items(effective()) if effective is not None else raw_items(value)
        return {
            key: _display(item, variables, (*path, key), secret=secret or is_secret_name(key)) for key, item in items
        }
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _display_scalar(value: Any, *, secret: bool) -> Any:
    if secret and value not in ("", b""):
        return MASK
    return masked(value) if isinstance(value, str) else value
