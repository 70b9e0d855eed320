"""What SDEdit works from: a guide, the original under it, and a mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scumble.core.errors import ImageError
from scumble.data.masks import differing

__all__ = ["Painting", "painting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Painting:
    """What to work from, as `painting` makes it: tensors with pixels in [0, 1], on the CPU."""

    guide: Tensor
    """(1, 3, H, W) what is painted; the original's pixels where the mask is 0."""
    original: Tensor
    """(1, 3, H, W) what stays where the mask is 0."""
    mask: Tensor
    """(1, 1, H, W) the paper's Omega: 1 may change, 0 stays, grey is a share of t0."""
    prompt: str = ""


def painting(
    guide: Tensor, *, original: Tensor | None = None, mask: Tensor | None = None, prompt: str = ""
) -> Painting:
    """Put together a guide (1, 3, H, W), the original under it, if any, and a mask (1, 1, H, W), all in
    [0, 1].

    Without a mask, everything may change, or what differs from the original if that is there. Raises
    ImageError for sizes that differ, for values outside [0, 1] and for a mask under which nothing may change.
    """
    size = _size(guide)
    for name, other in (("original", original), ("mask", mask)):
        if other is not None and other.shape[-2:] != guide.shape[-2:]:
            raise ImageError(
                f"The guide has {size} pixels and the {name} {_size(other)}.", "Make them the same size."
            )
    if mask is None:
        mask = torch.ones_like(guide[:, :1]) if original is None else differing(guide, original)
        if not mask.any():
            raise ImageError("The guide is equal to the original.", "Paint something, or give a mask.")
    if not mask.any():
        raise ImageError("The mask is black everywhere.", "White is what may change.")
    original = guide if original is None else original
    for name, values in (("guide", guide), ("original", original), ("mask", mask)):
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise ImageError(f"The {name} has values outside [0, 1].")
    return Painting(guide=torch.where(mask > 0, guide, original), original=original, mask=mask, prompt=prompt)


def _size(pixels: Tensor) -> str:
    return f"{pixels.shape[-1]} x {pixels.shape[-2]}"
