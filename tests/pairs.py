"""Folders of pairs for the tests of what learns from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from scumble.core import rng

__all__ = ["INSTRUCTIONS", "folder", "picture", "row"]

INSTRUCTIONS = ("make it night", "a red cat", "move it to the left", "make it blue")


def picture(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    """Large random blocks, so that a picture has something to see."""
    cells = torch.randint(0, 256, (6, 6, 3), generator=rng.generator(seed), dtype=torch.uint8)
    return Image.fromarray(cells.numpy()).resize((width, height), Image.Resampling.NEAREST)


def row(number: int, **more: Any) -> dict[str, Any]:
    instruction = INSTRUCTIONS[number % len(INSTRUCTIONS)]
    captions = {"input_caption": f"a dog {number}", "edited_caption": f"a cat {number}"}
    return (
        {"input": f"{number}_in.png", "edited": f"{number}_out.png", "instruction": instruction}
        | captions
        | more
    )


def folder(path: Path, count: int = 4, size: tuple[int, int] = (64, 64)) -> Path:
    """`count` pairs in the folder `path`, which is made; returns it."""
    path.mkdir(parents=True)
    for number in range(count):
        for seed, name in ((2 * number, "in"), (2 * number + 1, "out")):
            picture(seed, *size).save(path / f"{number}_{name}.png")
    rows = [json.dumps(row(number, score=0.5)) for number in range(count)]
    (path / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    return path
