"""Runs the comparisons behind docs/choosing.md: `scumble compare` on scenes and subjects of the toy world.

    python docs/data/compare.py out/compare      some twenty minutes; a run that was stopped goes on

Afterwards `python docs/data/make.py out/compare/*/compare.json` puts them in. Scenes are rendered anew, with
seeds that no training saw; each task is given to every method that applies, none is left out.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("scumble")
SEED = 1_000_000
"""Of the first scene: the first that is kept for evaluation."""
PLAIN = {"time": "day", "view": "front", "size": "large", "material": "matte", "effect": "none"}
EDITS: Mapping[str, tuple[Mapping[str, str], str, str, str]] = {
    "night": (
        {"kind": "cat", "colour": "red", "place": "beach"},
        "make it night",
        "a photo of a red cat on the beach",
        "a photo of a red cat on the beach at night",
    ),
    "colour": (
        {"kind": "car", "colour": "blue", "place": "grass"},
        "make the car red",
        "a photo of a blue car on the grass",
        "a photo of a red car on the grass",
    ),
    "place": (
        {"kind": "duck", "colour": "yellow", "place": "studio"},
        "put it in the snow",
        "a photo of a yellow duck in a studio",
        "a photo of a yellow duck in the snow",
    ),
    "style": (
        {"kind": "house", "colour": "white", "place": "grass"},
        "turn it into a watercolour",
        "a photo of a white house on the grass",
        "a watercolour of a white house on the grass",
    ),
    "kind": (
        {"kind": "dog", "colour": "brown", "place": "desert"},
        "turn it into a cat",
        "a photo of a brown dog in the desert",
        "a photo of a brown cat in the desert",
    ),
}
"""Task -> what the scene has, the instruction, and a caption of the picture before and after."""
SUBJECTS = {
    "subject": ("teal-cat", "cat", "a photo of a <it> cat on the beach"),
    "marked-subject": ("green-bear-heart", "bear", "a photo of a <it> bear in the snow"),
}
"""Task -> the benchmark's subject, its noun and the prompt."""


def run(*arguments: object) -> None:
    """A command of scumble, shown as it would be typed."""
    words = list(map(str, arguments))
    print("$", shlex.join(["scumble", *words]), flush=True)
    subprocess.run([PROGRAM, *words], check=True)


def main(out: Path) -> None:
    """All tasks, each in its folder of `out`."""
    inputs = out.with_name(f"{out.name}-inputs")
    for number, (name, (scene, instruction, before, after)) in enumerate(EDITS.items()):
        folder, seed = inputs / name, SEED + number
        if not folder.is_dir():
            fixed = [word for item in {**PLAIN, **scene}.items() for word in ("--set", "=".join(item))]
            run("toybox", "render", "--count", 1, "--seed", seed, "--profile", "photo", *fixed, "-o", folder)
        told = ("--instruction", instruction, "--before", before, "--prompt", after)
        run("compare", folder / f"{seed:06d}.png", *told, "-o", out / name)
    if not (inputs / "subjects").is_dir():
        run("toybox", "subjects", "-o", inputs / "subjects")
    for name, (subject, noun, prompt) in SUBJECTS.items():
        told = ("--subject", inputs / "subjects" / subject, "--word", "<it>", "--noun", noun)
        run("compare", *told, "--prompt", prompt, "-o", out / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
