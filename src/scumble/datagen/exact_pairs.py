"""Pairs of the toy world: both pictures rendered, so that the edit is exactly what was asked for, with the
mask of what may change (1, white, may).

They take the place of pictures from a model: nothing is drawn, nothing has to be filtered.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scumble.core import rng
from scumble.core.events import Loop, Progress
from scumble.core.images import from_unit, save_image
from scumble.datagen.shards import ROWS, Counts, Shard
from scumble.world.instructions import Edit, instruct, triple
from scumble.world.pairs import render_edits
from scumble.world.sampling import PROFILES, sample_scene
from scumble.world.splits import EVALUATION_SEEDS

__all__ = ["RenderPairs", "edit_of"]


@dataclass(frozen=True, slots=True)
class RenderPairs:
    """The work of rendering: for a shard of seeds, made by `rng.derive`, a pair each. Counts pairs
    `rendered`, those `unchanged`, in which no pixel may differ, and those `kept`.
    """

    profile: str = "full"
    size: int = 128

    def __call__(self, shard: Shard, folder: Path) -> Loop[Counts]:
        counts: Counts = Counter()
        seeds: Sequence[int] = shard.items
        with (folder / ROWS).open("w", encoding="utf-8") as rows:
            for done, seed in enumerate(seeds, 1):
                edit = edit_of(seed, self.profile)
                drawn = render_edits([edit], size=self.size)
                counts["rendered"] += 1
                if bool(drawn.mask.any()):
                    counts["kept"] += 1
                    row = _row(edit, seed)
                    mask = drawn.mask[:, None].float().expand(-1, 3, -1, -1)
                    for name, pixels in zip(
                        ("input", "edited", "mask"), (drawn.before, drawn.after, mask), strict=True
                    ):
                        save_image(from_unit(pixels)[0], folder / row[name])
                    rows.write(json.dumps(row, ensure_ascii=False) + "\n")
                else:
                    counts["unchanged"] += 1
                yield Progress(stage="drawing", step=done, total=len(seeds))
        return counts


def edit_of(seed: int, profile: str = "full") -> Edit:
    """The edit of a seed, of a scene that training may see. Every kind of instruction is equally likely."""
    scene = sample_scene(rng.derive(seed, "scene") % EVALUATION_SEEDS, profile=PROFILES[profile])
    return instruct(scene, seed)


def _row(edit: Edit, seed: int) -> dict[str, Any]:
    before, instruction, after = triple(edit, seed)
    stem = f"{seed:019d}"
    return {
        "input": f"{stem}-input.png",
        "edited": f"{stem}-edited.png",
        "mask": f"{stem}-mask.png",
        "instruction": instruction,
        "input_caption": before,
        "edited_caption": after,
        "kind": edit.kind,
        "seed": seed,
    }
