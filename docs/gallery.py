"""Makes the galleries of the pages: runs the commands that stand there and joins the pictures they leave.

    python docs/gallery.py                      all of them, into docs/images/gallery/
    python docs/gallery.py methods/sdedit.md    those of some pages

A gallery is a comment that names it and its pictures, and the block of commands below it:

    <!-- gallery worn: face.png pasted.png worn-*.png -->
    ```
    scumble composite ...
    ```

The galleries of a page run in one folder, out/gallery/PAGE, one after the other, so that later ones use what
earlier ones made; what was painted for them lies there as `guides`. What was run with the same weights is not
run again; a change in a block runs its page anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from scumble.core.files import atomic_path
from scumble.core.images import grid

DOCS = Path(__file__).parent
WORK = DOCS.parent / "out" / "gallery"
PICTURES = DOCS / "images" / "gallery"
GUIDES = DOCS / "images" / "guides"
BLOCK = re.compile(r"<!-- gallery ([\w-]+): (.+?) -->\s*```\n(.+?)```", re.DOTALL)
COLUMNS = 8
QUALITY = 90
PAPER = (232, 232, 228)
PROGRAM = Path(sys.executable).with_name("scumble")


@dataclass(frozen=True, slots=True)
class Gallery:
    """Commands on a page, each as its arguments, and the pictures of theirs that are shown."""

    name: str
    patterns: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]


def galleries(page: Path) -> Iterator[Gallery]:
    """Those of a page, from the top."""
    for name, patterns, block in BLOCK.findall(page.read_text()):
        lines = block.replace("\\\n", " ").splitlines()
        commands = tuple(tuple(shlex.split(line, comments=True)) for line in lines)
        yield Gallery(name, tuple(patterns.split()), tuple(filter(None, commands)))


def main(names: list[str]) -> None:
    """Make the galleries of the pages of these names, or of all pages."""
    pages = [DOCS / name for name in names] or sorted(DOCS.rglob("*.md"))
    for page in pages:
        _make(page)


def _make(page: Path) -> None:
    shown = list(galleries(page))
    if not shown:
        return
    folder = WORK / page.relative_to(DOCS).with_suffix("")
    states, past = [], hashlib.sha256(_weights())
    for gallery in shown:
        past.update(repr(gallery.commands).encode())
        states.append(past.hexdigest())
    done = (folder / "done").read_text().split() if (folder / "done").exists() else []
    if done != states[: len(done)]:
        done = []
    if not done:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(GUIDES, folder / "guides")
    for state, gallery in zip(states[len(done) :], shown[len(done) :], strict=True):
        _run(gallery, folder)
        with (folder / "done").open("a") as file:
            file.write(state + "\n")
    for gallery in shown:
        _join(gallery, folder)


def _run(gallery: Gallery, folder: Path) -> None:
    for command in gallery.commands:
        print("$", shlex.join(command), flush=True)
        program, *arguments = command
        assert program == "scumble", f"{gallery.name} is to run {program}"
        environment = {**os.environ, "SCUMBLE_DATA": str(folder.resolve() / "data")}
        subprocess.run([PROGRAM, *arguments], cwd=folder, env=environment, check=True)


def _join(gallery: Gallery, folder: Path) -> None:
    files = [file for pattern in gallery.patterns for file in sorted(folder.glob(pattern))]
    assert files, f"{gallery.name} has no pictures"
    pictures = [_opaque(Image.open(file)) for file in files]
    with atomic_path(PICTURES / f"{gallery.name}.webp") as temporary:
        sheet = grid(pictures, columns=min(COLUMNS, len(pictures)))
        sheet.save(temporary, "WEBP", quality=QUALITY, method=6)


def _opaque(picture: Image.Image) -> Image.Image:
    """What is transparent shows light grey."""
    sheet = Image.new("RGBA", picture.size, PAPER)
    return Image.alpha_composite(sheet, picture.convert("RGBA")).convert("RGB")


def _weights() -> bytes:
    """What tells the toybox's weights from others."""
    package = DOCS.parent / "src" / "scumble" / "toybox"
    files = sorted(package.rglob("*.safetensors"))
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).digest()


if __name__ == "__main__":
    main(sys.argv[1:])
