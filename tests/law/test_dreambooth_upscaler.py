"""DreamBooth's super-resolution stage: what learns, what comes back, what is resumed, what its loss is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import tiny
from scumble.adapters.attach import attach
from scumble.adapters.weights import Weights
from scumble.core import rng
from scumble.core.errors import InputError, WeightsError
from scumble.core.events import finish
from scumble.core.runs import RunFolder
from scumble.data.subjects import Shot, Subject
from scumble.methods import dreambooth
from scumble.models.load import load
from scumble.models.model import Model
from scumble.sampling.text_to_image import SamplerOptions
from scumble.sampling.upscaling import Enlarging, as_seen, enlarge, no_words
from scumble.training.super_resolution import CUTS, pairs
from upscalers import shared_latent_upscaler

CONFIG = dreambooth.Config(batch=2, lr=1e-2, rank=2, upscaler_steps=3, identifier="cat", seed=5)
TASK = Enlarging(options=SamplerOptions(sampler="ddim", steps=2, guidance=1.0), noise_level=0, tile=512)


@pytest.fixture(scope="module", params=["pixels", "latents"])
def model(request: pytest.FixtureRequest) -> Model:
    return load(tiny.shared("upscaler") if request.param == "pixels" else shared_latent_upscaler())


def photo(seed: int, width: int = 96, height: int = 80) -> Image.Image:
    pixels = torch.randint(0, 256, (height, width, 3), generator=rng.generator(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


SUBJECT = Subject("<rex>", "dog", tuple(Shot(f"{i}.png", photo(i)) for i in range(2)))


def tuned(model: Model, **changes: Any) -> Weights:
    given = {name: changes.pop(name) for name in ("run",) if name in changes}
    weights, _ = finish(dreambooth.learn_upscaler(model, [SUBJECT], CONFIG.replace(**changes), **given))
    return weights


def tensors(weights: Weights) -> dict[str, Tensor]:
    return {f"{n}.{k}": t for n, change in weights.changes.items() for k, t in change.tensors().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].shape == b[n].shape and torch.equal(a[n], b[n]) for n in a)


def state(model: Model) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": tensor.clone()
        for part, module in model.parts().items()
        for name, tensor in module.state_dict().items()
    }


def large(model: Model) -> Tensor:
    shown = torch.rand(1, 3, 16, 16, generator=rng.generator(1))
    return finish(enlarge(model, shown, [3], TASK))


@pytest.mark.parametrize("train", ["low-rank", "all", "up"])
def test_the_upscaler_learns_and_is_afterwards_as_before(model: Model, train: str) -> None:
    before, plain = state(model), large(model)
    weights = tuned(model, train=train)
    assert same(state(model), before)
    assert model.words == {}
    assert all(name.startswith("unet.") for name in weights.changes)
    assert any(bool(t.any()) for name, t in tensors(weights).items() if name.endswith((".b", ".delta")))
    with attach(model, weights):
        assert (large(model) - plain).abs().max() > 1e-4
    assert same(state(model), before)
    assert torch.equal(large(model), plain)


def test_no_steps_and_no_rate_change_nothing(model: Model) -> None:
    plain = large(model)
    without = tuned(model, upscaler_steps=0)
    assert not without.changes
    still = tuned(model, upscaler_lr=0.0)
    assert still.changes
    for weights in (without, still):
        with attach(model, weights):
            assert torch.equal(large(model), plain)


def test_killed_and_resumed_is_the_same_to_the_bit(model: Model, tmp_path: Path) -> None:
    whole = tuned(model, upscaler_steps=4, checkpoint_every=2)
    run = RunFolder(tmp_path / "run")
    config = CONFIG.replace(upscaler_steps=4, checkpoint_every=2)
    loop = dreambooth.learn_upscaler(model, [SUBJECT], config, run=run)
    for event in loop:
        if event.step == 3:
            loop.close()
            break
    again = tuned(model, upscaler_steps=4, checkpoint_every=2, run=RunFolder(run.path))
    assert same(tensors(whole), tensors(again))
    longer = RunFolder(tmp_path / "longer")
    shorter = tuned(model, upscaler_steps=2, checkpoint_every=2, run=longer)
    assert not same(tensors(whole), tensors(shorter))
    more = tuned(model, upscaler_steps=4, checkpoint_every=2, run=RunFolder(longer.path))
    assert same(tensors(whole), tensors(more))


@pytest.mark.parametrize(
    "change",
    [
        {"upscaler_steps": 2},
        {"upscaler_lr": 1e-3},
        {"upscaler_noise": 60},
        {"mirror": False},
        {"weighting": "debiased"},
        {"train": "up"},
    ],
)
def test_every_setting_has_an_effect(model: Model, change: dict[str, Any]) -> None:
    assert not same(tensors(tuned(model)), tensors(tuned(model, **change)))


def test_the_loss_is_that_of_the_pairs(model: Model) -> None:
    """Derived again: the clean small picture noised to its level, beside the noised large one."""
    about = model.upscaling
    assert about is not None
    shown = pairs(model, [SUBJECT], lambda x: as_seen(model, x), mirrored=True, seed=5)
    drawn, small, labels = shown.draw(model, CONFIG.seed, 0, range(3), 60)
    assert len(set(labels.tolist())) > 1
    with torch.no_grad():
        found = dreambooth.upscaler_loss(
            model, shown, [SUBJECT], CONFIG.replace(upscaler_noise=60), 0, range(3), None
        )
        told = model.prompt(["a photo of a <rex> dog"]) if model.text_encoders else no_words(model)
        for row, loss in enumerate(found):
            alpha, sigma = model.schedule.alpha[drawn.t[row]], model.schedule.sigma[drawn.t[row]]
            x = alpha * drawn.x0[row] + sigma * drawn.eps[row]
            given = torch.cat([x, small[row]])[None].float()
            output = model.denoiser(
                given,
                drawn.t[row : row + 1].float(),
                encoder_hidden_states=told.embeddings,
                class_labels=labels[row : row + 1],
            ).sample[0]
            wanted = drawn.eps[row]
            if model.prediction == "v":
                wanted = alpha * drawn.eps[row] - sigma * drawn.x0[row]
            torch.testing.assert_close(loss, (output - wanted).square().mean().float(), rtol=1e-4, atol=1e-6)


def test_small_pictures_are_the_photos_noised_as_little_as_they_can_be(model: Model) -> None:
    about = model.upscaling
    assert about is not None
    shown = pairs(model, [SUBJECT], lambda x: as_seen(model, x), mirrored=True, seed=5)
    views = 2 * (1 + CUTS)
    assert shown.small.shape[:2] == (2, views)
    assert shown.small.shape[-2:] == shown.bucket.latents.mean.shape[-2:]
    drawn, small, labels = shown.draw(model, 1, 2, range(4), 0)
    assert labels.tolist() == [0] * 4
    level = about.schedule.levels(labels)
    clean = shown.small[drawn.pictures, drawn.views]
    noise = (small - level.alpha.reshape(-1, 1, 1, 1).float() * clean) / level.sigma.reshape(-1, 1, 1, 1)
    assert 0.8 < float(noise.std()) < 1.2
    assert float(level.sigma.max()) < 0.03


def test_words_that_the_upscaler_reads_are_rare_tokens_of_its_own() -> None:
    model = load(tiny.shared("upscaler"))
    weights = tuned(model)
    width = model.text_encoders[0].config.hidden_size
    assert weights.words["<rex>"].vectors[0].shape == (1, width)
    assert tuned(load(shared_latent_upscaler()), upscaler_steps=0).words == {}


def test_one_file_holds_both(model: Model, tmp_path: Path) -> None:
    base = load(tiny.shared("sd1"))
    plain = Weights(method="dreambooth", family=base.family, base_hash=base.hash)
    both = replace(plain, upscaler=tuned(model))
    both.save(tmp_path / "both.safetensors")
    back = Weights.load(tmp_path / "both.safetensors")
    assert back.upscaler is not None
    assert both.upscaler is not None
    assert same(tensors(back.upscaler), tensors(both.upscaler))
    assert back.upscaler.base_hash == model.hash
    assert back.upscaler.family == "upscaler"
    assert back.upscaler.config["upscaler_noise"] == 0
    assert not back.changes
    with pytest.raises(WeightsError, match="no upscaler of its own"):
        replace(plain, upscaler=both)


def test_what_cannot_be_tuned_is_one_sentence(model: Model) -> None:
    with pytest.raises(InputError, match="is no upscaler"):
        tuned(load(tiny.shared("sd1")))
    with pytest.raises(InputError, match="no noise level 999"):
        tuned(model, upscaler_noise=999)
    with pytest.raises(InputError, match="is an upscaler"):
        finish(dreambooth.learn(model, [SUBJECT], CONFIG))
