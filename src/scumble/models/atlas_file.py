"""Atlases in files: one `.safetensors` that describes itself.

Header: `format`, `layout`, `sheets`, `scales` and `about` (what it was made of and how), JSON each. Tensors:
`atlas.*`, the networks, and `sheet.k`, the picture of layer k as a person gets it to paint on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor

from scumble.core.errors import InputError
from scumble.core.safetensor_files import safetensors_header, save_safetensors
from scumble.models.atlas import Atlas, Layout
from scumble.models.atlas_sheets import Sheet, draw, sheets

__all__ = ["FORMAT", "SavedAtlas", "finished", "layer_names", "load_atlas", "save_atlas"]

FORMAT = "scumble video atlas 1"

MAX_SIDE, MAX_FRAMES = 2**14, 2**17
"""Of a layout that is read from a file."""


@dataclass(frozen=True, slots=True)
class SavedAtlas:
    """A fitted atlas with what belongs to it."""

    atlas: Atlas
    sheets: tuple[Sheet, ...]
    pictures: tuple[Tensor, ...]
    """(3, h, w) uint8, one a layer."""
    scales: tuple[float, ...]
    """uv lengths per xy length, one a layer."""
    about: Mapping[str, Any]
    """What it was made of and how: JSON."""

    @property
    def names(self) -> list[str]:
        """The layers, front to back."""
        return layer_names(self.atlas.layout.foregrounds)


def layer_names(foregrounds: int) -> list[str]:
    """What layers are called: foreground or foreground-1, foreground-2, ...; and background."""
    front = ["foreground"] if foregrounds == 1 else [f"foreground-{k + 1}" for k in range(foregrounds)]
    return [*front, "background"]


def finished(atlas: Atlas, scales: list[float], about: Mapping[str, Any]) -> SavedAtlas:
    """A fitted atlas with its sheets drawn."""
    found = sheets(atlas, scales)
    pictures = tuple(draw(atlas, k, sheet) for k, sheet in enumerate(found))
    return SavedAtlas(atlas.requires_grad_(False).eval(), tuple(found), pictures, tuple(scales), about)


def save_atlas(path: Path | str, saved: SavedAtlas) -> None:
    """Write an atlas, whole or not at all. Raises DiskFullError."""
    tensors = {f"atlas.{name}": tensor for name, tensor in saved.atlas.state_dict().items()}
    tensors |= {f"sheet.{k}": picture for k, picture in enumerate(saved.pictures)}
    metadata = {
        "format": FORMAT,
        "layout": json.dumps(asdict(saved.atlas.layout)),
        "sheets": json.dumps([asdict(sheet) for sheet in saved.sheets]),
        "scales": json.dumps(saved.scales),
        "about": json.dumps(saved.about),
    }
    save_safetensors(path, tensors, metadata)


def load_atlas(path: Path | str, *, device: str | torch.device = "cpu") -> SavedAtlas:
    """Read an atlas. Raises InputError, in one sentence, for a file that is no sound atlas of this format."""
    path = Path(path)
    header = cast("dict[str, str]", safetensors_header(path)["__metadata__"])
    if header.get("format") != FORMAT:
        found = f"of the format {header['format'][:40]!r}" if "format" in header else "of another kind"
        raise InputError(f"{path} is no video atlas but {found}.", "Make one with: scumble atlas VIDEO -o A.")
    try:
        layout = _bounded(Layout(**json.loads(header["layout"])))
        found = tuple(Sheet(**sheet) for sheet in json.loads(header["sheets"]))
        scales = tuple(float(scale) for scale in json.loads(header["scales"]))
        about = json.loads(header["about"])
        tensors = load_file(path)
        with torch.device("meta"):  # so that a header cannot ask for memory that the tensors do not fill
            atlas = Atlas(layout)
        networks = {n.removeprefix("atlas."): t for n, t in tensors.items() if n.startswith("atlas.")}
        atlas.load_state_dict(networks, assign=True)
        pictures = tuple(tensors[f"sheet.{k}"] for k in range(layout.layers))
        if len(found) != layout.layers or len(scales) != layout.layers:
            raise ValueError(f"it has {len(found)} sheets for {layout.layers} layers")
    except (KeyError, TypeError, ValueError, RuntimeError) as problem:
        reason = str(problem).splitlines()[0][:120]
        raise InputError(f"{path} is not a sound atlas: {reason}.", "Make it again.") from problem
    return SavedAtlas(atlas.requires_grad_(False).to(device).eval(), found, pictures, scales, about)


def _bounded(layout: Layout) -> Layout:
    """The layout as it was read, if it can be that of a video at all. Raises ValueError."""
    if max(layout.height, layout.width) > MAX_SIDE or layout.frames > MAX_FRAMES:
        raise ValueError(f"it is of {layout.frames} frames of {layout.width} x {layout.height} pixels")
    return layout
