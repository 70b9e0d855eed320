"""Small pictures of unfinished latents, by one linear map from latent channels to red, green and blue.

The map is fitted, once for each model, to what the model's own autoencoder does with patches of plain colour,
so it needs no table of numbers for each family and costs one small encoding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from scumble.models.model import Model

__all__ = ["Previewer"]

LEVELS = 4
"""Shades of each channel: 4 x 4 x 4 = 64 colours, an 8 x 8 board of patches."""
CELLS = 4
"""Latent cells along a patch's side; only the inner ones, which see no neighbour, are fitted."""


class Previewer:
    """Turns denoised latents into small RGB pictures; `fit` makes one for a model."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        """(c + 1, 3): latent channels and a constant, to colours in [0, 1]."""

    @classmethod
    @torch.inference_mode()
    def fit(cls, model: Model) -> Previewer:
        """Fit the map for `model` by least squares over 64 plain colours."""
        shades = torch.linspace(0, 1, LEVELS)
        colours = torch.cartesian_prod(shades, shades, shades)  # (64, 3)
        if model.autoencoder is None:  # x0 to pixels in [-1, 1] and those to colours, both by hand
            shift, factor = (float(value) for value in model.scaling)
            return cls(torch.cat([torch.eye(3) / factor / 2, torch.full((1, 3), shift / 2 + 0.5)]))
        side = CELLS * model.downsample
        board = colours.T.reshape(1, 3, 8, 8)
        pixels = board.repeat_interleave(side, 2).repeat_interleave(side, 3) * 2 - 1  # (1, 3, 8 side, 8 side)
        latents = model.scale(model.encode(pixels.to(model.device, model.dtype)).mode()).float().cpu()[0]
        patches = latents.reshape(-1, 8, CELLS, 8, CELLS)[:, :, 1:-1, :, 1:-1]  # (c, 8, k, 8, k)
        features = patches.mean((2, 4)).flatten(1).T  # (64, c)
        features = torch.cat([features, torch.ones(len(features), 1)], 1)  # (64, c + 1)
        return cls(torch.linalg.lstsq(features, colours, driver="gelsd").solution)

    @torch.inference_mode()
    def __call__(self, latents: Tensor) -> Image.Image:
        """A picture of the first of `latents` (B, c, h, w), h by w pixels."""
        first = latents[0].float().cpu()
        colours = torch.einsum("chw,cr->hwr", first, self.matrix[:-1]) + self.matrix[-1]  # (h, w, 3)
        return Image.fromarray((colours.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
