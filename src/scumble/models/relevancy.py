"""Where in a picture a text is: the relevancy of Chefer, Gur, Wolf 2021, "Generic Attention-model
Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers" (2103.15679), through CLIP.

With A the attention (N, L, L) of a block and s the similarity of picture and text, blocks are gone through in
order and

    R <- R + mean over heads of (ds/dA * A)^+  R,     R = 1 at first                      (equations 5 and 6)

and the row of R that belongs to the token of the picture says how much each patch had to do with s.

Where we differ from Text2LIVE, which uses it: one map of a patch grid is coarse (7 x 7 for ViT-B/32), so the
picture may be looked at in several overlapping crops, and mirrored, and the maps averaged where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import pi

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from scumble.models.clip import Clip
from scumble.models.clip_vision import attention_of, grid_of, see, view_size

__all__ = ["patch_relevancy", "relevancy_map", "seen_share", "stretched"]

CROPS = (1.0, 0.75, 0.5)
"""Sides of the crops that are looked at, as shares of the picture; each is laid out with half overlap."""


def patch_relevancy(clip: Clip, views: Tensor, text: Tensor, *, blocks: int = 1) -> Tensor:
    """(B, h / patch, w / patch), at least 0: what of views (B, 3, h, w) in [0, 1] speaks for `text` (E,).

    Only the last `blocks` blocks are gone through.
    """
    with attention_of(clip, blocks) as attention, torch.enable_grad():
        score = (see(clip, views.detach().requires_grad_()).features @ text).sum()
        gradients = torch.autograd.grad(score, attention)
    tokens = attention[0].shape[-1]
    whole = torch.eye(tokens, device=views.device).expand(len(views), -1, -1)  # (B, L, L)
    for weights, gradient in zip(attention, gradients, strict=True):
        whole = whole + (gradient * weights).detach().float().clamp(min=0).mean(1) @ whole
    return whole[:, 0, 1:].unflatten(1, grid_of(clip, (views.shape[-2], views.shape[-1])))


@torch.no_grad()
def relevancy_map(clip: Clip, picture: Tensor, text: Tensor, *, blocks: int = 1, looks: int = 1) -> Tensor:
    """(1, 1, H, W) in [0, 1] for a picture (1, 3, H, W) in [0, 1]: 0 the least relevant pixel, 1 the most.

    `looks` 1 is one look at all of it, 2 and 3 add crops of three quarters and of half its sides, each also
    mirrored. Their sum has a few high peaks, so that the twentieth of the pixels that is most relevant on
    average counts as 1.
    """
    height, width = picture.shape[-2:]
    total = torch.zeros(1, 1, height, width, device=picture.device)
    for share in CROPS[:looks]:
        h, w = max(2, round(height * share)), max(2, round(width * share))
        boxes = list(_boxes(height, width, h, w))
        size = view_size(clip, h, w)
        crops = [
            interpolate(picture[..., y : y + h, x : x + w], size, mode="bicubic", antialias=True)
            for y, x in boxes
        ]
        views = torch.cat(crops).clamp(0, 1)
        found = patch_relevancy(clip, views, text, blocks=blocks)
        if looks > 1:
            found = (found + patch_relevancy(clip, views.flip(-1), text, blocks=blocks).flip(-1)) / 2
        sized = interpolate(found[:, None], (h, w), mode="bilinear", align_corners=False)
        weight = torch.outer(_fading(h), _fading(w)).to(total) if share < 1 else torch.ones_like(sized[0])
        layer, covered = torch.zeros_like(total), torch.zeros_like(total)
        for (y, x), part in zip(boxes, sized, strict=True):
            layer[0, :, y : y + h, x : x + w] += weight * part
            covered[0, :, y : y + h, x : x + w] += weight
        total = total + layer / covered
    found = stretched(total)
    if looks == 1:
        return found
    largest = found.flatten().topk(max(1, found.numel() // PEAKS)).values.mean()
    return (found / largest.clamp(min=1e-12)).clamp(max=1)


PEAKS = 20


def _fading(length: int) -> Tensor:
    """Weights (length,) that fall towards both ends, so that crops leave no seams."""
    return ((torch.arange(length) + 0.5) * (pi / length)).sin().square() + 1e-3


def stretched(relevancy: Tensor) -> Tensor:
    """(..., H, W) brought to [0, 1], each from its least to its largest value; 0 where these agree."""
    low, high = relevancy.amin((-2, -1), keepdim=True), relevancy.amax((-2, -1), keepdim=True)
    return (relevancy - low) / (high - low).clamp(min=1e-12)


@torch.no_grad()
def seen_share(clip: Clip, picture: Tensor, relevancy: Tensor, text: Tensor) -> float:
    """Whether `text` (E,) is in the picture, in [0, 1]: how well the map names what the similarity rests on.

    The fifth of the picture (1, 3, H, W) that is most relevant is blurred away, and for comparison every
    other box of the same size on a grid. The share of those boxes that cost the similarity less, from 0 (the
    map says nothing: there is nothing to find) to 1.
    """
    size = view_size(clip, *picture.shape[-2:])
    view = interpolate(picture, size, mode="bicubic", antialias=True).clamp(0, 1)
    rows, columns = grid_of(clip, size)
    high, wide = max(1, round(rows * BLOT)), max(1, round(columns * BLOT))
    small = interpolate(relevancy, (rows, columns), mode="area")
    means = avg_pool2d(small, (high, wide), stride=1)[0, 0]  # relevancy of each box of patches
    patch = (size[0] // rows, size[1] // columns)
    vague = _blurred(view, max(size) // 4)
    masks = torch.zeros(means.numel(), 1, *size, device=view.device)
    for number in range(means.numel()):
        y, x = divmod(number, means.shape[1])
        masks[number, :, y * patch[0] : (y + high) * patch[0], x * patch[1] : (x + wide) * patch[1]] = 1
    blotted = torch.cat([torch.lerp(view, vague, part) for part in masks.split(16)])
    left = torch.cat([see(clip, part).features @ text for part in blotted.split(16)])
    chosen = left[means.flatten().argmax()]
    return float((left > chosen + ROUNDING).float().mean())


BLOT = 0.45
"""Side of what is blotted out, as a share of the view's; a fifth of its area."""


ROUNDING = 1e-6
"""Difference of similarities that is none: in a picture of one colour rounding alone would decide."""


def _blurred(view: Tensor, width: int) -> Tensor:
    """The view with everything up to some `width` pixels smoothed away."""
    small = interpolate(view, (max(1, view.shape[-2] // width), max(1, view.shape[-1] // width)), mode="area")
    return interpolate(small, (view.shape[-2], view.shape[-1]), mode="bilinear", align_corners=False)


def _boxes(height: int, width: int, h: int, w: int) -> Iterator[tuple[int, int]]:
    """Upper left corners of boxes h x w that cover the picture with half overlap."""

    def starts(length: int, part: int) -> list[int]:
        count = max(1, -(-(length - part) * 2 // part) + 1)
        return [round(k * (length - part) / max(1, count - 1)) for k in range(count)]

    for y in starts(height, h):
        for x in starts(width, w):
            yield y, x
