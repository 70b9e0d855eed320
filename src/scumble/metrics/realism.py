"""How natural one picture is to a model, without a set of pictures to compare with.

Noise the picture a little, let the model denoise it, and look at what is left. A painting in flat strokes is
easier to restore than a natural picture, and leaves less; a broken picture leaves more; pictures that the
model itself made from nothing show what it should be. So `realism` asks how far the residual of a picture has
come on the way from a rough guide's to a fully sampled picture's. All three share the noise, which takes most
of the chance out of the comparison.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scumble.core import rng
from scumble.diffusion.levels import Denoise
from scumble.diffusion.schedules import Schedule
from scumble.models.model import Model
from scumble.sampling.guided import guided
from scumble.sampling.image_to_image import encode, latent_mask

__all__ = ["LEVEL", "picture_residual", "realism", "residual"]

LEVEL = 0.15
"""Share of the diffusion at which pictures are tried: where texture drowns and shapes still show."""


def residual(
    denoise: Denoise, x: Tensor, schedule: Schedule, noise: Tensor, weight: Tensor | None = None
) -> Tensor:
    """What one denoising leaves of `noise` (B, c, h, w) in latents `x` (B, c, h, w), as a share of it: (B,).

    ||D(alpha x + sigma e) - x||^2 / ||(sigma / alpha) e||^2, both weighted by `weight` (B, 1, h, w). Near 0
    where the model finds everything again, 1 where nothing. `denoise` is the model with its prompt and no
    guidance, which would lead it away from its own expectation.
    """
    level = schedule.levels(torch.tensor(LEVEL * schedule.num_train_timesteps - 1, dtype=torch.float64))
    error, given = denoise(level.mix(x, noise), level) - x, noise * level.ratio
    shares = torch.ones_like(x) if weight is None else weight.expand_as(x)
    left, whole = ((shares * part.square()).flatten(1).sum(1) for part in (error, given))
    return left / whole


def realism(picture: Tensor, guide: Tensor, sampled: Tensor) -> Tensor:
    """0 for a residual `picture` like the guide's, 1 for one like a fully sampled picture's, in between by
    the logarithm; all (B,).

    1 throughout if the guide's is that of a sampled picture already.
    """
    far, near = (guide / sampled).log().abs(), (picture / sampled).log().abs()
    return torch.where(far > 1e-6, 1 - near / far, torch.ones_like(far)).clamp(0, 1)


@torch.inference_mode()
def picture_residual(
    model: Model, pixels: Tensor, *, prompt: str = "", mask: Tensor | None = None, seed: int = 0
) -> Tensor:
    """`residual` of pictures (B, 3, H, W) in [0, 1], where `mask` (1, 1, H, W), if given, is above 0: (B,) on
    the CPU. All meet the same noise, drawn from `seed`.
    """
    x = encode(model, pixels)
    size = (x.shape[-2] * model.downsample, x.shape[-1] * model.downsample)
    noise = rng.randn(x.shape[1:], [rng.generator(seed)], device=x.device).expand_as(x)
    weight = None if mask is None else latent_mask(model, mask)
    alone = guided(model, [prompt], size=size, scale=1.0)
    return residual(alone, x, model.schedule, noise, weight).cpu()
