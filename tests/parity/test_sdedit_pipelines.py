"""At whole steps and with DDIM, SDEdit is what the image-to-image pipelines of diffusers do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline
from torch import Tensor

from scumble.core import rng
from scumble.core.events import finish
from scumble.core.images import to_model
from scumble.data.paintings import painting
from scumble.methods.sdedit import Config, edit
from scumble.models.load import load
from scumble.models.model import Model
from tiny import shared

PROMPT, NEGATIVE, SEED, STEPS = "a red cat", "night", 11, 10


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def family(request: pytest.FixtureRequest) -> tuple[Model, Any]:
    folder = shared(request.param)
    kind = StableDiffusionXLImg2ImgPipeline if request.param == "sdxl" else StableDiffusionImg2ImgPipeline
    pipeline = kind.from_pretrained(folder, **({} if request.param == "sdxl" else {"safety_checker": None}))
    pipeline.set_progress_bar_config(disable=True)
    config = {"timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": True}
    pipeline.scheduler = DDIMScheduler.from_config({**pipeline.scheduler.config, **config})
    return load(folder), pipeline


def theirs(model: Model, pipeline: Any, guide: Tensor, strength: float) -> Tensor:
    """From the latents at their mode: the pipeline would draw them."""
    latents = model.scale(model.encode(to_model(guide)).mode())
    images = pipeline(
        PROMPT,
        image=latents,
        strength=strength,
        negative_prompt=NEGATIVE,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        generator=torch.Generator("cpu").manual_seed(SEED),
        output_type="pt",
    ).images
    return images.clamp(0, 1)


@pytest.mark.parametrize("strength", [0.3, 0.8])
def test_equal_to_the_pipeline(family: tuple[Model, Any], strength: float) -> None:
    model, pipeline = family
    guide = torch.rand(1, 3, 64, 64, generator=rng.generator(1))
    steps = round(strength * STEPS)
    config = Config(t0=strength, steps=steps, sampler="ddim", guidance=5.0, negative=NEGATIVE)
    [mine] = finish(edit(model, [painting(guide, prompt=PROMPT)], [SEED], config))
    assert (mine - theirs(model, pipeline, guide, strength)[0]).abs().max() < 1e-4
