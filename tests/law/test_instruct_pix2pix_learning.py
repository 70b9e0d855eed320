"""What holds of learning to edit: the loss, what is left out, where it starts, what it leaves as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionInstructPix2PixPipeline
from torch import Tensor

from learnt import digests
from pairs import folder
from scumble.core import rng
from scumble.core.errors import InputError
from scumble.core.events import finish
from scumble.core.images import read_image, to_model, to_unit
from scumble.core.runs import RunFolder
from scumble.data.pairs import Pair, read_pairs
from scumble.methods.instruct_pix2pix import Learning, learn, loss
from scumble.methods.instruct_pix2pix.learning import Told, _look, held_out
from scumble.models.load import load
from scumble.models.model import Model
from scumble.models.save import save_folder
from scumble.sampling.guided import default_guidance
from scumble.training.pairs import PairLatents, View, draw, encoded
from tiny import shared

TINY = Learning(
    steps=3, batch=2, lr=1e-3, ema=0.9, size=64, rank=2, checkpoint_every=2, validate_every=0, seed=5
)
VIEW = View(side=64)


@pytest.fixture(scope="module")
def model() -> Model:
    return load(shared("sd1"))


@pytest.fixture(scope="module")
def editor() -> Model:
    return load(shared("ip2p"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    return read_pairs(folder(tmp_path_factory.mktemp("data") / "pairs"))


def table(model: Model, pairs: list[Pair], **view: Any) -> PairLatents:
    return finish(encoded(model, pairs, View(side=64, **view)))


def unet(model: Model) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.denoiser.state_dict().items()}


# The loss


def test_the_loss_is_equation_2(editor: Model, pairs: list[Pair]) -> None:
    """From the files on: encoded, drawn, noised and compared here again, with the released scalings."""
    latents, told = table(editor, pairs, mirror=False), Told(editor, (64, 64))
    instructions = [pair.instruction for pair in pairs]
    config, rows = TINY.replace(drop=0.0), [0, 1, 2]
    with torch.no_grad():
        found = loss(editor, latents, instructions, config, 7, rows, told)
        for row, value in zip(rows, found, strict=True):
            chance = rng.generator(rng.derive(config.seed, "pair", 7, row))
            pair, _, t = (int(torch.randint(n, (), generator=chance)) for n in (4, 1, 1000))
            torch.rand((), generator=chance)
            before, after = (
                editor.autoencoder.encode(to_model(to_unit(read_image(file).image))).latent_dist
                for file in (pairs[pair].input, pairs[pair].edited)
            )
            of_latents, eps = (torch.randn(1, 4, 8, 8, generator=chance) for _ in range(2))
            z0 = 0.18215 * (after.mean + after.std * of_latents)
            alpha, sigma = (float(s[t]) for s in (editor.schedule.alpha, editor.schedule.sigma))
            z = torch.cat([alpha * z0 + sigma * eps, before.mean], 1)
            words = editor.prompt([pairs[pair].instruction]).embeddings
            output = editor.denoiser(z, torch.tensor(t), encoder_hidden_states=words).sample
            torch.testing.assert_close(value, (output - eps).square().mean(), rtol=2e-3, atol=1e-4)


def test_words_picture_and_both_are_left_out_of_as_many_examples_each(
    editor: Model, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One draw decides: 5 % without words, 5 % without the picture, 5 % without either, no other."""
    latents, told, count = table(editor, pairs), Told(editor, (64, 64)), 3000
    texts: list[str | None] = []
    seen: list[Tensor] = []
    monkeypatch.setattr(Told, "__call__", lambda self, given: texts.extend(given))

    def predict(self: Model, x: Tensor, *_: Any) -> Tensor:
        seen.append(x[:, 4:])
        return x[:, :4]

    monkeypatch.setattr(Model, "predict", predict)
    loss(editor, latents, [pair.instruction for pair in pairs], TINY, 0, range(count), told)
    no_picture = seen[0].abs().amax((1, 2, 3)) == 0
    no_words = torch.tensor([text is None for text in texts])
    shares = [(no_words & ~no_picture), (no_picture & ~no_words), (no_words & no_picture)]
    for share in shares:
        assert abs(int(share.sum()) - 0.05 * count) < 4 * (0.05 * 0.95 * count) ** 0.5
    shown = draw(editor, latents, TINY.seed, 0, range(count))
    assert torch.equal(no_words, shown.chance < 0.1)
    assert torch.equal(no_picture, (shown.chance >= 0.05) & (shown.chance < 0.15))


def test_an_example_depends_on_its_number_alone(editor: Model, pairs: list[Pair]) -> None:
    latents = table(editor, pairs)
    whole, part = draw(editor, latents, 1, 2, range(4)), draw(editor, latents, 1, 2, [2])
    for name in ("before", "x0", "eps", "t", "chance"):
        assert torch.equal(getattr(whole, name)[2:3], getattr(part, name)), name


# Views


def test_both_pictures_are_mirrored_unless_a_side_is_named(model: Model, pairs: list[Pair]) -> None:
    latents = table(model, pairs)
    sides = [pair.instruction == "move it to the left" for pair in pairs]
    assert sum(sides) == 1
    for i, told in enumerate(sides):
        plain, mirrored = latents.before[i]
        assert torch.equal(plain, mirrored) == told
        assert torch.equal(*latents.mean[i]) == told
        file = to_model(to_unit(read_image(pairs[i].input).image).flip(-1 if not told else ()))
        torch.testing.assert_close(mirrored.float(), model.encode(file).mean[0], rtol=2e-3, atol=2e-3)


def test_crops_are_places_of_chance_for_both_alike(model: Model, tmp_path: Path) -> None:
    wide = read_pairs(folder(tmp_path / "wide", 1, (128, 64)))
    same = [Pair(input=p.input, edited=p.input, instruction=p.instruction) for p in wide]
    latents = table(model, same, crops=3, mirror=False)
    assert latents.before.shape[1] == 3
    assert torch.equal(latents.before, latents.mean)
    assert not torch.equal(latents.before[0, 0], latents.before[0, 1])
    assert not torch.equal(latents.before[0, 1], latents.before[0, 2])


def test_latents_are_found_again_and_only_those_of_the_same(
    model: Model, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = finish(encoded(model, pairs, VIEW, folder=tmp_path))
    plain, calls = Model.encode, []
    monkeypatch.setattr(Model, "encode", lambda self, x: calls.append(1) or plain(self, x))
    again = finish(encoded(model, pairs, VIEW, folder=tmp_path))
    assert calls == []
    assert torch.equal(first.mean, again.mean)
    finish(encoded(model, pairs, View(side=64, mirror=False), folder=tmp_path))
    assert len(calls) == 4


# Learning


def test_it_starts_as_the_model_that_sees_no_picture_and_keeps_the_bias(
    model: Model, pairs: list[Pair]
) -> None:
    before = digests(model)
    learnt, done = finish(learn(model, pairs, TINY.replace(lr=0.0)))
    conv, wide = model.denoiser.conv_in, learnt.denoiser.conv_in
    assert torch.equal(wide.bias, conv.bias)
    assert torch.equal(wide.weight[:, :4], conv.weight)
    assert not wide.weight[:, 4:].any()
    assert "Nothing was learnt" in done.notes[0]
    assert (model.condition_channels, learnt.condition_channels) == (0, 4)
    assert digests(model) == before


@pytest.mark.parametrize("train", ["all", "low-rank"])
def test_the_editor_learns_and_the_model_does_not(model: Model, pairs: list[Pair], train: Any) -> None:
    before = digests(model)
    learnt, done = finish(learn(model, pairs, TINY.replace(train=train)))
    assert done.moved > 0
    assert learnt.denoiser.conv_in.weight[:, 4:].any()
    assert not torch.equal(learnt.denoiser.conv_in.bias, model.denoiser.conv_in.bias)
    key = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    assert not torch.equal(unet(learnt)[key], unet(model)[key])
    untouched = "mid_block.resnets.0.conv1.weight"
    assert torch.equal(unet(learnt)[untouched], unet(model)[untouched]) == (train == "low-rank")
    assert not any(parameter.requires_grad for parameter in learnt.denoiser.parameters())
    assert digests(model) == before


@pytest.mark.parametrize("train", ["all", "low-rank"])
def test_killed_and_resumed_gives_the_same_to_the_bit(
    model: Model, pairs: list[Pair], tmp_path: Path, train: Any
) -> None:
    config = TINY.replace(train=train, steps=4)
    whole, _ = finish(learn(model, pairs, config))
    loop = learn(model, pairs, config, run=RunFolder(tmp_path / "run"))
    for event in loop:
        if event.stage == "learning" and event.step == 3:
            loop.close()
            break
    again, _ = finish(learn(model, pairs, config, run=RunFolder(tmp_path / "run")))
    for name, tensor in unet(whole).items():
        assert torch.equal(tensor, unet(again)[name]), name


def test_micro_batches_change_rounding_only(editor: Model, pairs: list[Pair]) -> None:
    latents, told = table(editor, pairs), Told(editor, (64, 64))
    given = (editor, latents, [pair.instruction for pair in pairs], TINY, 3)
    with torch.no_grad():
        whole = loss(*given, range(4), told)
        parts = torch.cat([loss(*given, rows, told) for rows in ([0], [1, 2], [3])])
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-5)


CHANGES: dict[str, dict[str, Any]] = {
    "steps": {"steps": 4},
    "batch": {"batch": 3},
    "ema": {"ema": 0.0},
    "train": {"train": "low-rank"},
    "rank": {"train": "low-rank", "rank": 3},
    "alpha": {"train": "low-rank", "alpha": 8.0},
    "targets": {"train": "low-rank", "targets": ("unet.*.to_q",)},
    "drop": {"drop": 0.3},
    "weighting": {"weighting": "debiased"},
    "size": {"size": 32},
    "crops": {"crops": 2},
    "mirror": {"mirror": False},
}


def test_every_setting_of_its_own_has_an_effect(model: Model, pairs: list[Pair]) -> None:
    looks = {"validate_every", "validation", "validation_steps", "text_scale"}  # change no weight, see below
    assert CHANGES.keys() | looks == Learning.__annotations__.keys()
    low = {"rank", "alpha", "targets"}
    plain = {
        name: unet(finish(learn(model, pairs, TINY.replace(train=name)))[0]) for name in ("all", "low-rank")
    }
    for name, change in CHANGES.items():
        before = plain["low-rank" if name in low else "all"]
        after = unet(finish(learn(model, pairs, TINY.replace(**change)))[0])
        assert any(not torch.equal(before[key], after[key]) for key in before), name


def test_a_new_editor_has_the_text_scale_it_was_told(model: Model, editor: Model, pairs: list[Pair]) -> None:
    """And not the guidance scale that its model draws with, which says nothing of instructions."""
    drawing = replace(model, checkpoint=replace(model.checkpoint, guidance=6.0))
    learnt, _ = finish(learn(drawing, pairs, TINY.replace(steps=1, text_scale=4.0)))
    assert default_guidance(learnt) == 4.0
    edits = replace(editor, checkpoint=replace(editor.checkpoint, guidance=3.0))
    assert default_guidance(finish(learn(edits, pairs, TINY.replace(steps=1)))[0]) == 3.0


def test_an_editing_model_goes_on_from_what_it_has(editor: Model, pairs: list[Pair]) -> None:
    learnt, _ = finish(learn(editor, pairs, TINY.replace(lr=0.0)))
    assert all(torch.equal(tensor, unet(learnt)[name]) for name, tensor in unet(editor).items())
    moved, _ = finish(learn(editor, pairs, TINY))
    assert any(not torch.equal(tensor, unet(moved)[name]) for name, tensor in unet(editor).items())


def test_masters_are_float32_in_a_model_of_half_precision(pairs: list[Pair]) -> None:
    half = load(shared("sd1"), dtype="bfloat16")
    learnt, done = finish(learn(half, pairs, TINY.replace(lr=1e-7, steps=2, ema=0.0)))
    assert 0 < done.moved < 1e-5  # steps that bfloat16 would have rounded away
    assert {p.dtype for p in learnt.denoiser.parameters()} == {torch.float32}
    with pytest.raises(InputError, match="float16 overflows"):
        finish(learn(load(shared("sd1"), dtype="float16"), pairs, TINY))


# Looking on


def test_held_out_pairs_share_nothing_with_the_others(tmp_path: Path) -> None:
    pairs = read_pairs(folder(tmp_path / "data", 30))
    double = [
        Pair(input=p.input, edited=p.input, instruction="x", input_caption=p.input_caption) for p in pairs
    ]
    config = TINY.replace(validate_every=1, validation=4)
    kept, held = held_out(pairs + double, config)
    assert len(held) == 4
    captions = {pair.input_caption for pair in kept}
    assert not captions & {pair.input_caption for pair in held}
    assert held_out(pairs[:5], config) == (pairs[:5], [])
    assert held_out(pairs, config.replace(validate_every=0)) == (pairs, [])


def test_looks_are_written_and_change_nothing(model: Model, tmp_path: Path) -> None:
    pairs = read_pairs(folder(tmp_path / "data", 20))
    config = TINY.replace(validate_every=2, validation=2, validation_steps=2)
    run = RunFolder(tmp_path / "run")
    looked, _ = finish(learn(model, pairs, config, run=run))
    assert sorted(path.name for path in (run.path / "previews").iterdir()) == ["000002.png", "000003.png"]
    without, _ = finish(learn(model, held_out(pairs, config)[0], TINY))
    assert all(torch.equal(tensor, unet(without)[name]) for name, tensor in unet(looked).items())


def test_looks_are_at_the_averaged_weights(model: Model, tmp_path: Path) -> None:
    """The last look is at the very model that is handed on, which the last weights are not."""
    pairs = read_pairs(folder(tmp_path / "data", 20))
    config = TINY.replace(lr=0.1, validate_every=3, validation=2, validation_steps=2)
    run = RunFolder(tmp_path / "run")
    handed_on, _ = finish(learn(model, pairs, config, run=run))
    last, _ = finish(learn(model, pairs, config.replace(ema=0.0), run=RunFolder(tmp_path / "last")))
    shown = read_image(run.path / "previews" / "000003.png").image

    def sheet(editor: Model) -> bytes:
        held = held_out(pairs, config)[1]
        return _look(editor, held, config, 3, RunFolder(tmp_path / "again"), None).tobytes()

    assert shown.tobytes() == sheet(handed_on)
    assert shown.tobytes() != sheet(last)


def test_plain_diffusers_edits_with_what_is_saved(model: Model, pairs: list[Pair], tmp_path: Path) -> None:
    learnt, _ = finish(learn(model, pairs, TINY))
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        save_folder(learnt, tmp_path / "editor"), safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    assert isinstance(pipeline.scheduler, EulerAncestralDiscreteScheduler)
    assert pipeline.scheduler.config.beta_schedule == "scaled_linear"
    assert torch.equal(pipeline.unet.conv_in.weight, learnt.denoiser.conv_in.weight)
    shown = torch.rand(1, 3, 64, 64, generator=rng.generator(1))
    [image] = pipeline("a cat", image=shown, num_inference_steps=2, output_type="pt").images
    assert image.shape == (3, 64, 64)
    assert load(tmp_path / "editor").condition_channels == 4
