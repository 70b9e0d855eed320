"""Latents of unit variance in every channel and none correlated, without changing what the autoencoder can
draw.

A trained encoder may put most of its variance into one direction, and a denoiser, to which all channels are
equal, would learn the others late. The linear map that evens them out goes into the 1 x 1 convolution after
the encoder, its inverse into that before the decoder, so decode(encode(x)) is what it was.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor


@torch.no_grad()
def whiten(model: AutoencoderKL, mean: Tensor, std: Tensor) -> None:
    """Fold the whitening of posterior means and standard deviations (N, c, h, w) into the model.

    Afterwards the posterior's variance is the same for all pictures: the average of what it was.
    """
    channels = mean.shape[1]
    points = mean.double().transpose(0, 1).flatten(1)  # (c, N h w)
    centre = points.mean(1)
    values, vectors = torch.linalg.eigh(torch.cov(points))
    forth = vectors.T / values.sqrt()[:, None]  # (c, c)
    back = torch.linalg.inv(forth)
    variance = forth.square() @ std.double().square().mean((0, 2, 3))
    to, fro = model.quant_conv, model.post_quant_conv
    rows = to.weight[:channels, :, 0, 0].double()
    to.weight[:channels, :, 0, 0] = (forth @ rows).to(to.weight)
    to.weight[channels:] = 0.0
    to.bias[:channels] = (forth @ (to.bias[:channels].double() - centre)).to(to.bias)
    to.bias[channels:] = variance.log().to(to.bias)
    columns = fro.weight[:, :, 0, 0].double()
    fro.bias += (columns @ centre).to(fro.bias)
    fro.weight[:, :, 0, 0] = (columns @ back).to(fro.weight)
