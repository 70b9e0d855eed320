"""What a layer comes to: brought to the picture's own size, put into 8 bits, and laid over the picture."""

from __future__ import annotations

import torch
from torch import Tensor

from scumble.core.images import from_uint8, to_uint8
from scumble.data.guided import guided_upsample

__all__ = ["composed", "finished"]


def finished(
    layer: Tensor, worked: Tensor, picture: Tensor, haze: float, mask: Tensor | None = None
) -> Tensor:
    """The layer (4, H, W) uint8 of a `picture` (3, H, W) uint8 from one (1, 4, h, w) for `worked` (1, 3, h,
    w), the same picture at the size it was worked at.

    Opacity up to `haze` counts as none, and from 1 - haze on as all; none outside the `mask` (1, 1, H, W).
    """
    large = from_uint8(picture)[None].to(layer)
    cover = torch.cat([layer[:, :3] * layer[:, 3:], layer[:, 3:]], dim=1)  # which may be interpolated
    raised = guided_upsample(cover, worked, large)
    opacity = raised[:, 3:]
    colour = (raised[:, :3] / opacity.clamp(min=1e-4)).clamp(0, 1)
    opacity = ((opacity - haze) / (1 - 2 * haze)).clamp(0, 1)
    if mask is not None:
        opacity = opacity * mask.to(opacity)
    return to_uint8(torch.cat([colour, opacity], dim=1))[0].cpu()


def composed(layer: Tensor, picture: Tensor) -> Tensor:
    """A layer (4, H, W) laid over a picture (3, H, W) or a colour (3, 1, 1), all uint8, rounded to nearest:
    the picture's own bits where the opacity is 0, the layer's where it is 255."""
    colour, opacity = layer[:3].int(), layer[3:].int()
    return ((opacity * colour + (255 - opacity) * picture.int() + 127) // 255).to(torch.uint8)
