"""Names of places for any text: of files, and of labels in a store."""

from __future__ import annotations

import re
from hashlib import sha256
from urllib.parse import quote

_LONGEST = 255

_PLAIN = re.compile(rf"[A-Za-z0-9_-]{{1,{_LONGEST}}}")


def place_name(text: str) -> str:
    """A name for any text, another one for another text, of `[A-Za-z0-9_%-]`; `[A-Za-z0-9_-]+` stays as it is."""
    if _PLAIN.fullmatch(text):
        return text
    quoted = quote(text, safe="", errors="surrogatepass").replace(".", "%2E").replace("~", "%7E")
    if len(quoted) <= _LONGEST:
        return quoted
    return f"%sha256-{sha256(text.encode(errors='surrogatepass')).hexdigest()}"


def agent_place(agent_name: str) -> str:
    """No agent's name has a '%': with one it is the name of a place already, found where documents are."""
    return agent_name if agent_name.startswith("%") else place_name(agent_name)
