"""Editing by instruction: section 3.2.1 and equation 3 of Brooks et al. 2022, and a search for the scales.

Letters: B pictures, H W their size, c h w channels and size of their latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from scumble.core import rng
from scumble.core.config import Config as Settings
from scumble.core.errors import ImageError, ModelError, PromptError
from scumble.core.events import Loop, Progress
from scumble.core.images import to_model
from scumble.data.masks import pasted
from scumble.diffusion import guidance
from scumble.diffusion.levels import Denoise
from scumble.diffusion.samplers import SAMPLERS, Step, steer, with_eta
from scumble.diffusion.spacing import SPACINGS, levels_for
from scumble.metrics.clip_edit import direction, likeness
from scumble.models.clip import Clip
from scumble.models.model import Model
from scumble.sampling.guided import Interval, default_guidance
from scumble.sampling.image_to_image import decode, latent_mask, modes
from scumble.sampling.memory import in_batches
from scumble.sampling.preview import Previewer

__all__ = [
    "IMAGE_SCALES",
    "PRESETS",
    "TEXT_FACTORS",
    "Config",
    "Request",
    "balanced",
    "edit",
    "find_scales",
    "guided",
    "refuse_other_models",
    "scales",
]


def _sampler(name: str) -> str:
    if name not in SAMPLERS:
        raise ValueError(f"choose one of {', '.join(SAMPLERS)}")
    return name


def _spacing(name: str) -> str:
    if name not in SPACINGS:
        raise ValueError(f"choose one of {', '.join(SPACINGS)}")
    return name


class Config(Settings):
    """How an instruction is followed."""

    image_scale: Annotated[float, Field(ge=0, le=100)] = 1.5
    """s_I: how closely to keep to the picture; 1 to 2.2 is usual, 1 costs a third less."""
    text_scale: Annotated[float, Field(ge=0, le=100)] | None = None
    """s_T: how far to follow the words; none takes what the makers of the model recommend."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    """Denoising steps."""
    sampler: Annotated[str, AfterValidator(_sampler)] = "dpmpp_2m"
    """How each step is taken; euler_ancestral is the paper's."""
    spacing: Annotated[str, AfterValidator(_spacing)] = "trailing"
    """How the steps are spread over the noise levels; log_sigma is the paper's."""
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fresh noise in DDIM: 0 none, 1 as much as DDPM."""
    feather: Annotated[int, Field(ge=0, le=1024)] = 0
    """Pixels over which the edit fades in, on the edited side of a mask's edge."""
    negative: str = ""
    """What to lead away from."""
    guidance_interval: Interval | None = None
    """Noise shares, from 0 (clean) to 1 (noise), between which guidance acts."""
    guidance_rescale: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the contrast correction of Lin et al. 2024."""


PRESETS: dict[str, Config] = {
    # A quarter of the steps that the pipeline of diffusers takes by default.
    "fast": Config(),
    # What the released code edits with.
    "paper": Config(
        image_scale=1.5, text_scale=7.5, steps=100, sampler="euler_ancestral", spacing="log_sigma"
    ),
}
"""Settings by purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A picture and what to do with it. Raises PromptError and ImageError, in one sentence."""

    picture: Tensor
    """(1, 3, H, W) in [0, 1], on the CPU."""
    instruction: str
    mask: Tensor | None = None
    """(1, 1, H, W): 1 may change, 0 stays to the bit, grey changes less; None for ones."""

    def __post_init__(self) -> None:
        if not self.instruction.strip():
            raise PromptError("The instruction is empty.", "Say what to change, such as 'make it night'.")
        if self.mask is None:
            return
        if self.mask.shape[-2:] != self.picture.shape[-2:]:
            sizes = [f"{p.shape[-1]} x {p.shape[-2]}" for p in (self.picture, self.mask)]
            raise ImageError(
                f"The picture has {sizes[0]} pixels and the mask {sizes[1]}.", "Make them the same size."
            )
        if not self.mask.any():
            raise ImageError("The mask is black everywhere.", "White is what may change.")


def refuse_other_models(model: Model) -> None:
    """Raise ModelError for a model whose denoiser has no channels for the picture to edit."""
    if not model.condition_channels:
        raise ModelError(
            f"{model.name} cannot be told what to edit: its denoiser has no channels for the picture.",
            "Take an InstructPix2Pix model such as toybox-instruct, or train one from it: "
            "scumble train instruct-pix2pix.",
        )


def scales(model: Model, config: Config) -> tuple[float, float]:
    """(s_I, s_T) that are used."""
    text = default_guidance(model) if config.text_scale is None else config.text_scale
    return config.image_scale, text


def edit(
    model: Model,
    requests: Sequence[Request],
    seeds: Sequence[int],
    config: Config,
    *,
    batch_size: int = 8,
    preview_every: int = 0,
) -> Loop[list[Tensor]]:
    """Do each of `requests`, of one size, with its own seed; pictures (3, H, W) in [0, 1], on the CPU.

    What a mask keeps equals the picture bit for bit. With `preview_every`, a preview goes with every so many
    records. Raises ModelError for a model without condition channels, OutOfMemoryError, NumericError.
    """
    refuse_other_models(model)
    jobs = list(zip(requests, seeds, strict=True))
    if len(sizes := {r.picture.shape[-2:] for r in requests}) > 1:
        raise ImageError(f"Pictures of {len(sizes)} different sizes cannot go into one batch.")
    previewer = Previewer.fit(model) if preview_every else None

    def work(batch: Sequence[tuple[Request, int]], done: int) -> Loop[list[Tensor]]:
        def progress(step: Step) -> Progress:
            preview = previewer(step.x0) if previewer and step.index % preview_every == 0 else None
            now = step.total * done + (step.index + 1) * len(batch)
            return Progress(stage="editing", step=now, total=step.total * len(jobs), preview=preview)

        return (yield from _edit(model, batch, config, progress))

    return (yield from in_batches(jobs, work, batch_size))


@torch.inference_mode()
def _edit(
    model: Model,
    jobs: Sequence[tuple[Request, int]],
    config: Config,
    progress: Callable[[Step], Progress],
    seen: Tensor | None = None,
) -> Loop[list[Tensor]]:
    """`seen` are the pictures' latents (1 or B, c, h, w) where they are known."""
    requests = [request for request, _ in jobs]
    pictures = torch.cat([r.picture for r in requests])  # (B, 3, H, W)
    mask = torch.cat([torch.ones_like(r.picture[:, :1]) if r.mask is None else r.mask for r in requests])
    if seen is None:
        alike = all(r.picture is requests[0].picture for r in requests)
        seen = modes(model, pictures[:1] if alike else pictures)
    seen = seen.expand(len(jobs), -1, -1, -1)  # (B, c, h, w)
    x = seen
    for step in _steps(model, requests, seen, mask, [seed for _, seed in jobs], config):
        x = step.x
        yield progress(step)
    edited = decode(model, x, (pictures.shape[-2], pictures.shape[-1]))
    return list(pasted(pictures, torch.lerp(pictures, edited, mask), mask, config.feather))


def _steps(
    model: Model,
    requests: Sequence[Request],
    seen: Tensor,
    mask: Tensor,
    seeds: Sequence[int],
    config: Config,
) -> Iterator[Step]:
    """From noise to the edited latents, the kept part following the picture's own."""
    levels = [level.to(model.device) for level in levels_for(model.schedule, config.steps, config.spacing)]
    noise = partial(rng.randn, seen.shape[1:], rng.generators(seeds), device=seen.device)
    first = noise()
    denoise = guided(model, [r.instruction for r in requests], seen, config)
    options = with_eta(config.sampler, config.eta)
    run = SAMPLERS[config.sampler].run(denoise, first * levels[0].spread, levels, noise=noise, **options)
    if bool((mask > 0).all()):
        return run
    cells, source = latent_mask(model, mask), model.scale(seen)
    return steer(run, lambda step: torch.where(cells > 0, step.x, step.level.mix(source, first)))


def guided(model: Model, instructions: Sequence[str], seen: Tensor, config: Config) -> Denoise:
    """Equation 3 for B pictures `seen` (B, c, h, w), unscaled latents at their mode, each with its own
    instruction.

    Its three branches are (nothing), (picture), (picture, words), in one batch; nothing is zeros for the
    picture and the empty prompt for the words.
    """
    height, width = (side * model.downsample for side in seen.shape[-2:])
    size = (height, width)
    away = model.prompt([config.negative], size=size) if config.negative else model.empty(size=size)
    same = len(set(instructions)) == 1
    towards = model.prompt(instructions[:1] if same else instructions, size=size)
    branches = model.branches([away, away, towards], [None, seen, seen])
    return guidance.image_text(
        branches,
        *scales(model, config),
        interval=config.guidance_interval,
        rescale=config.guidance_rescale,
    )


# The search for the scales


IMAGE_SCALES = (1.0, 1.2, 1.5, 1.8, 2.2)
"""Tried first, over the range of the paper's figure 8."""
TEXT_FACTORS = (0.6, 1.5)
"""Then the text scale times these, with the best image scale."""


@torch.inference_mode()
def find_scales(
    model: Model,
    request: Request,
    seed: int,
    config: Config,
    clip: Clip,
    *,
    told: tuple[str, str] | None = None,
) -> Loop[tuple[float, float]]:
    """The scales (s_I, s_T) that balance how far the edit goes (CLIP direction) and how much it keeps (CLIP
    likeness): of all tried, the one nearest to the best of both, each measured from the worst to the best.

    `told` are captions before and after; without them the direction is from no words to the instruction. A
    try is a quick edit in a quarter of the steps, from the noise of the edit itself. With the edit that
    follows the denoiser is called at most as often as for three edits: where `config.steps` are too few for
    all tries there are fewer.
    """
    refuse_other_models(model)
    calls, quick = SAMPLERS[config.sampler].calls, config.replace(steps=max(1, config.steps // 4))
    room = min(2 * calls(config.steps) // calls(quick.steps), len(IMAGE_SCALES) + len(TEXT_FACTORS))
    before, (said_before, said_after) = to_model(request.picture), told or ("", request.instruction)
    seen = modes(model, request.picture)
    found: dict[tuple[float, float], tuple[float, float]] = {}  # scales: direction and likeness

    def attempt(image_scale: float, text_scale: float) -> Loop[None]:
        def progress(step: Step) -> Progress:
            now = len(found) * step.total + step.index + 1
            return Progress(stage="searching scales", step=now, total=room * step.total)

        tried = quick.replace(image_scale=image_scale, text_scale=text_scale)
        [pixels] = yield from _edit(model, [(request, seed)], tried, progress, seen)
        after = to_model(pixels[None])
        went = direction(clip, before, after, [said_before], [said_after])
        found[image_scale, text_scale] = (float(went), float(likeness(clip, before, after)))

    _, text = scales(model, config)
    for image in IMAGE_SCALES[:room]:
        yield from attempt(image, text)
    image, _ = balanced(found)
    for factor in TEXT_FACTORS[: room - len(found)]:
        yield from attempt(image, factor * text)
    return balanced(found)


def balanced(found: Mapping[tuple[float, float], tuple[float, float]]) -> tuple[float, float]:
    """The scales whose two scores are nearest to the best of each, both measured from the worst (0) to the
    best (1); the first of equals.
    """
    scores = torch.tensor(list(found.values()), dtype=torch.float64)  # (n, 2)
    low, high = scores.amin(0), scores.amax(0)
    shares = torch.where(high > low, (scores - low) / (high - low), 1.0)
    return list(found)[int((1 - shares).square().sum(1).argmin())]
