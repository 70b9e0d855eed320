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
from functools import cached_property, partial
from itertools import count
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from scumble.core import rng
from scumble.core.config import Config as Settings
from scumble.core.errors import ConfigError, ImageError
from scumble.core.events import Loop, Progress
from scumble.data.masks import pasted
from scumble.data.paintings import Painting
from scumble.diffusion.levels import Denoise, Level
from scumble.diffusion.samplers import SAMPLERS, Noise, Step, steer, with_eta
from scumble.diffusion.schedules import Schedule
from scumble.diffusion.spacing import SPACINGS, levels_from, sde_levels, ve_sde_levels
from scumble.metrics.realism import realism, residual
from scumble.models.model import Model
from scumble.sampling.guided import Interval, default_guidance, guided
from scumble.sampling.image_to_image import decode, encode, latent_mask
from scumble.sampling.memory import in_batches
from scumble.sampling.preview import Previewer

__all__ = ["PRESETS", "Config", "Kept", "edit", "find_t0", "guidance_scale", "levels", "paint"]

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
    guidance_interval: Interval | None = None
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
        return sde_levels(schedule, config.t0, config.steps)
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
    options = with_eta(config.sampler, config.eta)
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
    canvas = _Canvas(model, [p for p, _ in jobs], [seed for _, seed in jobs])
    if config.t0 == 0:
        return list(pasted(canvas.original, canvas.guide, canvas.mask, config.feather))
    x = canvas.source
    for taken, step in enumerate(canvas.steps(config), 1):
        x = step.x
        yield progress(taken, step)
    edited = decode(model, x, (canvas.guide.shape[-2], canvas.guide.shape[-1]))
    # A pixel too dark to have joined at all was never denoised: it is the guide's own.
    edited = torch.where(canvas.mask >= canvas.joins(config)[-1], edited, canvas.guide)
    return list(pasted(canvas.original, edited, canvas.mask, config.feather))


class _Canvas:
    """B paintings in a model's space."""

    def __init__(self, model: Model, paintings: Sequence[Painting], seeds: Sequence[int]) -> None:
        self.model, self.seeds, self.prompts = model, seeds, [p.prompt for p in paintings]
        self.guide = torch.cat([p.guide for p in paintings])  # (B, 3, H, W)
        self.original = torch.cat([p.original for p in paintings])
        self.mask = torch.cat([p.mask for p in paintings])  # (B, 1, H, W)
        self.alike = all(p is paintings[0] for p in paintings)

    @cached_property
    def source(self) -> Tensor:
        """The guides' latents (B, c, h, w)."""
        if self.alike:
            return encode(self.model, self.guide[:1]).repeat(len(self.guide), 1, 1, 1)
        return encode(self.model, self.guide)

    def steps(self, config: Config) -> Iterator[Step]:
        """Paint with `config`, t0 being above 0; x of the last step is the result."""
        noisy = levels(self.model.schedule, config)
        draw = self.noise(*self.seeds)
        kept = None
        if not bool((self.mask == 1).all()):
            # From generators of its own: a mask changes nothing of the noise of the edit.
            fresh = self.noise(*(rng.derive(seed, "kept") for seed in self.seeds))
            kept = Kept(
                mask=latent_mask(self.model, self.mask),
                joins=self.joins(config),
                noise=fresh if config.kept_noise == "fresh" else None,
            )
        return paint(self.denoiser(config), self.source, noisy, config, noise=draw, kept=kept)

    def joins(self, config: Config) -> list[float]:
        """The time of each noisy level as a share of the first one's: a pixel of mask m joins at m."""
        noisy = levels(self.model.schedule, config)[:-1]
        times = [float(self.model.schedule.time(level)) + 1 for level in noisy]
        return [time / times[0] for time in times]

    def noise(self, *seeds: int) -> Noise:
        """A source of noise like the latents, each row from its own seed."""
        return partial(rng.randn, self.source.shape[1:], rng.generators(seeds), device=self.source.device)

    def denoiser(self, config: Config) -> Denoise:
        height, width = (side * self.model.downsample for side in self.source.shape[-2:])
        return guided(
            self.model,
            self.prompts,
            negative=config.negative,
            size=(height, width),
            scale=guidance_scale(self.model, self.prompts, config),
            interval=config.guidance_interval,
            rescale=config.guidance_rescale,
        )


def guidance_scale(model: Model, prompts: Sequence[str], config: Config) -> float:
    """The guidance scale that is used: 1, which costs half, where none was set and there are no words."""
    if config.guidance is not None:
        return config.guidance
    return default_guidance(model) if any(prompts) or config.negative else 1.0


# The search for t0


PROBES = 4
"""Bisections of [0, 1]: t0 to 1/32 either way."""


@torch.inference_mode()
def find_t0(model: Model, painting: Painting, seed: int, config: Config) -> Loop[float]:
    """The t0 at which a painting has gained as large a share of realism as it has lost of faithfulness.

    Realism is 0 for the guide and 1 for a picture drawn from nothing (see `scumble.metrics.realism`), and
    rises with t0; faithfulness, by the distance of latents, is 1 for the guide and 0 for that picture, and
    falls. They cross once, and bisection finds where. A probe is a quick edit in a quarter of the steps, from
    the noise of the edit itself; the picture drawn from nothing takes half of them. Both are painted with the
    fast sampler, whatever the edit takes: a few steps of an SDE are too long to be any. With the edit that
    follows the denoiser is called at most as often as for three edits: where `config.steps` are too few for
    all probes there are fewer. Raises ConfigError where they do not allow any.
    """
    canvas, fast = _Canvas(model, [painting], [seed]), Config()
    config = config.replace(repeats=1)
    allowed = 2 * SAMPLERS[config.sampler].calls(config.steps)
    probe = config.replace(sampler=fast.sampler, spacing=fast.spacing)
    whole = probe.replace(t0=1.0, steps=max(1, config.steps // 2 - 1))
    quick = probe.replace(steps=max(1, config.steps // 4))
    # A picture drawn from nothing, its residual and the guide's, and what is left of two edits for probes.
    room = (allowed - whole.steps - 2) // (quick.steps + 1)
    if room < 1:
        raise ConfigError(f"{config.steps} steps are too few to look for t0.", "Take more, or name t0.")
    probes, taken = min(PROBES, room), count(1)
    total = whole.steps + probes * quick.steps
    alone, mask = canvas.denoiser(config.replace(guidance=1.0)), latent_mask(model, canvas.mask)
    noise = canvas.noise(rng.derive(seed, "realism"))()

    def left(x: Tensor) -> Tensor:
        return residual(alone, x, model.schedule, noise, mask)

    def drawn(settings: Config) -> Loop[tuple[Tensor, Tensor]]:
        x = canvas.source
        for step in canvas.steps(settings):
            x = step.x
            yield Progress(stage="searching t0", step=next(taken), total=total)
        return left(x), (x - canvas.source).square().sum().sqrt()

    guide, (sampled, farthest) = left(canvas.source), (yield from drawn(whole))
    low, high = 0.0, 1.0
    for _ in range(probes):
        t0 = (low + high) / 2
        picture, distance = yield from drawn(quick.replace(t0=t0))
        gained, lost = realism(picture, guide, sampled), distance / farthest
        low, high = (low, t0) if float(gained + lost) > 1 else (t0, high)
    return (low + high) / 2
