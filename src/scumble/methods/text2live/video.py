"""The loop of Text2LIVE for a video (2204.02491, section 4): the generator edits the atlas of one layer, CLIP
looks at what that makes of frames.

Letters: F frames of h x w pixels; the sheet, the picture of the layer's atlas, has its own size.

Where we differ from the paper's code. Results are laid over the frames themselves while learning too, not
over the atlas's rendering of them, so that what CLIP sees is what a person gets. What the layer in front
hides is hidden from the green screen as well.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from scumble.core import rng
from scumble.core.errors import InputError
from scumble.core.events import Loop
from scumble.core.images import from_uint8
from scumble.methods.text2live import losses
from scumble.methods.text2live.config import Config
from scumble.methods.text2live.image import Bank, Critic, sparsity, wanted_region
from scumble.methods.text2live.result import finished
from scumble.methods.text2live.texts import Texts
from scumble.methods.text2live.views import GREEN, draw_jitter, over, uniforms
from scumble.models.atlas_file import SavedAtlas
from scumble.models.atlas_sheets import SHARPNESS, premultiplied, surveyed
from scumble.models.clip import Clip
from scumble.models.edit_layer import SMALLEST, drawn
from scumble.training.settle import settle

__all__ = ["Box", "VideoCanvas", "edit"]

SHOWN = 0.5
"""Weight from which on a pixel belongs to the layer, for the box that is cropped. The paper's 0.95 wants
opacity as decided as its 400,000 steps make it."""
BORDER = 30 / 432
"""By which that box is larger on every side, as a share of the frame's shorter one: the paper's 30 of 432."""


class Box(NamedTuple):
    """A part of a picture: from the row `top` to before `bottom`, the column `left` to before `right`."""

    top: int
    left: int
    bottom: int
    right: int

    def of(self, pictures: Tensor) -> Tensor:
        """The part of pictures (..., H, W)."""
        return pictures[..., self.top : self.bottom, self.left : self.right]


class VideoCanvas:
    """One layer of a video's atlas with its generator. `frames` (F, 3, h, w) uint8 are the video's, at the
    size that it is looked at; a person's `mask` (1, 1, H, W) in [0, 1] is of the sheet."""

    def __init__(
        self,
        clip: Clip,
        saved: SavedAtlas,
        layer: int,
        frames: Tensor,
        config: Config,
        *,
        seed: int,
        mask: Tensor | None = None,
    ) -> None:
        self.clip, self.config, self.seed = clip, config, seed
        self.picture = saved.pictures[layer]  # (3, H, W) uint8
        self.frames = frames.to(clip.device)
        self.sheet = self._worked(from_uint8(self.picture)[None].to(clip.device))
        size = (self.sheet.shape[-2], self.sheet.shape[-1])
        self.mask = None if mask is None else interpolate(mask.to(clip.device), size, mode="area")
        self.network = drawn(size, seed, channels=config.channels, skip_channels=config.skip_channels).to(
            clip.device
        )
        self.at, self.weights = self._survey(saved, layer)
        seen = self.weights.flatten(1).amax(1) >= SHOWN
        if not bool(seen.any()):
            raise InputError("That layer of the atlas is seen in no frame.", "Edit another with --layer.")
        self.seen = [int(frame) for frame in seen.nonzero()[:, 0]]
        self.boxes = {frame: self._around(frame) for frame in self.seen}

    def layer(self) -> Tensor:
        """(1, 4, h, w) in [0, 1]: the layer of the whole sheet as it is worked at now."""
        with torch.no_grad():
            return self._bounded(self.network(self.sheet), self.mask)

    def paint(self) -> Tensor:
        """(4, H, W) uint8: the layer of the sheet at its own size."""
        mask = None if self.mask is None else interpolate(self.mask, self.picture.shape[1:], mode="bilinear")
        return finished(self.layer(), self.sheet, self.picture, self.config.haze, mask)

    def losses(
        self, critic: Critic, region: Tensor | None, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Each loss times its weight: of three frames, of one of them without the atlas, and now and then of
        the whole sheet."""
        config = critic.config
        middle = self.seen[int(torch.randint(len(self.seen), (1,), generator=generator))]
        apart = config.frame_distance
        three = [min(max(middle + k * apart, 0), len(self.frames) - 1) for k in (-1, 0, 1)]
        box = self._crop(middle, generator)
        part = self._part(three, box)
        layer = self._bounded(
            self.network(part.of(self.sheet)), None if self.mask is None else part.of(self.mask)
        )
        judged: list[dict[str, Tensor]] = []
        covers = self._rendered(layer, part, three, box)  # (3, 4, h', w')
        for frame, cover in zip(three, covers[:, None], strict=True):
            source = from_uint8(box.of(self.frames[frame]))[None]
            judged.append(self._judged(critic, cover, source, generator))
        one = three[int(torch.randint(3, (1,), generator=generator))]
        alone = draw_jitter(generator, 1, config.jitter)(from_uint8(box.of(self.frames[one]))[None])
        judged.append(self._judged(critic, premultiplied(self.network(alone)[0])[None], alone, generator))
        if step % config.full_every == 0:
            whole = self._bounded(self.network(self.sheet), self.mask)
            judged.append(self._judged(critic, premultiplied(whole[0])[None], self.sheet, generator))
        parts = {name: torch.stack([each[name] for each in judged]).mean() for name in judged[0]}
        parts["sparsity"] = sparsity(layer[:, 3:], config)
        if region is not None:
            share = losses.bootstrapping_share(
                step, config.bootstrapping_until * config.steps, config.bootstrapping_fall
            )
            found = losses.bootstrapping(layer[:, 3:], part.of(region))
            parts["bootstrapping"] = share * config.bootstrapping * found
        return parts

    def region(self, texts: Texts) -> Tensor:
        """(1, 1, h, w): relevancy of the sheet to the region, or the person's mask."""
        if self.mask is not None:
            return self.mask
        return wanted_region(self.clip, self.sheet, texts, self.config)

    # Parts

    def _judged(
        self, critic: Critic, cover: Tensor, source: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The losses of a cover (1, 4, h, w), colours times opacity, over its source."""
        green = source.new_tensor(GREEN)[:, None, None]
        clear = 1 - cover[:, 3:]
        return critic(cover[:, :3] + clear * source, cover[:, :3] + clear * green, source, generator)

    def _around(self, frame: int) -> Box:
        """The box around the layer in a frame, with its border."""
        height, width = self.weights.shape[1:]
        rows, columns = (self.weights[frame] >= SHOWN).nonzero().unbind(1)
        border = round(BORDER * min(height, width))
        least = max(SMALLEST, 2 ** len(self.network.downs) + 1)
        top, bottom = _widened(int(rows.min()) - border, int(rows.max()) + 1 + border, least, height)
        left, right = _widened(int(columns.min()) - border, int(columns.max()) + 1 + border, least, width)
        return Box(top, left, bottom, right)

    def _crop(self, frame: int, generator: torch.Generator) -> Box:
        """A crop of at least `cover` of the sides of the box around the layer in a frame."""
        top, left, bottom, right = self.boxes[frame]
        least = max(SMALLEST, 2 ** len(self.network.downs) + 1)
        share, y, x = uniforms(generator, 3)
        share = self.config.cover + (1 - self.config.cover) * share
        h, w = (min(length, max(least, round(length * share))) for length in (bottom - top, right - left))
        top, left = top + round(y * (bottom - top - h)), left + round(x * (right - left - w))
        return Box(top, left, top + h, left + w)

    def _part(self, frames: list[int], box: Box) -> Box:
        """The part of the sheet that the crops of these frames show."""
        size = self.sheet.shape[-2:]
        at = self.at[frames, box.top : box.bottom, box.left : box.right].flatten(0, 2)  # (P, 2)
        seen = self.weights[frames, box.top : box.bottom, box.left : box.right].flatten() > 0
        seen = (seen | ~seen.any())[:, None]  # where nothing shows, all of it
        low = at.masked_fill(~seen, torch.inf).amin(0)
        high = at.masked_fill(~seen, -torch.inf).amax(0)
        bounds = [[float(v) for v in row] for row in torch.stack([low, high], 1).cpu()]  # read at once
        least = 2 ** len(self.network.downs) + 1
        sides: list[tuple[int, int]] = []
        for axis, length in ((1, size[0]), (0, size[1])):
            low, high = ((v + 1) / 2 * length for v in bounds[axis])
            sides.append(_widened(int(low) - 1, int(high) + 2, least, length))
        return Box(sides[0][0], sides[1][0], sides[0][1], sides[1][1])

    def _rendered(self, layer: Tensor, part: Box, frames: list[int], box: Box) -> Tensor:
        """The cover (3, 4, h, w) that a layer of a part of the sheet makes over crops of frames."""
        height, width = self.sheet.shape[-2:]
        at = self.at[frames, box.top : box.bottom, box.left : box.right]
        pixels = (at + 1) / 2 * at.new_tensor([width, height])  # of the sheet
        size = at.new_tensor([part.right - part.left, part.bottom - part.top])
        inside = (pixels - at.new_tensor([part.left, part.top])) / size * 2 - 1
        cover = premultiplied(layer[0])[None].expand(len(frames), -1, -1, -1)
        found = grid_sample(cover, inside, padding_mode="border", align_corners=False)
        return found * self.weights[frames, box.top : box.bottom, box.left : box.right][:, None]

    def _bounded(self, layer: Tensor, mask: Tensor | None) -> Tensor:
        return layer if mask is None else torch.cat([layer[:, :3], layer[:, 3:] * mask], dim=1)

    def _worked(self, sheet: Tensor) -> Tensor:
        """The sheet at about the sharpness of frames, its shorter side at most the config's `size`."""
        height, width = sheet.shape[-2:]
        factor = min(1 / SHARPNESS, self.config.size / min(height, width))
        size = max(SMALLEST, round(height * factor)), max(SMALLEST, round(width * factor))
        return interpolate(sheet, size, mode="bilinear", antialias=True, align_corners=False)

    @torch.no_grad()
    def _survey(self, saved: SavedAtlas, layer: int) -> tuple[Tensor, Tensor]:
        """Where in the sheet each pixel of each frame lies (F, h, w, 2), and how far it shows (F, h, w)."""
        size = (self.frames.shape[2], self.frames.shape[3])
        at: list[Tensor] = []
        shown: list[Tensor] = []
        for number in range(len(self.frames)):
            weights, uvs = surveyed(saved.atlas, number, size)
            at.append(saved.sheets[layer].within(uvs[layer]).view(*size, 2))
            shown.append(weights[:, layer].reshape(size))
        device = self.frames.device
        return torch.stack(at).to(device), torch.stack(shown).to(device)


def edit(canvas: VideoCanvas, texts: Texts, *, preview_every: int = 0) -> Loop[Tensor]:
    """Learn a layer for the sheet: (4, H, W) uint8, of the sheet's own size. A record a step."""
    config = canvas.config.of_texts(texts)
    critic = Critic(canvas.clip, Bank.of(canvas.clip, texts, config), config)
    wanted = config.bootstrapping > 0 and config.bootstrapping_until > 0
    region = canvas.region(texts) if wanted else None

    def loss(step: int) -> dict[str, Tensor]:
        generator = rng.generator(rng.derive(canvas.seed, "text2live video", step))
        return canvas.losses(critic, region, step, generator)

    def preview() -> Tensor:
        return over(canvas.layer(), canvas.sheet)

    yield from settle(
        canvas.network,
        loss,
        config,
        stage="painting",
        least=config.at_least,
        passing="bootstrapping",
        preview=preview,
        preview_every=preview_every,
    )
    return canvas.paint()


def _widened(low: int, high: int, least: int, length: int) -> tuple[int, int]:
    """[low, high) within [0, length), made at least `least` long where there is room."""
    low, high = max(0, low), min(length, high)
    missing = max(0, least - (high - low))
    low = max(0, low - missing // 2)
    high = min(length, max(high, low + least))
    return max(0, min(low, high - least)), high
