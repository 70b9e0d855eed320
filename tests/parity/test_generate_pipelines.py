"""`text_to_image` draws what the diffusers pipelines draw from the same latents, and the prompt matters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from torch import Tensor

from scumble.core.events import finish
from scumble.models.load import load
from scumble.models.model import Model
from scumble.sampling.text_to_image import SamplerOptions, Task, text_to_image
from tiny import make

TOLERANCE = 1e-4
"""Of pixels in [0, 1], float32."""
SEEDS = (11, 12)
STEPS = 5
"""A divisor of 1000: with others the DDIM of diffusers steps from times that it never visits."""
PROMPT = "a red cat sitting on the grass"
NEGATIVE = "night"


@dataclass(frozen=True)
class Namesake:
    """A sampler of ours and the diffusers scheduler that does the same."""

    sampler: str
    spacing: str
    scheduler: Any
    config: dict[str, Any]


# Euler with "leading": with others diffusers starts it from noise of spread sigma / sqrt(sigma^2 + 1), not 1.
NAMESAKES = (
    Namesake("ddim", "trailing", DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": True}),
    Namesake("euler", "leading", EulerDiscreteScheduler, {"steps_offset": 1}),
    Namesake("dpmpp_2m", "trailing", DPMSolverMultistepScheduler, {"final_sigmas_type": "zero"}),
)


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Any]:
    """A tiny random model of each family, as we hold it and as its pipeline."""
    path: Path = make(request.param, tmp_path_factory.mktemp(request.param) / "model")
    kind = StableDiffusionXLPipeline if request.param == "sdxl" else StableDiffusionPipeline
    extra = {} if request.param == "sdxl" else {"safety_checker": None}
    pipeline = kind.from_pretrained(path, **extra)
    pipeline.set_progress_bar_config(disable=True)
    return load(path), pipeline


def ours(
    model: Model, sampler: str, prompt: str = PROMPT, *, spacing: str = "trailing", batch_size: int = 2
) -> Tensor:
    options = SamplerOptions(sampler=sampler, steps=STEPS, guidance=5.0, spacing=spacing)
    size = model.default_size
    task = Task(prompt=prompt, negative=NEGATIVE, seeds=SEEDS, height=size, width=size, options=options)
    return torch.stack(finish(text_to_image(model, task, batch_size=batch_size)))  # (2, 3, H, W)


def theirs(pipeline: Any, namesake: Namesake) -> Tensor:
    config = {**pipeline.scheduler.config, "timestep_spacing": namesake.spacing, **namesake.config}
    pipeline.scheduler = namesake.scheduler.from_config(config)
    images = pipeline(
        [PROMPT] * len(SEEDS),
        negative_prompt=[NEGATIVE] * len(SEEDS),
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        generator=[torch.Generator("cpu").manual_seed(s) for s in SEEDS],
        output_type="pt",
    ).images
    return images.clamp(0, 1)


@pytest.mark.parametrize("namesake", NAMESAKES, ids=lambda n: n.sampler)
def test_equal_to_the_pipeline(family: tuple[Model, Any], namesake: Namesake) -> None:
    model, pipeline = family
    mine = ours(model, namesake.sampler, spacing=namesake.spacing)
    assert (mine - theirs(pipeline, namesake)).abs().max() <= TOLERANCE


def test_another_prompt_is_another_picture(family: tuple[Model, Any]) -> None:
    """Otherwise equality would mean nothing."""
    model, _ = family
    one, other = ours(model, "ddim"), ours(model, "ddim", "a blue ball in glass, night sky")
    assert (one - other).square().mean().sqrt() / one.square().mean().sqrt() > 0.05


def test_a_seed_belongs_to_an_image(family: tuple[Model, Any]) -> None:
    """Picture by picture or all at once: equal to rounding, also with ancestral noise."""
    model, _ = family
    for sampler in ("euler_ancestral", "dpmpp_2m_sde"):
        together, apart = ours(model, sampler), ours(model, sampler, batch_size=1)
        assert (together - apart).abs().max() <= TOLERANCE


@pytest.mark.parametrize("config", [{}, {"clip_sample_range": 0.5}, {"clip_sample": False}], ids=str)
def test_a_pixel_model_clips_as_its_scheduler_does(config: dict[str, Any], tmp_path: Path) -> None:
    """20 steps of a DDPM from the same noise; diffusers clips unless the config says that it must not."""
    path = make("ddpm", tmp_path / "model")
    file = path / "scheduler" / "scheduler_config.json"
    said = json.loads(file.read_text())
    assert said.pop("clip_sample") is True
    file.write_text(json.dumps({**said, **config, "steps_offset": 1}))  # where our "leading" is
    options = SamplerOptions(sampler="ddpm", spacing="leading", steps=20, guidance=1.0)
    task = Task(prompt="", seeds=(SEEDS[0],), height=16, width=16, options=options)
    [mine] = finish(text_to_image(load(path), task))
    pipeline = DDPMPipeline.from_pretrained(path)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(SEEDS[0])
    picture = pipeline(generator=generator, num_inference_steps=20, output_type="np").images[0]
    assert (mine - torch.from_numpy(picture).permute(2, 0, 1)).abs().max() <= TOLERANCE
