"""The recipe's training loop: killed and taken up again equals uninterrupted, to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recipes.toybox import loop
from recipes.toybox.loop import Player, Run, learning_rate, train
from recipes.toybox.scales import SCALES, Fit
from torch import Tensor, nn

from scumble.core.errors import NumericError

FIT = Fit(steps=8, batch=4, lr=1e-2, warmup=3)


def players(run: Run, *, killed_at: int | None = None) -> list[Player]:
    """A network that fits noise, and one that fits the first: as an autoencoder and its adversary."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 3, 3))
    second = nn.Conv2d(3, 1, 3)
    first.to(memory_format=torch.channels_last)

    def fit_noise(step: int) -> Tensor:
        if step == killed_at:
            raise KeyboardInterrupt
        x = torch.randn(4, 3, 12, 12, generator=run.generator("loop", step))
        return (first(x) - x[..., 2:-2, 2:-2]).square().mean()

    def follow(step: int) -> Tensor:
        x = torch.randn(4, 3, 12, 12, generator=run.generator("loop", step, "second"))
        return (second(first(x).detach()) - 1.0).square().mean()

    return [Player(network=first, loss=fit_noise), Player(network=second, loss=follow, averaged=False)]


def run_in(folder: Path) -> Run:
    return Run(out=folder, scale=SCALES["tiny"], seed=5)


def weights(trained: list[Player]) -> list[Tensor]:
    return [p.detach() for player in trained for p in player.network.parameters()]


@pytest.mark.parametrize("fit", [FIT, replace(FIT, muon=True)], ids=["adamw", "muon"])
def test_killed_and_resumed_equals_uninterrupted(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = players(run_in(tmp_path / "whole"))
    assert train("test", whole, fit, run_in(tmp_path / "whole"))

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    broken = run_in(tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        train("test", players(broken, killed_at=5), fit, broken)
    resumed = players(broken)
    assert train("test", resumed, fit, broken)
    pairs = list(zip(weights(whole), weights(resumed), strict=True))
    assert len(pairs) == 8
    assert all(torch.equal(a, b) for a, b in pairs)


def test_stops_when_the_time_is_up_and_goes_on_later(tmp_path: Path) -> None:
    whole = players(run_in(tmp_path / "whole"))
    train("test", whole, FIT, run_in(tmp_path / "whole"))
    run = Run(out=tmp_path / "short", scale=SCALES["tiny"], seed=5, minutes=0.0)
    assert not train("test", players(run), FIT, run)
    resumed = players(run_in(tmp_path / "short"))
    assert train("test", resumed, FIT, run_in(tmp_path / "short"))
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


def test_the_loss_falls_and_the_average_is_handed_on(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    trained = players(run)
    before = trained[0].loss(100).item()
    last = [p.detach().clone() for p in trained[0].network.parameters()]
    train("test", trained, Fit(steps=60, batch=4, lr=1e-2, warmup=3, ema=0.9), run)
    assert trained[0].loss(100).item() < 0.7 * before
    assert not trained[0].network.training
    assert not any(torch.equal(a, b) for a, b in zip(last, trained[0].network.parameters(), strict=True))


def test_learning_rate_warms_up_stays_and_cools_down() -> None:
    fit = Fit(steps=100, batch=1, lr=2.0, warmup=10, cooldown=0.2)
    rates = [learning_rate(step, fit) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9:81] == pytest.approx([2.0] * 72)
    assert rates[90] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(0.1)


def test_a_stage_that_was_stopped_says_how_far_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    run = run_in(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train("test", players(run, killed_at=5), FIT, run)
    train("test", players(run), FIT, replace(run, minutes=0.0))
    assert run.facts("test", FIT) == {"scale": "tiny", "steps": 5, "batch": 4, "samples": 20}


@pytest.mark.parametrize("seconds", [0.0, 1000.0], ids=["reported", "at the end"])
def test_a_loss_that_is_not_finite_is_an_error(
    seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "PROGRESS_SECONDS", seconds)
    network = nn.Linear(2, 2)
    player = Player(network=network, loss=lambda step: network.weight.sum() * torch.nan)
    with pytest.raises(NumericError, match="not finite"):
        train("test", [player], FIT, run_in(tmp_path))
    assert not list(tmp_path.iterdir())
