"""Editing by instruction is what the pipelines of diffusers do, from the same latents and scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
)
from torch import Tensor

from scumble.core import rng
from scumble.core.events import finish
from scumble.methods.instruct_pix2pix import Config, Request, edit
from scumble.models.load import load
from scumble.models.model import Model
from tiny import make, shared

SEED, STEPS = 11, 5
NAMESAKES = {
    "ddim": ("trailing", DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": True}),
    # With "leading" alone diffusers starts it from noise of the right spread.
    "euler_ancestral": ("leading", EulerAncestralDiscreteScheduler, {"steps_offset": 1}),
}


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Any]:
    if request.param == "sd1":
        folder: Path = shared("ip2p")
        pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(folder, safety_checker=None)
    else:
        folder = make("sdxl", tmp_path_factory.mktemp("sdxl") / "model", in_channels=8)
        pipeline = StableDiffusionXLInstructPix2PixPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return load(folder), pipeline


def picture(seed: int = 1) -> Tensor:
    return torch.rand(1, 3, 64, 64, generator=rng.generator(seed))


def theirs(pipeline: Any, prompt: str, shown: Tensor, name: str) -> Tensor:
    spacing, kind, config = NAMESAKES[name]
    settings = {**pipeline.scheduler.config, **config, "timestep_spacing": spacing}
    pipeline.scheduler = kind.from_config(settings)
    chance = rng.generator(SEED)
    latents = torch.randn(1, 4, 8, 8, generator=chance)
    images = pipeline(
        prompt,
        image=shown,
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        image_guidance_scale=1.5,
        negative_prompt="night",
        latents=latents,
        generator=chance,
        output_type="pt",
    ).images
    return images.clamp(0, 1)


def ours(model: Model, prompt: str, shown: Tensor, name: str, **settings: Any) -> Tensor:
    config = Config.of(
        {
            "image_scale": 1.5,
            "text_scale": 4.0,
            "steps": STEPS,
            "negative": "night",
            "sampler": name,
            "spacing": NAMESAKES[name][0],
            **settings,
        }
    )
    request = Request(picture=shown, instruction=prompt)
    return torch.stack(finish(edit(model, [request], [SEED], config)))


@pytest.mark.parametrize("name", NAMESAKES)
def test_equal_to_the_pipeline(family: tuple[Model, Any], name: str) -> None:
    model, pipeline = family
    mine = ours(model, "a red cat", picture(), name)
    assert (mine - theirs(pipeline, "a red cat", picture(), name)).abs().max() < 1e-4


def test_both_the_words_and_the_picture_matter(family: tuple[Model, Any]) -> None:
    """Else equality with the pipeline would say nothing of them."""
    model, _ = family
    plain = ours(model, "a red cat", picture(), "ddim")
    for other in (
        ours(model, "a blue ball", picture(), "ddim"),
        ours(model, "a red cat", picture(2), "ddim"),
    ):
        assert (other - plain).square().mean().sqrt() > 0.05 * plain.std()
