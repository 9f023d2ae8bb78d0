"""Namespaces as a list: which are wanted, cut, distinct and in order."""

from __future__ import annotations

from collections.abc import Iterable

from . import labels
from .values import ListNamespaces


def page(namespaces: Iterable[str], wanted: ListNamespaces) -> list[str]:
    """Of all namespaces that hold an item those that are wanted, cut to `max_depth`, distinct, sorted as tuples."""
    found = {
        split[: wanted.max_depth]
        for split in map(labels.split, namespaces)
        if all(pattern.matches(split) for pattern in wanted.patterns)
    }
    end = wanted.offset + wanted.limit
    return [labels.joined(one) for one in sorted(found)[wanted.offset : end]]


def first_labels(wanted: ListNamespaces) -> str:
    """The joined labels that every wanted namespace begins with; empty if that is any."""
    certain: tuple[str, ...] = ()
    for pattern in wanted.patterns:
        if pattern.at == "prefix" and pattern.after <= len(certain):
            certain = max(certain, (*certain[: pattern.after], *_known(pattern.labels)), key=len)
    return labels.joined(certain)


def _known(wanted: tuple[str | None, ...]) -> Iterable[str]:
    for label in wanted:
        if label is None:
            return
        yield label
