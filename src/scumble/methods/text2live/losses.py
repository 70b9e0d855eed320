"""The losses of Text2LIVE, in the order of the paper (2204.02491, section 3.1), each a function of what CLIP
made of pictures and texts, or of the opacity.

Letters: V views, n texts, E width of CLIP's space; features have length one. L tokens of width D. All return
a number.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

__all__ = [
    "Distance",
    "Fall",
    "bootstrapping",
    "bootstrapping_share",
    "direction",
    "distance",
    "self_similarity",
    "smooth_l0",
    "structure",
]

Distance = Literal["spherical", "cosine"]
Fall = Literal["linear", "exponential", "constant"]


def distance(pictures: Tensor, texts: Tensor, kind: Distance = "spherical") -> Tensor:
    """How far pictures (V, E) are from texts (n, E), the mean over all pairs: equation 3, and 5 for the layer
    over green.

    Spherical: 2 arcsin^2(|x - y| / 2), half the square of the angle between them. Cosine: 1 - x y.
    """
    cosines = pictures @ texts.T  # (V, n)
    if kind == "cosine":
        return (1.0 - cosines).mean()
    # |x - y| / 2 is sqrt((1 - x y) / 2); the bounds keep the slope of both roots finite.
    half = ((1.0 - cosines) / 2).clamp(1e-7, 1 - 1e-7).sqrt()
    return (2.0 * half.asin().square()).mean()


def direction(result: Tensor, source: Tensor, prompt: Tensor, region: Tensor) -> Tensor:
    """1 - cos(result - source, prompt - region): equation 4, after Gal et al. 2021, "StyleGAN-NADA".

    Results and sources (V, E) row by row, prompts and regions (n, E) in the same sentences; the mean over V x
    n. A view that has moved by far less than STILL has no direction, and its cosine counts as 0: there the
    plain one would be that of rounding errors, with slopes without bound.
    """
    moved, wanted = _headed(result - source), _headed(prompt - region)
    return (1.0 - moved @ wanted.T).mean()


STILL = 1e-3
"""Length of a move of features of length one that is hardly any."""


def _headed(moves: Tensor) -> Tensor:
    """Moves (N, E) brought to length one, near ones to less."""
    return moves / (moves.square().sum(-1, keepdim=True) + STILL**2).sqrt()


def self_similarity(tokens: Tensor) -> Tensor:
    """(B, L, L): the cosines of tokens (B, L, D) among one another."""
    unit = normalize(tokens, dim=-1)
    return unit @ unit.transpose(1, 2)


def structure(result: Tensor, source: Tensor) -> Tensor:
    """Mean square difference of the self-similarities of tokens (B, L, D): equation 6.

    After Shechtman and Irani 2007 and Tumanyan et al. 2022: shape and layout stay, colours are free.
    """
    return mse_loss(self_similarity(result), self_similarity(source))


def smooth_l0(opacity: Tensor) -> Tensor:
    """2 sigmoid(5 a) - 1, the mean: near the share of pixels where a > 0 (equation 7)."""
    return (2.0 * torch.sigmoid(5.0 * opacity) - 1.0).mean()


def bootstrapping(opacity: Tensor, region: Tensor) -> Tensor:
    """Mean square difference of the opacity and the relevancy of the region, of one shape (equation 8)."""
    return mse_loss(opacity, region)


def bootstrapping_share(step: int, until: float, fall: Fall) -> float:
    """What is left of the weight of bootstrapping at step 0, 1, ...; 0 from step `until` on.

    Linear 1 - (step + 1) / until, exponential 0.99^step, or constant.
    """
    if step >= until:
        return 0.0
    return {"linear": max(0.0, 1.0 - (step + 1) / until), "exponential": 0.99**step, "constant": 1.0}[fall]
