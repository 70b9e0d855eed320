"""Held-out instructions with the pictures that they are about: before, after as it truly is, where nothing
has a reason to change, and how far redraws are from it there. Rendered once, in shards that are found again.

Letters: N edits, H W the size of pictures, K redraws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from scumble.core.events import Loop, Progress
from scumble.core.files import atomic_path
from scumble.core.images import from_uint8, to_uint8
from scumble.metrics.pixels import mse_where
from scumble.metrics.toy_edits import redrawn
from scumble.world.instructions import Edit, instruct, instruct_chain
from scumble.world.pairs import render_edits
from scumble.world.render import render
from scumble.world.sampling import PROFILES, sample_scene

__all__ = ["Truth", "chains", "edits", "rendered", "whole"]

SHARD = 20
"""Edits rendered and written at a time."""


@dataclass(frozen=True, slots=True)
class Truth:
    """N edits and their pictures, of 8 bits."""

    edits: list[Edit]
    before: Tensor
    """(N, 3, H, W) in [0, 1]."""
    after: Tensor
    """(N, 3, H, W) in [0, 1]: what the instruction asks for, exactly."""
    redraw: Tensor
    """(N, 3, H, W) in [0, 1]: one more of the same description, to be scored and not to be compared with."""
    changing: Tensor
    """(N, H, W) bool: what may change."""
    same: Tensor
    """(N, H, W) bool: what has no reason to change, see `unchanged`."""
    redraw_error: Tensor
    """(N, K) squared error of redraws to the true picture there."""


def edits(count: int, first: int, profile: str) -> list[Edit]:
    """One instruction for each of `count` scenes of held-out combinations, from the seed `first` on."""
    scenes = (sample_scene(first + i, profile=PROFILES[profile], split="held_out") for i in range(count))
    return [instruct(scene, scene.seed, split=None) for scene in scenes]


def chains(count: int, first: int, profile: str, length: int) -> list[list[Edit]]:
    """`length` instructions, one after the other, for each of `count` such scenes."""
    scenes = (sample_scene(first + i, profile=PROFILES[profile], split="held_out") for i in range(count))
    return [instruct_chain(scene, scene.seed, length) for scene in scenes]


def whole(chain: Sequence[Edit]) -> Edit:
    """All instructions of a chain as one edit, from its first scene to its last."""
    return Edit(
        kind="chain",
        text="; ".join(edit.text for edit in chain),
        before=chain[0].before,
        after=chain[-1].after,
        target=None,
    )


def rendered(folder: Path, todo: Sequence[Edit], *, size: int, redraws: int) -> Loop[Truth]:
    """The pictures of all edits; files in `folder` are read again instead of rendered."""
    tables: list[dict[str, Tensor]] = []
    for start in range(0, len(todo), SHARD):
        part = todo[start : start + SHARD]
        path = folder / f"{start:05d}-{len(part)}.safetensors"
        if not path.is_file():
            with atomic_path(path) as temporary:
                save_file(_shard(part, size, redraws), temporary)
        tables.append(load_file(path))
        yield Progress(stage="rendering the truth", step=start + len(part), total=len(todo))
    joined = {name: torch.cat([table[name] for table in tables]) for name in tables[0]}
    pictures = (from_uint8(joined[name]) for name in ("before", "after", "redraw"))
    masks = {name: joined[name] for name in ("changing", "same", "redraw_error")}
    return Truth(list(todo), *pictures, **masks)


def _shard(part: Sequence[Edit], size: int, redraws: int) -> dict[str, Tensor]:
    pictures = render_edits(part, size=size)
    same = torch.stack([_unchanged(edit, pictures.mask[i]) for i, edit in enumerate(part)])
    others = torch.stack([render(redrawn(edit, redraws + 1), size=size).pixels for edit in part])
    error = mse_where(others[:, 1:], pictures.after[:, None], same[:, None])  # (n, K)
    stored = {"before": pictures.before, "after": pictures.after, "redraw": others[:, 0]}
    tables = {name: to_uint8(pixels).contiguous() for name, pixels in stored.items()}
    return tables | {"changing": pictures.mask, "same": same, "redraw_error": error}


def _unchanged(edit: Edit, changing: Tensor) -> Tensor:
    """(H, W) bool: what has no reason to change. All that is outside the mask; where that is nothing, since
    place, time, style or view are another, the things that are in both scenes, as they are seen after.
    """
    if not bool(changing.all()):
        return ~changing
    seen = render([edit.after], size=changing.shape[-1]).masks[0] > 0.5  # (2, H, W)
    pairs = zip(edit.before.things, edit.after.things, strict=False)
    kept = [i for i, (one, other) in enumerate(pairs) if one == other]
    return seen[kept].any(0) if kept else torch.zeros_like(changing)
