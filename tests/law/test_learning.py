"""What holds of learning whatever is learnt: formulas, neutral settings, and a way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from scumble.adapters.attach import attach
from scumble.adapters.changes import Dense
from scumble.adapters.dense import dense
from scumble.adapters.tokens import rare_word, token_ids
from scumble.core import rng
from scumble.core.errors import InputError
from scumble.core.events import finish
from scumble.core.runs import RunFolder
from scumble.data.subjects import Shot, Subject
from scumble.datagen.priors import drawn_prior
from scumble.methods import custom_diffusion, dreambooth, textual_inversion
from scumble.models.load import load
from scumble.models.model import Model
from scumble.models.prompts import encode
from scumble.sampling.text_to_image import SamplerOptions
from scumble.training.examples import Drawn, PromptCache, draw, encoded, objective
from tiny import shared

TI = textual_inversion.Config(steps=4, batch=2, size=64, vectors=2, seed=5)
DB = dreambooth.Config(
    steps=3,
    batch=2,
    size=64,
    rank=2,
    prior_count=3,
    prior_steps=2,
    identifier="cat",
    seed=5,
    train="low-rank",
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCUMBLE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model() -> Model:
    return load(shared("sd1"))


def picture(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    pixels = torch.randint(0, 256, (height, width, 3), generator=rng.generator(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def subject(word: str = "<rex>", count: int = 2) -> Subject:
    return Subject(word, "dog", tuple(Shot(f"{i}.png", picture(i)) for i in range(count)))


def state(model: Model) -> dict[str, Tensor]:
    parts = [("unet", model.denoiser), *((f"text{i}", e) for i, e in enumerate(model.text_encoders))]
    return {f"{part}.{name}": t.clone() for part, m in parts for name, t in m.state_dict().items()}


# The objective


def drawn_of(model: Model, mask: Tensor | None = None) -> Drawn:
    masks = None if mask is None else [mask, mask]
    pixels = [torch.rand(3, 64, 64, generator=rng.generator(i)) for i in range(2)]
    return draw(model, encoded(model, pixels, masks=masks, mirrored=True), 5, 7, range(3), "example")


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_the_objective_is_the_mean_square_of_what_the_model_predicts(family: str) -> None:
    model = load(shared(family))
    drawn = drawn_of(model)
    condition = model.prompt(["a dog"] * 3, size=(64, 64))
    with torch.no_grad():
        found = objective(model, drawn, condition)
        alpha, sigma = (
            table[drawn.t].float().reshape(-1, 1, 1, 1)
            for table in (model.schedule.alpha, model.schedule.sigma)
        )
        output = model.predict(alpha * drawn.x0 + sigma * drawn.eps, drawn.t, condition)
    wanted = drawn.eps if family == "sd1" else alpha * drawn.eps - sigma * drawn.x0
    torch.testing.assert_close(found, ((output - wanted) ** 2).mean((1, 2, 3)), rtol=1e-5, atol=1e-6)


def test_a_mask_looks_at_its_part_at_the_same_scale(model: Model) -> None:
    mask = torch.zeros(1, 64, 64)
    mask[:, :32] = 1
    part, whole = drawn_of(model, mask), drawn_of(model)
    condition = model.prompt(["a dog"] * 3, size=(64, 64))
    with torch.no_grad():
        level = model.schedule.levels(whole.t)
        output = model.predict(level.mix(whole.x0, whole.eps), whole.t, condition)
        error = (output - whole.eps).square()[:, :, :4].flatten(1).mean(1)  # the upper half of the latents
        torch.testing.assert_close(objective(model, part, condition), error, rtol=1e-5, atol=1e-6)


def test_an_example_depends_on_its_number_alone(model: Model) -> None:
    pixels = [torch.rand(3, 64, 64, generator=rng.generator(i)) for i in range(2)]
    latents = encoded(model, pixels)
    whole, part = draw(model, latents, 1, 2, range(4), "x"), draw(model, latents, 1, 2, [2], "x")
    assert torch.equal(whole.x0[2:3], part.x0)
    assert torch.equal(whole.eps[2:3], part.eps)
    assert int(whole.t[2]) == int(part.t[0])


def test_prompts_are_encoded_once_and_the_same(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, texts, asked = PromptCache(model, (64, 64)), ["a dog", "a cat", "a dog"], []
    plain = Model.prompt
    monkeypatch.setattr(Model, "prompt", lambda self, t, **o: asked.extend(t) or plain(self, t, **o))
    first = cache(texts)
    assert torch.equal(first.embeddings, cache(texts).embeddings)
    assert asked == ["a dog", "a cat"]
    torch.testing.assert_close(first.embeddings, plain(model, texts, size=(64, 64)).embeddings)


def test_gradients_through_a_plain_prompt_are_finite_where_embeddings_have_mean_zero(model: Model) -> None:
    """A normalised encoder's output has mean zero, and a quotient of such means no gradient."""
    vectors = torch.randn(1, model.text_encoders[0].config.hidden_size, requires_grad=True)
    for text in ("a <rex>", "a (<rex>:1.3)"):
        condition = encode([text], model.tokenizers, model.text_encoders, words={"<rex>": [vectors]})
        [gradient] = torch.autograd.grad(condition.embeddings.square().sum(), vectors)
        assert bool(gradient.isfinite().all())


# Textual Inversion


def test_a_word_learns_and_the_model_does_not(model: Model) -> None:
    before = state(model)
    weights, done = finish(textual_inversion.learn(model, [subject()], TI))
    assert done.moved > 0
    assert list(weights.words) == ["<rex>"]
    assert weights.words["<rex>"].vectors[0].shape == (2, model.text_encoders[0].config.hidden_size)
    assert weights.changes == {}
    assert model.words == {}
    assert all(torch.equal(t, before[name]) for name, t in state(model).items())


def test_both_encoders_of_sdxl_get_vectors() -> None:
    model = load(shared("sdxl"))
    weights, _ = finish(textual_inversion.learn(model, [subject()], TI.replace(steps=1)))
    start = textual_inversion.new_word(model, "dog", vectors=2)
    for learnt, first in zip(weights.words["<rex>"].vectors, start, strict=True):
        assert not torch.equal(learnt, first.detach())


def test_several_subjects_learn_in_one_run(model: Model) -> None:
    two = [subject("<rex>"), Subject("<tom>", "cat", (Shot("9.png", picture(9)),))]
    weights, _ = finish(textual_inversion.learn(model, two, TI.replace(steps=6)))
    assert set(weights.words) == {"<rex>", "<tom>"}
    for word, noun in (("<rex>", "dog"), ("<tom>", "cat")):
        [start] = textual_inversion.new_word(model, noun, vectors=2)
        assert not torch.equal(weights.words[word].vectors[0], start.detach())


def word_of(model: Model, config: textual_inversion.Config, shown: Subject | None = None) -> Tensor:
    weights, _ = finish(textual_inversion.learn(model, [shown or subject()], config))
    return weights.words["<rex>"].vectors[0]


@pytest.mark.parametrize(
    "change",
    [
        {"vectors": 3}, {"initial": "red dog"}, {"templates": "style"}, {"image_words": 1.0},
        {"progressive": 2}, {"regularisation": 5.0}, {"mirror": False}, {"seed": 6}, {"lr": 0.02},
        {"weight_decay": 0.5}, {"batch": 1}, {"ema": 0.5}, {"warmup": 3}, {"decay": "linear"},
    ],
)  # fmt: skip
def test_every_setting_has_an_effect(model: Model, change: dict[str, Any]) -> None:
    plain, other = word_of(model, TI), word_of(model, TI.replace(**change))
    assert plain.shape != other.shape or not torch.equal(plain, other)


def test_captions_have_an_effect_and_can_be_left_out(model: Model) -> None:
    told = Subject("<rex>", "dog", tuple(Shot(s.name, s.image, "a red dog") for s in subject().shots))
    plain = word_of(model, TI)
    assert not torch.equal(word_of(model, TI, told), plain)
    assert torch.equal(word_of(model, TI.replace(captions=False), told), plain)


def test_words_grow_one_vector_at_a_time(model: Model) -> None:
    config = TI.replace(vectors=3, progressive=2, weight_decay=0.0)
    [start] = textual_inversion.new_word(model, "dog", vectors=3)
    short, longer = word_of(model, config.replace(steps=2)), word_of(model, config.replace(steps=4))
    assert (len(short), len(longer)) == (1, 2)  # what has not joined has learnt nothing, and is left out
    assert bool((longer != start[:2].detach()).all())
    early = word_of(model, config.replace(steps=4, stop_after=1, stop_every=1, lr=0.0))
    assert len(early) == 1  # stopped after two looks that brought nothing


def test_every_subject_learns_all_its_vectors_however_many_the_first_has(model: Model) -> None:
    two = [subject("<rex>"), Subject("<axo>", "axolotl", subject().shots)]
    config = TI.replace(vectors=None, steps=6, weight_decay=0.0, pivotal=1, rank=2)
    weights, _ = finish(textual_inversion.learn(model, two, config))
    [start] = textual_inversion.new_word(model, "axolotl")
    [found] = weights.words["<axo>"].vectors
    assert len(found) == len(start) > len(weights.words["<rex>"].vectors[0])
    assert bool((found != start.detach()).any(dim=1).all())


def test_pivotal_tuning_keeps_the_word_and_adds_low_rank_changes(model: Model) -> None:
    before = state(model)
    config = TI.replace(pivotal=2, rank=2, pivotal_lr=0.01)
    weights, _ = finish(textual_inversion.learn(model, [subject()], config))
    assert torch.equal(weights.words["<rex>"].vectors[0], word_of(model, TI))
    assert len(weights.changes) > 10
    assert all(torch.equal(t, before[name]) for name, t in state(model).items())


# DreamBooth


@pytest.mark.parametrize("train", ["all", "attention", "cross-attention", "up", "low-rank"])
def test_a_part_learns_and_afterwards_the_model_is_as_before(model: Model, train: Any) -> None:
    before = state(model)
    weights, done = finish(dreambooth.learn(model, [subject()], DB.replace(train=train)))
    assert done.moved > 0
    assert all(torch.equal(t, before[name]) for name, t in state(model).items())
    assert model.words == {}
    names = set(weights.changes)
    part = {"attention": "attn", "cross-attention": "attn2", "up": "up_blocks"}.get(train, "")
    assert names
    assert all(name.startswith("unet.") and part in name for name in names)
    with attach(model, weights):
        assert any(not torch.equal(t, before[name]) for name, t in state(model).items())
    assert all(torch.equal(t, before[name]) for name, t in state(model).items())


def changes_of(model: Model, config: dreambooth.Config) -> dict[str, Tensor]:
    weights, _ = finish(dreambooth.learn(model, [subject()], config))
    return {f"{n}.{k}": t for n, change in weights.changes.items() for k, t in change.tensors().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].shape == b[n].shape and torch.equal(a[n], b[n]) for n in a)


def test_prior_weight_zero_is_no_prior(model: Model, tmp_path: Path) -> None:
    without = changes_of(model, DB.replace(prior_weight=0.0, prior_count=3))
    assert not (tmp_path / "cache").exists()  # nothing was drawn
    assert same(without, changes_of(model, DB.replace(prior_weight=0.0, prior_count=2)))
    assert not same(without, changes_of(model, DB))


@pytest.mark.parametrize(
    "change",
    [
        {"rank": 3}, {"alpha": 8.0}, {"dora": True}, {"targets": ("unet.*.to_q",)}, {"text_lr": 1e-3},
        {"identifier": "ball"}, {"templates": ("my {}",)}, {"prior_weight": 3.0}, {"prior_count": 2},
        {"prior_steps": 3}, {"weighting": "debiased"}, {"prior_weighting": "debiased"}, {"mirror": False},
    ],
)  # fmt: skip
def test_every_setting_of_dreambooth_has_an_effect(model: Model, change: dict[str, Any]) -> None:
    assert not same(changes_of(model, DB), changes_of(model, DB.replace(**change)))


def test_two_subjects_have_identifiers_of_their_own(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    two = [subject("<rex>"), subject("<tom>")]
    with pytest.raises(InputError, match="One identifier would mean several"):
        finish(dreambooth.learn(model, two, DB))
    monkeypatch.setattr("scumble.adapters.tokens.rare_words", lambda _: ["cat", "ball"])
    config = DB.replace(identifier="", steps=1, prior_weight=0.0)
    words = finish(dreambooth.learn(model, two, config))[0].words
    assert not torch.equal(words["<rex>"].vectors[0], words["<tom>"].vectors[0])


def test_damaged_class_pictures_are_drawn_again(model: Model, tmp_path: Path) -> None:
    def drawn() -> Tensor:
        options = SamplerOptions(sampler="ddim", steps=2)
        loop = drawn_prior(model, "a dog", 2, side=64, options=options)
        return finish(loop).latents.mean

    first = drawn()
    [file] = (tmp_path / "cache" / "priors").iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:-10], b"", whole[:40]):
        file.write_bytes(damaged)
        assert torch.equal(drawn(), first)
        assert file.read_bytes() == whole


def test_the_paper_s_presets_have_the_paper_s_settings() -> None:
    word, bound = textual_inversion.PRESETS["paper"], dreambooth.PRESETS["paper"]
    assert (word.steps, word.batch, word.lr, word.vectors, word.clip) == (5000, 8, 0.04, 1, 0.0)
    assert (bound.train, bound.lr, bound.steps, bound.prior_count) == ("all", 5e-6, 1000, 1000)
    assert (bound.templates, bound.prior_weight) == (("a {}",), 1.0)
    tuned = custom_diffusion.PRESETS["paper"]
    assert (tuned.train, tuned.lr, tuned.steps, tuned.batch) == ("key-value", 8e-5, 250, 4)
    assert (tuned.prior_count, tuned.similarity, tuned.stop_first) == (200, 0.85, True)


def test_rare_words_are_single_tokens_of_the_models_own(model: Model) -> None:
    word = rare_word(model)
    assert len(token_ids(model, word)[0]) == 1
    assert word.isalpha()
    assert len(word) <= 3


def test_captions_of_dreambooth_have_an_effect_and_can_be_left_out(model: Model) -> None:
    def of(config: dreambooth.Config, shown: Subject) -> dict[str, Tensor]:
        weights, _ = finish(dreambooth.learn(model, [shown], config))
        return {n: c.tensors()["b"] for n, c in weights.changes.items()}

    config = DB.replace(steps=1, prior_weight=0.0)
    told = Subject("<rex>", "dog", tuple(Shot(s.name, s.image, "a red dog") for s in subject().shots))
    plain = of(config, subject())
    assert not same(of(config, told), plain)
    assert same(of(config.replace(captions=False), told), plain)


@pytest.mark.parametrize("method", [textual_inversion, dreambooth, custom_diffusion])
def test_activations_are_computed_twice_where_asked_for(
    model: Model, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    calls: list[str] = []
    for kind in ("enable", "disable"):
        name = f"{kind}_gradient_checkpointing"
        plain = getattr(model.denoiser, name)
        monkeypatch.setattr(
            model.denoiser, name, lambda kind=kind, plain=plain: (calls.append(kind), plain())
        )
    given: dict[str, Any] = {"steps": 1, "batch": 1, "size": 64}
    given |= {} if method is textual_inversion else {"prior_weight": 0.0}
    for flag in (False, True):
        finish(method.learn(model, [subject()], method.Config(**given, gradient_checkpointing=flag)))
    assert calls == ["enable", "disable"]
    assert not model.denoiser.is_gradient_checkpointing


def test_gradient_checkpointing_changes_rounding_only(model: Model) -> None:
    plain, saved = (
        changes_of(model, DB.replace(gradient_checkpointing=flag, steps=1)) for flag in (False, True)
    )
    for name, value in plain.items():
        torch.testing.assert_close(saved[name], value, rtol=1e-3, atol=1e-5)


def test_learning_in_bfloat16_has_float32_masters() -> None:
    model = load(shared("sd1"), dtype="bfloat16")
    before = state(model)
    weights, done = finish(dreambooth.learn(model, [subject()], DB.replace(train="up", lr=1e-6, steps=2)))
    assert 0 < done.moved < 1e-4  # steps that bfloat16 would have rounded away
    assert all(t.dtype == torch.float32 for c in weights.changes.values() for t in c.tensors().values())
    assert all(torch.equal(t, before[name]) for name, t in state(model).items())


# Killed and resumed


@pytest.mark.parametrize("method", ["textual-inversion", "dreambooth"])
def test_killed_at_any_step_and_resumed_gives_the_same(model: Model, tmp_path: Path, method: str) -> None:
    module: Any = textual_inversion if method == "textual-inversion" else dreambooth
    config = (TI if method == "textual-inversion" else DB).replace(steps=4, checkpoint_every=2)
    whole, _ = finish(module.learn(model, [subject()], config))
    run = RunFolder(tmp_path / "run")
    loop = module.learn(model, [subject()], config, run=run)
    for event in loop:
        if event.stage == "learning" and event.step == 3:
            loop.close()
            break
    again, _ = finish(module.learn(model, [subject()], config, run=RunFolder(run.path)))
    for word, learnt in whole.words.items():
        assert torch.equal(learnt.vectors[0], again.words[word].vectors[0])
    for name, change in whole.changes.items():
        for kind, tensor in change.tensors().items():
            assert torch.equal(tensor, again.changes[name].tensors()[kind]), name


def test_dense_layers_can_go_on_from_what_was_learnt(model: Model) -> None:
    weights, _ = finish(dreambooth.learn(model, [subject()], DB.replace(train="up")))
    with dense(model, ("unet.up_blocks.*",)) as layers:
        layers.load({n: c for n, c in weights.changes.items() if isinstance(c, Dense)})
        for name, change in layers.changes().items():
            torch.testing.assert_close(change.delta, weights.changes[name].tensors()["delta"])
