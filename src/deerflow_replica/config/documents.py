"""YAML and JSON text as plain data, with the place of every value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn, cast

import yaml

from ..errors import ConfigError, ConfigProblem
from .frozen import MAX_DEPTH
from .provenance import Path, PlainPlace
from .variables import dotted

MAX_NODES = 100_000
_SAFE_DEPTH = 3 * MAX_DEPTH
_INDENTS = 40
_DEEP_INDENT = re.compile(rf"\n[\ufeff \t?:-]{{{_INDENTS}}}[\ufeff \t?:-]*[^\ufeff \t?:#\n-]")
"""More than may be before the first word of a line that is no comment."""
_OTHER_LINE_BREAKS = ("\r", "\x85", "\u2028", "\u2029")
_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE = "tag:yaml.org,2002:merge"
_VALUE = "tag:yaml.org,2002:value"
_STRING = "tag:yaml.org,2002:str"
_MAP = "tag:yaml.org,2002:map"
_SEQ = "tag:yaml.org,2002:seq"
_SET = "tag:yaml.org,2002:set"
_ORDERED = frozenset({"tag:yaml.org,2002:omap", "tag:yaml.org,2002:pairs"})


class Document:
    """One file's plain data, and the places of its values and keys by path."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.data: dict[str, Any] = {}
        self.places: dict[Path, PlainPlace] = {}
        self.key_places: dict[Path, PlainPlace] = {}
        self.problems: list[ConfigProblem] = []

    def place_of(self, node: yaml.Node) -> PlainPlace:
        return self.source, node.start_mark.line + 1, node.start_mark.column + 1


def read_yaml(text: str, source: str) -> Document:
    """Raises `ConfigError` with the line for text that is not one YAML 1.1 mapping of plain data."""
    document = Document(source)
    root = _composed(text, source)
    if root is not None and not (isinstance(root, yaml.ScalarNode) and root.tag == "tag:yaml.org,2002:null"):
        if not isinstance(root, yaml.MappingNode):
            _fail(source, "the top level should be a mapping", root.start_mark)
        document.data = cast(dict[str, Any], _Walk(document).run(root))
    document.places.setdefault((), (source, 1, 1))
    return document


def read_value(text: str, source: str) -> Any:
    """The same for one value of any kind."""
    document = Document(source)
    root = _composed(text, source)
    value = None if root is None else _Walk(document).run(root)
    if document.problems:
        raise ConfigError(*document.problems)
    return value


def read_json(text: str, source: str) -> Document:
    """The same for a JSON object, by JSON's rules, with the places of the same text as YAML."""
    twice: list[str] = []
    data = _json(text, source, twice)
    if not isinstance(data, dict):
        raise ConfigError(ConfigProblem("", "the top level should be an object", source, 1, 1))
    try:
        document = read_yaml(text, source)
    except ConfigError:  # some escapes of JSON are none of YAML's: no finer places
        document = Document(source)
        document.places = dict.fromkeys([(), *((key,) for key in data)], (source, 1, 1))
        document.problems = [ConfigProblem(key, "duplicate key", source, 1, 1) for key in twice]
    document.data = data
    return document


def _json(text: str, source: str, twice: list[str]) -> Any:
    """Adds the duplicate keys to `twice`."""

    def noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                twice.append(key)
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=noted)
    except json.JSONDecodeError as error:
        problem = ConfigProblem("", error.msg, source, error.lineno, error.colno)
    except RecursionError:
        problem = ConfigProblem("", "nested too deeply", source, 1, 1)
    except ValueError:
        problem = ConfigProblem("", "a number is too long", source, 1, 1)
    raise ConfigError(problem)


def _composed(text: str, source: str) -> yaml.Node | None:
    try:
        _check_depth(text, source)
        return yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        problem = _problem(error, source)
    except yaml.reader.ReaderError as error:
        problem = ConfigProblem("", f"not YAML: {error.reason}", source, *_first_unprintable(text))
    raise ConfigError(problem)  # out here, with nothing chained behind: YAML's own errors can quote the file


def _problem(error: yaml.MarkedYAMLError, source: str) -> ConfigProblem:
    message = ", ".join(part for part in (error.context, error.problem) if part) or "not YAML"
    return ConfigProblem("", message, source, *_position(error.problem_mark or error.context_mark))


def _position(mark: Any) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def _first_unprintable(text: str) -> tuple[int, int]:
    """Found anew: libyaml's errors count bytes."""
    found = yaml.reader.Reader.NON_PRINTABLE.search(text)
    before = text[: found.start()] if found else ""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _check_depth(text: str, source: str) -> None:
    """Composing recurses, so levels are counted on the flat stream of events before, where there could be many."""
    if _is_shallow(text):
        return
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            _fail(source, f"nested more than {MAX_DEPTH} levels deep", event.start_mark)


def _is_shallow(text: str) -> bool:
    """Surely at most `_SAFE_DEPTH` levels, told in a twentieth of the time.

    A bracket opens at most a list and a pair in it. Block collections start in ever deeper columns before a line's
    first word, at most two in each.
    """
    brackets = text.count("[") + text.count("{")
    if 2 * (brackets + _INDENTS + 1) > _SAFE_DEPTH or any(other in text for other in _OTHER_LINE_BREAKS):
        return False
    return _DEEP_INDENT.search(f"\n{text}") is None


def _fail(source: str, message: str, mark: Any) -> NoReturn:
    raise ConfigError(ConfigProblem("", message, source, *_position(mark)))


class _Walk:
    """Composed nodes to plain data, in the order of the file."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._constructor = _LOADER("")
        self._open: set[int] = set()
        self._checked: set[int] = set()
        self._nodes = 0

    def run(self, root: yaml.Node) -> Any:
        try:
            return self._value(root, ())
        except yaml.MarkedYAMLError as error:
            problem = _problem(error, self._document.source)
        finally:
            self._constructor.dispose()
        raise ConfigError(problem)

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self._document.places[path] = self._document.place_of(node)
        self._enter(node)
        try:
            return self._plain(node, path)
        finally:
            self._open.discard(id(node))

    def _plain(self, node: yaml.Node, path: Path) -> Any:
        if isinstance(node, yaml.MappingNode) and node.tag in (_MAP, _SET):
            found = self._mapping(node, path)
            return found if node.tag == _MAP else set(found)
        if isinstance(node, yaml.SequenceNode) and (node.tag == _SEQ or node.tag in _ORDERED):
            item = self._value if node.tag == _SEQ else self._pair
            return [item(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node)

    def _pair(self, node: yaml.Node, path: Path) -> tuple[Any, Any]:
        found = self._value(node, path)
        if not isinstance(found, dict) or len(found) != 1:
            _fail(self._document.source, "expected a mapping of one key", node.start_mark)
        (pair,) = found.items()
        return pair

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, key_node, value_node in self._pairs(node, path):
            below = (*path, key)  # one tuple for both tables: half the work when they are pickled
            self._document.key_places[below] = self._document.place_of(key_node)
            found[key] = self._value(value_node, below)
        return found

    def _pairs(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[Any, yaml.Node, yaml.Node]]:
        """Merged pairs first, so that the mapping's own keys win."""
        own: dict[Any, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[Any, tuple[yaml.Node, yaml.Node]] = {}
        first_time = id(node) not in self._checked
        self._checked.add(id(node))
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged.update((key, (inner, value)) for key, inner, value in self._merged(value_node, path))
                continue
            key = self._key(key_node)
            if key in own and first_time:
                self._duplicate(key, own[key][0], key_node, path)
            own[key] = (key_node, value_node)
        for key, pair in (merged | own).items():
            yield (key, *pair)

    def _merged(self, node: yaml.Node, path: Path) -> Iterator[tuple[Any, yaml.Node, yaml.Node]]:
        self._enter(node)
        if isinstance(node, yaml.MappingNode):
            yield from self._pairs(node, path)
        elif isinstance(node, yaml.SequenceNode) and all(isinstance(part, yaml.MappingNode) for part in node.value):
            for part in reversed(node.value):
                yield from self._merged(part, path)
        else:
            _fail(self._document.source, "a merge key needs a mapping, or a list of mappings", node.start_mark)
        self._open.discard(id(node))

    def _duplicate(self, key: Any, first: yaml.Node, again: yaml.Node, path: Path) -> None:
        message = f"duplicate key, first on line {first.start_mark.line + 1}"
        place = self._document.place_of(again)
        self._document.problems.append(ConfigProblem(dotted((*path, key)), message, *place))

    def _key(self, node: yaml.Node) -> Any:
        if node.tag == _VALUE:
            return "="
        if not isinstance(node, yaml.ScalarNode):
            _fail(self._document.source, "a key should be a plain value", node.start_mark)
        return self._scalar(node)

    def _scalar(self, node: yaml.Node) -> Any:
        if node.tag == _STRING and isinstance(node, yaml.ScalarNode):
            return node.value
        try:
            return self._constructor.construct_object(node, deep=True)
        except (ValueError, OverflowError, LookupError, AttributeError):  # all that PyYAML's constructors raise
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
        _fail(self._document.source, f"not a value of type {kind}", node.start_mark)

    def _enter(self, node: yaml.Node) -> None:
        if id(node) in self._open:
            _fail(self._document.source, "an alias refers to a node that contains it", node.start_mark)
        if len(self._open) >= MAX_DEPTH and isinstance(node, yaml.CollectionNode):
            _fail(self._document.source, f"nested more than {MAX_DEPTH} levels deep", node.start_mark)
        self._open.add(id(node))
        self._nodes += 1 + (len(node.value) if isinstance(node, yaml.MappingNode) else 0)  # keys are nodes, too
        if self._nodes > MAX_NODES:
            _fail(self._document.source, f"more than {MAX_NODES} nodes after aliases", node.start_mark)
