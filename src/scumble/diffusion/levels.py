"""A level says how noisy a picture is: the pair (alpha, sigma) of x = alpha x0 + sigma eps.

Variance-preserving, variance-exploding and zero-terminal-SNR schedules are all lists of levels, and a model
is a callable from a noisy picture and its level to the clean picture, so samplers need to know nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Denoise", "Level", "broadcast", "clean", "quotient"]


def broadcast(value: Tensor, x: Tensor) -> Tensor:
    """`value` () or (B,) shaped to multiply `x` (B, ...), in the dtype of `x` if it has a batch dimension.

    A value of shape () stays where it is: on the CPU it is a kernel argument, and no device waits for it.
    """
    if value.ndim == 0:
        return value
    return value.to(x).reshape(-1, *[1] * (x.ndim - 1))  # (B, 1, ...)


def quotient(top: Tensor, bottom: Tensor) -> Tensor:
    """top / bottom, and 1 where the two are equal, be they both 0."""
    return torch.where(top == bottom, torch.ones_like(top), top / bottom)


@dataclass(frozen=True, slots=True)
class Level:
    """alpha and sigma, each () or (B,), alpha >= 0 and sigma >= 0.

    Variance preserving: alpha^2 + sigma^2 = 1. Variance exploding: alpha = 1. Samplers work in the dtype that
    levels have, float64 as schedules give them, until they meet x.
    """

    alpha: Tensor
    sigma: Tensor

    @property
    def log_snr(self) -> Tensor:
        """log(alpha^2 / sigma^2), infinite where there is no noise or no signal."""
        return 2 * (self.alpha.log() - self.sigma.log())

    @property
    def ratio(self) -> Tensor:
        """sigma / alpha, the noise level of Karras et al. 2022; infinite where there is no signal."""
        return self.sigma / self.alpha

    @property
    def spread(self) -> Tensor:
        """Standard deviation of x for x0 of standard deviation 1: what pure noise is scaled with to start."""
        return torch.hypot(self.alpha, self.sigma)

    def mix(self, x0: Tensor, eps: Tensor) -> Tensor:
        """x = alpha x0 + sigma eps, for x0 and eps (B, ...)."""
        return broadcast(self.alpha, x0) * x0 + broadcast(self.sigma, x0) * eps

    def to(self, device: torch.device | str) -> Level:
        """The level on `device`, if it has a batch dimension; one of shape () is at home on the CPU."""
        if self.alpha.ndim == 0:
            return self
        is_mps = torch.device(device).type == "mps"  # which has no float64
        dtype = torch.float32 if is_mps else self.alpha.dtype
        return Level(self.alpha.to(device, dtype), self.sigma.to(device, dtype))


def clean() -> Level:
    """alpha = 1, sigma = 0, of shape ()."""
    return Level(torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64))


class Denoise(Protocol):
    """The best guess of the clean picture x0 (B, ...) for `x` (B, ...) at `level`."""

    def __call__(self, x: Tensor, level: Level) -> Tensor: ...
