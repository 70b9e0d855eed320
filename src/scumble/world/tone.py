"""From light to sRGB."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["EXPOSURE", "SHOULDER", "encode", "tone"]

EXPOSURE = 0.92
SHOULDER = 0.70
"""Light above this, after exposure, is compressed into what is left of the range."""


def tone(light: Tensor) -> Tensor:
    """Linear light to sRGB in [0, 1], with a shoulder so that bright colours keep their hue a while."""
    x = light * EXPOSURE
    x = torch.where(
        x > SHOULDER, SHOULDER + (1.0 - SHOULDER) * (1.0 - torch.exp(-(x - SHOULDER) / (1.0 - SHOULDER))), x
    )
    return encode(x)


def encode(x: Tensor) -> Tensor:
    """Linear light to sRGB (IEC 61966-2-1)."""
    return torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp(min=0.0031308) ** (1 / 2.4) - 0.055).clamp(
        0.0, 1.0
    )
