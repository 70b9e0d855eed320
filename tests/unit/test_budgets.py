"""No function over 60 lines, no file over 400, no method file over 350: the longer is cut, not excused."""

from __future__ import annotations

import ast
from pathlib import Path

import scumble

ROOT = Path(scumble.__file__).parent
FILE_LINES = 400
METHOD_LINES = 350
FUNCTION_LINES = 60


def sources() -> dict[Path, str]:
    return {path.relative_to(ROOT): path.read_text() for path in sorted(ROOT.rglob("*.py"))}


def test_files_are_short() -> None:
    found = sources()
    assert len(found) >= 60
    limits = {path: METHOD_LINES if path.parts[0] == "methods" else FILE_LINES for path in found}
    lengths = {path: text.count("\n") for path, text in found.items()}
    assert {str(path): n for path, n in lengths.items() if n > limits[path]} == {}


def test_functions_are_short() -> None:
    lengths = {
        f"{path}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path, text in sources().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(lengths) >= 400
    assert {name: n for name, n in lengths.items() if n > FUNCTION_LINES} == {}
