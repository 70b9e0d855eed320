"""Layered neural atlases: a video as a few flat pictures, and where each pixel of each frame lies in them.

Kasten, Ofri, Wang, Dekel 2021, "Layered Neural Atlases for Consistent Video Editing" (2109.11418), section
3. A mapping network M_k takes a place in the video to a place in the atlas of layer k, a colour network gives
the atlas its colours, an opacity network says which layer is seen:

    c(p) = sum_k w_k(p) C_k(M_k(p)),   w_1 = a_1,   w_2 = (1 - a_1) a_2,   ...,   w_K = prod_k (1 - a_k)

Letters: F frames of H x W pixels, K layers of which the last is the background, B frames looked at together,
N places in each. Places in a frame are xy = (2 x - W, 2 y - H) / L with L = max(H, W) and x, y in pixels from
the upper left corner, so that the longer side is [-1, 1]; places in an atlas are uv in [-1, 1].

Two forms. *Faithful* has the paper's MLPs. *Fast* has sums of grids for colour and opacity, and for a mapping
an affine map a frame plus a coarse bicubic grid, which is smooth by construction; it also has a gain, smooth
in place, by which a layer is brighter in one frame than on average (light and shadow; after the residuals
of Chan et al. 2023, "Hashing Neural Videos Decomposition").

Where we differ from the paper. Several foregrounds lie over one another in order. The faithful form has one
set of mapping and opacity networks for each 70 frames, over one common atlas, so that any number of frames
can be taken. Colours and opacity end in a sigmoid, which is a tanh brought to [0, 1]. Places are counted from
the frame's middle, and slopes reach a mapping through the skips of the colour network too, which the paper's
code cuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import pi
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from scumble.core.errors import InputError

__all__ = [
    "CHUNK",
    "FORMS",
    "MAX_LAYERS",
    "Atlas",
    "Form",
    "Layout",
    "Mlp",
    "Pyramid",
    "SmoothMap",
    "layer_weights",
]

Form = Literal["fast", "faithful"]
FORMS: tuple[Form, ...] = ("fast", "faithful")

CHUNK = 70
"""Frames that one set of the faithful form's mapping and opacity networks holds; the paper's limit."""
MAX_LAYERS = 4
"""Quarters of the square that the faithful form's one colour network divides among the layers."""
MAX_CELLS = 2**24
"""Cells of the finest opacity grid over all frames; longer or larger videos get a coarser one."""

FARTHEST = 8.0
"""Places beyond count as there: far outside of every grid."""
GAIN_CELL = 16
"""Pixels to a cell of the gain's grid, at least."""

SQUARES = ((0.5, 0.5), (-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5))
"""Middle of each layer's square of side 1 in the shared atlas; the first two are the paper's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What an atlas is of."""

    frames: int
    height: int
    width: int
    foregrounds: int = 1
    form: Form = "fast"

    def __post_init__(self) -> None:
        if self.frames < 2 or min(self.height, self.width) < 2:
            size = f"{self.frames} frames of {self.width} x {self.height} pixels"
            raise InputError(f"An atlas of {size} cannot be made.", "Give two frames or more.")
        if not 1 <= self.foregrounds < MAX_LAYERS:
            raise InputError(f"{self.foregrounds} foregrounds cannot be told apart.", "Give one to three.")
        if self.form not in FORMS:
            raise InputError(f"There is no form {self.form!r} of an atlas.", f"Forms: {', '.join(FORMS)}.")

    @property
    def layers(self) -> int:
        """K: the foregrounds and the background."""
        return self.foregrounds + 1

    @property
    def longest(self) -> int:
        """L, in pixels."""
        return max(self.height, self.width)

    def normalised(self, pixels: Tensor) -> Tensor:
        """xy (..., 2) of positions in pixels (..., 2); the middle of the first pixel is (0.5, 0.5)."""
        return (2.0 * pixels - pixels.new_tensor([self.width, self.height])) / self.longest

    def pixel_centres(self, height: int, width: int, device: str | torch.device = "cpu") -> Tensor:
        """xy (height * width, 2) of the pixels of a frame drawn at that size, row by row."""
        y, x = torch.meshgrid(
            (torch.arange(height, device=device) + 0.5) * (self.height / height),
            (torch.arange(width, device=device) + 0.5) * (self.width / width),
            indexing="ij",
        )
        return self.normalised(torch.stack([x, y], dim=-1).flatten(0, 1))


class Mlp(nn.Module):
    """`layers` linear layers with ReLU between, on a place or its sines and cosines.

    `frequencies` K > 0 gives sin and cos of 2^k pi x for k < K (Mildenhall et al. 2020, equation 4). The
    input is fed again to the layers in `skips`, counted from 1.
    """

    def __init__(
        self, inputs: int, outputs: int, *, layers: int, width: int = 256, frequencies: int = 0,
        skips: Sequence[int] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        first = inputs * 2 * frequencies if frequencies else inputs
        sizes = [first] + [width] * (layers - 1) + [outputs]
        self.frequencies, self.skips = frequencies, frozenset(skips)
        self.linear = nn.ModuleList(
            nn.Linear(a + (first if i in self.skips else 0), b) for i, (a, b) in enumerate(pairwise(sizes), 1)
        )

    def forward(self, places: Tensor) -> Tensor:
        """(..., outputs) for places (..., inputs)."""
        x = given = self._encoded(places) if self.frequencies else places
        for i, layer in enumerate(self.linear, 1):
            x = layer(torch.cat([x, given], dim=-1) if i in self.skips else x)
            x = x.relu() if i < len(self.linear) else x
        return x

    def _encoded(self, places: Tensor) -> Tensor:
        octaves = pi * 2.0 ** torch.arange(self.frequencies, device=places.device)
        angles = (places[..., None] * octaves).flatten(-2)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Pyramid(nn.Module):
    """A sum of grids, each of F pictures of C channels over [-1, 1]^2, finer and finer.

    Coarse grids learn what is smooth in few steps, fine ones add detail. Beyond the edge the edge goes on.
    With `centred` pictures are what they differ by from the mean of all.
    """

    def __init__(
        self,
        pictures: int,
        channels: int,
        sizes: Sequence[tuple[int, int]],
        mode: str = "bilinear",
        *,
        centred: bool = False,
    ) -> None:
        super().__init__()
        self.mode, self.centred = mode, centred
        self.levels = nn.ParameterList(torch.zeros(pictures, channels, *size) for size in sizes)

    def forward(self, places: Tensor, rows: Tensor | None = None) -> Tensor:
        """(B, N, C) at `places` (B, N, 2) in the pictures number `rows` (B,), or in all of them in order."""
        # A fit that runs away asks for places that are no numbers, and grid_sample would read beyond memory.
        at = places.nan_to_num().clamp(-FARTHEST, FARTHEST)[:, :, None]  # (B, N, 1, 2)
        total = places.new_zeros(())
        for level in self.levels:
            picture = level if rows is None else level[rows]
            picture = picture - level.mean(0) if self.centred else picture
            total = total + grid_sample(
                picture, at, mode=self.mode, padding_mode="border", align_corners=True
            )
        return total[..., 0].transpose(1, 2)  # (B, C, N, 1) -> (B, N, C)


class SmoothMap(nn.Module):
    """The fast form's mapping: uv = A_t xy + b_t + d_t(xy), d_t a sum of coarse bicubic grids."""

    def __init__(self, frames: int, extent: tuple[float, float], cells: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("affine", torch.tensor([[0.8, 0, 0], [0, 0.8, 0]]).repeat(frames, 1, 1))
        self.register_buffer("extent", torch.tensor(extent))
        self.offsets = Pyramid(frames, 2, [(n, n) for n in cells], mode="bicubic")

    def forward(self, places: Tensor, rows: Tensor) -> Tensor:
        """uv (B, N, 2) of xy (B, N, 2) in the frames `rows` (B,)."""
        affine = self.get_buffer("affine")[rows]  # (B, 2, 3)
        linear = places @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2]
        return linear + self.offsets(places / self.get_buffer("extent"), rows)


class Atlas(nn.Module):
    """The networks of one video. Frames are named by their numbers, places by xy as above."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        fast = layout.form == "fast"
        self.chunks = 1 if fast else -(-layout.frames // CHUNK)
        self.mappings = nn.ModuleList(
            self._fast_mapping() if fast else self._chunked_mapping(layer) for layer in range(layout.layers)
        )
        self.opacities = nn.ModuleList(
            self._fast_opacity() if fast else self._chunked_opacity() for _ in range(layout.foregrounds)
        )
        colours = [self._fast_colours() for _ in range(layout.layers)]
        shared = [Mlp(2, 3, layers=8, frequencies=10, skips=(4, 7))]
        self.colours = nn.ModuleList(colours if fast else shared)
        self.gains = nn.ModuleList(self._gain() for _ in range(layout.layers if fast else 0))

    # What a place is

    def uv(self, layer: int, frames: Sequence[int], places: Tensor) -> Tensor:
        """Where xy (B, N, 2) of the frames (B numbers) lie in the atlas of `layer`: (B, N, 2)."""
        mapping = self.mappings[layer]
        if isinstance(mapping, SmoothMap):
            return mapping(places, self._rows(frames, places))
        return self._by_chunk(mapping, frames, places).tanh()

    def opacity(self, frames: Sequence[int], places: Tensor) -> Tensor:
        """a_k of each foreground (B, N, K - 1), within [0.001, 0.991] as in the paper."""
        found: list[Tensor] = []
        for network in self.opacities:
            if isinstance(network, Pyramid):
                extent = places.new_tensor([self.layout.width, self.layout.height]) / self.layout.longest
                found.append(network(places / extent, self._rows(frames, places)))
            else:
                found.append(self._by_chunk(network, frames, places))
        return 0.99 * torch.cat(found, dim=-1).sigmoid() + 0.001

    def colour(self, layer: int, uv: Tensor) -> Tensor:
        """The atlas of `layer` at uv (B, N, 2): (B, N, 3) in [0, 1]."""
        if self.layout.form == "faithful":
            return self.colours[0](0.5 * uv + uv.new_tensor(SQUARES[self._square(layer)])).sigmoid()
        flat = uv.flatten(0, 1)[None]
        return self.colours[layer](flat)[0].unflatten(0, uv.shape[:2]).sigmoid()

    def gain(self, layer: int, frames: Sequence[int], places: Tensor) -> Tensor:
        """By how much the layer is brighter here than its atlas is (B, N, 1); 1 in the faithful form."""
        if not self.gains:
            return torch.ones_like(places[..., :1])
        extent = places.new_tensor([self.layout.width, self.layout.height]) / self.layout.longest
        return self.gains[layer](places / extent, self._rows(frames, places)).exp()

    def reconstruct(self, frames: Sequence[int], places: Tensor) -> Tensor:
        """The video's own colours (B, N, 3), put together from the layers."""
        weights = layer_weights(self.opacity(frames, places))
        total = places.new_zeros(())
        for layer in range(self.layout.layers):
            seen = self.colour(layer, self.uv(layer, frames, places)) * self.gain(layer, frames, places)
            total = total + weights[..., layer, None] * seen
        return total

    # Parts

    def _rows(self, frames: Sequence[int], places: Tensor) -> Tensor:
        return torch.tensor(frames).to(places.device, non_blocking=True)

    def _square(self, layer: int) -> int:
        """The background's square is the second, whatever the number of foregrounds: the paper's place."""
        return 1 if layer == self.layout.foregrounds else (0, 2, 3)[layer]

    def _by_chunk(self, networks: nn.Module, frames: Sequence[int], places: Tensor) -> Tensor:
        """(B, N, C): each frame through the network of its chunk, whose time is [-1, 1)."""
        parts: list[Tensor] = []
        order: list[int] = []
        for chunk in sorted({frame // CHUNK for frame in frames}):
            rows = [row for row, frame in enumerate(frames) if frame // CHUNK == chunk]
            length = min(CHUNK, self.layout.frames - chunk * CHUNK)
            times = [2.0 * (frames[row] - chunk * CHUNK) / length - 1.0 for row in rows]
            time = torch.tensor(times).to(places.device, non_blocking=True)
            inside = places if len(rows) == len(frames) else places[rows]
            place = torch.cat([inside, time[:, None, None].expand(-1, places.shape[1], 1)], dim=-1)
            parts.append(networks.get_submodule(str(chunk))(place))
            order += rows
        if len(parts) == 1:
            return parts[0]
        back = sorted(range(len(order)), key=order.__getitem__)
        return torch.cat(parts)[back]

    def _chunked_mapping(self, layer: int) -> nn.ModuleList:
        layers = 4 if layer == self.layout.foregrounds else 6
        return nn.ModuleList(Mlp(3, 2, layers=layers) for _ in range(self.chunks))

    def _chunked_opacity(self) -> nn.ModuleList:
        return nn.ModuleList(Mlp(3, 1, layers=8, frequencies=5) for _ in range(self.chunks))

    def _gain(self) -> Pyramid:
        """The logarithm of a gain. What is the same in all frames is the atlas's, and cells are large, so
        that no texture is taken for light."""
        finest = min(12, max(2, min(self.layout.height, self.layout.width) // GAIN_CELL))
        sizes = [(n, n) for n in sorted({min(4, finest), finest})]
        return Pyramid(self.layout.frames, 1, sizes, "bicubic", centred=True)

    def _fast_mapping(self) -> SmoothMap:
        long = self.layout.longest
        extent = (self.layout.width / long, self.layout.height / long)
        return SmoothMap(self.layout.frames, extent, cells=(3, 6, 12))

    def _fast_opacity(self) -> Pyramid:
        height, width, count = self.layout.height, self.layout.width, self.layout.frames
        while height * width * count > MAX_CELLS:
            height, width = -(-height // 2), -(-width // 2)
        sizes = [(max(2, height >> k), max(2, width >> k)) for k in (5, 4, 3, 2, 1, 0)]
        return Pyramid(count, 1, sizes)

    def _fast_colours(self) -> Pyramid:
        finest = min(4096, round(self.layout.longest * 1.5))
        return Pyramid(1, 3, [(finest >> k, finest >> k) for k in (4, 3, 2, 1, 0)])


def layer_weights(opacity: Tensor) -> Tensor:
    """w_k (..., K) from a_k (..., K - 1): each layer through what lies over it; together they are 1."""
    left = torch.cat([torch.ones_like(opacity[..., :1]), (1.0 - opacity).cumprod(dim=-1)], dim=-1)
    return left * torch.cat([opacity, torch.ones_like(opacity[..., :1])], dim=-1)
