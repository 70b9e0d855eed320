"""Guidance: its neutral settings, the printed formulas, and which branches it asks for."""

from __future__ import annotations

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor

from scumble.diffusion import guidance
from scumble.diffusion.levels import Level
from scumble.diffusion.parameterisation import target, to_eps
from scumble.diffusion.schedules import scaled_linear

X0 = [torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in range(3)]
"""What each branch says, whatever x is."""
X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


class Asked:
    """Branches that note which of them are asked for, in one call or several."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, x: Tensor, level: Level, which: tuple[int, ...]) -> list[Tensor]:
        self.calls.append(which)
        return [X0[i] for i in which]


def at(*times: float) -> Level:
    return scaled_linear().levels(torch.tensor(times if len(times) > 1 else times[0], dtype=torch.float64))


MIDDLE = at(500)


def test_scale_1_is_the_conditional_branch_alone() -> None:
    asked = Asked()
    assert torch.equal(guidance.text(asked, 1.0)(X, MIDDLE), X0[1])
    assert asked.calls == [(1,)]


def test_scale_0_is_the_unconditional_branch_alone() -> None:
    asked = Asked()
    assert torch.equal(guidance.text(asked, 0.0)(X, MIDDLE), X0[0])
    assert asked.calls == [(0,)]


@pytest.mark.parametrize("scale", [-1.0, 0.5, 7.5])
def test_text_is_the_formula(scale: float) -> None:
    """Ho and Salimans 2022, in eps as they have it, from both branches in one call."""
    asked = Asked()
    without, conditional = (to_eps(x0, X, MIDDLE) for x0 in X0[:2])
    found = to_eps(guidance.text(asked, scale)(X, MIDDLE), X, MIDDLE)
    assert (found - (without + scale * (conditional - without))).abs().max() < 1e-12
    assert asked.calls == [(0, 1)]


@pytest.mark.parametrize(
    ("image_scale", "text_scale", "which"),
    [
        (1.5, 7.5, (0, 1, 2)),
        (1.0, 7.5, (1, 2)),
        (3.0, 3.0, (0, 2)),
        (1.0, 1.0, (2,)),
        (1.5, 0.0, (0, 1)),
        (1.0, 0.0, (1,)),
        (0.0, 0.0, (0,)),
    ],
)
def test_image_text_is_the_formula(image_scale: float, text_scale: float, which: tuple[int, ...]) -> None:
    """Brooks et al. 2023, equation 3, in eps as they have it, from no more branches than it needs."""
    asked = Asked()
    none, image, both = (to_eps(x0, X, MIDDLE) for x0 in X0)
    wanted = none + image_scale * (image - none) + text_scale * (both - image)
    found = to_eps(guidance.image_text(asked, image_scale, text_scale)(X, MIDDLE), X, MIDDLE)
    assert (found - wanted).abs().max() < 1e-12
    assert asked.calls == [which]


def test_interval() -> None:
    """Guidance inside, the full condition alone outside; both ends of the interval belong to it."""
    share = float(MIDDLE.sigma**2)
    for interval, which in (
        ((0.0, 1.0), (0, 1)),
        ((share, 1.0), (0, 1)),
        ((0.0, share), (0, 1)),
        ((share + 1e-6, 1.0), (1,)),
        ((0.0, share - 1e-6), (1,)),
    ):
        asked = Asked()
        found = guidance.text(asked, 3.0, interval=interval)(X, MIDDLE)
        assert asked.calls == [which]
        wanted = X0[1] if which == (1,) else guidance.text(Asked(), 3.0)(X, MIDDLE)
        assert torch.equal(found, wanted)
    asked = Asked()
    assert torch.equal(guidance.image_text(asked, 1.5, 7.5, interval=(0.0, 0.1))(X, MIDDLE), X0[2])
    assert asked.calls == [(2,)]


@pytest.mark.parametrize("scale", [3.0, 0.0])
def test_interval_row_by_row(scale: float) -> None:
    """Where each row has a level of its own: row 0 outside, row 1 inside."""
    level = at(50, 500)
    interval = (float(level.sigma[1] ** 2) - 1e-6, 1.0)
    found = guidance.text(Asked(), scale, interval=interval)(X, level)
    assert torch.equal(found[0], X0[1][0])
    assert torch.equal(found[1], guidance.text(Asked(), scale)(X, level)[1])
    assert not torch.equal(found[1], X0[1][1])


@pytest.mark.parametrize("scale", [0.5, 5.0])
@pytest.mark.parametrize("phi", [0.0, 0.4, 1.0])
def test_rescale(phi: float, scale: float) -> None:
    """Lin et al. 2024, equations 15 and 16: row by row, v gets the contrast of the conditional branch."""
    level = at(500, 999)  # (2,)
    found = in_v(guidance.text(Asked(), scale, rescale=phi)(X, level), level)
    without, conditional = (in_v(x0, level) for x0 in X0[:2])
    plain = without + scale * (conditional - without)
    for row in range(2):
        wanted = phi * plain[row] * (conditional[row].std() / plain[row].std()) + (1 - phi) * plain[row]
        assert (found[row] - wanted).abs().max() < 1e-12
    assert (found - rescale_noise_cfg(plain, conditional, phi)).abs().max() < 1e-12


def in_v(x0: Tensor, level: Level) -> Tensor:
    return target(x0, to_eps(x0, X, level), level, "v")


def test_rescale_of_a_picture_without_contrast() -> None:
    flat = torch.ones(2, 3, 4)
    found = guidance.text(lambda x, level, which: [flat for _ in which], 2.0, rescale=1.0)(flat, MIDDLE)
    assert torch.equal(found, flat)
