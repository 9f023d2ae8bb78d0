"""Pages of the documentation as programs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DOCS = Path(__file__).parent.parent / "docs"


def blocks(name: str, replaced: dict[str, str]) -> Iterator[CodeType]:
    """The page's Python, block by block, for `eval`; one with `await` at its top evaluates to a coroutine.

    `replaced` is put into the text first. An error shows its line in the page.
    """
    text = (_DOCS / name).read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        code = "\n" * text[: found.start(1)].count("\n") + found[1]
        for written, meant in replaced.items():
            code = code.replace(written, meant)
        yield compile(code, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
