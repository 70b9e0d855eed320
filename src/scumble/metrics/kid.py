"""Kernel inception distance, on whatever features it is given."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scumble.core import rng
from scumble.core.errors import InputError

__all__ = ["KID", "kid"]


class KID(NamedTuple):
    """A distance estimated on random subsets."""

    mean: float
    spread: float
    """Standard deviation of the estimate over the subsets."""


def kid(one: Tensor, other: Tensor, *, subsets: int = 100, size: int = 1000, seed: int = 0) -> KID:
    """Unbiased squared MMD between features (N, D) and (M, D), with the kernel (x y / D + 1)^3 (Binkowski et
    al. 2018, "Demystifying MMD GANs", equation 4).

    Averaged over `subsets` pairs of subsets of `size` rows, or of as many as the smaller set has; which rows
    depends on `seed` only. Around 0, also below it, where the sets come from one distribution. Figures on
    other features than Inception's have another scale and do not compare with published ones. Raises
    InputError for sets of fewer than two rows or of different D.
    """
    size = min(size, len(one), len(other))
    if size < 2 or one.shape[1:] != other.shape[1:]:
        raise InputError(
            f"KID cannot compare features of shapes {tuple(one.shape)} and {tuple(other.shape)}."
        )
    one, other, draw = one.double(), other.double(), rng.generator(seed)
    estimates: list[Tensor] = []
    for _ in range(subsets):
        x, y = (features[torch.randperm(len(features), generator=draw)[:size]] for features in (one, other))
        estimates.append(_mmd(x, y))
    found = torch.stack(estimates)
    return KID(float(found.mean()), float(found.std(correction=0)))


def _mmd(x: Tensor, y: Tensor) -> Tensor:
    """The estimate for sets of n rows each, without pairs of a row with itself within a set."""
    n = len(x)
    within = sum((_kernel(z, z).sum() - _kernel(z, z).diagonal().sum() for z in (x, y)), torch.zeros(()))
    return within / (n * (n - 1)) - 2 * _kernel(x, y).mean()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3
