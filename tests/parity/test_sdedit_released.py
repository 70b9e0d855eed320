"""The released SDEdit, derived anew from its description, and ours agree step for step on a pixel model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from scumble.core import rng
from scumble.core.events import finish
from scumble.core.images import to_model
from scumble.data.paintings import Painting, painting
from scumble.methods.sdedit import Config, edit
from scumble.models.load import load
from scumble.models.model import Model
from tiny import shared

T = 7
"""The index that the released code is told to start from, of 1000."""
SEED = 3
KEPT = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
"""The released code's alpha-bar; of the clean picture, before the first entry, it is 1."""


def bar(i: int) -> float:
    return float(KEPT[i]) if i >= 0 else 1.0


@pytest.fixture(scope="module")
def model() -> Model:
    model = load(shared("ddpm"))
    model.x0_limit = None  # the released code does not clip, whatever the model's scheduler does
    return model


def pictures() -> tuple[Tensor, Tensor]:
    """A guide (1, 3, 16, 16) in [0, 1] and a mask of which the left half may change."""
    guide = torch.rand(1, 3, 16, 16, generator=rng.generator(1))
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    return guide, mask


@torch.no_grad()
def ddpm_step(model: Model, x: Tensor, i: int, z: Tensor) -> Tensor:
    """Ho et al. 2020, algorithm 2, with the posterior variance ("fixedsmall") and no noise at i = 0."""
    beta = 1 - bar(i) / bar(i - 1)
    eps = model.denoiser(x, torch.tensor([i])).sample
    mean = (x - beta / (1 - bar(i)) ** 0.5 * eps) / (1 - beta) ** 0.5
    variance = beta * (1 - bar(i - 1)) / (1 - bar(i))
    return mean + (variance**0.5 if i > 0 else 0.0) * z


def released(model: Model, x0: Tensor, mask: Tensor, repeats: int) -> Tensor:
    """The loop of the released code on x0 in [-1, 1], but with the kept part at the level of the picture (it
    is one step noisier there) and with 1 in the mask meaning that a pixel may change.
    """
    draw = rng.generator(SEED)
    picture = x0
    for _ in range(repeats):
        e = torch.randn(x0.shape, generator=draw)
        x = bar(T - 1) ** 0.5 * picture + (1 - bar(T - 1)) ** 0.5 * e
        for i in reversed(range(T)):
            stepped = ddpm_step(model, x, i, torch.randn(x0.shape, generator=draw))
            x = bar(i - 1) ** 0.5 * picture + (1 - bar(i - 1)) ** 0.5 * e
            x = torch.where(mask == 1, stepped, x)
        picture = torch.where(mask == 1, x, picture)
    return picture


def ours(model: Model, work: Painting, **changes: float | str) -> Tensor:
    settings = Config(t0=T / 1000, steps=T, sampler="ddpm", kept_noise="fixed").replace(**changes)
    [picture] = finish(edit(model, [work], [SEED], settings))
    return picture[None]


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_whole_loop(model: Model, repeats: int) -> None:
    guide, mask = pictures()
    theirs = released(model, to_model(guide), mask, repeats)
    mine = to_model(ours(model, painting(guide, mask=mask), repeats=repeats))
    assert (theirs.clamp(-1, 1) - mine).abs().max() < 1e-5
    assert (mine - to_model(guide))[..., :8].abs().max() > 0.05


def test_without_a_mask(model: Model) -> None:
    guide, _ = pictures()
    theirs = released(model, to_model(guide), torch.ones(1, 1, 16, 16), 1)
    assert (theirs.clamp(-1, 1) - to_model(ours(model, painting(guide)))).abs().max() < 1e-5


def test_the_noise_of_the_papers_mask_differs(model: Model) -> None:
    """Fresh noise in the kept part reaches the edited part through the network, or equality meant nothing."""
    guide, mask = pictures()
    fixed, fresh = (ours(model, painting(guide, mask=mask), kept_noise=kind) for kind in ("fixed", "fresh"))
    assert (fixed - fresh)[..., :8].abs().max() > 1e-4
    assert torch.equal(fixed[..., 8:], fresh[..., 8:])
