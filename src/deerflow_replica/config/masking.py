"""Which names and which parts of a text are secrets."""

from __future__ import annotations

import re

MASK = "***"
_SECRET_ENDINGS = (
    "password", "passwd", "pwd", "passphrase", "secret", "token", "apikey", "accesskey", "privatekey",
    "credential", "credentials", "authorization", "cookie",
)  # fmt: skip
_SEPARATORS = str.maketrans("", "", "-_")
_SCHEME = r"(?P<scheme>(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]+://)"  # from the start of a word only: linear time
_URL = re.compile(_SCHEME + r"(?P<rest>\S+)")
_ONLY_URL = re.compile(_SCHEME + r"(?P<rest>.+)", re.DOTALL)
_USER_AND_PORT = re.compile(r"[^:/?#]*:\d*(?:[/?#]|$)")
_ASSIGNED = r"""(?P<name>(?<![\w-])[\w-]+)(?P<equals>\s*=\s*)(?P<value>'(?:[^'\\]|\\.)*'|"[^"]*"|"""
_IN_DSN = re.compile(_ASSIGNED + r"\S+)")
_IN_QUERY = re.compile(_ASSIGNED + r"[^\s&#]+)")
_KEY_IN_QUERY = re.compile(r"(?<=[?&])(key|sig|signature)=[^\s&#]+", re.IGNORECASE)


def is_secret_name(name: object) -> bool:
    """Whether the texts under this key are secrets: `api_key`, `X-Auth-Token`, `DB_PASSWORD`; not `max_tokens`."""
    return isinstance(name, str) and name.lower().translate(_SEPARATORS).endswith(_SECRET_ENDINGS)


def is_secret_option(argument: object) -> bool:
    """Whether what follows it on a command line is a secret: `--api-key`."""
    return isinstance(argument, str) and argument.startswith("-") and is_secret_name(argument)


def masked(text: str) -> str:
    """The text with URL passwords, `password=` of a DSN and secret query parameters replaced by `***`."""
    if "://" not in text:
        return _IN_DSN.sub(_masked_assignment, text) if "=" in text else text
    url = _ONLY_URL.fullmatch(text) if text.count("://") == 1 else None  # an unescaped password may have spaces
    text = _masked_url(url) if url else _URL.sub(_masked_url, text)
    return _KEY_IN_QUERY.sub(rf"\1={MASK}", _IN_QUERY.sub(_masked_assignment, text)) if "=" in text else text


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
