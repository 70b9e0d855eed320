"""From words to pictures: start noise, one sampler, guidance, decoding, as a loop of progress records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from scumble.core import rng
from scumble.core.events import Loop, Progress
from scumble.diffusion.levels import Denoise, Level
from scumble.diffusion.samplers import SAMPLERS, Step, with_eta
from scumble.diffusion.spacing import levels_for
from scumble.models.model import Model
from scumble.sampling.broken import no_picture
from scumble.sampling.guided import guided
from scumble.sampling.memory import in_batches
from scumble.sampling.preview import Previewer

__all__ = ["SamplerOptions", "Task", "draw_batch", "sample_latents", "text_to_image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerOptions:
    """How noise becomes a picture."""

    sampler: str = "dpmpp_2m"
    """A name of `scumble.diffusion.samplers.SAMPLERS`."""
    steps: int = 25
    spacing: str = "trailing"
    """How the steps are spread over the noise levels; a name of `scumble.diffusion.spacing.SPACINGS`."""
    eta: float = 0.0
    """DDIM only: share of fresh noise, 0 deterministic, 1 as much as DDPM."""
    guidance: float = 7.5
    """Classifier-free guidance scale (Ho and Salimans 2022); 1 is none, and costs half."""
    guidance_interval: tuple[float, float] | None = None
    """Noise shares sigma^2 / (alpha^2 + sigma^2) between which guidance acts (Kynkäänniemi et al. 2024)."""
    guidance_rescale: float = 0.0
    """Share of the contrast correction of Lin et al. 2024, equation 16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to draw: one prompt for all pictures, one seed for each."""

    prompt: str
    negative: str = ""
    seeds: Sequence[int]
    height: int
    width: int
    options: SamplerOptions = field(default_factory=SamplerOptions)


def sample_latents(
    denoise: Denoise,
    x: Tensor,
    levels: Sequence[Level],
    generators: Sequence[torch.Generator],
    options: SamplerOptions,
) -> Iterator[Step]:
    """Run the sampler of `options` from `x` (B, c, h, w) at `levels[0]` down to `levels[-1]`."""

    def noise() -> Tensor:
        return rng.randn(x.shape[1:], generators, device=x.device, dtype=x.dtype)

    extra = with_eta(options.sampler, options.eta)
    return SAMPLERS[options.sampler].run(denoise, x, levels, noise=noise, **extra)


def text_to_image(
    model: Model, task: Task, *, batch_size: int = 8, preview_every: int = 0
) -> Loop[list[Tensor]]:
    """Draw `task`; returns one picture (3, H, W) float32 in [0, 1], on the CPU, for each seed.

    Pictures are drawn `batch_size` at a time, fewer when memory runs out. A preview goes with every
    `preview_every`-th record. Raises OutOfMemoryError when one picture does not fit, NumericError on NaN.
    """
    previewer = Previewer.fit(model) if preview_every else None

    def draw(seeds: Sequence[int], done: int) -> Loop[list[Tensor]]:
        return (yield from draw_batch(model, task, seeds, done, previewer, preview_every))

    return (yield from in_batches(task.seeds, draw, batch_size))


@torch.inference_mode()
def draw_batch(
    model: Model,
    task: Task,
    seeds: Sequence[int],
    done: int,
    previewer: Previewer | None = None,
    preview_every: int = 0,
) -> Loop[list[Tensor]]:
    """The pictures of `task` with these `seeds`, all at once, when `done` of the task's are finished.

    For `in_batches`, by whoever wants each batch as soon as it is there; see `text_to_image`.
    """
    options, count = task.options, len(task.seeds)
    denoise = guided(
        model,
        [task.prompt],
        negative=task.negative,
        size=(task.height, task.width),
        scale=options.guidance,
        interval=options.guidance_interval,
        rescale=options.guidance_rescale,
    )
    levels = [level.to(model.device) for level in levels_for(model.schedule, options.steps, options.spacing)]
    generators = rng.generators(seeds)
    shape = model.latent_shape(task.height, task.width)
    x = rng.randn(shape, generators, device=model.device) * levels[0].spread  # (B, c, h, w)
    total = options.steps * count
    for step in sample_latents(denoise, x, levels, generators, options):
        x = step.x
        finished = options.steps * done + (step.index + 1) * len(seeds)
        yield Progress(
            stage="drawing", step=finished, total=total, preview=_preview(previewer, step, preview_every)
        )
    pixels: list[Tensor] = []
    for row in x:  # one at a time: decoding is what needs the most memory
        pixels.append(_unit(model, model.decode(row[None]))[0])
        yield Progress(stage="decoding", step=done + len(pixels), total=count)
    return pixels


def _preview(previewer: Previewer | None, step: Step, every: int) -> Image.Image | None:
    return previewer(step.x0) if previewer and step.index % every == 0 else None


def _unit(model: Model, pixels: Tensor) -> Tensor:
    """Pixels in [-1, 1] as [0, 1] on the CPU. Raises NumericError if one is not a number."""
    pixels = (pixels / 2 + 0.5).clamp(0, 1).cpu()
    if not torch.isfinite(pixels).all():
        raise no_picture(model)
    return pixels
