"""Pictures made larger by an upscaler, one or a folder of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from scumble.core.events import Loop, finish
from scumble.core.images import check_size, to_unit
from scumble.models.model import Model
from scumble.sampling import estimate
from scumble.sampling.estimate import Estimate
from scumble.sampling.guided import default_guidance
from scumble.sampling.memory import in_batches
from scumble.sampling.upscaling import Enlarging, enlarge, upscaling
from scumble.verbs.drawing import DrawConfig, finished, recipe_of
from scumble.verbs.edits import edited_paths, first_notes, withheld_notes
from scumble.verbs.enlarging import STEPS, Learnt, cost, learnt_attached
from scumble.verbs.inputs import Given, Source, picture_files
from scumble.verbs.load import weights_notes
from scumble.verbs.outputs import Picture, Saved, save_pictures

__all__ = ["UpscaleConfig", "again", "estimate_upscale", "upscale", "upscale_to"]


class UpscaleConfig(DrawConfig):
    """What `scumble upscale` can be told."""

    model: str = "toybox-upscaler"
    """toybox-upscaler, or the folder or single file of an upscaler."""
    prompt: str = ""
    """What the picture shows, for upscalers that read."""
    noise_level: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Noise on the small picture: 0 keeps most of it, more leaves more to invent; none takes the upscaler's
    own, or the one that the weights were tuned with."""
    steps: Annotated[int, Field(ge=1, le=1000)] = STEPS
    """Denoising steps."""
    tile: Annotated[int, Field(ge=16, le=16384)] | None = None
    """Side, in pixels of the result, of the windows that large pictures are done in; none takes one and a
    half times the model's own size."""
    overlap: Annotated[int, Field(ge=0, le=8192)] | None = None
    """Pixels of the result that windows share; none takes a quarter of a window."""

    def load(self) -> Model:
        """Load the upscaler. Raises InputError for another kind of model."""
        model = super().load()
        upscaling(model)
        return model

    def settled(self, model: Model, learnt: Learnt) -> UpscaleConfig:
        """The same with the defaults of `model` and of what was learnt filled in."""
        tuned = upscaling(model).usual if learnt.noise_level is None else learnt.noise_level
        return self.replace(
            noise_level=tuned if self.noise_level is None else self.noise_level,
            guidance=default_guidance(model) if self.guidance is None else self.guidance,
        )

    def task(self, model: Model) -> Enlarging:
        """How pictures are made larger. Raises ConfigError as `options` does."""
        return Enlarging(
            prompt=self.prompt,
            negative=self.negative,
            options=self.options(model),
            noise_level=self.noise_level,
            tile=self.tile,
            overlap=self.overlap,
        )


def upscale(image: Given, **settings: Any) -> list[Picture]:
    """Make `image` larger; settings are the fields of `UpscaleConfig`. Returns `count` pictures.

    >>> [picture] = scumble.upscale("cat.png", seed=7)
    >>> picture.image.save("large.png")
    """
    config = UpscaleConfig.of(settings).seeded()
    source = Source.of(image)
    return finish(_enlarged(config, config.load(), source))


def _enlarged(config: UpscaleConfig, model: Model, source: Source) -> Loop[list[Picture]]:
    """The `count` enlargements of one picture, with their recipes. Transparent pixels become white."""
    pixels = to_unit(source.picture.on((255, 255, 255)))  # (1, 3, H, W)
    with learnt_attached(model, config.weights, any_base=config.any_base) as learnt:
        config = config.settled(model, learnt)
        task, ingredients = config.task(model), (source.ingredient("image"), *learnt.ingredients)

        def drawn(seeds: Sequence[int], _: int) -> Loop[list[Picture]]:
            large = yield from enlarge(model, pixels.expand(len(seeds), -1, -1, -1), seeds, task)
            recipes = (recipe_of("upscale", config, model, ingredients, seed) for seed in seeds)
            return [finished(model, row, recipe) for row, recipe in zip(large, recipes, strict=True)]

        return (yield from in_batches(config.seeds, drawn, config.batch))


def again(config: UpscaleConfig, model: Model, inputs: Mapping[str, Path]) -> Loop[list[Picture]]:
    """Enlarge as a recipe says; see `scumble.verbs.redo`."""
    return (yield from _enlarged(config, model, Source.of(inputs["image"])))


def upscale_to(
    config: UpscaleConfig, place: Path, out: Path, *, overwrite: bool = False, with_recipe: bool = True
) -> Loop[Saved]:
    """Make the picture `place`, or each one in that folder, larger and write the results to `out`.

    Names are checked before the work, and whether a file of that kind holds a picture so large; each result
    is written as soon as it is there.
    """
    config = config.seeded()
    files = picture_files(place)
    places = [edited_paths(config, out, f, in_folder=place.is_dir(), overwrite=overwrite) for f in files]
    model = config.load()
    config.task(model)
    notes = first_notes(model, [], places)
    if model.text_encoders:
        notes += weights_notes(config.weights, [config.prompt, config.negative], upscales=True)
    written: list[dict[str, str | int]] = []
    for file, paths in zip(files, places, strict=True):
        source, factor = Source.of(file), upscaling(model).factor
        width, height = source.picture.image.size
        check_size(paths[0], (width * factor, height * factor))
        pictures = yield from _enlarged(config, model, source)
        written += save_pictures(pictures, paths, with_recipe=with_recipe, edited=True)
        notes += withheld_notes(file, pictures)
    return Saved(written, " ".join(notes))


def estimate_upscale(config: UpscaleConfig, place: Path) -> Estimate:
    """What `upscale_to` will need, by tracing one window without running it."""
    config = config.seeded()
    files = picture_files(place)
    model = config.load()
    with learnt_attached(model, config.weights, any_base=config.any_base) as learnt:
        config = config.settled(model, learnt)
        task = config.task(model)
        sizes = [Source.of(file).picture.image.size for file in files]
        costs = [cost(model, (height, width), task, config.count) for width, height in sizes]
    settings = recipe_of("upscale", config, model, (), config.seeds[0]).settings
    return estimate.needs([model], costs, {**settings, "seed": config.seeds[0], "count": config.count})
