"""A loaded model does what the diffusers pipeline of the same folder does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from torch.testing import assert_close

import tiny
from scumble.core import rng
from scumble.models.conditioning import Condition, time_ids
from scumble.models.load import load
from scumble.models.model import Model

PROMPTS = ["a red cat on the grass", "photo of a wooden mug at night"]


def both(family: str) -> tuple[Model, Any]:
    folder = tiny.shared(family)
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return load(folder), pipe


def noisy(model: Model, seed: int = 3) -> Tensor:
    shape = model.latent_shape(model.default_size, model.default_size)
    return rng.randn(shape, rng.generators([seed, seed + 1]))


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_prompt_equals_encode_prompt(family: str) -> None:
    model, pipe = both(family)
    positive, negative = pipe.encode_prompt(PROMPTS, "cpu", 1, True, negative_prompt=["", "a dog"])
    assert_close(model.prompt(PROMPTS).embeddings, positive, rtol=0, atol=1e-6)
    assert_close(model.prompt(["", "a dog"]).embeddings, negative, rtol=0, atol=1e-6)
    assert_close(model.empty().embeddings, negative[:1], rtol=0, atol=1e-6)
    assert not torch.allclose(positive[0], positive[1], atol=0.1)


def test_prompt_equals_encode_prompt_of_sdxl() -> None:
    model, pipe = both("sdxl")
    positive, zeros, pooled, pooled_zeros = pipe.encode_prompt(PROMPTS, device="cpu")
    _, negative, _, pooled_negative = pipe.encode_prompt(PROMPTS, device="cpu", negative_prompt=["", "a dog"])
    condition, other = model.prompt(PROMPTS, size=(64, 48), crop=(3, 5)), model.prompt(["", "a dog"])
    for ours, theirs in [
        (condition.embeddings, positive),
        (condition.pooled, pooled),
        (other.embeddings, negative),
        (other.pooled, pooled_negative),
        (model.empty(2).embeddings, zeros),
        (model.empty(2).pooled, pooled_zeros),
    ]:
        assert_close(ours, theirs, rtol=0, atol=1e-6)
    expected = pipe._get_add_time_ids(
        (64, 48), (3, 5), (64, 48), dtype=torch.float32, text_encoder_projection_dim=40
    )
    assert condition.added is not None
    assert_close(condition.added, expected.expand(2, 6))
    assert_close(time_ids((64, 48), (3, 5)), expected)


@pytest.mark.parametrize(("family", "step"), [("sd1", 731), ("sd2", 731), ("sdxl", 20), ("sdxl", 731)])
def test_branches_equal_the_unet_of_the_pipeline(family: str, step: int) -> None:
    model, pipe = both(family)
    x, time = noisy(model), torch.tensor(step)
    conditions = [model.empty(), model.prompt(PROMPTS)]
    level = model.schedule.levels(time)
    with torch.inference_mode():
        ours = torch.cat(model.branches(conditions)(x, level, (0, 1)))
        added = None
        joined = Condition.cat([model.empty(2), model.prompt(PROMPTS)])
        if family == "sdxl":
            added = {"text_embeds": joined.pooled, "time_ids": time_ids((64, 64)).expand(4, 6)}
        output = pipe.unet(
            torch.cat([x, x]), time, encoder_hidden_states=joined.embeddings, added_cond_kwargs=added
        ).sample
    kept = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)[
        step
    ]
    alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
    twice = torch.cat([x, x])
    theirs = alpha * twice - sigma * output if family == "sd2" else (twice - sigma * output) / alpha
    assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_changed_prompt_changes_the_prediction_by_more_than_5_percent() -> None:
    for family in ("sd1", "sd2", "sdxl"):
        model = load(tiny.shared(family))
        x = noisy(model)
        level = model.schedule.levels(torch.tensor(500))
        with torch.inference_mode():
            one, two = model.branches([model.prompt([text]) for text in PROMPTS])(x, level, (0, 1))
        assert (one - two).square().mean().sqrt() > 0.05 * one.square().mean().sqrt()


def test_an_editing_model_sees_the_unscaled_picture_beside_the_noise() -> None:
    model, pipe = both("ip2p")
    assert model.condition_channels == 4
    assert model.latent_channels == 4
    x, picture = noisy(model), noisy(model, 11)
    conditions = [model.empty(), model.empty(), model.prompt(PROMPTS)]
    level = model.schedule.levels(torch.tensor(400))
    with torch.inference_mode():
        ours = model.branches(conditions, [None, picture, picture])(x, level, (0, 1, 2))
        images = torch.cat([torch.zeros_like(picture), picture, picture])
        joined = Condition.cat([model.empty(2), model.empty(2), model.prompt(PROMPTS)])
        eps = pipe.unet(
            torch.cat([x.repeat(3, 1, 1, 1), images], 1), 400, encoder_hidden_states=joined.embeddings
        ).sample
    theirs = (x.repeat(3, 1, 1, 1) - level.sigma * eps) / level.alpha
    assert_close(torch.cat(ours), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_encode_and_decode_equal_the_autoencoder(family: str) -> None:
    model, pipe = both(family)
    pixels = rng.randn((3, 64, 64), rng.generators([1, 2])).clamp(-1, 1)
    with torch.inference_mode():
        theirs = pipe.vae.encode(pixels).latent_dist
        posterior = model.encode(pixels)
        assert_close(posterior.mode(), theirs.mode())
        drawn = [torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(s)) for s in (5, 6)]
        expected = theirs.mean + theirs.std * torch.cat(drawn)
        latents = posterior.sample(rng.generators([5, 6]))
        assert_close(latents, expected)
        scaled = model.scale(latents)
        assert_close(scaled, latents * pipe.vae.config.scaling_factor)
        assert_close(model.unscale(scaled), latents)
        assert_close(model.decode(scaled), pipe.vae.decode(latents).sample, rtol=1e-4, atol=1e-5)


def test_a_pixel_ddpm_predicts_the_noise_of_its_unet() -> None:
    model, pipe = both("ddpm")
    x = noisy(model)
    with torch.inference_mode():
        assert_close(model.predict(x, torch.tensor(37.0)), pipe.unet(x, 37).sample)
        assert model.decode(model.scale(model.encode(x).mode())).equal(x)


def test_a_score_sde_model_is_told_sigma_and_answers_with_the_score() -> None:
    model, pipe = both("ve")
    x, time = 5 * noisy(model), torch.tensor(700.0)
    pipe.scheduler.set_timesteps(2000)
    sigma = pipe.scheduler.discrete_sigmas[700]
    with torch.inference_mode():
        score = pipe.unet(x, sigma.expand(2)).sample
        assert_close(model.predict(x, time), -sigma * score, rtol=1e-4, atol=1e-5)
        level = model.schedule.levels(time)
        (x0,) = model.branches()(x, level, (0,))
    assert_close(x0, x + sigma**2 * score, rtol=1e-4, atol=1e-3)


def test_a_score_sde_model_works_on_pixels_in_0_to_1() -> None:
    model = load(tiny.shared("ve"))
    pixels = torch.linspace(-1, 1, 3 * 256).reshape(1, 3, 16, 16)
    latents = model.scale(model.encode(pixels).mode())
    assert latents.aminmax() == (0, 1)
    assert_close(model.decode(latents), pixels)
