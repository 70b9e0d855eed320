"""Every sampler against the diffusers scheduler of the same name, after every step.

Both are driven by the same network: the exact denoiser of a two-point mixture, which is far from linear where
the noise is about as strong as the signal. It is asked for eps, v or x0 at the level each side says it is at,
in float64, and its answer rounded to float32, the precision diffusers works in. Schedulers that hold
x / alpha are compared after multiplying by alpha.

The number of steps divides 1000, and 999 is a multiple of one less than it, so that every spacing falls on
whole times; with others diffusers' DDIM steps from times that it never visits, and its Euler interpolates
sigma linearly where we follow k-diffusion and interpolate its logarithm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
)
from torch import Tensor

from scumble.diffusion.invert import ddim_inversion
from scumble.diffusion.levels import Denoise, Level
from scumble.diffusion.parameterisation import Prediction, to_x0
from scumble.diffusion.samplers import SAMPLERS
from scumble.diffusion.schedules import Schedule
from scumble.diffusion.spacing import End, leading, levels_at, levels_for

STEPS = 10
SHAPE = (2, 3, 2, 2)
POINT, SPREAD = 0.6, 0.2
"""The data: each number is +POINT or -POINT, blurred by a Gaussian of standard deviation SPREAD."""

BETAS: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "zero_snr": {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "rescale_betas_zero_snr": True,
    },
}
KINDS: dict[Prediction, str] = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
USUAL = [*product(("linear", "scaled_linear", "cosine"), KINDS), ("zero_snr", "v"), ("zero_snr", "x0")]
"""(schedule, prediction); of pure noise, eps says nothing."""

TOLERANCE = 5e-6
"""Of numbers around 1, in float32, which diffusers computes in."""

LOOSER: dict[tuple[str, str, str | None], float] = {
    ("dpmpp", "cosine", "eps"): 1e-3,
    ("euler", "cosine", None): 1e-3,
    ("euler", "zero_snr", None): 5e-5,
    ("ddim, eta 1", "cosine", None): 1e-4,
    ("ddim, eta 1", "zero_snr", None): 1e-3,
}
"""(sampler, schedule, prediction or any) where diffusers' own arithmetic has fewer digits: it divides by
alpha = 5e-5 to read eps, it holds x / alpha of up to 20000, and with eta 1 it takes the root of
1 - alpha^2 - std^2, which is 0 where alpha is, and 4e-7 in float32."""


def network(x: Tensor, level: Level, kind: str) -> Tensor:
    """What a perfect network of `kind` outputs, float32 (B, ...)."""
    x, alpha, sigma = x.double(), level.alpha.double(), level.sigma.double()
    variance = (alpha * SPREAD) ** 2 + sigma**2
    x0 = (alpha * SPREAD**2 * x + sigma**2 * POINT * torch.tanh(alpha * POINT * x / variance)) / variance
    eps = (x - alpha * x0) / sigma
    return {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0}[kind].float()


def ours(kind: Prediction) -> Denoise:
    return lambda x, level: to_x0(network(x, level, kind), x, level, kind)


def tables(scheduler: Any) -> list[Level]:
    """Its own levels for times 0 to 999, and the clean one at -1."""
    kept = torch.cat([scheduler.alphas_cumprod, torch.ones(1)])
    return [Level(k.sqrt(), (1 - k).sqrt()) for k in kept]


def preserving(ratio: Tensor) -> Level:
    """The level that a scheduler over sigma / alpha is at."""
    return Level(
        1 / torch.hypot(torch.ones_like(ratio), ratio), ratio / torch.hypot(torch.ones_like(ratio), ratio)
    )


class Draws:
    """The same noise for both sides, one draw a step."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        self.all = [torch.randn(SHAPE, generator=generator) for _ in range(STEPS)]
        self.rest = iter(self.all)

    def __call__(self, *_args: Any, **_options: Any) -> Tensor:
        return next(self.rest)


def start() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def worst(mine: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest deviation after any step, of the largest number there if that is over 1."""
    assert len(mine) == len(theirs) > 0
    return max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1)) for a, b in zip(mine, theirs, strict=True)
    )


def run(name: str, kind: Prediction, levels: Sequence[Level], **options: Any) -> list[Tensor]:
    return [s.x for s in SAMPLERS[name].run(ours(kind), start(), levels, noise=Draws(), **options)]


def check(name: str, found: dict[tuple[Any, ...], float], count: int) -> None:
    """`count` deviations were found, keyed by schedule, prediction and more; all in bounds."""
    assert len(found) == count

    def limit(schedule: str, kind: str) -> float:
        return LOOSER.get((name, schedule, None), LOOSER.get((name, schedule, kind), TOLERANCE))

    assert {key: value for key, value in found.items() if not value <= limit(*key[:2])} == {}


SPREADS: dict[tuple[str, int], Any] = {
    ("trailing", 0): "trailing",
    ("leading", 0): leading(0),
    ("leading", 1): "leading",
    ("linspace", 0): "linspace",
}
"""(timestep_spacing, steps_offset) of diffusers, and ours."""


def make(scheduler: Any, schedule: str, kind: Prediction, **config: Any) -> tuple[Any, Schedule]:
    """A scheduler, and its own float32 table as a schedule; tables are compared in `test_tables`."""
    made = scheduler(**BETAS[schedule], prediction_type=KINDS[kind], **config)
    kept = made.alphas_cumprod.double()
    return made, Schedule(schedule, kept.sqrt(), (1 - kept).sqrt())


# Schedulers over alpha and sigma: DDPM, DDIM and its inversion


def reference_ddpm(scheduler: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", Draws())
    scheduler.set_timesteps(STEPS)
    x, found, levels = start(), [], tables(scheduler)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, levels[t], kind), t, x).prev_sample
        found.append(x)
    return found


@pytest.mark.parametrize(("name", "variance"), [("ddpm", "fixed_small"), ("reverse_sde", "fixed_large")])
def test_ddpm(name: str, variance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the small variance it is our DDPM; with the large one Euler-Maruyama on the reverse VP-SDE.

    diffusers adds the large noise in the last step as well, unless that is from time 0; so do we if asked.
    """
    found: dict[tuple[Any, ...], float] = {}
    for (schedule, kind), (spacing, spread) in product(USUAL, SPREADS.items()):
        config = {"timestep_spacing": spacing[0], "steps_offset": spacing[1], "clip_sample": False}
        scheduler, table = make(DDPMScheduler, schedule, kind, variance_type=variance, **config)
        levels = levels_for(table, STEPS, spread)
        noisy_end = name == "reverse_sde" and spacing in {("trailing", 0), ("leading", 1)}
        options = {"final_noise": True} if noisy_end else {}
        mine = run(name, kind, levels, **options)
        found[schedule, kind, spacing] = worst(mine, reference_ddpm(scheduler, kind, monkeypatch))
    check(name, found, 44)


def reference_ddim(scheduler: Any, kind: str, eta: float) -> list[Tensor]:
    x, found, levels, draws = start(), [], tables(scheduler), Draws()
    for t in scheduler.timesteps:
        noise = draws() if eta else None
        output = network(x, levels[t], kind)
        x = scheduler.step(output, t, x, eta=eta, variance_noise=noise).prev_sample
        found.append(x)
    return found


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(eta: float) -> None:
    found: dict[tuple[Any, ...], float] = {}
    ends: dict[bool, End] = {True: "clean", False: "first"}
    spreads = {key: spread for key, spread in SPREADS.items() if key[0] != "linspace"}
    for (schedule, kind), (spacing, spread), to_one in product(USUAL, spreads.items(), ends):
        config = {"timestep_spacing": spacing[0], "steps_offset": spacing[1], "clip_sample": False}
        scheduler, table = make(DDIMScheduler, schedule, kind, set_alpha_to_one=to_one, **config)
        scheduler.set_timesteps(STEPS)
        mine = run("ddim", kind, levels_for(table, STEPS, spread, ends[to_one]), eta=eta)
        found[schedule, kind, spacing, to_one] = worst(mine, reference_ddim(scheduler, kind, eta))
    check("ddim, eta 1" if eta == 1 else "ddim", found, 66)


def test_ddim_linspace_step_by_step() -> None:
    """diffusers asks its network at 999, 888, ... but steps from each by 100: so do we, a step at a time."""
    found: dict[tuple[Any, ...], float] = {}
    for (schedule, kind), eta in product(USUAL, (0.0, 0.5, 1.0)):
        config = {"timestep_spacing": "linspace", "clip_sample": False}
        scheduler, table = make(DDIMScheduler, schedule, kind, **config)
        scheduler.set_timesteps(STEPS)
        times = [int(t) for t in scheduler.timesteps]
        assert times == [
            round(float(table.time(level))) for level in levels_for(table, STEPS, "linspace")[:-1]
        ]
        draws, x, mine = Draws(), start(), list[Tensor]()
        for t in times:
            whole = torch.tensor([t, t - 100] if t >= 100 else [t], dtype=torch.float64)
            (step,) = SAMPLERS["ddim"].run(ours(kind), x, levels_at(table, whole)[:2], noise=draws, eta=eta)
            x = step.x
            mine.append(x)
        found[schedule, kind, eta] = worst(mine, reference_ddim(scheduler, kind, eta))
    check("ddim, eta 1", found, 33)


def test_ddim_inversion() -> None:
    """For eps only: of v and x0 diffusers asks the network at one level and reads the answer at another."""
    found: dict[tuple[Any, ...], float] = {}
    ends: dict[bool, End] = {True: "clean", False: "first"}
    spreads = {key: spread for key, spread in SPREADS.items() if key[0] != "linspace"}
    for schedule, (spacing, spread), to_one in product(("linear", "scaled_linear"), spreads.items(), ends):
        config = {"timestep_spacing": spacing[0], "steps_offset": spacing[1], "clip_sample": False}
        scheduler, table = make(DDIMInverseScheduler, schedule, "eps", set_alpha_to_one=to_one, **config)
        scheduler.set_timesteps(STEPS)
        x, theirs, levels = start(), list[Tensor](), tables(scheduler)
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, levels[t], "eps"), t, x).prev_sample
            theirs.append(x)
        own = levels_for(table, STEPS, spread, ends[to_one])
        mine = [s.x for s in ddim_inversion(ours("eps"), start(), own)]
        found[schedule, "eps", spacing, to_one] = worst(mine, theirs)
    check("ddim_inversion", found, 12)


# Schedulers over x / alpha and sigma / alpha: Euler, Euler ancestral, Heun


def sigma_config(spacing: tuple[str, int]) -> dict[str, Any]:
    if spacing[0] == "karras":
        return {"timestep_spacing": "linspace", "use_karras_sigmas": True}
    return {"timestep_spacing": spacing[0], "steps_offset": spacing[1]}


def reference_sigmas(scheduler: Any, kind: str, order: int) -> list[Tensor]:
    """x after each whole step, alpha times what the scheduler holds."""
    scheduler.set_timesteps(STEPS)
    x, found = start() / preserving(scheduler.sigmas[0].double()).alpha, list[Tensor]()
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t)
        level = preserving(scheduler.sigmas[scheduler.step_index].double())
        x = scheduler.step(network(seen, level, kind), t, x).prev_sample
        if scheduler.step_index % order == 0 or scheduler.step_index == len(scheduler.timesteps):
            found.append(x * preserving(scheduler.sigmas[scheduler.step_index].double()).alpha)
    return found


def test_euler() -> None:
    found: dict[tuple[Any, ...], float] = {}
    for (schedule, kind), (spacing, spread) in product(USUAL, {**SPREADS, ("karras", 0): "karras"}.items()):
        scheduler, table = make(EulerDiscreteScheduler, schedule, kind, **sigma_config(spacing))
        mine = run("euler", kind, levels_for(table, STEPS, spread))
        found[schedule, kind, spacing] = worst(mine, reference_sigmas(scheduler, kind, 1))
    check("euler", found, 55)


def test_euler_ancestral(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers has no such step for networks that predict x0."""
    module = "diffusers.schedulers.scheduling_euler_ancestral_discrete.randn_tensor"
    found: dict[tuple[Any, ...], float] = {}
    usual = [(schedule, kind) for schedule, kind in USUAL if kind != "x0"]
    for (schedule, kind), (spacing, spread) in product(usual, SPREADS.items()):
        scheduler, table = make(EulerAncestralDiscreteScheduler, schedule, kind, **sigma_config(spacing))
        monkeypatch.setattr(module, Draws())
        mine = run("euler_ancestral", kind, levels_for(table, STEPS, spread))
        found[schedule, kind, spacing] = worst(mine, reference_sigmas(scheduler, kind, 1))
    check("euler", found, 28)


def test_heun() -> None:
    """diffusers has no zero terminal SNR here.

    Without the cosine where one step goes from sigma / alpha = 20000 to 6: the trapezoid over it throws x to
    1000, and what is left after seven digits is rounding.
    """
    found: dict[tuple[Any, ...], float] = {}
    usual = [(schedule, kind) for schedule, kind in USUAL if schedule != "zero_snr"]
    for (schedule, kind), (spacing, spread) in product(usual, {**SPREADS, ("karras", 0): "karras"}.items()):
        if schedule == "cosine" and spacing[0] in ("trailing", "linspace"):
            continue
        scheduler, table = make(HeunDiscreteScheduler, schedule, kind, **sigma_config(spacing))
        mine = run("heun", kind, levels_for(table, STEPS, spread))
        found[schedule, kind, spacing] = worst(mine, reference_sigmas(scheduler, kind, 2))
    check("heun", found, 39)


# DPM-Solver++


def dpm_levels(scheduler: Any, table: Schedule, spacing: str, steps: int, end: End) -> list[Level]:
    """Ours, but for "leading" and "linspace", which diffusers spreads over one step more for this solver and
    leaves the last out: those are its own times.
    """
    if spacing in ("trailing", "karras"):
        return levels_for(table, steps, spacing, end)
    return levels_at(table, scheduler.timesteps, end)


def dpm_cases(count: int) -> Iterator[tuple[str, Prediction, str, str]]:
    cases = [
        (schedule, kind, spacing, final)
        for (schedule, kind), spacing, final in product(
            USUAL, ("trailing", "leading", "linspace", "karras"), ("zero", "sigma_min")
        )
    ]
    assert len(cases) == count
    yield from cases


@pytest.mark.parametrize("steps", [STEPS, 20])
@pytest.mark.parametrize(
    ("name", "algorithm"), [("dpmpp_2m", "dpmsolver++"), ("dpmpp_2m_sde", "sde-dpmsolver++")]
)
def test_dpmpp(name: str, algorithm: str, steps: int) -> None:
    """20 steps as well: from 15 on the last step is of first order only if it goes to the clean level."""
    found: dict[tuple[Any, ...], float] = {}
    for schedule, kind, spacing, final in dpm_cases(88):
        config = {**sigma_config((spacing, 0)), "final_sigmas_type": final, "algorithm_type": algorithm}
        scheduler, table = make(DPMSolverMultistepScheduler, schedule, kind, **config)
        scheduler.set_timesteps(steps)
        scheduler.set_begin_index(0)  # else it would skip the first of two equal rounded times
        levels = dpm_levels(scheduler, table, spacing, steps, "clean" if final == "zero" else "first")
        draws = [torch.randn(SHAPE, generator=torch.Generator().manual_seed(i)) for i in range(steps)]
        own, x, theirs = iter(draws), start(), list[Tensor]()
        for t, noise, sigma in zip(scheduler.timesteps, draws, scheduler.sigmas, strict=False):
            output = network(x, preserving(sigma.double()), kind)
            x = scheduler.step(output, t, x, variance_noise=noise).prev_sample
            theirs.append(x)
        steps_of = SAMPLERS[name].run(ours(kind), start(), levels, noise=lambda own=own: next(own))
        found[schedule, kind, spacing, final] = worst([s.x for s in steps_of], theirs)
    check("dpmpp", found, 88)
