"""What a network predicts and how that becomes x0: eps, v or x0 itself; and the loss, from the same formulas.

With x = alpha x0 + sigma eps, v = (alpha eps - sigma x0) / sqrt(alpha^2 + sigma^2) (Salimans and Ho 2022; the
root is 1 for variance-preserving levels).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from scumble.diffusion.levels import Level, broadcast

__all__ = ["WEIGHTINGS", "Prediction", "Weighting", "loss", "loss_weight", "target", "to_eps", "to_x0"]

Prediction = Literal["eps", "v", "x0"]
Weighting = Literal["none", "min_snr", "debiased"]
WEIGHTINGS: tuple[Weighting, ...] = ("none", "min_snr", "debiased")


def to_x0(prediction: Tensor, x: Tensor, level: Level, kind: Prediction) -> Tensor:
    """x0 (B, ...) from the network's output at noisy `x` (B, ...).

    At a level without signal eps says nothing of x0; there x0 is x - sigma eps, 0 for an exact prediction.
    """
    if kind == "x0":
        return prediction
    alpha, sigma = broadcast(level.alpha, x), broadcast(level.sigma, x)
    if kind == "eps":
        return (x - sigma * prediction) / broadcast(_divisor(level.alpha), x)
    norm = torch.hypot(alpha, sigma)
    return (alpha * x - sigma * norm * prediction) / norm**2


def to_eps(x0: Tensor, x: Tensor, level: Level) -> Tensor:
    """eps (B, ...) that takes `x0` to `x`; at a level without noise x - alpha x0, 0 if x is clean."""
    return (x - broadcast(level.alpha, x) * x0) / broadcast(_divisor(level.sigma), x)


def target(x0: Tensor, eps: Tensor, level: Level, kind: Prediction) -> Tensor:
    """What the network should output (B, ...) when `x0` was noised with `eps` to `level`."""
    if kind == "x0":
        return x0
    if kind == "eps":
        return eps
    alpha, sigma = broadcast(level.alpha, x0), broadcast(level.sigma, x0)
    return (alpha * eps - sigma * x0) / torch.hypot(alpha, sigma)


def loss_weight(level: Level, kind: Prediction, weighting: Weighting, *, gamma: float = 5.0) -> Tensor:
    """Weight () or (B,) of the squared error of a prediction of `kind`.

    `min_snr` is min(SNR, gamma) on x0 (Hang et al. 2023, section 3.4), carried over to eps by 1 / SNR and to
    v by 1 / (SNR + 1). `debiased` is 1 / sqrt(SNR) on eps (Yu et al. 2023, equation 12), carried over
    likewise; without signal that has no bound, and a prediction of eps nothing to learn.
    """
    ratio = level.sigma / level.alpha  # 1 / sqrt(SNR), infinite without signal
    if weighting == "none":
        return torch.ones_like(ratio)
    if weighting == "debiased":
        return {"x0": 1 / ratio, "eps": ratio, "v": level.sigma * level.alpha / level.spread**2}[kind]
    capped = (gamma * ratio**2).clamp(max=1)  # min(SNR, gamma) / SNR
    kept = (level.alpha / level.spread) ** 2  # SNR / (SNR + 1)
    return {"x0": (ratio**-2).clamp(max=gamma), "eps": capped, "v": capped * kept}[kind]


def loss(
    prediction: Tensor,
    x0: Tensor,
    eps: Tensor,
    level: Level,
    kind: Prediction,
    *,
    weighting: Weighting = "none",
    gamma: float = 5.0,
) -> Tensor:
    """Weighted mean squared error of each sample, (B,) float32 (Ho et al. 2020, equation 14, for eps)."""
    wanted = target(x0, eps, level, kind).float()
    error = (prediction.float() - wanted).square().flatten(1).mean(1)  # (B,)
    return error * loss_weight(level, kind, weighting, gamma=gamma).to(error)


def _divisor(value: Tensor) -> Tensor:
    """`value`, and 1 where it is 0."""
    return torch.where(value == 0, torch.ones_like(value), value)
