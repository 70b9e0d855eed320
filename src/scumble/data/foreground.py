"""Rough masks of what moves in front: a person's own, the first frame's carried along the flow, or GrabCut.

Masks are (F, 1, H, W) in [0, 1], 1 inside. GrabCut: Rother, Kolmogorov, Blake 2004.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from scumble.core.errors import ImageError, InputError
from scumble.core.images import SUFFIXES, read_mask
from scumble.data.flow import Flow, carried, opencv

__all__ = ["Box", "carried_masks", "check_box", "fitted", "grabcut", "read_masks"]

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first column and row outside."""

BAND = 0.02
"""Width, as a share of the shorter side, of the rim in which a carried mask is decided anew."""
ROUNDS = 3


def read_masks(place: Path | str, frames: int, size: tuple[int, int]) -> Tensor:
    """Masks that a person made: one picture, for the first frame, or a folder with one a frame, by name.

    (1, 1, H, W) or (F, 1, H, W) of the frames' `size` (H, W). Raises InputError where number or size do not
    match, or where a first mask holds nothing or everything.
    """
    place = Path(place)
    files = [place]
    if place.is_dir():
        files = sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES)
        if len(files) != frames:
            raise InputError(
                f"{place} holds {len(files)} masks, and the video has {frames} frames.",
                "Give one mask a frame, or one picture for the first frame alone.",
            )
    masks: list[Tensor] = []
    for file in files:
        mask = read_mask(file)
        if mask.shape[2:] != size:
            theirs, ours = ("{1} x {0}".format(*s) for s in (mask.shape[2:], size))
            raise ImageError(f"The mask {file} has {theirs} pixels, and the video {ours}.")
        masks.append(mask)
    found = torch.cat(masks)
    if not bool((found > 0.5).any()):
        raise ImageError(f"The mask {place} is black everywhere.", "Paint white what moves in front.")
    if bool((found > 0.5).all()):
        raise ImageError(f"The mask {place} is white everywhere.", "Paint black what lies behind.")
    return found


def grabcut(frame: Tensor, box: Box) -> Tensor:
    """A mask (1, 1, H, W) of what stands out inside `box` of a frame (3, H, W) uint8.

    Raises InputError for a box that is empty, outside the frame or all of it, and where nothing is found.
    """
    cv2 = opencv()
    height, width = frame.shape[1:]
    check_box(box, (height, width))
    left, top, right, bottom = box
    labels = np.full((height, width), cv2.GC_BGD, dtype=np.uint8)
    labels[top:bottom, left:right] = cv2.GC_PR_FGD
    mask = _cut(cv2, frame, labels)
    if not bool(mask.any()):
        raise InputError("Nothing stands out in the box.", "Give a tighter box, or a mask.")
    return mask[None, None]


def check_box(box: Box, size: tuple[int, int]) -> None:
    """Raises InputError for a box that is empty, outside of a frame of `size` (H, W) or all of it."""
    height, width = size
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InputError(
            f"The box {left},{top},{right},{bottom} does not lie in a frame of {width} x {height} pixels.",
            "Give left,top,right,bottom in pixels.",
        )
    if (right - left, bottom - top) == (width, height):
        raise InputError("The box is the whole frame.", "Leave some of what lies behind outside of it.")


def carried_masks(frames: Tensor, first: Tensor, flow: Flow, *, refine: bool = True) -> Tensor:
    """The first frame's mask (1, 1, H, W) in all frames (F, 3, H, W) uint8: (F, 1, H, W), 0 or 1.

    Each is the one before looked up along the flow. With `refine` a thin rim is decided anew by GrabCut, so
    that errors of the flow do not add up.
    """
    if not refine:
        return (carried(first[0], flow) > 0.5).float()
    cv2 = opencv()
    masks = [(first > 0.5).float()]
    for frame, back in zip(frames[1:], flow.backward, strict=True):
        step = Flow(back[None], back[None])
        masks.append(_refined(cv2, frame, carried(masks[-1][0], step)[1:]))
    return torch.cat(masks)


def _refined(cv2: Any, frame: Tensor, mask: Tensor) -> Tensor:
    """(1, 1, H, W): the rim of a soft mask decided by colour; the mask itself where that finds nothing."""
    solid = (mask > 0.5).float()
    reach = max(1, round(BAND * min(frame.shape[1:])))
    inner = 1 - _grown(1 - solid, reach)
    outer = _grown(solid, reach)
    if not bool(inner.any()) or bool(outer.all()):
        return solid
    labels = torch.full_like(mask, cv2.GC_BGD)
    labels[outer > 0] = cv2.GC_PR_BGD
    labels[solid > 0] = cv2.GC_PR_FGD
    labels[inner > 0] = cv2.GC_FGD
    found = _cut(cv2, frame, labels[0, 0].to(torch.uint8).cpu().numpy())
    return found[None, None].to(mask.device)


def _cut(cv2: Any, frame: Tensor, labels: NDArray[np.uint8]) -> Tensor:
    """(H, W) 0 or 1 from labels of GrabCut; OpenCV's random numbers start anew each time."""
    picture = np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy())
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    found, *_ = cv2.grabCut(picture, labels, None, *models, ROUNDS, cv2.GC_INIT_WITH_MASK)
    return torch.as_tensor((found == cv2.GC_FGD) | (found == cv2.GC_PR_FGD)).float()


def _grown(mask: Tensor, reach: int) -> Tensor:
    return max_pool2d(mask, 2 * reach + 1, stride=1, padding=reach)


def fitted(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks resized to a working size (H, W) by area."""
    return interpolate(masks, size=size, mode="area")
