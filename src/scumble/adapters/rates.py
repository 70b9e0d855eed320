"""How much learning has moved each layer (Kumari et al. 2022, figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from scumble.adapters.dense import DenseLayers

__all__ = ["GROUPS", "Rate", "by_group", "rates"]

GroupName = Literal["cross-attention", "self-attention", "rest"]
GROUPS: tuple[GroupName, ...] = ("cross-attention", "self-attention", "rest")


@dataclass(frozen=True, slots=True)
class Rate:
    """One layer: its name in weights files, its group, how many numbers it has, and its relative change."""

    layer: str
    group: GroupName
    numbers: int
    change: float
    """|W - W0| / |W0|, weights and bias as one vector, the norm Euclidean."""


@torch.no_grad()
def rates(layers: DenseLayers) -> list[Rate]:
    """The rate of every layer, in the order in which the network has them. A layer that was zero is left out:
    it has no relative change.
    """
    sums: dict[str, list[float]] = {}
    for name, parameter in layers.named_parameters().items():
        before = layers.before(name).to(parameter.device, torch.float32)
        moved, size = (parameter - before).double().square().sum(), before.double().square().sum()
        of = sums.setdefault(name.rpartition(".")[0], [0.0, 0.0, 0.0])
        for i, value in enumerate((float(moved), float(size), parameter.numel())):
            of[i] += value
    return [
        Rate(layer, _group(layer), int(count), (moved / size) ** 0.5)
        for layer, (moved, size, count) in sums.items()
        if size
    ]


def by_group(found: Sequence[Rate]) -> dict[GroupName, float]:
    """The mean over the layers of each group, as in the figure; NaN for a group without layers."""
    means: dict[GroupName, float] = {}
    for group in GROUPS:
        mine = [rate.change for rate in found if rate.group == group]
        means[group] = sum(mine) / len(mine) if mine else float("nan")
    return means


def _group(layer: str) -> GroupName:
    parts = layer.split(".")
    if "attn2" in parts:
        return "cross-attention"
    return "self-attention" if "attn1" in parts else "rest"
