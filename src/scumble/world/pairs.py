"""Pictures before and after an edit, and the exact region in which they may differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scumble.world.camera import Pose
from scumble.world.instructions import Edit
from scumble.world.render import Rendering, render
from scumble.world.scene import Scene
from scumble.world.stage import arrange

__all__ = ["SAME_PIXEL", "EditPictures", "change_mask", "render_edits"]

SAME_PIXEL = 0.5 / 255
"""Two pixels that differ by no more than this in every channel are the same in 8 bits, give or take one."""


@dataclass(frozen=True, slots=True)
class EditPictures:
    """Rendered edits."""

    before: Tensor
    """(B, 3, H, W) sRGB in [0, 1]."""
    after: Tensor
    """(B, 3, H, W) sRGB in [0, 1]."""
    mask: Tensor
    """(B, H, W) bool: what may change, see `change_mask`."""


def render_edits(
    edits: Sequence[Edit], *, size: int = 128, supersample: int = 2, device: str | torch.device = "cpu"
) -> EditPictures:
    """Pictures before and after each edit, and the mask of what may change between them."""
    before = render([e.before for e in edits], size=size, supersample=supersample, device=device)
    after = render([e.after for e in edits], size=size, supersample=supersample, device=device)
    mask = (before.pixels - after.pixels).abs().amax(dim=1) > SAME_PIXEL  # (B, H, W)
    for row, edit in enumerate(edits):
        mask[row] |= _touched(edit.before, edit.after, before, after, row)
    return EditPictures(before.pixels, after.pixels, mask)


def change_mask(before: Scene, after: Scene, size: int = 128) -> Tensor:
    """What may change from one scene to the other: (size, size) bool.

    True where the two pictures differ by more than `SAME_PIXEL` (the thing itself, its shadow, its
    reflection, the light it gives), and wherever a thing that is changed, added, removed or moved is seen
    before or after, even where its pixels happen to be equal. True everywhere when place, time, style or
    view change.
    """
    edit = Edit(kind="", text="", before=before, after=after, target=None)
    return render_edits([edit], size=size).mask[0]


def _touched(before: Scene, after: Scene, seen_before: Rendering, seen_after: Rendering, row: int) -> Tensor:
    """(H, W) bool: where things that differ are seen, or everything when the scenes differ as a whole."""
    covered = (seen_before.masks[row] > 0) | (seen_after.masks[row] > 0)  # (2, H, W)
    if _surroundings(before) != _surroundings(after):
        return covered.new_ones(covered.shape[1:])
    # a thing that is not changed itself may stand elsewhere: it fell, or the one below it or beside it grew
    stood, stands = (arrange(scene, 0, Pose()) for scene in (before, after))
    for index in range(len(covered)):
        if stood[index : index + 1] == stands[index : index + 1]:
            covered[index] = False
    return covered.any(dim=0)


def _surroundings(scene: Scene) -> tuple[str, ...]:
    return scene.place, scene.time, scene.style, scene.view
