"""Two pictures drawn side by side, the second with the attention of the first (Hertz et al. 2022, as used by
Brooks et al. 2022, section 3.1.2).

Letters: n pairs, R branches of guidance, B = 2 R n rows of the denoiser's batch, branch after branch and in
each the n first pictures before the n second ones: for one pair (uncond0, uncond1, cond0, cond1). h heads,
N places of the picture, L tokens.

Self-attention: for the first p of the steps the second picture's maps are the first's, in every branch; where
each patch looks is then the same, and so is the layout. Cross-attention (Prompt-to-Prompt, an option): the
conditional branch's maps are carried over word by word, see `alignment`.

Where we differ: step i of S shares where i < p S, so that p is the share of steps and p = 1 is all of them.
The released code counts to S - 1, which leaves out the last step even then.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from scumble.adapters.attention import Site, replace_maps
from scumble.models.model import Model

__all__ = ["Alignment", "Sharing", "shared"]

BRANCHES = 2


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where the words of a second caption stand in the first, for n pairs."""

    moved: Tensor
    """(n, L, L): [i, j] is the share of token i's attention in the first picture that token j gets."""
    own: Tensor
    """(n, L): 1 for tokens that the first caption has not, which keep their own attention; else 0."""

    def carry(self, first: Tensor, second: Tensor) -> Tensor:
        """Maps (n, h, N, L) of the first pictures in the words of the second captions (Hertz et al. 2022,
        section 3.2, word swap and adding a phrase in one).
        """
        moved, own = self.moved.to(first), self.own.to(first)
        return first @ moved[:, None] + second * own[:, None, None]

    def to(self, device: torch.device) -> Alignment:
        """The same on another device."""
        return Alignment(self.moved.to(device), self.own.to(device))


@dataclass(slots=True)
class Sharing:
    """Which maps are replaced at `step`, the step under way, to be set by whoever runs the sampler."""

    steps: Tensor
    """(n,), on the model's device: in steps 0 ... steps - 1 self-attention is shared, p S rounded up."""
    cross_steps: Tensor
    """(n,): the same for cross-attention, whose `alignment` is needed where one is above 0."""
    alignment: Alignment | None = None
    step: int = 0

    def last(self) -> int:
        """The number of steps in which anything is shared."""
        return int(torch.cat([self.steps, self.cross_steps]).max())

    def __call__(self, maps: Tensor, site: Site) -> Tensor:
        """The maps (B, h, N, M) to use in a layer, M being N or L: those given, written over where they are
        replaced, since of large pictures there is no room for a second copy.
        """
        pairs = len(self.steps)
        first, second = maps.unflatten(0, (BRANCHES, 2, pairs)).unbind(1)  # (R, n, h, N, M) each
        if not site.cross:
            active = (self.step < self.steps).view(pairs, 1, 1, 1)
            second.copy_(torch.where(active, first, second))
        elif self.alignment is not None:
            active = (self.step < self.cross_steps).view(pairs, 1, 1, 1)
            carried = self.alignment.carry(first[1], second[1])
            second[1].copy_(torch.where(active, carried, second[1]))
        return maps


@contextmanager
def shared(model: Model, sharing: Sharing) -> Generator[None]:
    """Inside, the denoiser of `model` shares attention as `sharing` says. Only layers in which anything is
    shared are touched.
    """
    own, cross = bool(sharing.steps.any()), bool(sharing.cross_steps.any())
    if not (own or cross):
        yield
        return
    with replace_maps(model, sharing, where=lambda site: cross if site.cross else own):
        yield
