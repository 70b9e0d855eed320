"""`enlarge` gives what StableDiffusionUpscalePipeline gives, and words, picture and noise matter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionUpscalePipeline,
)
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from torch import Tensor

import tiny
from scumble.core import rng
from scumble.core.events import finish
from scumble.models.components import build, canonical_text_state
from scumble.models.configs import PUBLISHED
from scumble.models.layout import from_original
from scumble.models.load import load
from scumble.models.model import Model
from scumble.models.singlefile import original_shapes, prefixes, tables
from scumble.sampling.text_to_image import SamplerOptions
from scumble.sampling.upscaling import Enlarging, enlarge

TOLERANCE = 1e-4
"""Of pixels in [0, 1], float32."""
STEPS = 5
SEED = 11
TASK = Enlarging(
    prompt="a red cat on grass",
    negative="night",
    noise_level=40,
    tile=96,
    options=SamplerOptions(sampler="ddim", steps=STEPS, guidance=4.0),
)
NAMESAKES = {
    "ddim": ("trailing", DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": True}),
    "euler": ("leading", EulerDiscreteScheduler, {"steps_offset": 1}),
    "dpmpp_2m": ("trailing", DPMSolverMultistepScheduler, {"final_sigmas_type": "zero"}),
}


@pytest.fixture(scope="module")
def model() -> Model:
    return load(tiny.shared("upscaler"))


@pytest.fixture(scope="module")
def pipeline() -> Any:
    found = StableDiffusionUpscalePipeline.from_pretrained(tiny.shared("upscaler"))
    found.set_progress_bar_config(disable=True)
    return found


def picture(seed: int = 0, height: int = 16, width: int = 24) -> Tensor:
    return torch.rand(1, 3, height, width, generator=rng.generator(seed))


def ours(model: Model, task: Enlarging = TASK, *, seed: int = SEED, shown: Tensor | None = None) -> Tensor:
    return finish(enlarge(model, picture() if shown is None else shown, [seed], task))


def theirs(pipeline: Any, task: Enlarging = TASK) -> Tensor:
    spacing, scheduler, config = NAMESAKES[task.options.sampler]
    about = {**pipeline.scheduler.config, "timestep_spacing": spacing, **config}
    pipeline.scheduler = scheduler.from_config(about)
    return pipeline(
        task.prompt,
        image=picture(),
        negative_prompt=task.negative,
        num_inference_steps=STEPS,
        guidance_scale=task.options.guidance,
        noise_level=task.noise_level,
        generator=rng.generator(SEED),
        output_type="pt",
    ).images


def of(task: Enlarging, **options: Any) -> Enlarging:
    return replace(task, options=replace(task.options, **options))


@pytest.mark.parametrize("sampler", NAMESAKES)
def test_pixels_are_those_of_the_pipeline(model: Model, pipeline: Any, sampler: str) -> None:
    task = of(TASK, sampler=sampler, spacing=NAMESAKES[sampler][0])
    found = ours(model, task)
    assert found.shape == (1, 3, 64, 96)
    torch.testing.assert_close(found, theirs(pipeline, task), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("noise_level", [0, 350])
def test_every_noise_level_is_that_of_the_pipeline(model: Model, pipeline: Any, noise_level: int) -> None:
    task = replace(TASK, noise_level=noise_level)
    torch.testing.assert_close(ours(model, task), theirs(pipeline, task), rtol=0, atol=TOLERANCE)


def test_without_guidance_too(model: Model, pipeline: Any) -> None:
    task = of(TASK, guidance=1.0)
    torch.testing.assert_close(ours(model, task), theirs(pipeline, task), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "changed",
    [
        {"task": replace(TASK, prompt="a blue mug")},
        {"task": replace(TASK, negative="day")},
        {"task": replace(TASK, noise_level=200)},
        {"task": of(TASK, guidance=1.0)},
        {"seed": 12},
        {"shown": picture(1)},
    ],
)
def test_what_goes_in_matters(model: Model, changed: dict[str, Any]) -> None:
    """Equality with the pipeline means nothing where everything gives the same picture."""
    assert (ours(model, **changed) - ours(model)).abs().max() > 100 * TOLERANCE


def test_every_tensor_of_a_single_file_goes_where_diffusers_puts_it() -> None:
    configs, state = PUBLISHED["upscaler"], {}
    for number, (name, shape) in enumerate(original_shapes("upscaler").items()):
        rows = torch.arange(shape[0]) + 1_000_000 * number
        state[name] = rows.reshape([-1] + [1] * (len(shape) - 1)).expand(shape)
    prefix = prefixes("upscaler")["text_encoder"]
    text = convert_open_clip_checkpoint(
        build(configs["text_encoder"], "text_encoder"), dict(state), prefix=prefix
    )
    theirs = {
        "unet": convert_ldm_unet_checkpoint(dict(state), configs["unet"]),
        "vae": convert_ldm_vae_checkpoint(dict(state), configs["vae"]),
        "text_encoder": canonical_text_state(text, wrapped=False),
    }
    compared = 0
    for part, renames in tables("upscaler").items():
        stem = prefixes("upscaler")[part]
        found = from_original({r.original: state[stem + r.original] for r in renames}, renames)
        there = {name: t for name, t in theirs[part].items() if part != "text_encoder" or name in found}
        assert found.keys() == there.keys()
        assert all(tensor.equal(there[name]) for name, tensor in found.items())
        compared += len(found)
    assert compared == 1263
