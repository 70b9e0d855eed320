"""Atlases as pictures, and pictures laid over a video through its atlas.

A *sheet* is the part of a layer's atlas that the video shows, as a picture; a layer of paint (4, h, w) for
it, colour and opacity in [0, 1], comes out in every frame:

    out(p) = c(p) (1 - sum_k w_k(p) a_k(M_k(p))) + sum_k w_k(p) a_k(M_k(p)) C'_k(M_k(p))

over the video's own frames c, so that nothing is lost where there is no paint (2109.11418, section 3.4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from scumble.core.errors import ImageError, InputError
from scumble.core.images import to_uint8
from scumble.models.atlas import Atlas, layer_weights

__all__ = [
    "Sheet",
    "check_frames",
    "draw",
    "overlay",
    "paint_of",
    "premultiplied",
    "seen_weights",
    "sheets",
    "surveyed",
]

SHARPNESS = 2.0
"""Pixels of a sheet per pixel of a frame, along each axis."""
LARGEST = 4096
"""Pixels of a sheet's longer side, at most."""
RIM = 0.02
"""Of a sheet, as a share of its size: how much of the atlas around what is seen belongs to it."""
HAZE = 0.02
"""Opacity up to which a foreground counts as not there, and from 1 down to which as all there."""
SLICE = 2**18
"""Places looked up at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Where a layer's picture lies in its atlas, and of how many pixels it is."""

    left: float
    top: float
    right: float
    bottom: float
    height: int
    width: int

    def places(self, device: str | torch.device = "cpu") -> Tensor:
        """uv (h w, 2) of the pixels, row by row."""
        u = self.left + (torch.arange(self.width, device=device) + 0.5) * (
            (self.right - self.left) / self.width
        )
        v = self.top + (torch.arange(self.height, device=device) + 0.5) * (
            (self.bottom - self.top) / self.height
        )
        return torch.stack(torch.meshgrid(v, u, indexing="ij")[::-1], dim=-1).flatten(0, 1)

    def within(self, uv: Tensor) -> Tensor:
        """uv (..., 2) with the sheet's edges at -1 and 1, as `grid_sample` counts."""
        low, high = uv.new_tensor([self.left, self.top]), uv.new_tensor([self.right, self.bottom])
        return (uv - low) * 2 / (high - low) - 1


@torch.inference_mode()
def sheets(atlas: Atlas, scales: Sequence[float]) -> list[Sheet]:
    """One sheet a layer: the box around all that is seen of it; `scales` are uv lengths per xy length."""
    layout = atlas.layout
    low = torch.full((layout.layers, 2), torch.inf)
    high = -low
    for frame in range(layout.frames):
        weights, uvs = surveyed(atlas, frame, (layout.height, layout.width))
        for k in range(layout.layers):
            seen = uvs[k][weights[:, k] > 0.5].cpu()
            if len(seen):
                low[k], high[k] = torch.minimum(low[k], seen.amin(0)), torch.maximum(high[k], seen.amax(0))
    return [_sheet(low[k], high[k], layout.longest / (2.0 * scales[k])) for k in range(layout.layers)]


@torch.inference_mode()
def draw(atlas: Atlas, layer: int, sheet: Sheet) -> Tensor:
    """The picture of a sheet (3, h, w) uint8."""
    device = next(atlas.parameters()).device
    parts = [atlas.colour(layer, part[None])[0] for part in sheet.places(device).split(SLICE)]
    return to_uint8(torch.cat(parts).T.reshape(1, 3, sheet.height, sheet.width))[0].cpu()


def paint_of(edited: Tensor, alpha: Tensor | None, original: Tensor) -> Tensor:
    """The layer of paint (4, h, w) in a picture that a person made of a sheet, all uint8.

    With transparency the picture (3, h, w) is the layer, `alpha` (h, w) its opacity. Without, it is the sheet
    painted over: opacity 1 wherever it differs from the `original` (3, h, w). Raises ImageError where the
    sizes do not match, or nothing was painted.
    """
    if edited.shape != original.shape:
        sizes = [f"{p.shape[2]} x {p.shape[1]}" for p in (edited, original)]
        raise ImageError(
            f"The painted atlas has {sizes[0]} pixels, and the atlas {sizes[1]}.",
            "Paint on the picture that was saved with the atlas, and keep its size.",
        )
    if alpha is None:
        alpha = (edited != original).any(0).to(torch.uint8) * 255
    if not bool(alpha.any()):
        raise ImageError("Nothing is painted: the picture is equal to the atlas.", "Paint on it first.")
    return torch.cat([edited, alpha[None]]).float() / 255.0


@torch.inference_mode()
def overlay(
    atlas: Atlas, sheet_of: Sequence[Sheet], paint: Mapping[int, Tensor], frames: Tensor
) -> Iterator[Tensor]:
    """Each frame (3, H', W') uint8 with the paint of layers by number over it.

    `frames` (F, 3, H', W') uint8 may be larger than those the atlas was fitted to, of the same shape. A pixel
    that no paint reaches is the frame's own, bit for bit. Raises InputError where the video is another one.
    """
    check_frames(atlas, frames)
    device = next(atlas.parameters()).device
    covers = {k: premultiplied(layer).to(device) for k, layer in paint.items()}
    for number, frame in enumerate(frames):
        size = (frame.shape[1], frame.shape[2])
        weights, uvs = surveyed(atlas, number, size)
        total = torch.zeros(4, *size, device=device)
        for k, cover in covers.items():
            at = sheet_of[k].within(uvs[k])[None, :, None]  # (1, P, 1, 2)
            sampled = grid_sample(cover[None], at, align_corners=False)[0, :, :, 0]  # (4, P)
            total += (sampled * weights[:, k]).unflatten(1, size)
        yield _laid_over(frame, total.cpu())


def check_frames(atlas: Atlas, frames: Tensor) -> None:
    """Raises InputError where `frames` (F, 3, H', W') cannot be those that the atlas is of."""
    layout = atlas.layout
    count, _, height, width = frames.shape
    same_shape = abs(height * layout.width - width * layout.height) <= max(height, width, layout.longest)
    if count != layout.frames or not same_shape:
        theirs = f"{layout.frames} frames of the shape {layout.width} x {layout.height}"
        raise InputError(
            f"The atlas is of another video: of {theirs}, and this has {count} of {width} x {height}.",
            "Give the video that the atlas was made of.",
        )


def surveyed(atlas: Atlas, frame: int, size: tuple[int, int]) -> tuple[Tensor, list[Tensor]]:
    """Of the pixels of a frame drawn at `size`: weights (P, K) of the layers, and each layer's uv (P, 2)."""
    device = next(atlas.parameters()).device
    weights: list[Tensor] = []
    uvs: list[list[Tensor]] = [[] for _ in range(atlas.layout.layers)]
    for part in atlas.layout.pixel_centres(*size, device=device).split(SLICE):
        weights.append(seen_weights(atlas.opacity([frame], part[None])[0]))
        for k, found in enumerate(uvs):
            found.append(atlas.uv(k, [frame], part[None])[0])
    return torch.cat(weights), [torch.cat(found) for found in uvs]


def seen_weights(opacity: Tensor) -> Tensor:
    """w_k (..., K) of opacities (..., K - 1) whose haze is taken for nothing, and near 1 for 1."""
    return layer_weights(((opacity - HAZE) / (1.0 - 2.0 * HAZE)).clamp(0.0, 1.0))


def premultiplied(layer: Tensor) -> Tensor:
    """Paint (4, h, w) with colours times opacity, which may be interpolated without bleeding."""
    return torch.cat([layer[:3] * layer[3:], layer[3:]])


def _laid_over(frame: Tensor, cover: Tensor) -> Tensor:
    """(3, H, W) uint8; `cover` (4, H, W) is colours times opacity, and opacity."""
    opacity = cover[3:]
    mixed = to_uint8((frame.float() / 255.0 * (1.0 - opacity) + cover[:3])[None])[0]
    return torch.where(opacity > 0, mixed, frame.cpu())


def _sheet(low: Tensor, high: Tensor, pixels: float) -> Sheet:
    """The sheet of a box, `pixels` of a frame to a length 1 in uv; all of the atlas for an empty box."""
    if not bool(low.isfinite().all()):
        low, high = torch.tensor([-1.0, -1.0]), torch.tensor([1.0, 1.0])
    rim = RIM * float((high - low).max()) + 1.0 / pixels
    left, top = (low - rim).tolist()
    right, bottom = (high + rim).tolist()
    density = min(SHARPNESS * pixels, LARGEST / max(right - left, bottom - top))
    height, width = max(2, round((bottom - top) * density)), max(2, round((right - left) * density))
    return Sheet(left=left, top=top, right=right, bottom=bottom, height=height, width=width)
