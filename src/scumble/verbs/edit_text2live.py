"""Edit by a layer: Text2LIVE on pictures that people have, one or a folder of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import randbelow
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from pydantic import model_validator
from torch import Tensor

from scumble.core.errors import ConfigError, ImageError, InputError, PromptError
from scumble.core.events import Loop, finish
from scumble.core.images import from_uint8, to_uint8, to_unit
from scumble.history.recipe import Ingredient, Recipe
from scumble.methods import text2live
from scumble.methods.text2live.image import Canvas, edit
from scumble.methods.text2live.result import composed, finished
from scumble.methods.text2live.texts import Texts, filled_in
from scumble.methods.text2live.views import GREEN
from scumble.models.clip import Clip
from scumble.sampling import estimate
from scumble.sampling.estimate import Estimate
from scumble.verbs.edits import lossy_notes
from scumble.verbs.inputs import Given, Source, picture_files, planned_file, same_named
from scumble.verbs.outputs import Picture, Saved, check_free, save_pictures
from scumble.verbs.vision import VisionConfig

__all__ = [
    "PARTS",
    "Edited",
    "Job",
    "Text2liveConfig",
    "Work",
    "again",
    "edit_text2live",
    "edit_to",
    "estimate_edit",
    "image_of",
    "layered",
    "notes_before",
    "one_after_another",
    "paint",
    "prepare",
]

PARTS = ("layer", "opacity", "green")
"""What is written beside the picture: the layer with its transparency, its opacity alone, it over green."""
FOUND = 0.5
"""Below this, `Canvas.found` means that there is nothing of the region in a picture."""
COMMAND = "edit text2live"


class Text2liveConfig(VisionConfig, text2live.Config):
    """What `scumble edit text2live` can be told."""

    preset: str = "auto"
    """Settings to start from: fast, paper, toybox; auto is toybox with the toybox's CLIP, else fast."""
    prompt: str
    """What the result shows."""
    earlier: tuple[str, ...] = ()
    """Prompts that the same generator learns first, so that it goes on instead of starting anew."""
    screen: str | None = None
    """What the layer alone shows; none takes it from the prompt."""
    region: str | None = None
    """What is edited, as it is in the picture; none takes it from the prompt."""

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, values: dict[str, Any]) -> dict[str, Any]:
        given = values.get("preset", "auto")
        name = cls._preset_for(given, values.get("clip", "toybox"))
        if given not in ("auto", "fast", "paper", "toybox") or name not in text2live.PRESETS:
            raise ConfigError(f"There is no preset {given!r}.", "Choose one of auto, fast, paper, toybox.")
        return text2live.PRESETS[name].model_dump(exclude_defaults=True) | values

    @classmethod
    def _preset_for(cls, given: str, clip: str) -> str:
        """The name of the preset that is meant."""
        return given if given != "auto" else "toybox" if clip == "toybox" else "fast"

    def method(self) -> text2live.Config:
        """The method's part."""
        return text2live.Config.of({name: getattr(self, name) for name in text2live.Config.model_fields})

    def seeded(self) -> Self:
        """The same with a seed, drawn if there is none."""
        return self if self.seed is not None else self.replace(seed=randbelow(2**32))

    @property
    def texts(self) -> Texts:
        """The texts of the edit, all filled in. Raises PromptError."""
        return filled_in(self.prompt, self.screen, self.region)


@dataclass(frozen=True, slots=True)
class Work:
    """A picture with what belongs to it."""

    pixels: Tensor
    """(3, H, W) uint8."""
    mask: Tensor | None
    """(1, 1, H, W) in [0, 1]."""
    ingredients: tuple[Ingredient, ...]


@dataclass(frozen=True, slots=True)
class Edited:
    """What one prompt came to; the layer laid over the input is the result, to the bit."""

    result: Picture
    layer: Picture
    """RGBA."""
    opacity: Picture
    green: Picture

    @property
    def image(self) -> Image.Image:
        """The picture, edited."""
        return self.result.image

    @property
    def all(self) -> list[Picture]:
        """The picture and its `PARTS`, in their order."""
        return [self.result, self.layer, self.opacity, self.green]


def prepare(image: Given, mask: Given | None = None) -> Work:
    """Read a picture, transparent ones laid over white, and a mask of its size. Raises ImageError."""
    sources = {"image": Source.of(image)}
    pixels = to_uint8(to_unit(sources["image"].picture.on((255, 255, 255))))[0]
    bounds = None
    if mask is not None:
        sources["mask"] = Source.of(mask)
        bounds = to_unit(sources["mask"].picture.on((0, 0, 0)).convert("L"))[:, :1]
        if bounds.shape[-2:] != pixels.shape[-2:]:
            theirs, ours = (f"{p.shape[-1]} x {p.shape[-2]}" for p in (bounds, pixels))
            raise ImageError(f"The mask has {theirs} pixels and the picture {ours}.", "Make them one size.")
        if not bool(bounds.any()):
            raise ImageError("The mask is black everywhere.", "Paint white what may change.")
    return Work(pixels, bounds, tuple(source.ingredient(role) for role, source in sources.items()))


def edit_text2live(
    image: Given, prompt: str | Sequence[str], *, mask: Given | None = None, **settings: Any
) -> list[Edited]:
    """Edit `image` by a layer, for one prompt or several; settings are those of `Text2liveConfig`.

    >>> [edited] = scumble.edit_text2live("cat.png", "a golden cat", seed=7)
    >>> edited.image.save("golden.png"); edited.layer.image.save("gold.png")
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise PromptError("There is no prompt.", "Say what the result shows.")
    configs = one_after_another(Text2liveConfig.of({**settings, "prompt": prompts[0]}), prompts[1:])
    clip, known = configs[0].load_clip()
    return finish(paint(configs, clip, known, prepare(image, mask)))


def paint(
    configs: Sequence[Text2liveConfig], clip: Clip, known: Ingredient, work: Work, *, preview_every: int = 0
) -> Loop[list[Edited]]:
    """Edit one picture for the prompt of each of `configs`, which agree in all but prompts, in turn."""
    config = configs[0]
    assert config.seed is not None
    picture = from_uint8(work.pixels)[None]
    canvas = Canvas(clip, picture, config.method(), seed=config.seed, mask=work.mask)
    done: list[Edited] = []
    for earlier in config.earlier:
        yield from edit(canvas, filled_in(earlier))
    for config in configs:
        layer = yield from edit(canvas, config.texts, preview_every=preview_every)
        whole = finished(layer, canvas.picture, work.pixels, config.haze, work.mask)
        done.append(layered(whole, work.pixels, _recipe(config, clip, known, work)))
    return done


def layered(layer: Tensor, pixels: Tensor, recipe: Recipe) -> Edited:
    """A layer (4, H, W) uint8 with the picture that it makes of `pixels` (3, H, W) uint8, and its parts."""
    green = (torch.tensor(GREEN) * 255).round().to(torch.uint8)[:, None, None]
    pictures = {
        "": composed(layer, pixels),
        "layer": layer,
        "opacity": layer[3:].expand(3, -1, -1),
        "green": composed(layer, green),
    }
    made = [
        Picture(image_of(part), recipe.model_copy(update={"output": name}) if name else recipe)
        for name, part in pictures.items()
    ]
    return Edited(*made)


def image_of(pixels: Tensor) -> Image.Image:
    """A picture (3 or 4, H, W) uint8, RGB or RGBA."""
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


def notes_before(configs: Sequence[Text2liveConfig], clip: Clip, work: Work, name: str) -> Iterator[str]:
    """What a person should know before the time is spent: prompts with nothing to find in the picture."""
    if work.mask is not None:
        return
    config = configs[0]
    canvas = Canvas(clip, from_uint8(work.pixels)[None], config.method(), seed=config.seed or 0)
    for config in configs:
        if canvas.found(config.texts) < FOUND:
            yield (
                f"CLIP finds nothing in {name} that is {config.texts.region!r}, and the edit may land "
                "anywhere: say what is edited with --region, or show it with --mask."
            )


@dataclass(frozen=True, slots=True)
class Job:
    """Edits of pictures from files, with everything read and loaded that takes no time."""

    configs: Sequence[Text2liveConfig]
    clip: Clip
    known: Ingredient
    files: Sequence[Path]
    mask: Path | None
    places: Sequence[Sequence[Path]]
    """For each file, where the results go: for each prompt the picture and its parts."""

    @classmethod
    def of(
        cls,
        config: Text2liveConfig,
        image: Path,
        out: Path,
        *,
        then: Sequence[str] = (),
        mask: Path | None = None,
        overwrite: bool = False,
    ) -> Job:
        """Check all that can be checked before the work; `then` are further prompts. Raises InputError."""
        configs = one_after_another(config, then)
        files = picture_files(image)
        for file in files:
            prepare(file, same_named(mask, file))  # and let go of again
        places = [
            _paths(out, file, len(configs), in_folder=image.is_dir(), overwrite=overwrite) for file in files
        ]
        clip, known = configs[0].load_clip()
        return cls(configs, clip, known, files, mask, places)

    def work(self, file: Path) -> Work:
        """The picture `file` with its mask."""
        return prepare(file, same_named(self.mask, file))

    @property
    def notes(self) -> list[str]:
        """What a person should know before the time is spent."""
        found = (notes_before(self.configs, self.clip, self.work(f), f.name) for f in self.files)
        return [note for notes in found for note in notes] + lossy_notes(self.places)


def edit_to(job: Job, *, with_recipe: bool = True, preview_every: int = 0) -> Loop[Saved]:
    """Do a job and write the results."""
    rows: list[dict[str, str | int]] = []
    for file, paths in zip(job.files, job.places, strict=True):
        done = yield from paint(job.configs, job.clip, job.known, job.work(file), preview_every=preview_every)
        pictures = [picture for edited in done for picture in edited.all]
        rows += save_pictures(pictures, paths, with_recipe=with_recipe, edited=True)
    return Saved(rows)


def again(config: Text2liveConfig, _: object, files: Mapping[str, Path]) -> Loop[list[Picture]]:
    """Edit as a recipe says; see `scumble.verbs.redo`."""
    clip, known = config.load_clip()
    work = prepare(files["image"], files.get("mask"))
    [edited] = yield from paint([config], clip, known, work)
    return edited.all


def estimate_edit(config: Text2liveConfig, image: Path) -> Estimate:
    """What an edit will need, by tracing one look of the generator and of CLIP without running it."""
    clip, _ = config.load_clip()
    side, whole = clip.preparation.size, bool(config.structure)
    looks = config.views * (1 + bool(config.green)) + whole  # at the result, there and back
    before = config.views * bool(config.direction) + whole  # at the input, there only
    seen = estimate.trace(partial(clip.image_features, torch.zeros(looks, 3, side, side)))
    passes = 3 + before / looks
    costs: list[estimate.Cost] = []
    for file in picture_files(image):
        canvas = Canvas(clip, from_uint8(prepare(file).pixels)[None], config.method(), seed=0)
        made = estimate.trace(partial(canvas.network, torch.zeros_like(canvas.picture)))
        costs.append(
            estimate.Cost(int(passes * seen.flops) + 3 * made.flops, 3 * (seen.peak_bytes + made.peak_bytes))
        )
    steps = config.steps * (1 + len(config.earlier))
    flops = steps * sum(cost.flops for cost in costs)
    return Estimate(
        seconds=estimate.seconds(flops, clip.device, torch.float32),
        memory_bytes=estimate.parameter_bytes(clip.network) + max(cost.peak_bytes for cost in costs),
        settings=config.model_dump(mode="json", exclude_none=True),
    )


def one_after_another(config: Text2liveConfig, then: Sequence[str]) -> list[Text2liveConfig]:
    """Settings for the prompt of `config` and for each of `then`, those before standing as `earlier`, with
    one seed. Raises InputError for several prompts with the texts of one."""
    if then and (config.screen or config.region):
        raise InputError(
            "--screen and --region belong to one prompt.", "Give one prompt, or neither of them."
        )
    configs = [config.seeded()]
    for prompt in then:
        last = configs[-1]
        configs.append(last.replace(prompt=prompt, earlier=(*last.earlier, last.prompt)))
    for each in configs:
        filled_in(each.prompt)
    return configs


def _paths(out: Path, file: Path, prompts: int, *, in_folder: bool, overwrite: bool) -> list[Path]:
    """For each prompt the picture and its parts. Raises InputError where one is there already."""
    place = planned_file(out, file, in_folder=in_folder, overwrite=True)
    paths: list[Path] = []
    for number in range(1, prompts + 1):
        stem = place.stem if prompts == 1 else f"{place.stem}-{number}"
        lossless = ".webp" if place.suffix.lower() == ".webp" else ".png"
        paths += [place.with_name(f"{stem}{place.suffix}")]
        paths += [place.with_name(f"{stem}-{part}{lossless}") for part in PARTS]
    check_free(paths, overwrite=overwrite)
    return paths


def _recipe(config: Text2liveConfig, clip: Clip, known: Ingredient, work: Work) -> Recipe:
    elsewhere = {"seed", "preset", *VisionConfig.model_fields}
    texts = config.texts
    settings = config.model_dump(mode="json", exclude=elsewhere, exclude_none=True)
    return Recipe(
        command=COMMAND,
        settings=settings | {"screen": texts.screen, "region": texts.region},
        seed=config.seed or 0,
        model=known,
        ingredients=work.ingredients,
        machine=config.machine(clip),
    )
