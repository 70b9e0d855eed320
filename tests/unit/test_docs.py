"""What the pages tell people to type, and the galleries that it makes."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import typer.main

from scumble.cli.main import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def _gallery() -> ModuleType:
    """docs/gallery.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("gallery", DOCS / "gallery.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gallery"] = module  # where its dataclass looks for its names
    spec.loader.exec_module(module)
    return module


gallery = _gallery()
GALLERIES = [(page, found) for page in PAGES for found in gallery.galleries(page)]


def commands(page: Path) -> list[list[str]]:
    """The arguments of every `scumble` command in the blocks of a page."""
    blocks = page.read_text().split("```")[1::2]
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    told = [line.removeprefix("$ ") for line in lines]
    return [shlex.split(line, comments=True)[1:] for line in told if line.startswith("scumble ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_tells_to_type_is_a_command_with_these_options(page: Path) -> None:
    for arguments in commands(page):
        command: Any = typer.main.get_command(app)
        context, rest = click.Context(command, info_name="scumble"), arguments
        while rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest[0]]
            context, rest = click.Context(command, context, info_name=rest[0]), rest[1:]
        whole = not hasattr(command, "commands") or command.invoke_without_command
        assert whole, f"{arguments} is a group of commands"
        command.make_parser(context).parse_args(list(rest))  # raises where an option is not known


def test_there_are_commands_and_galleries_to_look_at() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 60
    assert len(GALLERIES) > 11
    names = [found.name for _, found in GALLERIES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("page", "found"), GALLERIES, ids=lambda value: getattr(value, "name", ""))
def test_a_gallery_is_drawn_and_shown_on_its_page(page: Path, found: Any) -> None:
    name = found.name
    assert (gallery.PICTURES / f"{name}.webp").stat().st_size > 1000
    assert f"images/gallery/{name}.webp" in page.read_text()
    assert found.commands


def test_only_scumble_runs_in_a_gallery() -> None:
    for _, found in GALLERIES:
        assert all(command[0] == "scumble" for command in found.commands)
