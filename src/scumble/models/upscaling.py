"""What makes a model an upscaler: its denoiser also sees the small picture, noised to a level it is told.

Two layouts. The `x4-upscaler` of Stable Diffusion 2 (Rombach et al. 2022, section 4.5) sees the pixels of the
small picture beside latents of the same height and width, so that the result is as many times larger as the
autoencoder's factor. A latent upscaler, such as the toybox's, sees the small picture's own latents, each cell
repeated twice in both directions, and has no text encoder. The noise of the small picture (conditioning
augmentation, Ho et al. 2022) follows a schedule of its own and is told as a class label, 0 the least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from scumble.core.errors import ModelError
from scumble.diffusion.schedules import Schedule, from_diffusers_config
from scumble.models.checkpoint import Checkpoint, channels

__all__ = ["LATENT_UPSCALER", "PIXEL_UPSCALER", "Upscaling", "upscaling_of"]

PIXEL_UPSCALER = "StableDiffusionUpscalePipeline"
"""The pipeline class of the x4-upscaler layout."""
LATENT_UPSCALER = "ScumbleLatentUpscalePipeline"
"""The name that folders of latent upscalers give; diffusers has no such pipeline."""
LATENT_FACTOR = 2
USUAL_NOISE = 20
"""The noise level that diffusers takes for the x4-upscaler unless told otherwise."""
HIGHEST_NOISE = 350
"""The x4-upscaler was trained up to this level; a folder may say another."""


@dataclass(frozen=True, slots=True)
class Upscaling:
    """How an upscaler sees the small picture."""

    sees: Literal["pixels", "latents"]
    factor: int
    """How many times wider and higher the result is."""
    channels: int
    """Channels of the small picture as the denoiser sees it."""
    schedule: Schedule
    """Of the small picture's noise; its levels are this schedule's times."""
    highest: int
    """The highest noise level that may be asked for; the least is 0."""
    usual: int
    """The noise level for people who name none."""


def upscaling_of(checkpoint: Checkpoint) -> Upscaling | None:
    """What the checkpoint says of itself as an upscaler; None for every other model.

    Raises ModelError for channels, labels or a schedule that belong to neither layout.
    """
    if checkpoint.pipeline not in (PIXEL_UPSCALER, LATENT_UPSCALER):
        return None
    unet, vae = checkpoint.configs["unet"], checkpoint.configs["vae"]
    in_pixels = checkpoint.pipeline == PIXEL_UPSCALER
    latent = channels(vae, "latent_channels", 4)
    small = channels(vae, "in_channels", 3) if in_pixels else latent
    if (taken := channels(unet, "in_channels", 4)) != latent + small:
        raise ModelError(
            f"{checkpoint.name} is an upscaler with {taken} input channels, which is not supported.",
            f"Those with {latent + small} are.",
        )
    schedule = _low_schedule(checkpoint)
    labels = _labels(checkpoint, unet.get("num_class_embeds"), schedule)
    highest = min(labels - 1, checkpoint.max_noise_level or HIGHEST_NOISE)
    factor = 2 ** (len(vae["block_out_channels"]) - 1) if in_pixels else LATENT_FACTOR
    return Upscaling(
        sees="pixels" if in_pixels else "latents",
        factor=factor,
        channels=small,
        schedule=schedule,
        highest=highest,
        usual=min(USUAL_NOISE, highest),
    )


def _low_schedule(checkpoint: Checkpoint) -> Schedule:
    config = checkpoint.low_res_scheduler or checkpoint.scheduler
    try:
        return from_diffusers_config(config)
    except (TypeError, ValueError, KeyError, IndexError, OverflowError, RuntimeError) as problem:
        raise ModelError(f"{checkpoint.name} has a damaged low_res_scheduler: {problem}.") from problem


def _labels(checkpoint: Checkpoint, count: Any, schedule: Schedule) -> int:
    """How many noise levels the denoiser knows."""
    if not isinstance(count, int) or not 1 <= count <= schedule.num_train_timesteps:
        raise ModelError(
            f"{checkpoint.name} is an upscaler whose denoiser is not told the noise of the small picture.",
            "Its unet needs num_class_embeds, at most as many as its low_res_scheduler has times.",
        )
    return count
