"""The command line's texts are frozen: a change of an option shows in a diff. And `--help` is quick."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer.main

from cli import COMMANDS, scumble
from scumble.cli.main import app

HELP = Path(__file__).parents[1] / "data" / "help"


def every_command() -> set[tuple[str, ...]]:
    """The commands that there are, by asking the application."""
    found: set[tuple[str, ...]] = set()

    def visit(command: object, name: tuple[str, ...]) -> None:
        found.add(name)
        for child, below in getattr(command, "commands", {}).items():
            visit(below, (*name, child))

    visit(typer.main.get_command(app), ())
    return found


def test_every_command_has_a_frozen_text() -> None:
    assert every_command() == set(COMMANDS)
    assert len(list(HELP.glob("*.txt"))) == len(COMMANDS) == 45


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c) or "scumble")
def test_help_is_as_frozen(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    frozen = (HELP / f"{'-'.join(('scumble', *command))}.txt").read_text()
    outcome = scumble(*command, "--help")
    assert outcome.status == 0
    assert outcome.out == frozen, "tests/data/help/make.py freezes it anew"


def test_help_loads_nothing_heavy() -> None:
    asked = "from scumble.cli.main import main; import sys; sys.argv=['scumble','generate','--help']\n"
    heavy = ("torch", "diffusers", "transformers", "numpy", "PIL", "scumble.core.config")
    code = f"try:\n  {asked}  main()\nexcept SystemExit: pass\nassert not set({heavy}) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "scumble", "generate"]
    outcome = subprocess.run(command, check=False, capture_output=True, text=True)
    assert outcome.returncode == 2
    assert "Missing argument 'prompt'" in outcome.stderr


def test_help_is_quick() -> None:
    """At most 0.3 s, or three times the interpreter with typer alone where the machine is slow or busy."""
    asked = "from scumble.cli.main import main; import sys; sys.argv=['scumble','--help']; main()"
    pairs = [(_seconds(asked), _seconds("import typer")) for _ in range(7)]
    ours, floor = min(a for a, _ in pairs), min(b for _, b in pairs)
    assert ours < max(0.3, 3 * floor), f"{ours:.2f} s, typer alone {floor:.2f} s"


def _seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start
