"""The fit loop: killed and resumed equals uninterrupted to the bit; how a batch is cut is no matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from scumble.core import rng
from scumble.core.errors import InputError, MissingExtraError, NumericError
from scumble.core.events import finish
from scumble.core.runs import RunFolder
from scumble.training.fit import FitConfig, Group, HeldOut, fit, learning_rate

CONFIG = FitConfig(steps=12, batch=4, lr=0.05, warmup=3, decay="cosine", ema=0.9, checkpoint_every=4, seed=3)


def parameters() -> dict[str, nn.Parameter]:
    start = torch.randn(6, 4, generator=rng.generator(1))
    return {"matrix": nn.Parameter(start), "bias": nn.Parameter(torch.zeros(6))}


def regression(
    named: dict[str, nn.Parameter], *, dies_at: int = -1, breaks_at: int = -1, pulls_at: int = -1
) -> Callable[..., Tensor]:
    """Fit a matrix to noise; stops as if killed, or gives NaN, or a gradient that is NaN, at a step."""

    def loss(step: int, rows: Sequence[int]) -> Tensor:
        if step == dies_at:
            raise KeyboardInterrupt
        x = rng.randn((4,), rng.generators(rng.derive(CONFIG.seed, step, row) for row in rows))
        each = (x @ named["matrix"].T + named["bias"] - x.sum(1, keepdim=True)).square().mean(1)
        if step == pulls_at:  # the root of 0 has no slope, and 0 times infinity is no number
            each = each + (0 * named["bias"]).sum().sqrt()
        return each * torch.nan if step == breaks_at else each

    return loss


def learnt(config: FitConfig = CONFIG, run: RunFolder | None = None) -> dict[str, Tensor]:
    named = parameters()
    finish(fit([Group(named)], regression(named), config, run=run))
    return {name: p.detach().clone() for name, p in named.items()}


def test_killed_and_resumed_is_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = learnt()
    for dies_at in (2, 6, 11):
        run = RunFolder(tmp_path / str(dies_at))
        named = parameters()
        with pytest.raises(KeyboardInterrupt):
            finish(fit([Group(named)], regression(named, dies_at=dies_at), CONFIG, run=run))
        again = parameters()
        done = finish(fit([Group(again)], regression(again), CONFIG, run=RunFolder(run.path)))
        assert done.steps == CONFIG.steps
        for name, value in whole.items():
            assert torch.equal(value, again[name]), (dies_at, name)


def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    named = parameters()
    with pytest.raises(KeyboardInterrupt):
        finish(fit([Group(named)], regression(named, dies_at=9), CONFIG, run=run))
    newest = run.path / "checkpoints" / "000008.safetensors"
    newest.write_bytes(newest.read_bytes()[:40])
    again = parameters()
    done = finish(fit([Group(again)], regression(again), CONFIG, run=RunFolder(tmp_path)))
    assert "An older checkpoint was taken." in done.notes[0]
    for name, value in learnt().items():
        assert torch.equal(value, again[name])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_change_only_rounding(size: int) -> None:
    whole, cut = learnt(), learnt(CONFIG.replace(micro_batch=size))
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-4, atol=1e-5)


def test_a_run_with_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    learnt(run=run)
    with pytest.raises(InputError, match="other settings"):
        learnt(CONFIG.replace(lr=0.1), run=run)
    with pytest.raises(InputError, match="other settings"):
        learnt(CONFIG.replace(steps=14), run=run)  # whose rate falls more slowly from the first step on


def test_longer_is_the_same_run_where_the_rate_stays_and_shorter_is_refused(tmp_path: Path) -> None:
    config, run = CONFIG.replace(decay="constant"), RunFolder(tmp_path)
    whole = learnt(config.replace(steps=14))
    learnt(config, run=run)
    for name, value in learnt(config.replace(steps=14), run=run).items():
        assert torch.equal(value, whole[name])
    with pytest.raises(InputError, match="14 steps long, more than 12"):
        learnt(config, run=run)


def test_nan_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    named = parameters()
    with pytest.raises(NumericError, match="after step 4 is kept"):
        finish(fit([Group(named)], regression(named, breaks_at=5), CONFIG, run=run))
    path, complaints = run.latest_checkpoint()
    assert path is not None
    assert path.stem == "000004"
    assert complaints == []


def test_only_what_can_be_done_is_advised_after_nan(tmp_path: Path) -> None:
    """Without a checkpoint none is named, and a smaller rate is a new run; with one its folder has to go."""

    def broken(config: FitConfig, run: RunFolder | None) -> str:
        named = parameters()
        with pytest.raises(NumericError) as problem:
            finish(fit([Group(named)], regression(named, breaks_at=5), config, run=run))
        return str(problem.value)

    rare, run = CONFIG.replace(checkpoint_every=100), RunFolder(tmp_path / "rare")
    for said in (broken(rare, run), broken(CONFIG, None)):
        assert "kept" not in said
        assert "smaller learning rate" in said
    learnt(rare.replace(lr=0.01), run=run)
    often = RunFolder(tmp_path / "often")
    assert "Remove that folder and take a smaller" in broken(CONFIG, often)
    with pytest.raises(InputError, match="other settings"):
        learnt(CONFIG.replace(lr=0.01), run=often)


@pytest.mark.parametrize("at", [7, 11])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_no_number_under_a_finite_loss_is_not_kept(
    tmp_path: Path, at: int, clip: float
) -> None:
    run, named = RunFolder(tmp_path), parameters()
    with pytest.raises(NumericError, match="A gradient was not a number"):
        finish(fit([Group(named)], regression(named, pulls_at=at), CONFIG.replace(clip=clip), run=run))
    path, _ = run.latest_checkpoint()
    assert path is not None
    assert int(path.stem) == 4 * (at // 4)
    named = parameters()
    with pytest.raises(NumericError):  # and it is no result
        finish(fit([Group(named)], regression(named, pulls_at=at), CONFIG.replace(clip=clip)))


def test_parameters_that_are_no_numbers_are_neither_kept_nor_a_result(tmp_path: Path) -> None:
    """Gradients and losses may be finite: it is looked at what would be written."""
    run, named = RunFolder(tmp_path), parameters()
    spare = nn.Parameter(torch.zeros(2))  # which no loss sees
    plain = regression(named)

    def loss(step: int, rows: Sequence[int]) -> Tensor:
        if step == 6:
            spare.data[0] = torch.inf
        return plain(step, rows)

    for place in (run, None):
        spare.data.zero_()
        with pytest.raises(NumericError, match="What is learnt was not a number"):
            finish(fit([Group({**named, "spare": spare})], loss, CONFIG, run=place))
    path, _ = run.latest_checkpoint()
    assert path is not None
    assert path.stem == "000004"


def test_a_held_out_loss_that_is_no_number_does_not_pass_for_one_that_settled() -> None:
    named = parameters()
    held_out = HeldOut(lambda _: torch.tensor(torch.nan), every=1, patience=1)
    with pytest.raises(NumericError, match="held-out loss was not a number after step 1"):
        finish(fit([Group(named)], regression(named), CONFIG, held_out=held_out))


def test_one_flipped_byte_anywhere_in_a_checkpoint_is_seen(tmp_path: Path) -> None:
    """The older one is taken, with a word, and ends at the same bits; so with a stranger's file."""
    for what in ("tensor", "metadata", "stranger"):
        run, named = RunFolder(tmp_path / what), parameters()
        with pytest.raises(KeyboardInterrupt):
            finish(fit([Group(named)], regression(named, dies_at=9), CONFIG, run=run))
        newest = run.path / "checkpoints" / "000008.safetensors"
        content = newest.read_bytes()
        place = len(content) - 3 if what == "tensor" else content.index(b'"step":"8"') + 8
        newest.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        if what == "stranger":
            save_file({"matrix/value": torch.zeros(6, 4)}, newest)  # sound, without a word about itself
        again = parameters()
        done = finish(fit([Group(again)], regression(again), CONFIG, run=run))
        assert "000008.safetensors" in done.notes[0]
        assert "An older checkpoint was taken." in done.notes[0]
        for name, value in learnt().items():
            assert torch.equal(value, again[name])


def test_where_every_checkpoint_is_damaged_it_is_begun_anew_and_said(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    learnt(CONFIG, run=run)
    for path in (run.path / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    named = parameters()
    done = finish(fit([Group(named)], regression(named), CONFIG, run=run))
    [note] = done.notes
    assert [note.count(part) for part in (".safetensors is", "begun anew")] == [2, 1]


def test_nothing_learnt_is_said() -> None:
    named = parameters()
    done = finish(fit([Group(named)], regression(named), FitConfig(steps=2, lr=0.0, weight_decay=0.0)))
    assert done.moved == 0
    assert "Nothing was learnt" in done.notes[0]


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_loss_that_depends_on_nothing_is_said_though_the_decay_moves_weights(clip: float) -> None:
    config = FitConfig(steps=2, lr=0.1, weight_decay=0.1, clip=clip)
    named = parameters()
    done = finish(fit([Group(named)], lambda _, rows: 0 * named["matrix"].sum().expand(len(rows)), config))
    assert done.moved > 0
    assert "does not depend" in done.notes[0]
    named = parameters()
    assert finish(fit([Group(named)], regression(named), config)).notes == []


def test_half_precision_masters_are_refused() -> None:
    half = {"matrix": nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))}
    with pytest.raises(InputError, match="float32"):
        finish(fit([Group(half)], lambda *_: torch.zeros(1), FitConfig(steps=1)))


def test_it_stops_when_the_held_out_loss_falls_no_more() -> None:
    named = parameters()
    losses = iter([3.0, 2.0, 1.0, 1.0, 1.0, 0.5])
    held_out = HeldOut(lambda _: torch.tensor(next(losses)), every=1, patience=2)
    done = finish(fit([Group(named)], regression(named), CONFIG, held_out=held_out))
    assert done.stopped_early
    assert done.steps == 5
    assert done.held_out == [3.0, 2.0, 1.0, 1.0, 1.0]


def test_an_optimiser_in_8_bits_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = FitConfig(steps=2, lr=0.1, optimiser="adamw8bit")
    asked: list[str] = []

    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr("scumble.training.fit.import_module", missing)
    with pytest.raises(MissingExtraError, match="bitsandbytes"):
        learnt(config)
    there = SimpleNamespace(optim=SimpleNamespace(AdamW8bit=torch.optim.AdamW))
    monkeypatch.setattr("scumble.training.fit.import_module", lambda name: asked.append(name) or there)
    for name, value in learnt(config.replace(optimiser="adamw")).items():
        torch.testing.assert_close(learnt(config)[name], value)
    assert set(asked) == {"bitsandbytes"}


@pytest.mark.parametrize(("ema", "at_ema"), [(0.3, range(3, 12)), (0.9, range(0))])
def test_the_average_is_the_recursion_of_its_formula(ema: float, at_ema: range) -> None:
    """a = w, and after each step a <- d a + (1 - d) w, where d = min(ema, (1 + step) / (10 + step))."""
    named, config = parameters(), CONFIG.replace(ema=ema, decay="constant")
    average = {name: p.detach().double() for name, p in named.items()}
    for event in fit([Group(named)], regression(named), config):
        step = event.step - 1
        decay = min(ema, (1 + step) / (10 + step))
        assert (decay == ema) == (step in at_ema)
        for name, p in named.items():  # what it holds between two steps is its own, not the average
            average[name] = decay * average[name] + (1 - decay) * p.detach().double()
    last = learnt(config.replace(ema=0.0))
    for name, p in named.items():
        torch.testing.assert_close(p.detach().double(), average[name], rtol=1e-5, atol=1e-6)
        assert float((p.detach() - last[name]).abs().max()) > 1e-3


def test_learning_rates_rise_and_fall() -> None:
    config = FitConfig(steps=10, warmup=2, decay="linear")
    assert [learning_rate(step, 1.0, config) for step in (0, 1, 5)] == [0.5, 0.9, 0.5]
    assert learning_rate(7, 0.1, FitConfig(steps=10)) == 0.1


def test_groups_have_learning_rates_of_their_own() -> None:
    named = parameters()
    before = {name: p.detach().clone() for name, p in named.items()}
    groups = [Group({"matrix": named["matrix"]}), Group({"bias": named["bias"]}, lr=0.0, weight_decay=0.0)]
    finish(fit(groups, regression(named), FitConfig(steps=3, lr=0.1)))
    assert torch.equal(named["bias"], before["bias"])
    assert not torch.equal(named["matrix"], before["matrix"])
