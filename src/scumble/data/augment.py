"""Scale and say (Kumari et al. 2022, section 3.2, "training details"): pictures of a subject shown smaller or
larger than they are, with words that say so, so that size does not become part of what the subject is.

Letters: S a picture's size, s the scale relative to it, V views of a picture, f pixels in a latent cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scumble.core import rng
from scumble.data.subjects import Shot, cropped

__all__ = ["FAR", "NEAR", "View", "prefixed", "scaled_views"]

FAR = ("a far away {}", "a very small {}")
NEAR = ("a close up {}", "a zoomed in {}")
"""What is said of a picture that was made smaller or larger; `{}` is where the sentence goes."""

SMALL = 0.6
"""The scale below which a picture is shown smaller; from here to 1 it is shown as it is."""
GREY = 0.5
"""What surrounds a smaller picture, in [0, 1]: zero for the networks."""
ERODED = 1
"""Latent cells on each side of a smaller picture that the loss does not look at: they see the seam."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One way to show a picture: `picture` (3, H, W) in [0, 1]; `mask` (1, H, W), 1 where the loss looks;
    `said`, one of FAR or NEAR, or empty.
    """

    picture: Tensor
    mask: Tensor
    said: str = ""


def scaled_views(
    shot: Shot, size: tuple[int, int], cell: int, count: int, seed: int, *, mirrored: bool
) -> list[View]:
    """`count` views of `shot` at `size` (H, W), multiples of `cell`, the pixels f of a latent cell.

    With chance 2/3 the scale is uniform in [1/3, 1], else in [1.2, 1.4]. Below 0.6 the picture lies at a
    random place on grey; from there to 1 it is as it is; above, a random part of it is shown. View v takes
    its chance from the v-th of `count` equal parts of [0, 1], so that few views have the right shares too.
    Half are mirrored where `mirrored`.
    """
    views: list[View] = []
    for number in range(count):
        chance = rng.generator(rng.derive(seed, "view", number))
        u, x, y, flip, words = (float(torch.rand((), generator=chance)) for _ in range(5))
        u = (number + u) / count
        scale = 1 / 3 + u if u < 2 / 3 else 1.2 + 0.2 * (3 * u - 2)
        if scale < SMALL:
            view = _smaller(shot, size, cell, scale, (x, y), FAR[int(words * len(FAR))])
        elif scale <= 1:
            view = View(*cropped(shot, size))
        else:
            view = _larger(shot, size, scale, (x, y), NEAR[int(words * len(NEAR))])
        views.append(_mirrored(view) if mirrored and flip < 0.5 else view)
    return views


def prefixed(said: str, sentence: str) -> str:
    """The sentence with what is said of its view: "a photo of a dog" gives "a very small photo of a dog"."""
    bare = sentence.removeprefix("a ").removeprefix("an ")
    return said.replace("{}", bare) if said else sentence


def _smaller(
    shot: Shot, size: tuple[int, int], cell: int, scale: float, place: tuple[float, float], said: str
) -> View:
    height, width = (max(1, round(scale * side)) for side in size)
    picture, mask = cropped(shot, (height, width))
    left, top = int(place[0] * (size[1] - width + 1)), int(place[1] * (size[0] - height + 1))
    rows, columns = slice(top, top + height), slice(left, left + width)
    canvas, seen = torch.full((3, *size), GREY), torch.zeros(1, *size)
    canvas[:, rows, columns] = picture
    seen[:, rows, columns] = mask
    inside = torch.zeros(1, *size)
    inside[:, _cells(top, height, cell), _cells(left, width, cell)] = 1
    return View(canvas, seen * inside, said)


def _cells(start: int, length: int, cell: int) -> slice:
    """The pixels of the latent cells that lie wholly inside a stretch, without the outermost on each side;
    the one in the middle where none would be left.
    """
    first, last = -(-start // cell) + ERODED, (start + length) // cell - ERODED
    if first >= last:
        first = (start + length // 2) // cell
        last = first + 1
    return slice(first * cell, last * cell)


def _larger(shot: Shot, size: tuple[int, int], scale: float, place: tuple[float, float], said: str) -> View:
    whole = (round(scale * size[0]), round(scale * size[1]))
    picture, mask = cropped(shot, whole)
    left, top = int(place[0] * (whole[1] - size[1] + 1)), int(place[1] * (whole[0] - size[0] + 1))
    rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
    return View(picture[:, rows, columns], mask[:, rows, columns], said)


def _mirrored(view: View) -> View:
    return View(view.picture.flip(-1), view.mask.flip(-1), view.said)
