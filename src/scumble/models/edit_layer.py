"""The generator of an edit layer: a picture in, a layer of colour and opacity for it out.

A convolutional network of skips as in Ulyanov, Vedaldi, Lempitsky 2018, "Deep Image Prior" (1711.10925),
section 4, with four channels out, as Bar-Tal et al. 2022, "Text2LIVE" (2204.02491) use it (section 3 and
appendix A). It is trained from nothing on one picture, so that its shape is what it knows of pictures.

Letters: B pictures of H x W pixels, S scales, C channels.

Where we differ. The number of scales follows the size of the picture, so that any side from 16 px on works;
the paper's 7 need 129. Normalisation is by each picture's own mean and variance, which is what batch
normalisation does in the paper's code, where a batch is one picture and the network is always in training.
What comes up is brought to the size of the skip at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from scumble.core import rng
from scumble.core.errors import ImageError

__all__ = ["MAX_SCALES", "SMALLEST", "EditLayer", "drawn", "rgb_of_decorrelated", "scales_for"]

MAX_SCALES = 7
"""The paper's number of scales."""
SMALLEST = 16
"""Pixels that the shorter side of a picture has at least."""

COLOUR_AXES = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""A root of the covariance of the colours of natural pictures: rows R, G, B; columns are the axes of light,
red to blue, and green to purple (Olah, Mordvintsev, Schubert 2017, "Feature Visualization")."""
LIGHT_DAMPING = 1.6
"""By which the first axis is divided, as it would otherwise outweigh the two of hue."""


def scales_for(height: int, width: int) -> int:
    """How many times a picture may be halved: min(7, floor(log2 short side) - 2), so 4 pixels are left.

    Raises ImageError where the shorter side is below SMALLEST.
    """
    short = min(height, width)
    if short < SMALLEST:
        raise ImageError(
            f"A picture of {width} x {height} pixels is too small for a layer.",
            f"Its shorter side has to have {SMALLEST} pixels.",
        )
    return min(MAX_SCALES, short.bit_length() - 3)


def rgb_of_decorrelated(axes: Tensor) -> Tensor:
    """(B, 3, H, W) along COLOUR_AXES as RGB of the same shape; unbounded both."""
    root = axes.new_tensor(COLOUR_AXES) / axes.new_tensor([LIGHT_DAMPING, 1.0, 1.0])
    root = root / root.norm(dim=0).max()
    return torch.einsum("rc,bchw->brhw", root, axes)


def drawn(size: tuple[int, int], seed: int, *, channels: int = 128, skip_channels: int = 4) -> EditLayer:
    """A new network for pictures of `size` (H, W), its weights drawn from `seed` alone. Raises ImageError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive(seed, "edit layer"))
        return EditLayer(scales=scales_for(*size), channels=channels, skip_channels=skip_channels)


class EditLayer(nn.Module):
    """The network; `scales` S, `channels` C of the way down and up, `skip_channels` of each skip."""

    def __init__(self, *, scales: int, channels: int = 128, skip_channels: int = 4) -> None:
        super().__init__()
        widths = [3] + [channels] * (scales - 1)
        self.skips = nn.ModuleList(_convolution(width, skip_channels, 1) for width in widths)
        self.downs = nn.ModuleList(
            nn.Sequential(_convolution(width, channels, 3, stride=2), _convolution(channels, channels, 3))
            for width in widths
        )
        joined = channels + skip_channels
        self.ups = nn.ModuleList(
            nn.Sequential(
                _norm(joined), _convolution(joined, channels, 3), _convolution(channels, channels, 1)
            )
            for _ in widths
        )
        self.head = nn.Conv2d(channels, 4, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """The layers (B, 4, H, W) in [0, 1], colour and then opacity, of pictures (B, 3, H, W) in [0, 1]."""
        x, kept = pictures, list[Tensor]()
        for skip, down in zip(self.skips, self.downs, strict=True):
            kept.append(skip(x))
            x = down(x)
        for up in reversed(self.ups):
            beside = kept.pop()
            x = interpolate(x, size=beside.shape[-2:], mode="bilinear", align_corners=False)
            x = up(torch.cat([beside, x], dim=1))
        axes, opacity = self.head(x).split([3, 1], dim=1)
        return torch.cat([rgb_of_decorrelated(axes), opacity], dim=1).sigmoid()


def _convolution(inputs: int, outputs: int, size: int, *, stride: int = 1) -> nn.Sequential:
    """Convolution with reflected edges, normalisation, and a ReLU that leaks."""
    edge = {"padding": size // 2, "padding_mode": "reflect"} if size > 1 else {}
    convolution = nn.Conv2d(inputs, outputs, size, stride=stride, **edge)
    return nn.Sequential(convolution, _norm(outputs), nn.LeakyReLU(0.2))


def _norm(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True)
