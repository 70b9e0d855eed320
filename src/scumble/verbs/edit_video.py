"""Edit a video through its atlas: by Text2LIVE, by a painted atlas, or by any other edit of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from scumble.core.errors import InputError
from scumble.core.events import Loop, finish
from scumble.core.files import sha256
from scumble.core.images import read_mask, to_uint8, to_unit
from scumble.data.video import Video, check_output, read_video, resize_frames, write_video
from scumble.history.recipe import Ingredient, Recipe, library_versions
from scumble.history.store import Made, remember
from scumble.methods.text2live.texts import filled_in
from scumble.methods.text2live.video import VideoCanvas, edit
from scumble.models.atlas_file import SavedAtlas, load_atlas
from scumble.models.atlas_sheets import check_frames, overlay, paint_of
from scumble.verbs.edit_text2live import Text2liveConfig, Work, image_of, notes_before
from scumble.verbs.inputs import Source
from scumble.verbs.load import chosen_device
from scumble.verbs.outputs import Picture, Saved, check_free, written
from scumble.verbs.vision import VisionConfig

__all__ = ["VideoEditConfig", "VideoJob", "edit_video", "edit_video_to", "filmed", "layer_of"]

Edit = Callable[[Image.Image], Image.Image]


class VideoEditConfig(Text2liveConfig):
    """What `scumble edit text2live` can be told of a video."""

    prompt: str = ""
    """What the result shows; none with a painted atlas."""
    layer: str = "foreground"
    """Which layer of the atlas is edited: background, foreground, or foreground-2 of several."""

    @classmethod
    def _preset_for(cls, given: str, clip: str) -> str:
        name = super()._preset_for(given, clip)
        return "video" if name == "fast" else f"{name}-video"


@dataclass(frozen=True, slots=True)
class VideoJob:
    """An edit of a video, with everything read and checked."""

    config: VideoEditConfig
    video: Video
    saved: SavedAtlas
    layer: int
    out: Path | None
    """None where only the layer is asked for."""
    mask: Tensor | None = None
    paint: Tensor | None = None
    """(4, H, W) in [0, 1], where a painted atlas was given."""
    ingredients: tuple[Ingredient, ...] = ()
    notes: list[str] = field(default_factory=list[str])

    @classmethod
    def of(
        cls,
        config: VideoEditConfig,
        video: Path,
        out: Path | None,
        *,
        atlas: Path | None,
        mask: Path | None = None,
        painted: Path | Image.Image | None = None,
        by: Edit | None = None,
        overwrite: bool = False,
    ) -> VideoJob:
        """Check all that can be checked before the work. Raises InputError, ImageError."""
        if atlas is None:
            make = f"scumble atlas {quote(str(video))} -o A"
            raise InputError(f"{video} needs an atlas.", f"Make one first: {make}.")
        if out is not None:
            check_free([out, _beside(out)], overwrite=overwrite)
        if sum((bool(config.prompt), painted is not None, by is not None)) != 1:
            raise InputError("A video is edited by a prompt or by a painted atlas.", "Give one of them.")
        if config.earlier:
            raise InputError("A video takes one prompt at a time.", "Leave out the setting earlier.")
        if config.prompt:
            filled_in(config.prompt)
        saved = load_atlas(atlas, device=chosen_device(config.device))
        if config.layer not in saved.names:
            raise InputError(
                f"The atlas has no layer {config.layer!r}.", f"Layers: {', '.join(saved.names)}."
            )
        number = saved.names.index(config.layer)
        read = read_video(video, first=int(saved.about.get("first", 0)), count=saved.atlas.layout.frames)
        check_frames(saved.atlas, read.frames)
        if out is not None:
            check_output(out, read)
        found = sha256(video)
        notes = [read.note] if read.note else []
        if saved.about.get("sha256") not in (None, found):
            notes.append(f"The atlas was made of another file than {video}; its frames fit all the same.")
        ingredients = [Ingredient.of("video", video, found), Ingredient.of("atlas", atlas, sha256(atlas))]
        bounds = None
        if mask is not None:
            bounds = _mask(mask, saved.pictures[number])
            ingredients.append(Ingredient.of("mask", mask, sha256(mask)))
        paint = None
        given = painted if by is None else by(image_of(saved.pictures[number]))
        if given is not None:
            source = Source.of(given)
            paint = _paint(source, saved.pictures[number])
            ingredients.append(source.ingredient("painted"))
        if config.prompt:
            clip, _ = config.load_clip()
            sheet = Work(saved.pictures[number], bounds, ())
            notes += notes_before([config], clip, sheet, f"the {config.layer} of {atlas}")
        return cls(config.seeded(), read, saved, number, out, bounds, paint, tuple(ingredients), notes)


def edit_video(
    video: Path | str,
    out: Path | str,
    *,
    atlas: Path | str,
    prompt: str = "",
    painted: Path | str | Image.Image | None = None,
    by: Edit | None = None,
    mask: Path | str | None = None,
    **settings: Any,
) -> Path:
    """Edit one layer of a video, and write the video to `out`; settings are those of `VideoEditConfig`.

    By a `prompt`, by Text2LIVE; by `painted`, the layer's picture with something painted on it; or by any
    edit of pictures, a function that is given that picture:

    >>> scumble.edit_video("dog.mp4", "golden.mp4", atlas="dog.atlas", prompt="a golden dog")
    >>> def sketched(sheet): return scumble.edit_sdedit(sheet, prompt="a pencil sketch")[0].image
    >>> scumble.edit_video("dog.mp4", "sketch.mp4", atlas="dog.atlas", by=sketched, layer="background")
    """
    config = VideoEditConfig.of({**settings, "prompt": prompt})
    given = Path(painted) if isinstance(painted, str) else painted
    job = VideoJob.of(
        config, Path(video), Path(out), atlas=Path(atlas), painted=given, by=by,
        mask=None if mask is None else Path(mask),
    )  # fmt: skip
    finish(edit_video_to(job))
    return Path(out)


def edit_video_to(job: VideoJob, *, with_recipe: bool = True, preview_every: int = 0) -> Loop[Saved]:
    """Do the job: learn the layer where there is a prompt, lay it over every frame, write the video.

    Beside the video goes `stem-layer.png`, the layer of the atlas that made it, which can be painted on and
    given again.
    """
    made = yield from filmed(job, with_recipe=with_recipe, preview_every=preview_every)
    if with_recipe:
        remember(made)
    return Saved([one.row for one in made], " ".join(job.notes))


def filmed(job: VideoJob, *, with_recipe: bool = True, preview_every: int = 0) -> Loop[list[Made]]:
    """The same, but the history is not told: what it shall remember, the video first."""
    assert job.out is not None
    paint, layer = yield from _layer(job, preview_every)
    recipe = layer.recipe.model_copy(update={"output": None})
    frames = overlay(job.saved.atlas, job.saved.sheets, {job.layer: paint}, job.video.frames)
    metadata = {"scumble": recipe.to_json()} if with_recipe else {}
    first: list[Tensor] = []
    path = yield from write_video(job.out, job.video, _noted(frames, first), metadata=metadata)
    beside = written([layer], [_beside(path)], with_recipe=with_recipe, edited=True)
    return [Made(path, sha256(path), recipe, image_of(first[0])), *beside]


def layer_of(job: VideoJob) -> Loop[Picture]:
    """The layer alone, as `edit_video_to` writes it beside the video."""
    _, layer = yield from _layer(job, 0)
    return layer


def _layer(job: VideoJob, preview_every: int) -> Loop[tuple[Tensor, Picture]]:
    """(4, H, W) in [0, 1], learnt where there is a prompt, and the same as a picture."""
    paint, known = job.paint, None
    if paint is None:
        clip, known = job.config.load_clip()
        working = min(job.saved.atlas.layout.height, job.saved.atlas.layout.width)
        frames = resize_frames(job.video.frames, working)
        assert job.config.seed is not None
        canvas = VideoCanvas(
            clip, job.saved, job.layer, frames, job.config.method(), seed=job.config.seed, mask=job.mask
        )
        learnt = yield from edit(canvas, job.config.texts, preview_every=preview_every)
        paint = learnt.float() / 255
    recipe = _recipe(job, known).model_copy(update={"output": "layer"})
    return paint, Picture(image_of(to_uint8(paint[None])[0]), recipe)


def _beside(video: Path) -> Path:
    """Where the layer goes that made `video`."""
    return video.with_name(f"{video.stem}-layer.png")


def _noted(frames: Iterable[Tensor], first: list[Tensor]) -> Iterator[Tensor]:
    """The same frames; the first goes into `first` too."""
    for frame in frames:
        if not first:
            first.append(frame)
        yield frame


def _paint(source: Source, original: Tensor) -> Tensor:
    """(4, H, W) in [0, 1] of a painted sheet. Raises ImageError where it is not of the sheet's size."""
    edited = to_uint8(to_unit(source.picture.image))[0]
    alpha = source.picture.alpha
    return paint_of(edited, None if alpha is None else to_uint8(to_unit(alpha))[0, 0], original)


def _mask(mask: Path, sheet: Tensor) -> Tensor:
    found = read_mask(mask)
    if found.shape[2:] != sheet.shape[1:]:
        theirs, ours = (f"{p.shape[-1]} x {p.shape[-2]}" for p in (found, sheet))
        raise InputError(
            f"The mask has {theirs} pixels, and the atlas's picture {ours}.",
            "Paint it on the picture that was saved with the atlas.",
        )
    if not bool(found.any()):
        raise InputError(f"The mask {mask} is black everywhere.", "Paint white what may change.")
    return found


def _recipe(job: VideoJob, known: Ingredient | None) -> Recipe:
    elsewhere = {"seed", "preset", *VisionConfig.model_fields}
    settings: dict[str, Any] = {"layer": job.config.layer}
    if known is not None:
        texts = job.config.texts
        settings = job.config.model_dump(mode="json", exclude=elsewhere, exclude_none=True)
        settings |= {"screen": texts.screen, "region": texts.region}
    return Recipe(
        command="edit text2live",
        settings=settings,
        seed=job.config.seed or 0,
        model=known,
        ingredients=job.ingredients,
        machine=library_versions(chosen_device(job.config.device), torch.get_num_threads()),
    )
