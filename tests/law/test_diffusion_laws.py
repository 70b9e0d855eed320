"""Identities of levels, conversions, losses and samplers, on data whose exact denoiser is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from scumble.diffusion.invert import ddim_inversion
from scumble.diffusion.levels import Level, clean
from scumble.diffusion.parameterisation import (
    WEIGHTINGS,
    Prediction,
    Weighting,
    loss,
    loss_weight,
    target,
    to_eps,
    to_x0,
)
from scumble.diffusion.samplers import SAMPLERS, Step, ddim, dpmpp_2m, heun, steer
from scumble.diffusion.schedules import Schedule, cosine, linear, scaled_linear, ve, zero_snr
from scumble.diffusion.spacing import SPACINGS, levels_for, levels_from, ve_sde_levels, vp_sde_levels

SCHEDULES: dict[str, Schedule] = {
    "linear": linear(),
    "scaled_linear": scaled_linear(),
    "cosine": cosine(),
    "ve": ve(2000),
    "zero_snr": zero_snr(scaled_linear()),
    "zero_snr cosine": zero_snr(cosine()),
}
KINDS: tuple[Prediction, ...] = ("eps", "v", "x0")
MEAN, STD = 0.3, 0.5


def gaussian(x: Tensor, level: Level) -> Tensor:
    """E[x0 | x] for data normal with MEAN and STD."""
    variance = (level.alpha * STD) ** 2 + level.sigma**2
    return MEAN + level.alpha * STD**2 / variance * (x - level.alpha * MEAN)


def carried(x: Tensor, now: Level, then: Level) -> Tensor:
    """Where the probability flow takes x: to the same number of standard deviations from the mean."""
    spreads = [torch.hypot(level.alpha * STD, level.sigma) for level in (now, then)]
    return then.alpha * MEAN + spreads[1] / spreads[0] * (x - now.alpha * MEAN)


def two_points(x: Tensor, level: Level) -> Tensor:
    """E[x0 | x] for data at 0.6 and -0.6, each blurred by 0.2."""
    variance = (level.alpha * 0.2) ** 2 + level.sigma**2
    pull = 0.6 * torch.tanh(level.alpha * 0.6 * x / variance)
    return (level.alpha * 0.04 * x + level.sigma**2 * pull) / variance


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def last(steps: Iterable[Step]) -> Tensor:
    *_, step = steps
    return step.x


def at(schedule: Schedule, time: float) -> Level:
    return schedule.levels(torch.tensor(time, dtype=torch.float64))


# Levels and schedules


@pytest.mark.parametrize("name", SCHEDULES)
def test_time_is_the_inverse_of_levels(name: str) -> None:
    schedule = SCHEDULES[name]
    end = schedule.num_train_timesteps - 1
    times = torch.tensor([0, 0.25, 1, 17.5, end / 2 + 0.1, end - 1, end - 0.75, end - 1e-3, end]).double()
    level = schedule.levels(times)  # (9,)
    assert (schedule.time(level) - times).abs().max() < 1e-6
    assert (schedule.levels(schedule.time(level)).sigma - level.sigma).abs().max() < 1e-6 * float(
        level.sigma.max()
    )
    whole = torch.arange(end + 1).double()
    assert torch.equal(schedule.levels(whole).alpha, schedule.alpha)
    assert torch.equal(schedule.time(schedule.levels(whole)), whole)
    assert (level.ratio.diff() > 0).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_levels_stay_of_their_kind_between_whole_times(name: str) -> None:
    level = SCHEDULES[name].levels(torch.linspace(0, 999, 5003, dtype=torch.float64))
    wanted = torch.ones(5003, dtype=torch.float64)
    kept = level.alpha if name == "ve" else level.alpha**2 + level.sigma**2
    assert (kept - wanted).abs().max() < 1e-12


@pytest.mark.parametrize(("name", "spacing"), list(product(SCHEDULES, SPACINGS)))
def test_lists_fall_from_t0_to_clean(name: str, spacing: str) -> None:
    schedule = SCHEDULES[name]
    for t0, steps in product((0.1, 0.4567, 0.57, 1.0), (1, 2, 7, 50)):
        levels = levels_from(schedule, steps, t0, spacing)
        times = torch.stack([schedule.time(level) for level in levels[:-1]])
        assert len(levels) == steps + 1
        assert (times.diff() < 0).all()
        assert (float(levels[-1].alpha), float(levels[-1].sigma)) == (1, 0)
        if spacing != "leading":
            assert float(times[0]) == pytest.approx(t0 * schedule.num_train_timesteps - 1, abs=1e-6)


def test_variance_exploding_and_preserving_are_one_process() -> None:
    """After dividing x by alpha, samplers give the same at the same sigma / alpha. Not so Euler-Maruyama:
    its noise is by definition that of its SDE.
    """
    preserving = levels_for(scaled_linear(), 10)
    exploding = [Level(torch.ones_like(level.alpha), level.ratio) for level in preserving]
    x = normal(2, 3)
    for name, sampler in SAMPLERS.items():
        if name == "reverse_sde":
            continue
        noise = [iter([normal(2, 3, seed=i) for i in range(10)]) for _ in range(2)]
        one = list(
            sampler.run(gaussian, x * preserving[0].alpha, preserving, noise=lambda n=noise[0]: next(n))
        )
        other = list(sampler.run(gaussian, x, exploding, noise=lambda n=noise[1]: next(n)))
        for a, b in zip(one, other, strict=True):
            assert (a.x / a.level.alpha - b.x).abs().max() < 1e-10


# Conversions and the loss


@pytest.mark.parametrize(("name", "kind"), list(product(SCHEDULES, KINDS)))
def test_conversions_round_trip(name: str, kind: Prediction) -> None:
    """From x0 and eps to x and what the network should say, and back; one level for all or one for each."""
    schedule = SCHEDULES[name]
    x0, eps = normal(4, 3, 2), normal(4, 3, 2, seed=1)
    for level in (at(schedule, 400.3), schedule.levels(torch.tensor([1.0, 300, 700.5, 990]))):
        x = level.mix(x0, eps)
        assert (to_x0(target(x0, eps, level, kind), x, level, kind) - x0).abs().max() < 1e-9
        assert (to_eps(x0, x, level) - eps).abs().max() < 1e-9


def test_conversions_are_finite_at_the_ends() -> None:
    x = normal(2, 3)
    pure = at(SCHEDULES["zero_snr"], 999)
    for kind, level in product(KINDS, (pure, clean())):
        assert torch.isfinite(to_x0(x, x, level, kind)).all()
    assert torch.equal(to_x0(x, x, pure, "eps"), torch.zeros_like(x))
    assert torch.equal(to_eps(x, x, clean()), torch.zeros_like(x))
    assert torch.equal(to_x0(normal(2, 3, seed=1), x, clean(), "v"), x)


@pytest.mark.parametrize(("kind", "weighting"), list(product(KINDS, WEIGHTINGS)))
def test_loss_and_gradient(kind: Prediction, weighting: Weighting) -> None:
    """Against sums over single numbers, with weights from the SNR and the error carried over to x0 or eps."""
    level = scaled_linear().levels(torch.tensor([50.0, 400, 900]))
    x0, eps, output = normal(3, 4), normal(3, 4, seed=1), normal(3, 4, seed=2)
    leaf = output.clone().requires_grad_()
    found = loss(leaf, x0, eps, level, kind, weighting=weighting)
    (slope,) = torch.autograd.grad(found.sum(), leaf)
    for row in range(3):
        alpha, sigma = float(level.alpha[row]), float(level.sigma[row])
        snr, total = alpha**2 / sigma**2, 0.0
        on_x0 = {"none": None, "min_snr": min(snr, 5.0), "debiased": snr * snr**-0.5}[weighting]
        x0_of_output = {"x0": 1.0, "eps": 1 / snr, "v": sigma**2}[
            kind
        ]  # squared error of x0 per that of the output
        weight = 1.0 if on_x0 is None else on_x0 * x0_of_output
        for column in range(4):
            a, e, o = float(x0[row, column]), float(eps[row, column]), float(output[row, column])
            wanted = {"x0": a, "eps": e, "v": alpha * e - sigma * a}[kind]
            total += weight * (o - wanted) ** 2 / 4
            assert float(slope[row, column]) == pytest.approx(
                2 * weight * (o - wanted) / 4, rel=1e-5, abs=1e-7
            )
        assert float(found[row].detach()) == pytest.approx(total, rel=1e-5)


def test_weights_are_finite_where_they_can_be() -> None:
    level = SCHEDULES["zero_snr"].levels(torch.tensor([0.0, 500, 998, 999]))
    for kind, weighting in product(KINDS, WEIGHTINGS):
        weight = loss_weight(level, kind, weighting)
        assert (weight >= 0).all()
        assert bool(torch.isfinite(weight).all()) is ((kind, weighting) != ("eps", "debiased"))


# Samplers


@pytest.mark.parametrize(("name", "schedule"), list(product(SAMPLERS, SCHEDULES)))
def test_step_of_size_zero_is_the_identity(name: str, schedule: str) -> None:
    """Bit for bit, at every level from clean to pure noise, in float32."""
    x = normal(2, 3).float()
    for level in (
        clean(),
        at(SCHEDULES[schedule], 0),
        at(SCHEDULES[schedule], 400.5),
        at(SCHEDULES[schedule], 999),
    ):
        run = SAMPLERS[name].run(lambda x, _: 0.5 * x, x, [level] * 4, noise=lambda: torch.ones(2, 3))
        steps = list(run)
        assert len(steps) == 3
        assert all(torch.equal(step.x, x) for step in steps)


@pytest.mark.parametrize(("name", "schedule", "spacing"), list(product(SAMPLERS, SCHEDULES, SPACINGS)))
def test_finite_from_the_noisiest_level_down(name: str, schedule: str, spacing: str) -> None:
    """And the last step lands on what the denoiser says."""
    levels = levels_for(SCHEDULES[schedule], 6, spacing)
    x = normal(2, 3).float() * levels[0].spread
    steps = list(SAMPLERS[name].run(two_points, x, levels, noise=lambda: normal(2, 3, seed=9).float()))
    assert len(steps) == steps[-1].total == 6
    assert all(torch.isfinite(step.x).all() for step in steps)
    assert steps[-1].x.dtype == torch.float32
    assert torch.allclose(steps[-1].x, steps[-1].x0, atol=1e-6)


def test_one_level_for_each_row() -> None:
    """Rows at levels of their own go as they would alone."""
    schedule = SCHEDULES["zero_snr"]
    lists = [levels_for(schedule, 8), levels_from(schedule, 8, 0.37), levels_from(schedule, 8, 0.8, "karras")]
    levels = [
        Level(torch.stack([v.alpha for v in row]), torch.stack([v.sigma for v in row]))
        for row in zip(*lists, strict=True)
    ]
    x = normal(3, 2)

    def per_row(x: Tensor, level: Level) -> Tensor:
        return two_points(x, Level(level.alpha[:, None], level.sigma[:, None]))

    for name, sampler in SAMPLERS.items():
        together = last(sampler.run(per_row, x, levels, noise=lambda: torch.ones(3, 2).double()))
        for row, alone in enumerate(lists):
            one = sampler.run(two_points, x[row : row + 1], alone, noise=lambda: torch.ones(1, 2).double())
            single = last(one)
            assert (together[row] - single[0]).abs().max() < 1e-10, name


def moments(name: str, levels: list[Level]) -> tuple[float, float]:
    """Mean and standard deviation of what a sampler makes, exactly: it is affine in its start and its noise.

    Row 0 starts at zero with no noise; row 1 adds the start's deviation, row i + 2 the noise of step i.
    """
    count = len(levels) - 1
    start, given = torch.zeros(count + 2, 1).double(), torch.eye(count, count).double()
    start[1] = torch.hypot(levels[0].alpha * STD, levels[0].sigma)
    start += levels[0].alpha * MEAN
    rows = iter([torch.cat([torch.zeros(2, dtype=torch.float64), row])[:, None] for row in given])
    x = last(SAMPLERS[name].run(gaussian, start, levels, noise=lambda: next(rows)))[:, 0]
    return float(x[0]), float((x[1:] - x[0]).square().sum().sqrt())


@pytest.mark.parametrize("name", SAMPLERS)
def test_gaussian_data_come_out_with_their_mean_and_deviation(name: str) -> None:
    """And closer with more steps."""
    few, many = (moments(name, levels_for(scaled_linear(), steps, "karras")) for steps in (25, 200))
    assert many[0] == pytest.approx(MEAN, abs=2e-3)
    assert many[1] == pytest.approx(STD, rel=0.02)
    assert abs(many[1] - STD) < abs(few[1] - STD)


@pytest.mark.parametrize("levels_of", [vp_sde_levels, ve_sde_levels])
def test_reverse_sdes_of_the_paper_recover_the_data(levels_of: Callable[[float, int], list[Level]]) -> None:
    """The start is noised data at a t0 between whole times; Euler-Maruyama is of first order."""
    errors = [abs(moments("reverse_sde", levels_of(0.4321, steps))[1] - STD) for steps in (100, 400)]
    assert errors[1] < 0.02 * STD
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.35)


def smooth(steps: int) -> list[Level]:
    """Levels even in log(sigma / alpha), from 3 to 0.1."""
    ratios = torch.linspace(math.log(3), math.log(0.1), steps + 1, dtype=torch.float64).exp()
    return [scaled_linear().at_ratio(ratio) for ratio in ratios]


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (heun, 2), (dpmpp_2m, 2)])
def test_order_of_convergence(sampler: Callable[..., Iterable[Step]], order: int) -> None:
    """Measured: doubling the steps divides the error by 2 to the order."""
    errors, x = list[float](), normal(1, 5)
    for levels in map(smooth, (32, 64, 128)):
        found = last(sampler(gaussian, x, levels, noise=lambda: x))
        errors.append(float((found - carried(x, levels[0], levels[-1])).abs().max()))
    rates = [math.log2(a / b) for a, b in pairwise(errors)]
    assert rates[-1] == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name", ["ddim", "heun", "dpmpp_2m"])
def test_deterministic_samplers_draw_no_noise(name: str) -> None:
    def noise() -> Tensor:
        raise AssertionError("noise was drawn")

    assert not SAMPLERS[name].stochastic
    assert torch.isfinite(
        last(SAMPLERS[name].run(gaussian, normal(1, 2), levels_for(linear(), 5), noise=noise))
    ).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_calls(name: str) -> None:
    """The stated number of calls, whose cost estimates rest on it."""
    seen: list[float] = []

    def denoise(x: Tensor, level: Level) -> Tensor:
        seen.append(float(level.sigma))
        return gaussian(x, level)

    last(SAMPLERS[name].run(denoise, normal(1, 2), levels_for(linear(), 7), noise=lambda: normal(1, 2)))
    assert len(seen) == SAMPLERS[name].calls(7)
    assert min(seen) > 0


def test_steering() -> None:
    """Unchanged it is the sampler itself; changed, the sampler goes on from there."""
    levels, x = levels_for(linear(), 6), normal(2, 3)
    plain = list(ddim(two_points, x, levels, noise=lambda: x))
    same = list(steer(ddim(two_points, x, levels, noise=lambda: x), lambda step: step.x))
    assert all(torch.equal(a.x, b.x) for a, b in zip(plain, same, strict=True))
    moved = list(steer(ddim(two_points, x, levels, noise=lambda: x), lambda step: step.x + 1))
    by_hand, now = list[Tensor](), x
    for i in range(6):
        (step,) = ddim(two_points, now, levels[i : i + 2], noise=lambda: x)
        now = step.x + 1
        by_hand.append(now)
    assert all(torch.equal(a.x, b) for a, b in zip(moved, by_hand, strict=True))


# Inversion


def round_trip(levels: list[Level], refinements: int) -> float:
    x = torch.tensor([[0.7, 0.55, -0.4, -0.8]], dtype=torch.float64)
    noise = last(ddim_inversion(two_points, x, levels, refinements=refinements))
    return float((last(ddim(two_points, noise, levels, noise=lambda: x)) - x).abs().max())


def test_inversion_then_sampling_returns_the_start() -> None:
    """The better, the more steps: the plain inversion is of first order."""
    errors = [round_trip(levels_for(scaled_linear(), steps, "karras"), 0) for steps in (50, 200, 800)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.4)


@pytest.mark.parametrize("name", ["scaled_linear", "zero_snr"])
def test_refined_inversion_is_exact(name: str) -> None:
    """With the fixed point found, DDIM goes back to rounding, however few the steps; from pure noise too."""
    levels = levels_for(SCHEDULES[name], 40, "karras")
    assert round_trip(levels, 0) > 1e-3
    assert round_trip(levels, 60) < 1e-9


@pytest.mark.parametrize("name", SCHEDULES)
def test_inversion_is_finite(name: str) -> None:
    levels = levels_for(SCHEDULES[name], 8)
    steps = list(ddim_inversion(two_points, normal(2, 3), levels, refinements=1))
    assert len(steps) == 8
    assert all(torch.isfinite(step.x).all() for step in steps)
    assert steps[-1].level is levels[0]
