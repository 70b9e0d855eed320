"""Make the atlas of a video: read it, find its flow and what moves in front, fit, and save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from secrets import randbelow
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from scumble.core.errors import InputError
from scumble.core.events import Loop, Progress, finish
from scumble.core.files import sha256
from scumble.core.images import save_image
from scumble.core.version import VERSION
from scumble.data.flow import Flow, find_flow, read_flow
from scumble.data.foreground import Box, carried_masks, check_box, fitted, grabcut, read_masks
from scumble.data.video import Video, read_video, resize_frames
from scumble.models.atlas import Atlas
from scumble.models.atlas_file import SavedAtlas, finished, layer_names, save_atlas
from scumble.models.atlas_fit import PRESETS, AtlasConfig, Fit, Footage
from scumble.verbs.edit_text2live import image_of
from scumble.verbs.lineage import remember_atlas
from scumble.verbs.load import chosen_device
from scumble.verbs.outputs import check_free

__all__ = ["AtlasVideoConfig", "AtlasWork", "atlas", "atlas_to", "faithfulness", "make_atlas", "read_footage"]


class AtlasVideoConfig(AtlasConfig):
    """What `scumble atlas` can be told."""

    form: Literal["fast", "faithful"] = "fast"
    """fast learns grids, in minutes; faithful is the paper's networks and settings, for an accelerator."""
    size: Annotated[int, Field(ge=16, le=4096)] = 432
    """Shorter side at which the video is looked at, in pixels; a smaller one keeps its own."""
    first: Annotated[int, Field(ge=0)] = 0
    """Number of the first frame taken."""
    count: Annotated[int, Field(ge=2)] | None = None
    """Frames taken at most; none takes all."""
    refine: bool = True
    """Decide the rim of a carried mask anew in each frame, by colour."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    """Of all chance in the fit; none draws one."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps; auto takes an accelerator if there is one."""

    @model_validator(mode="before")
    @classmethod
    def _from_form(cls, values: dict[str, Any]) -> dict[str, Any]:
        preset = PRESETS.get(values.get("form", "fast"), AtlasConfig())
        return preset.model_dump(exclude_defaults=True) | values

    def seeded(self) -> Self:
        """The same with a seed, drawn if there is none."""
        return self if self.seed is not None else self.replace(seed=randbelow(2**32))

    def method(self) -> AtlasConfig:
        """The fit's part."""
        return AtlasConfig.of({name: getattr(self, name) for name in AtlasConfig.model_fields})


@dataclass(frozen=True, slots=True)
class AtlasWork:
    """A video with all that an atlas is fitted to."""

    video: Video
    footage: Footage
    about: Mapping[str, Any]


def atlas(
    video: Path | str,
    out: Path | str,
    *,
    masks: Sequence[Path | str] = (),
    box: Box | None = None,
    flow: Path | str | None = None,
    **settings: Any,
) -> Path:
    """Make the atlas of a video; settings are those of `AtlasVideoConfig`.

    Each of `masks` is a foreground, the nearest first: a picture for the first frame, or a folder with one a
    frame. Or `box`, left, top, right, bottom in pixels of the first frame, around the only one.

    >>> scumble.atlas("dog.mp4", "dog.atlas", box=(40, 30, 200, 180), seed=7)
    """
    config = AtlasVideoConfig.of(settings).seeded()
    finish(atlas_to(config, Path(video), Path(out), masks=[Path(m) for m in masks], box=box, flow=flow))
    return Path(out)


def atlas_to(
    config: AtlasVideoConfig,
    video: Path,
    out: Path,
    *,
    masks: Sequence[Path] = (),
    box: Box | None = None,
    flow: Path | str | None = None,
    overwrite: bool = False,
) -> Loop[dict[str, Any]]:
    """Make an atlas and write it to `out`, and the picture of each layer beside it, to be painted on.

    Returns what the command prints: the files, the reconstruction's PSNR in dB, notes. Raises InputError.
    """
    config = config.seeded()
    names = layer_names(len(masks) or 1)
    sheets = [out.with_name(f"{out.stem}-{name}.png") for name in names]
    check_free([out, *sheets], overwrite=overwrite)
    work = yield from read_footage(config, video, masks=masks, box=box, flow=flow)
    made = yield from make_atlas(config, work)
    save_atlas(out, made)
    pictures = {
        path: (name, image_of(sheet)) for path, name, sheet in zip(sheets, names, made.pictures, strict=True)
    }
    for path, (_, picture) in pictures.items():
        save_image(picture, path)
    assert config.seed is not None
    settings = config.model_dump(mode="json", exclude={"seed", "device"}, exclude_none=True)
    told = settings if box is None else settings | {"box": list(box)}
    remember_atlas(out, video, masks, told, config.seed, pictures, chosen_device(config.device))
    notes = [work.video.note] if work.video.note else []
    return {
        "atlas": str(out),
        "sheets": [str(path) for path in sheets],
        "psnr": made.about["psnr"],
        "seed": config.seed,
        "notes": notes,
    }


def read_footage(
    config: AtlasVideoConfig,
    video: Path,
    *,
    masks: Sequence[Path] = (),
    box: Box | None = None,
    flow: Path | str | None = None,
) -> Loop[AtlasWork]:
    """A video at the working size with its flow and masks. Raises InputError, ImageError."""
    if bool(masks) == (box is not None):
        raise InputError(
            "An atlas needs to know what moves in front, in one way."
            if not masks
            else "Masks and a box are two.",
            "Give --mask, one or several, or --box left,top,right,bottom.",
        )
    read = read_video(video, first=config.first, count=config.count)
    frames = resize_frames(read.frames, config.size)
    size = (frames.shape[2], frames.shape[3])
    given = [read_masks(mask, len(frames), read.size) for mask in masks]  # before flow takes its time
    if box is not None:
        check_box(box, read.size)  # in the pixels that a person gave it in
        given = [grabcut(frames[0], _scaled(box, read.size, size))]
    both = (yield from find_flow(frames)) if flow is None else read_flow(flow, len(frames), size)
    whole = [_in_all_frames(config, frames, fitted(mask, size), both) for mask in given]
    device = chosen_device(config.device)
    footage = Footage(
        frames=frames.to(device),
        masks=(torch.cat(whole, dim=1) * 255).round().to(torch.uint8).to(device),
        forward=both.forward.to(device),
        backward=both.backward.to(device),
        trusted=(both.trusted[0].to(device), both.trusted[1].to(device)),
    )
    about = {"video": read.name, "sha256": sha256(video), "first": config.first, "scumble": VERSION}
    return AtlasWork(read, footage, about | {"settings": config.model_dump(mode="json", exclude_none=True)})


def make_atlas(config: AtlasVideoConfig, work: AtlasWork) -> Loop[SavedAtlas]:
    """Fit the atlas and draw its sheets."""
    assert config.seed is not None
    fit = Fit(work.footage, config.method(), form=config.form, seed=config.seed)
    fitted_atlas = yield from fit.run()
    found = faithfulness(fitted_atlas, work.footage.frames)
    yield Progress(stage="measuring", step=1, total=1)
    return finished(fitted_atlas, fit.scales, {**work.about, "psnr": round(found, 2)})


@torch.inference_mode()
def faithfulness(fitted_atlas: Atlas, frames: Tensor) -> float:
    """PSNR in dB of the video that the atlas gives back, to `frames` (F, 3, h, w) uint8, over all pixels."""
    height, width = frames.shape[2:]
    places = fitted_atlas.layout.pixel_centres(height, width, frames.device)
    total = 0.0
    for number, frame in enumerate(frames):
        colours = torch.cat(
            [fitted_atlas.reconstruct([number], part[None])[0] for part in places.split(2**16)]
        )
        true = frame.flatten(1).T.float() / 255
        total += float((colours - true).square().mean())
    return -10 * log10(max(total / len(frames), 1e-10))


def _in_all_frames(config: AtlasVideoConfig, frames: Tensor, mask: Tensor, flow: Flow) -> Tensor:
    """(F, 1, h, w): a mask of every frame as it is, one of the first frame carried along."""
    return mask if len(mask) == len(frames) else carried_masks(frames, mask, flow, refine=config.refine)


def _scaled(box: Box, size: tuple[int, int], working: tuple[int, int]) -> Box:
    """A box in pixels of a frame of `size` (H, W), in those of the `working` one."""
    y, x = (new / old for new, old in zip(working, size, strict=True))
    left, top, right, bottom = box
    left, top = min(round(left * x), working[1] - 1), min(round(top * y), working[0] - 1)
    return left, top, max(left + 1, round(right * x)), max(top + 1, round(bottom * y))
