"""The loop of fits to one picture: a network from nothing, a noisy loss, an end when nothing more is gained.

A loss is a pure function of the network and the step, as in `scumble.training.fit`, in named parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from scumble.core.config import Config
from scumble.core.errors import NumericError
from scumble.core.events import Loop, Progress
from scumble.core.images import from_unit

__all__ = ["SettleConfig", "settle"]

REPORT = 10
"""Steps between two readings of the losses."""
GAIN = 0.005
"""Share of the losses that `patience` steps have to win, or the losses count as settled."""
SLOWEST = 1e-5
"""The learning rate's floor."""


class SettleConfig(Config):
    """How a network is fitted until its losses settle."""

    steps: Annotated[int, Field(ge=1, le=1_000_000)] = 300
    """Steps at most."""
    patience: Annotated[int, Field(ge=0)] = 60
    """Steps without gain after which the losses count as settled; 0 never stops early."""
    lr: Annotated[float, Field(gt=0, le=1)] = 1e-2
    """Learning rate at the first step."""
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 0.995
    """By which the rate is multiplied after each step, down to 1e-5."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """AdamW's decoupled decay."""


def settle(
    network: nn.Module,
    loss: Callable[[int], Mapping[str, Tensor]],
    config: SettleConfig,
    *,
    stage: str,
    least: float = 0.0,
    passing: str = "",
    preview: Callable[[], Tensor],
    preview_every: int = 0,
) -> Loop[int]:
    """Train `network` by AdamW on the sum of `loss(step)`; returns the number of steps taken.

    It ends early, after the share `least` of the steps, once the mean loss of the last `patience` steps is
    hardly below that of as many before; the part `passing`, whose weight falls by itself, is not counted.
    `preview` gives a picture (1, 3, H, W) in [0, 1] for every so many records. Raises NumericError.
    """
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
    )
    total, since = torch.zeros((), device=next(network.parameters()).device), 0
    means: list[float] = []
    for step in range(config.steps):
        for group in optimiser.param_groups:
            group["lr"] = max(min(SLOWEST, config.lr), config.lr * config.lr_decay**step)
        parts = loss(step)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        optimiser.step()
        total += torch.stack([value.detach() for name, value in parts.items() if name != passing]).sum()
        since, done = since + 1, step + 1
        if since == REPORT or done == config.steps:
            means.append(_read(total, since, done))
            total, since = torch.zeros_like(total), 0
        shown = preview() if preview_every and done % preview_every == 0 else None
        yield Progress(
            stage=stage,
            step=done,
            total=config.steps,
            loss=means[-1] if means else None,
            preview=None if shown is None else from_unit(shown)[0],
        )
        if done > least * config.steps and _settled(means, config.patience):
            return done
    return config.steps


def _read(total: Tensor, count: int, step: int) -> float:
    mean = float(total) / count
    if not isfinite(mean):
        raise NumericError(f"The loss is no number before step {step + 1}.", "Lower the learning rate: lr.")
    return mean


def _settled(means: list[float], patience: int) -> bool:
    rows = patience // REPORT
    if rows < 1 or len(means) < 2 * rows:
        return False
    late, before = means[-rows:], means[-2 * rows : -rows]
    return sum(late) > (1 - GAIN) * sum(before)
