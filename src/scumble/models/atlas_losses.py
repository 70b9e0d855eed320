"""The losses of layered neural atlases, in the order of the paper (2109.11418, section 3).

Every function takes what the networks gave at N places and returns a number. Lengths in an atlas are measured
in pixels of the video: an atlas scale s says that xy and s xy are one length, so that a distance d in uv is
d L / (2 s) pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "bootstrapping",
    "colour",
    "flow",
    "flow_opacity",
    "gain",
    "gradient",
    "jacobian",
    "placing",
    "rigidity",
    "sparsity",
]

RIDGE = 1e-3
"""Added to the diagonal of J^T J before it is inverted, as a map that folds has no inverse."""


def colour(found: Tensor, true: Tensor) -> Tensor:
    """|c_hat - c|^2, the mean over places; both (..., 3)."""
    return (found - true).square().sum(-1).mean()


def gradient(found: Tensor, true: Tensor, inside: Tensor) -> Tensor:
    """|d c_hat - d c|^2 of differences to the next pixel in x and y, both (2, ..., 3).

    `inside` (2, ...) is 1 where there is a next pixel, else 0.
    """
    return ((found - true).square().sum(-1) * inside).sum(0).mean()


def jacobian(uvs: Sequence[Tensor], step: float, scale: float) -> Tensor:
    """J (..., 2, 2) of a mapping by differences of uv at p, at p + (step, 0) and at p + (0, step).

    `step` is a length in xy. J is the identity where the mapping is uv = scale xy.
    """
    uv, right, below = uvs
    return torch.stack([right - uv, below - uv], dim=-1) / (step * scale)


def rigidity(jacobians: Tensor) -> Tensor:
    """|J^T J|_F + |(J^T J)^-1|_F, the mean. 2 sqrt(2) is the least, for rotations.

    Written out for 2 x 2, without a call to a solver.
    """
    a, b, c, d = jacobians.flatten(-2).unbind(-1)
    xx, xy, yy = a * a + c * c + RIDGE, a * b + c * d, b * b + d * d + RIDGE
    norm = (xx * xx + 2 * xy * xy + yy * yy).sqrt()
    return (norm + norm / (xx * yy - xy * xy)).mean()  # the inverse has the same entries over the determinant


def flow(uv: Tensor, there: Tensor, weight: Tensor, trusted: Tensor, pixels: float) -> Tensor:
    """Places that flow joins are one place in the atlas: weight |M(p) - M(p')|, in pixels; the mean over the
    places where the flow is trusted.

    `uv` and `there` (..., 2); `weight` (...) is the layer's opacity at p, `trusted` (...) 1 or 0; `pixels` is
    L / (2 s).
    """
    distance = ((uv - there).square().sum(-1) + 1e-12).sqrt()
    return (trusted * weight * distance).sum() / trusted.sum().clamp(min=1.0) * pixels


def flow_opacity(opacity: Tensor, there: Tensor, trusted: Tensor) -> Tensor:
    """Places that flow joins are equally opaque: |a(p) - a(p')|, the mean where `trusted` (...) is 1."""
    return ((opacity - there).abs().sum(-1) * trusted).sum() / trusted.sum().clamp(min=1.0)


def sparsity(opacity: Tensor, colours: Tensor) -> Tensor:
    """|(1 - a) c_f|^2: a foreground is black where it is not seen. (...,) and (..., 3)."""
    return ((1.0 - opacity[..., None]) * colours).square().sum(-1).mean()


def bootstrapping(opacity: Tensor, masks: Tensor) -> Tensor:
    """Binary cross entropy of opacity in (0, 1) to rough masks in [0, 1], both (..., K - 1).

    Written out, as torch's own raises where a fit has run away, which is noticed elsewhere.
    """
    return -(masks * opacity.log() + (1.0 - masks) * (1.0 - opacity).log()).mean()


def placing(uv: Tensor, wanted: Tensor) -> Tensor:
    """The pre-training of a mapping: |M(p) - s xy|, the mean."""
    return ((uv - wanted).square().sum(-1) + 1e-12).sqrt().mean()


def gain(logarithm: Tensor) -> Tensor:
    """Ours: the square of log gain, so that colour that an atlas can hold is held by the atlas."""
    return logarithm.square().mean()
