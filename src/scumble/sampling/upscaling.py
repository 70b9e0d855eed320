"""From a small picture to a large one by an upscaler: noise augmentation, one sampler, guidance, in windows.

The small picture is noised to a level of its own, which the denoiser is told (conditioning augmentation, Ho
et al. 2022, section 4.2): 0 keeps nearly all of it, higher levels leave the denoiser more to invent. Noise
for it is drawn before the noise that the result is made from, as diffusers' StableDiffusionUpscalePipeline
does, so that a seed means the same picture there.

Letters: B pictures, H W their size, f the factor, c h w the latents of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from scumble.core import rng
from scumble.core.errors import ConfigError, InputError
from scumble.core.events import Loop, Progress
from scumble.core.images import crop_back, from_model, to_model
from scumble.diffusion import guidance
from scumble.diffusion.guidance import Branches
from scumble.diffusion.levels import Denoise, Level
from scumble.diffusion.parameterisation import to_x0
from scumble.diffusion.spacing import levels_for
from scumble.models import toybox
from scumble.models.conditioning import Condition
from scumble.models.model import Model
from scumble.models.upscaling import Upscaling
from scumble.sampling.broken import no_picture
from scumble.sampling.image_to_image import grid
from scumble.sampling.text_to_image import SamplerOptions, sample_latents
from scumble.sampling.tiles import Tiling, Window, over_tiles

__all__ = ["Enlarging", "as_seen", "enlarge", "no_words", "tiling_of", "upscaling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Enlarging:
    """How pictures are made larger."""

    prompt: str = ""
    """What they show; a latent upscaler reads none."""
    negative: str = ""
    options: SamplerOptions = field(default_factory=SamplerOptions)
    noise_level: int | None = None
    """Of the small picture, 0 to the model's highest; none takes the model's usual one."""
    tile: int | None = None
    """Side of a window in pixels of the result; none takes one and a half times the model's own size."""
    overlap: int | None = None
    """Pixels of the result that windows share at least; none takes a quarter of a window."""


def upscaling(model: Model) -> Upscaling:
    """How `model` sees small pictures. Raises InputError where it is no upscaler."""
    if model.upscaling is None:
        ours = "toybox-upscaler or " if toybox.has(toybox.UPSCALING) else ""
        raise InputError(f"{model.name} is no upscaler.", f"Give {ours}a folder of the x4-upscaler.")
    return model.upscaling


@torch.inference_mode()
def enlarge(model: Model, pictures: Tensor, seeds: Sequence[int], task: Enlarging) -> Loop[Tensor]:
    """`pictures` (B, 3, H, W) in [0, 1], of any size, as (B, 3, f H, f W) in [0, 1] on the CPU.

    Each has its own seed. Networks see one window at a time, so the memory that they need does not grow with
    the picture. Raises InputError for a model that is no upscaler and a noise level that it does not know,
    NumericError on NaN.
    """
    about, size = upscaling(model), (pictures.shape[-2], pictures.shape[-1])
    tiling = tiling_of(model, task)
    noise_level = _noise_level(model, task.noise_level)
    generators = rng.generators(seeds)
    small = as_seen(model, _padded(model, pictures), tiling)  # (B, k, h, w)
    blur = rng.randn(small.shape[1:], generators, device=small.device)
    level = about.schedule.levels(torch.tensor(noise_level))
    labels = torch.tensor([noise_level], device=model.device)
    denoise = _tiled(model, level.mix(small, blur), labels, task, tiling)
    shape = (model.latent_channels, *small.shape[-2:])
    steps, spacing = task.options.steps, task.options.spacing
    levels = [one.to(model.device) for one in levels_for(model.schedule, steps, spacing)]
    x = rng.randn(shape, generators, device=model.device) * levels[0].spread  # (B, c, h, w)
    for step in sample_latents(denoise, x, levels, generators, task.options):
        x = step.x
        yield Progress(stage="enlarging", step=step.index + 1, total=step.total)
    wanted = (size[0] * about.factor, size[1] * about.factor)
    rows: list[Tensor] = []
    for row in x:
        rows.append(_decoded(model, row[None], wanted, tiling))
        yield Progress(stage="decoding", step=len(rows), total=len(x))
    return torch.cat(rows)


@torch.no_grad()
def as_seen(model: Model, pixels: Tensor, tiling: Tiling | None = None) -> Tensor:
    """What the denoiser sees of small pictures (B, 3, H, W) in [0, 1], whose size fits: (B, k, h, w), clean.

    The pixels in [-1, 1], or their scaled latents at the mode with each cell repeated; encoded in windows of
    `tiling`, which counts cells of the result.
    """
    about = upscaling(model)
    if about.sees == "pixels":
        return to_model(pixels).to(model.device)
    f = model.downsample
    height, width = pixels.shape[-2] // f, pixels.shape[-1] // f

    def encoded(window: Window) -> Tensor:
        rows, columns = (slice(s.start * f, s.stop * f) for s in window)
        return model.scale(model.encode(to_model(pixels[..., rows, columns])).mode())

    windows = tiling.scaled(about.factor) if tiling else Tiling(max(height, width), 0)
    latents = over_tiles(encoded, (height, width), windows)
    return interpolate(latents, scale_factor=about.factor, mode="nearest")


def tiling_of(model: Model, task: Enlarging) -> Tiling:
    """Windows in cells of the result's latents, multiples of what the denoiser halves evenly.

    Raises ConfigError for windows smaller than that, and for an overlap that leaves nothing of them.
    """
    cell, f = grid(model), model.downsample
    side = task.tile or max(2 * cell, round(1.5 * model.default_size))
    overlap = side // 4 if task.overlap is None else task.overlap
    cells = side // cell * cell // f
    if side < 2 * cell or not 0 <= overlap // f <= cells - cell // f:
        raise ConfigError(
            f"Windows of {side} pixels that share {overlap} cannot be.",
            f"Take at least {2 * cell} pixels, and share at most {cell} less.",
        )
    return Tiling(cells, overlap // f, cell // f)


def no_words(model: Model) -> Condition:
    """What a denoiser without text encoder is told: one token of zeros."""
    width = model.denoiser.config.cross_attention_dim
    return Condition(torch.zeros(1, 1, width, device=model.device))


def _noise_level(model: Model, asked: int | None) -> int:
    about = upscaling(model)
    if asked is not None and not 0 <= asked <= about.highest:
        raise InputError(
            f"{model.name} knows no noise level {asked}.", f"Its levels go from 0 to {about.highest}."
        )
    return about.usual if asked is None else asked


def _padded(model: Model, pictures: Tensor) -> Tensor:
    """Continued by their edge pixels to whole cells of the denoiser, two at least."""
    cell = grid(model) // upscaling(model).factor
    height, width = pictures.shape[-2:]
    right, below = (max(2 * cell, -(-side // cell) * cell) - side for side in (width, height))
    return pad(pictures, (0, right, 0, below), mode="replicate")


def _tiled(model: Model, low: Tensor, labels: Tensor, task: Enlarging, tiling: Tiling) -> Denoise:
    """The guided denoiser beside the noised small picture `low` (B, k, h, w), in windows."""
    conditions, scale = _told(model, task)
    interval, rescale = task.options.guidance_interval, task.options.guidance_rescale

    def denoise(x: Tensor, level: Level) -> Tensor:
        def part(window: Window) -> Tensor:
            beside = _branches(model, conditions, low[(..., *window)], labels)
            guided = guidance.text(beside, scale, interval=interval, rescale=rescale)
            return guided(x[(..., *window)], level)

        return over_tiles(part, (x.shape[-2], x.shape[-1]), tiling)

    return denoise


def _told(model: Model, task: Enlarging) -> tuple[list[Condition], float]:
    """What to lead away from and towards, and how far; without words, or between the same, nothing leads."""
    if not model.text_encoders:
        return [no_words(model)] * 2, 1.0
    away = model.prompt([task.negative]) if task.negative else model.empty()
    scale = 1.0 if task.prompt == task.negative else task.options.guidance
    return [away, model.prompt([task.prompt])], scale


def _branches(model: Model, conditions: Sequence[Condition], low: Tensor, labels: Tensor) -> Branches:
    def run(x: Tensor, level: Level, which: tuple[int, ...]) -> list[Tensor]:
        noisy, beside = (tensor.repeat(len(which), 1, 1, 1) for tensor in (x, low))
        condition = Condition.cat([conditions[i].expand(len(x)) for i in which])
        time = model.schedule.time(level)
        output = model.predict(torch.cat([noisy, beside], 1), time, condition, labels.expand(len(noisy)))
        return list(to_x0(output, noisy, level, model.prediction).chunk(len(which)))

    return run


def _decoded(model: Model, latents: Tensor, size: tuple[int, int], tiling: Tiling) -> Tensor:
    """(1, 3, H, W) in [0, 1] on the CPU, cropped to `size`."""

    def decoded(window: Window) -> Tensor:
        return model.decode(latents[(..., *window)]).cpu()

    cells = (latents.shape[-2], latents.shape[-1])
    pixels = from_model(crop_back(over_tiles(decoded, cells, tiling, scale=model.downsample), size))
    if not torch.isfinite(pixels).all():
        raise no_picture(model)
    return pixels.clamp(0, 1)
