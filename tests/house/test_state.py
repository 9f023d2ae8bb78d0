"""No module-level state but the one context variable."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import deerflow_replica

PACKAGE = Path(deerflow_replica.__file__).parent

CACHES = {"cache", "lru_cache", "cached"}
CONTAINERS = {"dict", "list", "set", "defaultdict", "OrderedDict", "deque", "Counter", "WeakKeyDictionary"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def called_name(node: ast.AST) -> str:
    """The last name of what is called: `f` in `f()` and `a.f()`."""
    function = node.func if isinstance(node, ast.Call) else node
    if isinstance(function, ast.Subscript):
        function = function.value
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def test_no_global_statement() -> None:
    found = [
        f"{name}:{node.lineno}" for name, tree in modules() for node in ast.walk(tree) if isinstance(node, ast.Global)
    ]
    assert found == []


def test_one_context_variable() -> None:
    found = [
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and called_name(node) == "ContextVar"
    ]
    assert found == ["config/scope.py"]


def test_no_empty_container_waits_in_a_module() -> None:
    """What is empty at import is there to be filled: a registry."""
    found = [
        f"{name}:{statement.lineno}"
        for name, tree in modules()
        for statement in tree.body
        if isinstance(statement, ast.Assign | ast.AnnAssign) and is_empty_container(statement.value)
    ]
    assert found == []


def is_empty_container(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Dict):
        return not value.keys
    if isinstance(value, ast.List | ast.Set):
        return not value.elts
    return isinstance(value, ast.Call) and called_name(value) in CONTAINERS and not value.args


def test_no_function_without_arguments_is_cached() -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(called_name(decorator) in CACHES for decorator in node.decorator_list)
        and not (node.args.args or node.args.kwonlyargs or node.args.posonlyargs)
    ]
    assert found == []
