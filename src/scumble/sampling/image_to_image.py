"""Pictures of any size into a model's space and back.

Letters: B pictures, H W their size, c h w channels and size of their latents. Pictures are in [0, 1]. They
are padded by their own edge pixels to the model's grid and cropped back, never stretched.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from scumble.core.images import crop_back, from_model, to_model
from scumble.data.masks import pooled
from scumble.models.model import Model
from scumble.sampling.broken import no_picture

__all__ = ["decode", "encode", "grid", "latent_mask", "modes", "padded_size"]


def grid(model: Model) -> int:
    """What width and height must be multiples of: the autoencoder's factor times that of the denoiser."""
    return model.downsample * 2 ** (len(model.denoiser.config.block_out_channels) - 1)


def padded_size(model: Model, size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) that a picture of `size` has while it is worked on: whole cells of the grid, two at least."""
    cell = grid(model)
    height, width = (max(2 * cell, -(-side // cell) * cell) for side in size)
    return height, width


def encode(model: Model, pixels: Tensor) -> Tensor:
    """Scaled latents (B, c, h, w) of `pixels` (B, 3, H, W) in [0, 1], padded to the grid, at their mode."""
    return model.scale(modes(model, pixels))


def modes(model: Model, pixels: Tensor) -> Tensor:
    """The same unscaled, which is what an editing model sees of the picture that it edits.

    One picture at a time, which is all that encoding has memory for on small machines.
    """
    padded = to_model(_padded(model, pixels))
    return torch.cat([model.encode(row[None]).mode() for row in padded])


def decode(model: Model, latents: Tensor, size: tuple[int, int]) -> Tensor:
    """The pictures (B, 3, H, W) in [0, 1], on the CPU, of `latents` (B, c, h, w), cropped to `size` (H, W).

    Raises NumericError if a pixel is not a number.
    """
    rows = [crop_back(model.decode(row[None]), size).cpu() for row in latents]
    pixels = from_model(torch.cat(rows))
    if not torch.isfinite(pixels).all():
        raise no_picture(model)
    return pixels.clamp(0, 1)


def latent_mask(model: Model, mask: Tensor) -> Tensor:
    """(B, 1, h, w) on the model's device: what may change of latents, for a `mask` (B, 1, H, W) of pixels."""
    return pooled(_padded(model, mask), model.downsample).to(model.device)


def _padded(model: Model, pixels: Tensor) -> Tensor:
    """(B, C, H, W) continued by its edge pixels, below and to the right, to `padded_size`."""
    height, width = pixels.shape[-2:]
    whole = padded_size(model, (height, width))
    return pad(pixels, (0, whole[1] - width, 0, whole[0] - height), mode="replicate")
