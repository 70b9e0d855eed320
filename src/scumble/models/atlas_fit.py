"""Fitting layered neural atlases to a video (2109.11418): pre-training, then all losses at once.

Frames, flow and masks stay on the device, frames as bytes. A step looks at `points` places, as many in each
of up to `frames` frames, and nothing in it waits for the device. Step i draws from a generator of its own, so
a fit that was stopped and taken up again is the fit that never stopped.

The fast form starts from flow: each layer's flow is fitted by an affine map a pair of frames, weighted by the
layer's mask, these are chained from the middle frame, and all frames are scaled into the atlas. The paper's
start, uv = 0.8 xy in every frame, is the faithful form's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import cos, isfinite, pi
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from scumble.core import rng
from scumble.core.config import Config
from scumble.core.errors import InputError, NumericError
from scumble.core.events import Loop, Progress
from scumble.models import atlas_losses as losses
from scumble.models.atlas import Atlas, Layout, SmoothMap, layer_weights
from scumble.models.atlas_start import start_maps

__all__ = ["PRESETS", "AtlasConfig", "Fit", "Footage"]

REPORT = 25
"""Steps between two readings of the loss."""


class AtlasConfig(Config):
    """How an atlas is fitted. Weights are those of the losses, as sums of squares or pixels."""

    steps: Annotated[int, Field(ge=1)] = 500
    """Steps after pre-training."""
    points: Annotated[int, Field(ge=2)] = 12_000
    """Places looked at in a step."""
    frames: Annotated[int, Field(ge=1)] = 24
    """Frames that the places of a step are in, at most."""
    pretraining: Annotated[int, Field(ge=0)] = 0
    """Steps that only bring the mappings to their start."""
    rate: Annotated[float, Field(gt=0)] = 3e-2
    """Adam's rate for colours and opacity."""
    mapping_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Adam's rate for mappings."""
    decay: bool = True
    """Let the rates fall along a cosine to a hundredth."""
    scale: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Length in the atlas of a length 1 in a frame, at the start of the faithful form."""
    colour: Annotated[float, Field(ge=0)] = 5000.0
    """Weight of reconstruction."""
    gradient: Annotated[float, Field(ge=0)] = 1000.0
    """Weight of reconstruction of differences between neighbouring pixels."""
    rigidity: Annotated[float, Field(ge=0)] = 1.0
    """Weight of rigidity from pixel to pixel."""
    global_rigidity: tuple[float, float] = (5.0, 50.0)
    """Weights of rigidity over a long step, of foregrounds and of the background."""
    global_until: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the steps after which rigidity over a long step is left out."""
    flow: Annotated[float, Field(ge=0)] = 5.0
    """Weight of flow: what it joins is one place."""
    flow_opacity: Annotated[float, Field(ge=0)] = 49.0
    """Weight of flow: what it joins is equally opaque."""
    bootstrapping: Annotated[float, Field(ge=0)] = 500.0
    """Weight of the rough masks."""
    bootstrapping_until: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the steps after which the masks are left out."""
    sparsity: Annotated[float, Field(ge=0)] = 1000.0
    """Weight of blackness of foregrounds where they are not seen."""
    gain: Annotated[float, Field(ge=0)] = 5.0
    """Weight that keeps the fast form's gain near 1."""


PRESETS: Mapping[str, AtlasConfig] = {
    "fast": AtlasConfig(),
    # The paper's: 400,000 steps of 10,000 places at 1e-4; long steps for 5,000 and masks for 10,000 of them.
    "faithful": AtlasConfig(
        steps=400_000,
        points=10_000,
        frames=70,
        pretraining=7000,
        rate=1e-4,
        mapping_rate=1e-4,
        decay=False,
        bootstrapping=2000.0,
        bootstrapping_until=0.025,
        global_until=0.0125,
    ),
}
"""Settings to start from, by form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footage:
    """What an atlas is fitted to, all on one device."""

    frames: Tensor
    """(F, 3, H, W) uint8."""
    masks: Tensor
    """(F, K - 1, H, W) uint8: rough masks of the foregrounds, 255 inside."""
    forward: Tensor
    """(F - 1, 2, H, W) flow to the next frame, in pixels."""
    backward: Tensor
    """(F - 1, 2, H, W) flow from the next frame back."""
    trusted: tuple[Tensor, Tensor]
    """(F - 1, H, W) bool each: where the flow forward and backward can be trusted."""

    def __post_init__(self) -> None:
        count, _, height, width = self.frames.shape
        if self.masks.shape[0] != count or self.masks.shape[2:] != (height, width):
            theirs = "{0} masks of {3} x {2} pixels".format(*self.masks.shape)
            ours = f"{count} frames of {width} x {height}"
            raise InputError(f"There are {theirs} for {ours}.", "Give one mask a frame, of the frames' size.")
        if any(flow.shape != (count - 1, 2, height, width) for flow in (self.forward, self.backward)):
            raise InputError("The flow does not belong to these frames.", "Find it anew.")

    def layout(self, form: Any = "fast") -> Layout:
        """The layout of an atlas of this footage."""
        count, _, height, width = self.frames.shape
        return Layout(frames=count, height=height, width=width, foregrounds=self.masks.shape[1], form=form)


@dataclass(frozen=True, slots=True)
class _Places:
    """B frames and N pixels in each."""

    frames: list[int]
    rows: Tensor
    """(B,) the same on the device."""
    x: Tensor
    """(B, N) column."""
    y: Tensor

    @property
    def pixels(self) -> Tensor:
        """(B, N, 2) middles of the pixels."""
        return torch.stack([self.x, self.y], dim=-1) + 0.5

    def of(self, pictures: Tensor, rows: Tensor | None = None) -> Tensor:
        """(B, N, C) looked up in pictures (F, C, H, W)."""
        rows = self.rows if rows is None else rows
        return pictures[rows[:, None], :, self.y, self.x]


class Fit:
    """An atlas on its way: `run` goes on from `step`, `state` and `load_state` keep it between programs."""

    def __init__(self, footage: Footage, config: AtlasConfig, *, form: Any = "fast", seed: int = 0) -> None:
        self.footage, self.config, self.seed, self.step = footage, config, seed, 0
        self.layout = footage.layout(form)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.derive(seed, "atlas"))
            self.atlas = Atlas(self.layout).to(footage.frames.device)
        self.scales = [config.scale] * self.layout.layers
        if form == "fast":
            self._start_from_flow()
        slow = list(self.atlas.mappings.parameters())
        quick = [
            p
            for part in (self.atlas.opacities, self.atlas.colours, self.atlas.gains)
            for p in part.parameters()
        ]
        groups = [{"params": quick, "lr": config.rate}, {"params": slow, "lr": config.mapping_rate}]
        self.optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99) if form == "fast" else (0.9, 0.999))

    def run(self) -> Loop[Atlas]:
        """Fit to the end, a record a step. Raises NumericError where the loss is no number."""
        total = self.config.steps + self.config.pretraining
        shown: float | None = None
        while self.step < total:
            loss = self._pretraining_loss() if self.step < self.config.pretraining else self.loss()
            for group, rate in zip(self.optimiser.param_groups, self._rates(), strict=True):
                group["lr"] = rate
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            self.step += 1
            if self.step % REPORT == 0 or self.step == total:
                shown = loss.item()
                if not isfinite(shown):
                    raise NumericError(f"The loss is no number at step {self.step}.", "Lower the rates.")
            yield Progress(stage="fitting the atlas", step=self.step, total=total, loss=shown)
        return self.atlas

    # Keeping

    def state(self) -> dict[str, Tensor]:
        """Everything that `load_state` needs, as tensors by name."""
        tensors = {f"atlas.{name}": tensor for name, tensor in self.atlas.state_dict().items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
        return tensors | {
            "step": torch.tensor(self.step),
            "scales": torch.tensor(self.scales, dtype=torch.float64),
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on where `state` was taken."""
        of_atlas = {
            name.removeprefix("atlas."): t for name, t in tensors.items() if name.startswith("atlas.")
        }
        self.atlas.load_state_dict(of_atlas)
        whole = self.optimiser.state_dict()
        kept: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, index, value = name.split(".")
                kept.setdefault(int(index), {})[value] = tensor
        self.optimiser.load_state_dict({**whole, "state": kept})
        self.step = int(tensors["step"])
        self.scales = tensors["scales"].tolist()

    # Losses

    def loss(self) -> Tensor:
        """The sum of all losses at the places of this step."""
        return torch.stack(list(self.losses().values())).sum()

    def losses(self) -> dict[str, Tensor]:
        """Each loss times its weight, by name."""
        config, atlas, at = self.config, self.atlas, self._places()
        pixel = 2.0 / self.layout.longest
        xy = self.layout.normalised(at.pixels)
        right, below = xy + xy.new_tensor([pixel, 0.0]), xy + xy.new_tensor([0.0, pixel])
        all_three = torch.cat([xy, right, below], dim=1)  # (B, 3 N, 2), looked up at once
        opacities = atlas.opacity(at.frames, all_three).chunk(3, dim=1)
        places = [atlas.uv(k, at.frames, all_three) for k in range(self.layout.layers)]
        colours = [atlas.colour(k, uv).chunk(3, dim=1) for k, uv in enumerate(places)]
        uvs = [uv.chunk(3, dim=1) for uv in places]
        gains = [atlas.gain(k, at.frames, xy) for k in range(self.layout.layers)]
        found = [_composed(opacities[i], [c[i] for c in colours], gains) for i in range(3)]
        true, steps, inside = self._truth(at)
        parts = {
            "colour": config.colour * losses.colour(found[0], true),
            "gradient": config.gradient
            * losses.gradient(torch.stack([found[1] - found[0], found[2] - found[0]]), steps, inside),
            "sparsity": config.sparsity
            * sum(
                losses.sparsity(opacities[0][..., k], colours[k][0]) for k in range(self.layout.foregrounds)
            ),
        }
        parts |= self._shape_losses(at, xy, uvs) | self._flow_losses(at, opacities[0], uvs)
        if self._progress < config.bootstrapping_until:
            masks = at.of(self.footage.masks).float() / 255.0
            parts["bootstrapping"] = config.bootstrapping * losses.bootstrapping(opacities[0], masks)
        if atlas.gains:
            parts["gain"] = config.gain * losses.gain(torch.stack(gains).log())
        return {name: torch.as_tensor(value) for name, value in parts.items()}

    def _shape_losses(self, at: _Places, xy: Tensor, uvs: Sequence[Sequence[Tensor]]) -> dict[str, Tensor]:
        """Rigidity from pixel to pixel, and over a long step as long as that is asked for."""
        pixel = 2.0 / self.layout.longest
        long = LONG_STEP * 2.0
        local = [losses.rigidity(losses.jacobian(uvs[k], pixel, s)) for k, s in enumerate(self.scales)]
        parts = {"rigidity": self.config.rigidity * torch.stack(local).sum()}
        if self._progress < self.config.global_until:
            wide: list[Tensor] = []
            for k, scale in enumerate(self.scales):
                steps = (xy + xy.new_tensor([long, 0.0]), xy + xy.new_tensor([0.0, long]))
                ends = [self.atlas.uv(k, at.frames, places) for places in steps]
                weight = self.config.global_rigidity[k == self.layout.foregrounds]
                wide.append(weight * losses.rigidity(losses.jacobian([uvs[k][0], *ends], long, scale)))
            parts["global rigidity"] = torch.stack(wide).sum()
        return parts

    def _flow_losses(
        self, at: _Places, opacity: Tensor, uvs: Sequence[Sequence[Tensor]]
    ) -> dict[str, Tensor]:
        """What flow joins, half forward and half backward."""
        weights = layer_weights(opacity)
        joined, equal = opacity.new_zeros(()), opacity.new_zeros(())
        for offset, trusted, shift, first in (
            (self.footage.forward, self.footage.trusted[0], 1, 0),
            (self.footage.backward, self.footage.trusted[1], -1, 1),
        ):
            last = offset.shape[0] - 1
            rows = (at.rows - first).clamp(0, last)
            there = [min(max(frame + shift, 0), self.layout.frames - 1) for frame in at.frames]
            exists = torch.tensor([t != f for t, f in zip(there, at.frames, strict=True)]).to(rows.device)
            sound = (at.of(trusted[:, None], rows)[..., 0] & exists[:, None]).float()
            places = self.layout.normalised(at.pixels + at.of(offset, rows))
            for k, scale in enumerate(self.scales):
                end = self.atlas.uv(k, there, places)
                pixels = self.layout.longest / (2.0 * scale)
                joined = joined + losses.flow(uvs[k][0], end, weights[..., k], sound, pixels)
            equal = equal + losses.flow_opacity(opacity, self.atlas.opacity(there, places), sound)
        return {
            "flow": 0.5 * self.config.flow * joined,
            "flow opacity": 0.5 * self.config.flow_opacity * equal,
        }

    def _pretraining_loss(self) -> Tensor:
        at = self._places()
        xy = self.layout.normalised(at.pixels)
        parts = [losses.placing(self.atlas.uv(k, at.frames, xy), s * xy) for k, s in enumerate(self.scales)]
        return torch.stack(parts).sum()

    # Parts

    @property
    def _progress(self) -> float:
        """Share of the steps after pre-training that are done."""
        return max(0, self.step - self.config.pretraining) / self.config.steps

    def _rates(self) -> Iterator[float]:
        falling = 0.01 + 0.99 * 0.5 * (1 + cos(pi * self._progress)) if self.config.decay else 1.0
        yield self.config.rate * falling
        yield self.config.mapping_rate * falling

    def _places(self) -> _Places:
        """The frames and pixels of this step."""
        generator = rng.generator(rng.derive(self.seed, "places", self.step))
        count, _, height, width = self.footage.frames.shape
        share = min(count, self.config.frames, self.config.points)
        frames = torch.randperm(count, generator=generator)[:share]
        shape = (share, self.config.points // share)
        x = torch.randint(width, shape, generator=generator)
        y = torch.randint(height, shape, generator=generator)
        device = self.footage.frames.device
        rows, x, y = (t.to(device, non_blocking=True) for t in (frames, x, y))
        return _Places(frames.tolist(), rows, x, y)

    def _truth(self, at: _Places) -> tuple[Tensor, Tensor, Tensor]:
        """Colours (B, N, 3), steps to the next pixels (2, B, N, 3), and where there are such (2, B, N)."""
        _, _, height, width = self.footage.frames.shape
        frames, rows = self.footage.frames, at.rows[:, None]
        here = frames[rows, :, at.y, at.x].float() / 255.0
        right = frames[rows, :, at.y, (at.x + 1).clamp(max=width - 1)].float() / 255.0
        below = frames[rows, :, (at.y + 1).clamp(max=height - 1), at.x].float() / 255.0
        inside = torch.stack([at.x < width - 1, at.y < height - 1]).float()
        return here, torch.stack([right - here, below - here]), inside

    def _start_from_flow(self) -> None:
        footage = self.footage
        for k, mapping in enumerate(self.atlas.mappings):
            maps, self.scales[k] = start_maps(
                footage.forward, footage.trusted[0], _seen(footage.masks, k), self.layout
            )
            if isinstance(mapping, SmoothMap):
                mapping.get_buffer("affine").copy_(maps)


LONG_STEP = 100 / 768
"""The paper's long step, 100 pixels of 768, as a share of the longer side."""


def _seen(masks: Tensor, layer: int) -> Tensor:
    """(F, H, W) in [0, 1]: how far a layer is seen by the rough masks."""
    return layer_weights(masks.float().movedim(1, -1) / 255.0)[..., layer]


def _composed(opacity: Tensor, colours: Sequence[Tensor], gains: Sequence[Tensor]) -> Tensor:
    weights = layer_weights(opacity)
    seen = [c * g * weights[..., k, None] for k, (c, g) in enumerate(zip(colours, gains, strict=True))]
    return torch.stack(seen).sum(0)
