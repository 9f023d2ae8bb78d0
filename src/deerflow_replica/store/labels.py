"""Namespaces as text: labels joined by dots, and any text as a label."""

from __future__ import annotations

import re
from collections.abc import Sequence

from langgraph.store.base import InvalidNamespaceError

from .filters import is_storable

MAX_NAMESPACE_BYTES = 1024

_PLAIN = re.compile(rb"[A-Za-z0-9_-]+")
_ESCAPE = re.compile(rb"~([0-9A-F]{2})")


def encode_label(text: str) -> str:
    """Any text as one legal label; `[A-Za-z0-9_-]+` stays as it is. `ValueError` for a lone surrogate."""
    if not text:
        return "~"
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("a lone surrogate has no encoding") from error
    return "".join(chr(byte) if _PLAIN.fullmatch(bytes((byte,))) else f"~{byte:02X}" for byte in raw)


def decode_label(label: str) -> str:
    """The text that `encode_label` made this label of; `ValueError` for a label that it does not make."""
    if label == "~":
        return ""
    try:
        text = _ESCAPE.sub(lambda escape: bytes.fromhex(escape[1].decode()), label.encode()).decode()
    except UnicodeError as error:
        raise ValueError(f"{label!r} was not made by encode_label") from error
    if encode_label(text) != label:
        raise ValueError(f"{label!r} was not made by encode_label")
    return text


def joined(labels: Sequence[str]) -> str:
    """Checked labels as one text. Raises `InvalidNamespaceError` when that has more than 1024 bytes."""
    text = ".".join(labels)
    if len(text) > MAX_NAMESPACE_BYTES or (not text.isascii() and len(text.encode()) > MAX_NAMESPACE_BYTES):
        raise InvalidNamespaceError(f"a namespace has at most {MAX_NAMESPACE_BYTES} bytes, labels joined")
    return text


def split(namespace: str) -> tuple[str, ...]:
    return tuple(namespace.split(".")) if namespace else ()


def checked(labels: object, *, put: bool = False) -> tuple[str, ...]:
    """Labels by LangGraph's rules; to put into, a namespace has a label, and the first is not `langgraph`."""
    if not isinstance(labels, (tuple, list)):
        raise InvalidNamespaceError(f"a namespace is a tuple of labels, not {type(labels).__name__}")
    for label in labels:
        if type(label) is not str or not label or not label.isascii() or "." in label or "\x00" in label:
            _check(label, labels)
    if put and not labels:
        raise InvalidNamespaceError("Namespace cannot be empty.")
    if put and labels[0] == "langgraph":
        raise InvalidNamespaceError(f'Root label for namespace cannot be "langgraph". Got: {labels}')
    return tuple(labels)


def _check(label: object, labels: Sequence[object]) -> None:
    if not isinstance(label, str):
        raise InvalidNamespaceError(f"a label is a text, not {type(label).__name__}: {labels!r}")
    if not label or "." in label:
        raise InvalidNamespaceError(f"a label is not empty and holds no period: {label!r} in {labels!r}")
    if not is_storable(label):
        raise InvalidNamespaceError(f"a label holds no U+0000 and no lone surrogate: {label!r} in {labels!r}")
