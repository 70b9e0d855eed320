"""The reverse SDEs, against diffusers' two schedulers for them and against SDEdit's algorithms as printed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from diffusers import ScoreSdeVeScheduler
from diffusers.schedulers.deprecated.scheduling_sde_vp import ScoreSdeVpScheduler
from torch import Tensor

from scumble.diffusion.levels import Level
from scumble.diffusion.samplers import reverse_sde
from scumble.diffusion.spacing import ve_sde_levels, vp_sde_levels

MEAN, STD = 0.3, 0.5
"""The data: a Gaussian, of which the score at any level is known."""


def gaussian(x: Tensor, level: Level) -> Tensor:
    variance = (level.alpha * STD) ** 2 + level.sigma**2
    return MEAN + level.alpha * STD**2 / variance * (x - level.alpha * MEAN)


def score(x: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    return -(x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)


def draws(count: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(2, 3, 2, 2, generator=generator, dtype=dtype) for _ in range(count)]


def following(noise: list[Tensor]) -> Callable[[], Tensor]:
    left: Iterator[Tensor] = iter(noise)
    return lambda: next(left)


def printed_ve(guide: np.ndarray, t0: float, steps: int, z: list[np.ndarray]) -> list[np.ndarray]:
    """Meng et al. 2021, VE-SDE: noise the guide to sigma(t0), then N steps of x + eps^2 s + eps z."""

    def sigma(t: float) -> float:
        return 0.0 if t == 0 else 0.01 * (348 / 0.01) ** t

    x, found = guide + sigma(t0) * z[0], []
    for n in range(steps, 0, -1):
        t, earlier = t0 * n / steps, t0 * (n - 1) / steps
        size = math.sqrt(sigma(t) ** 2 - sigma(earlier) ** 2)
        x = x + size**2 * score(x, 1.0, sigma(t)) + size * z[steps - n + 1]
        found.append(x)
    return found


def printed_vp(guide: np.ndarray, t0: float, steps: int, z: list[np.ndarray]) -> list[np.ndarray]:
    """Meng et al. 2021, VP-SDE: alpha is a product over the steps, beta(t) = 0.1 + 19.9 t."""
    dt = t0 / steps
    beta = [0.1 + 19.9 * (t0 * n / steps) for n in range(steps + 1)]
    kept = [math.prod(1 - beta[i] * dt for i in range(1, n + 1)) for n in range(steps + 1)]
    x, found = math.sqrt(kept[steps]) * guide + math.sqrt(1 - kept[steps]) * z[0], []
    for n in range(steps, 0, -1):
        s = score(x, math.sqrt(kept[n]), math.sqrt(1 - kept[n]))
        x = (x + beta[n] * dt * s) / math.sqrt(1 - beta[n] * dt) + math.sqrt(beta[n] * dt) * z[steps - n + 1]
        found.append(x)
    return found


@pytest.mark.parametrize("t0", [0.05, 0.4567, 1.0])
@pytest.mark.parametrize(("levels_of", "printed"), [(ve_sde_levels, printed_ve), (vp_sde_levels, printed_vp)])
def test_sdedit_as_printed(
    levels_of: Callable[..., list[Level]], printed: Callable[..., list[np.ndarray]], t0: float
) -> None:
    """Every step, to rounding, noise in the last one included; t0 is any real number."""
    steps = 30
    noise, guide = draws(steps + 1), draws(steps + 2)[-1]
    levels = levels_of(t0, steps)
    assert len(levels) == steps + 1
    run = reverse_sde(
        gaussian, levels[0].mix(guide, noise[0]), levels, noise=following(noise[1:]), final_noise=True
    )
    found = [step.x.numpy() for step in run]
    wanted = printed(guide.numpy(), t0, steps, [z.numpy() for z in noise])
    assert len(found) == len(wanted) == steps
    for mine, theirs in zip(found, wanted, strict=True):
        assert np.abs(mine - theirs).max() / max(1.0, np.abs(theirs).max()) < 1e-11


def test_score_sde_ve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Step by step. diffusers finds its place by truncating t (N - 1), so it is given t a little above."""
    steps = 12
    scheduler = ScoreSdeVeScheduler(num_train_timesteps=steps, sigma_min=0.01, sigma_max=50.0)
    noise = draws(steps, torch.float32)
    draw = following(noise)
    monkeypatch.setattr("diffusers.schedulers.scheduling_sde_ve.randn_tensor", lambda *_a, **_o: draw())
    one = torch.ones((), dtype=torch.float64)
    levels = [Level(one, sigma.double()) for sigma in scheduler.discrete_sigmas.flip(0)] + [
        Level(one, 0 * one)
    ]
    x = start = 50 * draws(1, torch.float32)[0]
    run = reverse_sde(gaussian, start, levels, noise=following(noise), final_noise=True)
    count = 0
    for index, step in zip(range(steps - 1, -1, -1), run, strict=True):
        sigma = levels[steps - 1 - index].sigma
        output = ((gaussian(x.double(), Level(one, sigma)) - x.double()) / sigma**2).float()
        t = torch.tensor(min((index + 0.25) / (steps - 1), 1.0))
        x = scheduler.step_pred(output, t, x).prev_sample
        assert (x - step.x).abs().max() / x.abs().max().clamp(min=1) < 1e-5
        count += 1
    assert count == steps


def test_score_sde_vp_agrees_to_second_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers steps x + b x / 2 + b s + sqrt(b) z, we (x + b s) / sqrt(1 - b) + sqrt(b) z, b = beta(t) / N.

    They differ by 3/8 b^2 x + b^2 s / 2 and smaller, and so the difference falls by 16 as N grows by 4.
    """
    noise = draws(1)[0]
    monkeypatch.setattr(
        "diffusers.schedulers.deprecated.scheduling_sde_vp.randn_tensor", lambda *_a, **_o: noise
    )
    x = draws(2)[1]
    found = []
    for steps in (250, 1000):
        scheduler = ScoreSdeVpScheduler(num_train_timesteps=steps)
        scheduler.set_timesteps(steps)
        levels = vp_sde_levels(1.0, steps)
        half = steps // 2  # t = 0.5
        level, t = levels[half], torch.tensor(0.5, dtype=torch.float64)
        s = (level.alpha * gaussian(x, level) - x) / level.sigma**2
        std = torch.sqrt(1 - torch.exp(-0.5 * t**2 * 19.9 - t * 0.1))
        theirs, _ = scheduler.step_pred(-s * std, x, t)
        (step,) = reverse_sde(gaussian, x, levels[half : half + 2], noise=lambda: noise)
        b = (0.1 + 19.9 * 0.5) / steps
        expected = 3 / 8 * b**2 * x + b**2 / 2 * s
        assert (step.x - theirs - expected).abs().max() < b * expected.abs().max()
        found.append(float((step.x - theirs).abs().max()))
    assert found[0] / found[1] == pytest.approx(16, rel=0.1)
