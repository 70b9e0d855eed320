"""SDEdit (Meng et al. 2021, "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential
Equations", arXiv:2108.01073): add noise to a rough painting up to the share t0 of the diffusion, then denoise
it. The less noise, the closer to the painting; the more, the more natural.

`paint` is the paper's loop: perturb the guide, then solve the reverse SDE (section 3, algorithm 1), with the
mask Omega and the K repeats of its appendix. `levels` is the time grid, t = t0 n / N.

Where we differ from the released code, and why:

- In every mask 1 may change; the released files mean the opposite.
- After a step to level i - 1, it puts the kept part at level i, one step too noisy, and so leaves noise of
  standard deviation 0.01 in it. Here it is at the level of the picture, and at the end the original's own
  pixels are put back.
- The paper draws fresh noise for the kept part at each step, the code uses the starting noise throughout:
  `kept_noise` is `fresh` or `fixed`.
- t0 is a real number, N steps lie inside [0, t0], and any sampler may take them; the code takes as many steps
  of DDPM as the start is far.
- A grey mask is the strength of each pixel: one of value m joins in when the level has fallen to m t0, and is
  the forward-noised guide until then. So a mask may fade out over a wide border.
- Latent models are painted in their latents, where a cell may change if any of its pixels may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from scumble.core import rng
from scumble.core.config import Config as Settings
from scumble.core.errors import ImageError
from scumble.core.events import Loop, Progress
from scumble.data.masks import pasted
from scumble.data.paintings import Painting
from scumble.diffusion.levels import Denoise, Level
from scumble.diffusion.samplers import SAMPLERS, Noise, Step, steer
from scumble.diffusion.schedules import Schedule
from scumble.diffusion.spacing import SPACINGS, levels_from, ve_sde_levels, vp_sde_levels
from scumble.models.model import Model
from scumble.sampling.image_to_image import decode, encode, guided, latent_mask
from scumble.sampling.memory import in_batches
from scumble.sampling.preview import Previewer
from scumble.sampling.text_to_image import default_guidance

__all__ = ["PRESETS", "Config", "Kept", "edit", "guidance_scale", "levels", "paint"]

SDE = "sde"
"""The spacing that is the paper's own time grid."""


def _sampler(name: str) -> str:
    if name not in SAMPLERS:
        raise ValueError(f"choose one of {', '.join(SAMPLERS)}")
    return name


def _spacing(name: str) -> str:
    if name not in (*SPACINGS, SDE):
        raise ValueError(f"choose one of {', '.join((*SPACINGS, SDE))}")
    return name


class Config(Settings):
    """How a painting becomes a picture."""

    t0: Annotated[float, Field(ge=0, le=1)] = 0.5
    """How much noise to add, as a share of the diffusion: 0 keeps the guide, 1 forgets it, 0.3 to 0.6 is
    usual."""
    steps: Annotated[int, Field(ge=1, le=10_000)] = 12
    """Denoising steps between t0 and the clean picture; at most as many as the model has there."""
    sampler: Annotated[str, AfterValidator(_sampler)] = "dpmpp_2m"
    """How each step is taken; reverse_sde is the paper's."""
    spacing: Annotated[str, AfterValidator(_spacing)] = "trailing"
    """How the steps are spread; sde is the paper's grid of its VP or VE SDE, with that SDE's own levels."""
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fresh noise in DDIM: 0 none, 1 as much as DDPM."""
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    """The paper's K: how often to noise and denoise, each time from the last result."""
    kept_noise: Literal["fresh", "fixed"] = "fixed"
    """Noise of what the mask keeps: drawn anew for each step (the paper), or the same for all."""
    feather: Annotated[int, Field(ge=0, le=1024)] = 0
    """Pixels over which the edit fades in, on the edited side of the mask's edge."""
    negative: str = ""
    """What to lead away from."""
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    """Guidance scale; none takes what the makers of the model recommend, and 1 where there are no words."""
    guidance_interval: tuple[float, float] | None = None
    """Noise shares, from 0 (clean) to 1 (noise), between which guidance acts."""
    guidance_rescale: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the contrast correction of Lin et al. 2024."""


_PAPER = Config(sampler="reverse_sde", spacing=SDE, kept_noise="fresh")

PRESETS: dict[str, Config] = {
    # A third of the denoising that image-to-image pipelines do by default (50 steps at strength 0.8).
    "fast": Config(),
    # The paper's settings: pictures from strokes (VP), strokes on a photo (VE), compositing (VE, FFHQ).
    "strokes": _PAPER.replace(t0=0.5, steps=500),
    "stroke-edit": _PAPER.replace(t0=0.45, steps=1000),
    "compositing": _PAPER.replace(t0=0.35, steps=700),
    # What the README of the released code runs: DDPM at every one of its 1000 steps, K = 3.
    "released": Config(t0=0.5, steps=500, sampler="ddpm", repeats=3, kept_noise="fixed"),
}
"""Settings by task."""


def levels(schedule: Schedule, config: Config) -> list[Level]:
    """The levels from t0 in (0, 1] to the clean one, N of them noisy; N is less where not so many fit."""
    if config.spacing == SDE and schedule.is_variance_preserving:
        return vp_sde_levels(config.t0, config.steps)
    if config.spacing == SDE:
        ends = {"sigma_min": float(schedule.sigma[0]), "sigma_max": float(schedule.sigma[-1])}
        return ve_sde_levels(config.t0, config.steps, **ends)
    room = max(1, int(config.t0 * schedule.num_train_timesteps + 1e-6))
    return levels_from(schedule, min(config.steps, room), config.t0, config.spacing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a mask keeps while the rest is denoised."""

    mask: Tensor
    """(B, 1, h, w)."""
    joins: Sequence[float]
    """For each step the least mask value that takes part in it; 1 for the first, then falling."""
    noise: Noise | None
    """Fresh noise (B, c, h, w) for each step; None takes the noise of the start throughout."""

    def put_back(self, guide: Tensor, first: Tensor, step: Step) -> Tensor:
        """x after `step` with the part that has not joined yet replaced by the guide at the level of x."""
        ends = step.index + 1 == step.total
        noise = first if self.noise is None or ends else self.noise()
        return torch.where(self.mask >= self.joins[step.index], step.x, step.level.mix(guide, noise))


def paint(
    denoise: Denoise,
    guide: Tensor,
    levels: Sequence[Level],
    config: Config,
    *,
    noise: Noise,
    kept: Kept | None = None,
) -> Iterator[Step]:
    """Noise `guide` (B, c, h, w) to `levels[0]` and denoise it to `levels[-1]`, `config.repeats` times.

    Each repeat starts from the last result where the mask is above 0 and from `guide` elsewhere. x of the
    last step is the result.
    """
    run = SAMPLERS[config.sampler].run
    options = {"eta": config.eta} if config.sampler == "ddim" else {}
    start = guide
    for _ in range(config.repeats):
        first = noise()
        x = levels[0].mix(start, first)
        steps = run(denoise, x, levels, noise=noise, **options)
        for step in steps if kept is None else steer(steps, partial(kept.put_back, start, first)):
            yield step
            x = step.x
        start = x if kept is None else torch.where(kept.mask > 0, x, guide)


def edit(
    model: Model,
    paintings: Sequence[Painting],
    seeds: Sequence[int],
    config: Config,
    *,
    batch_size: int = 8,
    preview_every: int = 0,
) -> Loop[list[Tensor]]:
    """Paint each of `paintings`, of one size, with its own seed; pictures (3, H, W) in [0, 1], on the CPU.

    What a mask keeps equals the original bit for bit, and so does everything, the guide, at t0 = 0. With
    `preview_every`, a preview goes with every so many records. Raises OutOfMemoryError, NumericError,
    PromptError.
    """
    jobs = list(zip(paintings, seeds, strict=True))
    if len(sizes := {p.guide.shape[-2:] for p in paintings}) > 1:
        raise ImageError(f"Paintings of {len(sizes)} different sizes cannot go into one batch.")
    previewer = Previewer.fit(model) if preview_every else None

    def work(batch: Sequence[tuple[Painting, int]], done: int) -> Loop[list[Tensor]]:
        def progress(taken: int, step: Step) -> Progress:
            a_picture = config.repeats * step.total
            preview = previewer(step.x0) if previewer and step.index % preview_every == 0 else None
            now, all_of_them = a_picture * done + taken * len(batch), a_picture * len(jobs)
            return Progress(stage="painting", step=now, total=all_of_them, preview=preview)

        return (yield from _edit(model, batch, config, progress))

    return (yield from in_batches(jobs, work, batch_size))


@torch.inference_mode()
def _edit(
    model: Model,
    jobs: Sequence[tuple[Painting, int]],
    config: Config,
    progress: Callable[[int, Step], Progress],
) -> Loop[list[Tensor]]:
    paintings, seeds = [p for p, _ in jobs], [seed for _, seed in jobs]
    guide = torch.cat([p.guide for p in paintings])  # (B, 3, H, W)
    original = torch.cat([p.original for p in paintings])
    mask = torch.cat([p.mask for p in paintings])  # (B, 1, H, W)
    if config.t0 == 0:
        return list(pasted(original, guide, mask, config.feather))
    source = encode(model, guide)  # (B, c, h, w)
    noisy = levels(model.schedule, config)
    joins = _joins(model.schedule, noisy)
    draw = _noise(source, rng.generators(seeds))
    denoise = _denoiser(model, source, [p.prompt for p in paintings], config)
    kept = _kept(model, source, mask, joins, seeds, config)
    x = source
    for taken, step in enumerate(paint(denoise, source, noisy, config, noise=draw, kept=kept), 1):
        x = step.x
        yield progress(taken, step)
    edited = decode(model, x, (guide.shape[-2], guide.shape[-1]))
    # A pixel too dark to have joined at all was never denoised: it is the guide's own.
    edited = torch.where(mask >= joins[-1], edited, guide)
    return list(pasted(original, edited, mask, config.feather))


def guidance_scale(model: Model, prompts: Sequence[str], config: Config) -> float:
    """The guidance scale that is used: 1, which costs half, where none was set and there are no words."""
    if config.guidance is not None:
        return config.guidance
    return default_guidance(model) if any(prompts) or config.negative else 1.0


def _denoiser(model: Model, latents: Tensor, prompts: Sequence[str], config: Config) -> Denoise:
    height, width = (side * model.downsample for side in latents.shape[-2:])
    return guided(
        model,
        prompts,
        negative=config.negative,
        size=(height, width),
        scale=guidance_scale(model, prompts, config),
        interval=config.guidance_interval,
        rescale=config.guidance_rescale,
    )


def _kept(
    model: Model, latents: Tensor, mask: Tensor, joins: list[float], seeds: Sequence[int], config: Config
) -> Kept | None:
    if bool((mask == 1).all()):
        return None
    noise = None
    if config.kept_noise == "fresh":  # from generators of its own: a mask changes nothing of the edit's noise
        noise = _noise(latents, rng.generators(rng.derive(seed, "kept") for seed in seeds))
    return Kept(mask=latent_mask(model, mask), joins=joins, noise=noise)


def _joins(schedule: Schedule, levels: Sequence[Level]) -> list[float]:
    """The time of each noisy level as a share of the first one's: a pixel of mask m joins at m."""
    times = [float(schedule.time(level)) + 1 for level in levels[:-1]]
    return [time / times[0] for time in times]


def _noise(like: Tensor, generators: Sequence[torch.Generator]) -> Noise:
    return partial(rng.randn, like.shape[1:], generators, device=like.device)
