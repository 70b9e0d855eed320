"""The guided denoiser: a model, its prompts and its guidance as one `denoise(x, level) -> x0`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator

from scumble.diffusion import guidance
from scumble.diffusion.levels import Denoise
from scumble.models.model import Model

__all__ = ["Interval", "default_guidance", "guided"]


def _in_order(interval: tuple[float, float]) -> tuple[float, float]:
    low, high = interval
    if not 0 <= low <= high <= 1:  # false for NaN too
        raise ValueError("it should be two numbers from 0 to 1, the smaller first")
    return interval


Interval = Annotated[tuple[float, float], AfterValidator(_in_order)]
"""A setting: the noise shares, low to high, between which guidance acts."""


def default_guidance(model: Model) -> float:
    """The guidance scale for people who name none: what the makers of the model, or of its family, say."""
    if model.checkpoint.guidance is not None:
        return model.checkpoint.guidance
    return {"sd1": 7.5, "sd2": 7.5, "sdxl": 5.0, "pixel": 1.0, "upscaler": 9.0}[model.family]


def guided(
    model: Model,
    prompts: Sequence[str],
    *,
    negative: str = "",
    size: tuple[int, int],
    scale: float,
    interval: tuple[float, float] | None = None,
    rescale: float = 0.0,
) -> Denoise:
    """The denoiser for B pictures of `size` (H, W), each with its own prompt, led away from `negative`.

    A model without text encoder ignores the words; guidance `scale` 1 costs half of any other. Raises
    PromptError.
    """
    if not model.text_encoders:
        branches = model.branches()
        return lambda x, level: branches(x, level, (0,))[0]
    away = model.prompt([negative], size=size) if negative else model.empty(size=size)
    same = len(set(prompts)) == 1
    towards = model.prompt(prompts[:1] if same else prompts, size=size)
    return guidance.text(model.branches([away, towards]), scale, interval=interval, rescale=rescale)
