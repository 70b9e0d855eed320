"""What each module offers stands in its `__all__`; what the package offers is frozen; its import is light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import scumble

ROOT = Path(scumble.__file__).parent

PUBLIC = [
    "__version__",
    "advise",
    "atlas",
    "compare",
    "composite",
    "convert",
    "data_instructions",
    "edit_instruct",
    "edit_sdedit",
    "edit_text2live",
    "edit_video",
    "generate",
    "inspect",
    "learn",
    "load",
    "merge",
    "redo",
    "strokes",
    "train_instruct",
    "upscale",
]
"""The names of `import scumble`. A change here is a change that users see: it belongs in CHANGELOG too."""

HEAVY = ("torch", "diffusers", "transformers", "pydantic", "numpy", "PIL")


def modules() -> dict[str, ast.Module]:
    """Every module that is not a package, parsed and not imported: extras need not be installed."""
    found = {str(p.relative_to(ROOT)): p for p in sorted(ROOT.rglob("*.py")) if p.name != "__init__.py"}
    return {name: ast.parse(path.read_text()) for name, path in found.items()}


def bound(statements: list[ast.stmt]) -> dict[str, bool]:
    """Names bound at the top of a module -> whether by a function or class statement."""
    names: dict[str, bool] = {}
    for node in statements:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[node.name] = True
        elif isinstance(node, ast.Assign):
            names |= {
                n.id: False for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)
            }
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = False
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name: False for alias in node.names}
    return names


def listed(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["__all__"]:
            return ast.literal_eval(node.value)
    return None


def test_every_module_lists_exactly_what_it_offers() -> None:
    found = modules()
    assert len(found) >= 50
    wrong: dict[str, str] = {}
    for name, tree in found.items():
        offered, names = listed(tree), bound(tree.body)
        if offered is None:
            wrong[name] = "has no __all__"
            continue
        defined = {n for n, by_statement in names.items() if by_statement and not n.startswith("_")}
        if missing := defined - set(offered):
            wrong[name] = f"does not list {sorted(missing)}"
        if unknown := set(offered) - names.keys():
            wrong[name] = f"lists what is not there: {sorted(unknown)}"
        if len(offered) != len(set(offered)):
            wrong[name] = "lists a name twice"
    assert wrong == {}


def test_packages_hold_a_sentence_and_nothing_else() -> None:
    packages = sorted(set(ROOT.rglob("__init__.py")) - {ROOT / "__init__.py"})
    assert len(packages) >= 9
    for path in packages:
        body = [n for n in ast.parse(path.read_text()).body if not isinstance(n, ast.ImportFrom)]
        assert len(body) == 1, path
        assert isinstance(body[0], ast.Expr), path


def test_the_names_of_the_package_are_frozen() -> None:
    assert list(getattr(scumble, "__all__", [])) == PUBLIC


def test_importing_the_package_is_light() -> None:
    code = f"import json, sys, scumble; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == []
