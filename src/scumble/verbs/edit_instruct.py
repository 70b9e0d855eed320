"""Edit by instruction: InstructPix2Pix on pictures that people have, one or a folder of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from scumble.core.errors import ConfigError
from scumble.core.events import Loop, Progress, finish
from scumble.core.images import from_unit, to_unit
from scumble.diffusion.samplers import SAMPLERS
from scumble.history.recipe import Ingredient, Recipe
from scumble.methods import instruct_pix2pix
from scumble.methods.instruct_pix2pix import Request
from scumble.models import toybox
from scumble.models.clip import Clip, load_clip
from scumble.models.model import Model
from scumble.sampling import estimate
from scumble.sampling.estimate import Cost, Estimate
from scumble.sampling.image_to_image import padded_size
from scumble.verbs.drawing import SeriesConfig, finished, recipe_of
from scumble.verbs.edits import edited_paths, first_notes, grey, withheld_notes
from scumble.verbs.inputs import Given, Source, picture_files, same_named
from scumble.verbs.load import weights_notes
from scumble.verbs.outputs import Picture, Saved, save_pictures
from scumble.verbs.sheet import labelled

__all__ = [
    "CLIP",
    "InstructConfig",
    "Work",
    "again",
    "clip_for",
    "edit_instruct",
    "edit_to",
    "estimate_edit",
    "follow",
    "prepare",
]

CLIP = "openai/clip-vit-large-patch14"
"""The CLIP that judges edits of all models but the toybox, which has its own: the paper's."""
SWEEP_IMAGE = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2)
"""Image scales of a sweep: those of the paper's figure 8."""
SWEEP_TEXT = (0.5, 0.75, 1.0, 1.5)
"""Its text scales, as shares of the one that is set."""

Instruction = Annotated[str, Field(max_length=10_000)]


class InstructConfig(SeriesConfig, instruct_pix2pix.Config):
    """What `scumble edit instruct` can be told."""

    model: str = "toybox-instruct"
    """toybox-instruct, or an InstructPix2Pix model: a diffusers folder, a single file, a hub id."""
    preset: str = "fast"
    """Settings to start from: fast, or the paper's, paper."""
    instructions: Annotated[tuple[Instruction, ...], Field(min_length=1, max_length=100)]
    """What to do, one after the other, each to what came of the last."""
    search: Literal["none", "auto", "sweep"] = "none"
    """auto looks for the two scales; sweep draws a sheet over both."""
    before: str = ""
    """For auto, what the picture shows, as a caption; the search is surer with both."""
    after: str = ""
    """For auto, what it should show then."""
    clip: str | None = None
    """The CLIP that judges in auto: a folder or a hub id; none takes the one that fits the model."""

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, values: dict[str, Any]) -> dict[str, Any]:
        name, presets = values.get("preset", "fast"), instruct_pix2pix.PRESETS
        if name not in presets:
            raise ConfigError(f"There is no preset {name!r}.", f"Choose one of {', '.join(presets)}.")
        return presets[name].model_dump(exclude_defaults=True) | values

    @model_validator(mode="after")
    def _check_search(self) -> InstructConfig:
        if self.search != "none" and len(self.instructions) > 1:
            raise ConfigError(
                f"{self.search} looks at one instruction, and there are {len(self.instructions)}.",
                "Do them one after the other.",
            )
        if bool(self.before) != bool(self.after):
            raise ConfigError("One of the captions before and after is missing.", "Give both, or neither.")
        if self.search != "auto" and (self.before or self.clip):
            raise ConfigError("Captions and a CLIP are for the search alone.", "Give --auto too.")
        return self

    def method(self) -> instruct_pix2pix.Config:
        """The method's part."""
        names = instruct_pix2pix.Config.model_fields
        return instruct_pix2pix.Config.of({name: getattr(self, name) for name in names})


@dataclass(frozen=True, slots=True)
class Work:
    """One picture with what belongs to it, ready to be edited."""

    picture: Tensor
    """(1, 3, H, W) in [0, 1]."""
    mask: Tensor | None
    """(1, 1, H, W)."""
    ingredients: tuple[Ingredient, ...]

    def request(self, instruction: str, picture: Tensor | None = None) -> Request:
        """To do `instruction`, to another `picture` if one is given."""
        shown = self.picture if picture is None else picture
        return Request(picture=shown, instruction=instruction, mask=self.mask)


def prepare(image: Given, mask: Given | None, config: InstructConfig) -> Work:
    """Read a picture, laid on white where it is transparent, and a mask of its size; raises ImageError and
    PromptError, in one sentence, for what cannot be done to it.
    """
    sources = {"image": Source.of(image)} | ({} if mask is None else {"mask": Source.of(mask)})
    picture = to_unit(sources["image"].picture.on((255, 255, 255)))
    omega = grey(sources["mask"]) if "mask" in sources else None
    work = Work(picture, omega, tuple(source.ingredient(role) for role, source in sources.items()))
    for instruction in config.instructions:
        work.request(instruction)
    return work


def edit_instruct(
    image: Given, *instructions: str, mask: Given | None = None, **settings: Any
) -> list[Picture]:
    """Do the `instructions` to `image`, one after the other; settings are those of `InstructConfig`.

    >>> [picture] = scumble.edit_instruct("cat.png", "make it night", seed=7)
    >>> picture.image.save("night.png")
    """
    config = InstructConfig.of({"instructions": instructions, **settings}).seeded()
    work = prepare(image, mask, config)
    return finish(follow(config, config.load(), work))


def follow(
    config: InstructConfig, model: Model, work: Work, *, preview_every: int = 0
) -> Loop[list[Picture]]:
    """Do the instructions to `work` as a loop; returns `count` pictures with their recipes.

    With `search` sweep it is one picture, the sheet over both scales, with the first seed.
    """
    instruct_pix2pix.refuse_other_models(model)
    with config.attached(model) as learnt:
        whole = Work(work.picture, work.mask, work.ingredients + learnt)
        if config.search == "sweep":
            return [(yield from _swept(config, model, whole))]
        if config.search == "auto":
            config = yield from _searched(config, model, whole)
        return (yield from _followed(config, model, whole, preview_every))


def _followed(config: InstructConfig, model: Model, work: Work, preview_every: int) -> Loop[list[Picture]]:
    seeds, method = config.seeds, config.method()
    results = [work.picture] * config.count
    for instruction in config.instructions:
        drawn = yield from instruct_pix2pix.edit(
            model,
            [work.request(instruction, picture) for picture in results],
            seeds,
            method,
            batch_size=config.batch,
            preview_every=preview_every,
        )
        # In 8 bits, as a file has it: a chain is the same as one command after the other.
        results = [to_unit(image) for image in from_unit(torch.stack(drawn))]
    return [
        finished(model, pixels[0], _recipe(config, model, work.ingredients, seed))
        for pixels, seed in zip(results, seeds, strict=True)
    ]


def _searched(config: InstructConfig, model: Model, work: Work) -> Loop[InstructConfig]:
    """The settings with the scales that were found, for the first seed."""
    told = (config.before, config.after) if config.before else None
    request = work.request(config.instructions[0])
    clip = clip_for(config.clip, config.model, model)
    image, text = yield from instruct_pix2pix.find_scales(
        model, request, config.seeds[0], config.method(), clip, told=told
    )
    return config.replace(search="none", before="", after="", clip=None, image_scale=image, text_scale=text)


def _swept(config: InstructConfig, model: Model, work: Work) -> Loop[Picture]:
    """One sheet: image scales from left to right, text scales from top to bottom, one noise for all."""
    request, seed = work.request(config.instructions[0]), config.seeds[0]
    _, text = instruct_pix2pix.scales(model, config.method())
    rows, total = list[list[Picture]](), len(SWEEP_TEXT) * len(SWEEP_IMAGE)
    recipe = _recipe(config, model, work.ingredients, seed)
    for text_scale in (share * text for share in SWEEP_TEXT):
        rows.append([])
        for image_scale in SWEEP_IMAGE:
            tried = config.method().replace(image_scale=image_scale, text_scale=text_scale)
            [pixels] = finish(instruct_pix2pix.edit(model, [request], [seed], tried))
            rows[-1].append(finished(model, pixels, recipe))
            yield Progress(stage="sweeping", step=sum(map(len, rows)), total=total)
    sheet = labelled(
        [[picture.image for picture in row] for row in rows],
        columns=[f"image {scale:g}" for scale in SWEEP_IMAGE],
        rows=[f"text {share * text:g}" for share in SWEEP_TEXT],
    )
    return Picture(sheet, recipe, any(picture.withheld for row in rows for picture in row))


def clip_for(name: str | None, model_name: str, model: Model) -> Clip:
    """The CLIP `name`, or the one that fits the model: the toybox's own for its kin, else the paper's."""
    kin = model_name.startswith("toybox") and not Path(model_name).exists()
    return load_clip(name or (toybox.clip() if kin else CLIP), device=str(model.device))


def _recipe(config: InstructConfig, model: Model, ingredients: tuple[Ingredient, ...], seed: int) -> Recipe:
    """The recipe of one picture, with both scales and the chain in it."""
    image, text = instruct_pix2pix.scales(model, config.method())
    settled = {"image_scale": image, "text_scale": text}
    return recipe_of("edit instruct", config, model, ingredients, seed, settled=settled)


def again(config: InstructConfig, model: Model, inputs: Mapping[str, Path]) -> Loop[list[Picture]]:
    """Edit as a recipe says; see `scumble.verbs.redo`."""
    work = prepare(inputs["image"], inputs.get("mask"), config)
    return (yield from follow(config, model, work))


def edit_to(
    config: InstructConfig,
    image: Path,
    out: Path,
    *,
    mask: Path | None = None,
    overwrite: bool = False,
    with_recipe: bool = True,
    preview_every: int = 0,
) -> Loop[Saved]:
    """Edit the picture `image`, or each one in that folder, and write the results to `out`.

    `mask` is one picture for all, or a folder with pictures of the same names. Everything is read, and every
    name checked, before the work.
    """
    config = config.seeded()
    images = picture_files(image)

    def work_of(file: Path) -> Work:
        return prepare(file, same_named(mask, file), config)

    kept = [work.mask is not None and bool((work.mask < 1).any()) for work in map(work_of, images)]
    if config.search == "sweep":
        config = config.replace(count=1)
    plan = partial(edited_paths, config, out, in_folder=image.is_dir(), overwrite=overwrite)
    places = [plan(file) for file in images]
    model = config.load()
    notes = first_notes(model, kept, places)
    notes += weights_notes(config.weights, [*config.instructions, config.negative])
    files: list[dict[str, str | int]] = []
    for file, paths in zip(images, places, strict=True):
        pictures = yield from follow(config, model, work_of(file), preview_every=preview_every)
        files += save_pictures(pictures, paths, with_recipe=with_recipe, edited=True)
        notes += _notes(config, file, pictures)
    return Saved(files, " ".join(notes))


def _notes(config: InstructConfig, file: Path, pictures: Sequence[Picture]) -> Iterator[str]:
    """What a person should know of the `pictures` made of one file."""
    if config.search == "auto":
        found = pictures[0].recipe.settings
        yield (
            f"For {file.name} the image scale {found['image_scale']:g} and the text scale "
            f"{found['text_scale']:g} were found."
        )
    yield from withheld_notes(file, pictures)


def estimate_edit(config: InstructConfig, image: Path, *, mask: Path | None = None) -> Estimate:
    """What `edit_to` will need, by tracing one step for each size of picture without running it."""
    config = config.seeded()
    images = picture_files(image)
    model = config.load()
    instruct_pix2pix.refuse_other_models(model)
    costs = [_cost(config, model, prepare(file, same_named(mask, file), config)) for file in images]
    settings = _recipe(config, model, (), config.seeds[0]).settings
    return estimate.needs([model], costs, {**settings, "seed": config.seeds[0], "count": config.count})


def _cost(config: InstructConfig, model: Model, work: Work) -> Cost:
    """Of encoding, every step and decoding, for all results of one picture."""
    image, text = instruct_pix2pix.scales(model, config.method())
    rows = sum(weight != 0 for weight in (1 - image, image - text, text))
    batch = min(config.batch, config.count)
    size = padded_size(model, (work.picture.shape[-2], work.picture.shape[-1]))
    shape, time = model.latent_shape(*size), torch.zeros((), device=model.device)
    channels, condition = shape[0] + model.condition_channels, model.prompt([config.instructions[0]])

    def call() -> None:
        x = torch.zeros(batch * rows, channels, *shape[1:], device=model.device)
        model.predict(x, time, condition)

    step = estimate.trace(call)
    encoding = estimate.trace(lambda: model.encode(torch.zeros(1, 3, *size, device=model.device)))
    decoding = estimate.trace(lambda: model.decode(torch.zeros(1, *shape, device=model.device)))
    calls = SAMPLERS[config.sampler].calls(config.steps) * -(-config.count // batch)
    edits = {"none": 1, "auto": 3, "sweep": len(SWEEP_IMAGE) * len(SWEEP_TEXT)}[config.search]
    return Cost(
        flops=(step.flops * calls + (encoding.flops + decoding.flops) * config.count)
        * edits
        * len(config.instructions),
        peak_bytes=max(step.peak_bytes, encoding.peak_bytes, decoding.peak_bytes),
    )
