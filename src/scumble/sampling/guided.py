"""The guided denoiser: a model, its prompts and its guidance as one `denoise(x, level) -> x0`."""

from __future__ import annotations

from collections.abc import Sequence

from scumble.diffusion import guidance
from scumble.diffusion.levels import Denoise
from scumble.models.model import Model

__all__ = ["default_guidance", "guided"]


def default_guidance(model: Model) -> float:
    """The guidance scale for people who name none: what the makers of each family recommend."""
    if model.name in ("toybox", "toybox-instruct"):
        return 3.0
    return {"sd1": 7.5, "sd2": 7.5, "sdxl": 5.0, "pixel": 1.0}[model.family]


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
