"""The names of every Redis key of the bridge. All keys of a run share one slot."""

from __future__ import annotations

import re
from binascii import crc_hqx
from functools import lru_cache
from itertools import count

from ..errors import ConfigError, ConfigProblem

_SLOTS = 16384
_TAG = re.compile(r"[^{]*\{([^}]+)\}")  # Redis looks at the first brace alone
_REMEMBERED = 1024


class StreamKeys:
    """Names under one prefix. The push channel of a run has the name of its stream.

    Raises `ConfigError` for a prefix with a `{` that begins no hash tag: no tag behind it would count.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.rstrip(":")
        if "{" in prefix and _TAG.match(prefix) is None:
            raise ConfigError(ConfigProblem("key_prefix", f"{prefix!r} has a brace that begins no hash tag"))
        self._tag_beside = lru_cache(_REMEMBERED)(_tag_beside)

    def stream(self, run_id: str) -> str:
        return f"{self._prefix}:{run_id}"

    def meta(self, run_id: str) -> str:
        stream = self.stream(run_id)
        if "}" not in stream:
            return f"{self._prefix}.meta:{{{stream}}}"
        return f"{self._prefix}.meta:{{{self._tag_beside(stream)}}}:{stream}"

    def owner(self, bridge_id: str) -> str:
        return f"{self._prefix}.owner:{bridge_id}"

    def wake(self, reader_id: str, number: int) -> str:
        return f"{self._prefix}.wake:{reader_id}:{number}"

    def of_run(self, run_id: str) -> tuple[str, str]:
        return self.stream(run_id), self.meta(run_id)

    def run_of(self, stream: str) -> str:
        return stream[len(self._prefix) + 1 :]


def _tag_beside(stream: str) -> str:
    """A hash tag with the slot of a key that has a closing brace, and so cannot be a tag itself."""
    tag = _TAG.match(stream)
    if tag is not None:
        return tag[1]
    slot = _slot(stream)
    return next(text for text in map(str, count()) if _slot(text) == slot)


def _slot(hashed: str) -> int:
    return crc_hqx(hashed.encode(), 0) % _SLOTS
