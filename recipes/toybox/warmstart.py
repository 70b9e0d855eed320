"""Where the autoencoder's training starts: at a code that already holds each patch's mean colour.

From random weights, brightness is learnt long before colour. Here residual branches begin at zero (Zhang et
al. 2019, "Fixup Initialization") and all other layers pass their input on, averaged downwards and smoothed
upwards; colours travel as pairs x and -x, for which silu(x) - silu(-x) = x, so that the last activation
does not bend them.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

COLOURS = 3
LOG_VARIANCE = -6.0
CONTRAST = 0.35
"""Undoes, about, what the last normalisation of the decoder adds."""


@torch.no_grad()
def start_at_mean_colour(model: AutoencoderKL) -> None:
    """Set the weights so that the first latents are mean colours and the decoder enlarges them smoothly."""
    for module in model.modules():
        if isinstance(module, ResnetBlock2D):
            _start_residual(module)
        elif isinstance(module, Downsample2D):
            _each_channel(module.conv, torch.tensor([[0.25, 0.25, 0.0], [0.25, 0.25, 0.0], [0.0, 0.0, 0.0]]))
        elif isinstance(module, Upsample2D):
            line = torch.tensor([0.25, 0.5, 0.25])
            _each_channel(module.conv, line[:, None] * line)
    for split in (model.encoder.conv_in, model.decoder.conv_in):
        _split(split)
    _join(model.encoder.conv_out, 1.0)
    _join(model.decoder.conv_out, CONTRAST)
    for kept in (model.quant_conv, model.post_quant_conv):
        nn.init.dirac_(kept.weight)
        nn.init.zeros_(kept.bias)
    latents = model.config.latent_channels
    nn.init.zeros_(model.encoder.conv_out.weight[latents:])
    nn.init.constant_(model.encoder.conv_out.bias[latents:], LOG_VARIANCE)


def _start_residual(block: ResnetBlock2D) -> None:
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    if block.conv_shortcut is not None:
        weight = block.conv_shortcut.weight  # (out, in, 1, 1)
        kept = min(weight.shape[:2])
        weight[:kept] = torch.eye(weight.shape[1])[:kept, :, None, None]
        nn.init.zeros_(block.conv_shortcut.bias)


def _each_channel(conv: nn.Conv2d, kernel: Tensor) -> None:
    """The same 3 x 3 kernel on every channel by itself."""
    conv.weight.zero_()
    channels = torch.arange(conv.weight.shape[0])
    conv.weight[channels, channels] = kernel
    nn.init.zeros_(conv.bias)


def _split(conv: nn.Conv2d) -> None:
    """The first outputs are the colours, the next their negatives; the others stay random."""
    conv.weight[: 2 * COLOURS] = 0.0
    for i in range(COLOURS):
        conv.weight[i, i, 1, 1] = 1.0
        conv.weight[COLOURS + i, i, 1, 1] = -1.0
    conv.bias[: 2 * COLOURS] = 0.0


def _join(conv: nn.Conv2d, gain: float) -> None:
    """The first outputs are the differences of the pairs, times `gain`."""
    conv.weight[:COLOURS] = 0.0
    for i in range(COLOURS):
        conv.weight[i, i, 1, 1] = gain
        conv.weight[i, COLOURS + i, 1, 1] = -gain
    conv.bias[:COLOURS] = 0.0
