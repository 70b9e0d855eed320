"""The clip that the demo edits, and its atlas, both kept in the package; `recipes/demo_clip.py` made them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

from torch import Tensor

from scumble.metrics.warp import warp_error
from scumble.models.atlas_file import load_atlas, save_atlas
from scumble.world.clips import BENCHMARK_CLIPS, Flow, render_clip

__all__ = ["CLIP", "FOLDER", "GAP", "SIDE", "truth", "unpack", "wobble"]

CLIP = replace(BENCHMARK_CLIPS[2], frames=16)
"""A grey rocket on the beach, and the camera goes round it."""
SIDE = 96
"""Pixels of each side of a frame."""
GAP = Fraction(2, 25)
"""Seconds from frame to frame."""
FOLDER = Path(__file__).resolve().parent / "clip"


def unpack(out: Path) -> tuple[Path, Path]:
    """Write the clip and its atlas, which the package has in half precision, to the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    clip, atlas = out / "clip.apng", out / "clip.atlas"
    shutil.copyfile(FOLDER / clip.name, clip)
    packed = load_atlas(FOLDER / atlas.name)
    save_atlas(atlas, replace(packed, atlas=packed.atlas.float()))
    return clip, atlas


def wobble(frames: Tensor) -> float:
    """Warp error of the clip's frames (F, 3, H, W) in [0, 1], edited or not, along its true motion."""
    flow, _ = truth()
    return float(warp_error(frames, flow.offset, flow.visible).mean())


@cache
def truth() -> tuple[Flow, Tensor]:
    """What the clip's program knows of it: flow from each frame to the next, and masks (F, H, W) bool of the
    thing.
    """
    rendering = render_clip(CLIP, size=SIDE)
    return rendering.forward, rendering.masks[:, 0]
