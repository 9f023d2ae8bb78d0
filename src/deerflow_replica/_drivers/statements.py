"""Named SQL statements, kept in files beside the backend that runs them."""

from __future__ import annotations

import re
from importlib.resources import files

from ..errors import ConfigError

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


def quoted(*parts: str | None) -> str:
    """`schema, table` as `"schema"."table"`; a part that is None is left out.

    Raises `ConfigError` for a part, the empty one too, that is not a plain identifier of at most 63 characters.
    """
    named = [part for part in parts if part is not None]
    for part in named:
        if not _IDENTIFIER.fullmatch(part):
            raise ConfigError(f"{part!r} is not a plain SQL identifier: letters, digits and _, at most 63")
    return ".".join(f'"{part}"' for part in named)


def load_statements(package: str, file: str, **identifiers: str) -> dict[str, str]:
    """The statements of a file, by the name on the `-- name:` line above each.

    `{placeholders}` are replaced by the given identifiers, which must come from `quoted` or be plain themselves;
    values never are: they stay parameters.
    """
    text = files(package).joinpath(file).read_text(encoding="utf-8")
    for name, identifier in identifiers.items():
        text = text.replace("{" + name + "}", identifier)
    _, *sections = _NAME.split(text)
    return {name: body.strip() for name, body in zip(sections[::2], sections[1::2], strict=True)}
