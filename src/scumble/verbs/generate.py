"""Pictures from words."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from scumble.core.errors import InputError
from scumble.core.events import Loop, finish
from scumble.core.images import check_size
from scumble.diffusion.samplers import SAMPLERS
from scumble.history.recipe import Ingredient, Recipe
from scumble.models.model import Model
from scumble.sampling import estimate
from scumble.sampling.estimate import Cost, Estimate
from scumble.sampling.memory import in_batches
from scumble.sampling.preview import Previewer
from scumble.sampling.text_to_image import Task, draw_batch
from scumble.sampling.upscaling import upscaling
from scumble.verbs.drawing import DrawConfig, finished, recipe_of
from scumble.verbs.enlarging import Enlarger, cost, enlarger
from scumble.verbs.load import RANDOM_MODEL, ModelConfig, weights_notes
from scumble.verbs.outputs import Picture, Saved, in_sheet, planned_paths, save_pictures, sheet

__all__ = [
    "PREVIEW_EVERY",
    "GenerateConfig",
    "again",
    "draw",
    "draw_to",
    "estimate_generate",
    "generate",
]

PREVIEW_EVERY = 5
"""Steps from one preview to the next, where a person watches: each waits for the device."""
UNHASHED = "0" * 64
"""Stands for the model's hash, which costs reading all of it, in recipes that are not written."""


class GenerateConfig(DrawConfig):
    """What `scumble generate` can be told."""

    prompt: str
    """What to draw. `(word:1.3)` weighs a word."""
    width: Annotated[int, Field(ge=8, le=8192)] | None = None
    """Width in pixels; none takes the model's own size."""
    height: Annotated[int, Field(ge=8, le=8192)] | None = None
    """Height in pixels; none takes the model's own size."""
    upscaler: str | None = None
    """A model that makes the pictures larger when they are drawn; none leaves them."""
    noise_level: Annotated[int, Field(ge=0, le=1000)] | None = None
    """What the upscaler is told of noise; none takes its own, or the one that the weights were tuned with."""

    @contextmanager
    def enlarging(self) -> Generator[Enlarger | None]:
        """Inside, what makes the pictures larger, with what the weights hold for it; None where none does."""
        if self.upscaler is None:
            yield None
            return
        where = ModelConfig.of({name: getattr(self, name) for name in ModelConfig.model_fields})
        where = where.replace(model=self.upscaler, revision=None)
        with enlarger(where, self.prompt, self.negative, self.noise_level) as found:
            yield found

    def task(self, model: Model) -> Task:
        """What to draw on `model`. The settings need to be `seeded`. Raises InputError for a model that edits
        or makes larger.
        """
        if model.upscaling is not None:
            raise InputError(f"{model.name} is an upscaler.", "Use it with scumble upscale.")
        if model.condition_channels:
            raise InputError(
                f"{model.name} is an editing model.", "Give it a picture to edit: scumble edit instruct."
            )
        return Task(
            prompt=self.prompt,
            negative=self.negative,
            seeds=self.seeds,
            height=self.height or model.default_size,
            width=self.width or model.default_size,
            options=self.options(model),
        )


def generate(prompt: str, **settings: Any) -> list[Picture]:
    """Draw `prompt`; settings are the fields of `GenerateConfig`. Returns `count` pictures, with recipes.

    >>> [picture] = scumble.generate("a red cat on the beach", seed=7)
    >>> picture.image.save("cat.png")
    """
    config = GenerateConfig(prompt=prompt, **settings).seeded()
    model = config.load()
    return finish(draw(config, model, config.task(model)))


def draw(config: GenerateConfig, model: Model, task: Task, *, preview_every: int = 0) -> Loop[list[Picture]]:
    """Draw `task`, made by `config.task(model)`, as a loop; returns the pictures with their recipes."""
    with _drawing(config, model, task, preview_every=preview_every) as drawing:
        return (yield from in_batches(task.seeds, drawing.batch, config.batch))


@dataclass(frozen=True, slots=True)
class _Drawing:
    """All that is needed to draw one batch after another: `batch` is what `in_batches` calls."""

    config: GenerateConfig
    model: Model
    task: Task
    ingredients: tuple[Ingredient, ...]
    digest: str
    larger: Enlarger | None
    previewer: Previewer | None
    preview_every: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the results, in pixels."""
        factor = 1 if self.larger is None else upscaling(self.larger.model).factor
        return self.task.width * factor, self.task.height * factor

    def batch(self, seeds: Sequence[int], done: int) -> Loop[list[Picture]]:
        """The pictures with these `seeds`, `done` of the task's being finished before."""
        pixels = yield from draw_batch(self.model, self.task, seeds, done, self.previewer, self.preview_every)
        if self.larger is not None:
            pixels = yield from _one_by_one(self.larger, pixels, seeds)
        return [finished(self.model, row, self.recipe(seed)) for row, seed in zip(pixels, seeds, strict=True)]

    def recipe(self, seed: int) -> Recipe:
        """Of the picture with `seed`."""
        task, common = self.task, (self.config, self.model, self.ingredients)
        settled = {"width": task.width, "height": task.height, "guidance": task.options.guidance}
        return recipe_of("generate", *common, seed, settled=settled, digest=self.digest)


@contextmanager
def _drawing(
    config: GenerateConfig,
    model: Model,
    task: Task,
    *,
    with_recipe: bool = True,
    preview_every: int = 0,
) -> Generator[_Drawing]:
    """Inside, `model` has the learnt weights, and the upscaler is loaded if there is one."""
    digest = model.hash if with_recipe else UNHASHED
    previewer = Previewer.fit(model) if preview_every else None
    with config.attached(model) as learnt, config.enlarging() as larger:
        ingredients = learnt if larger is None else (*learnt, larger.ingredient)
        yield _Drawing(config, model, task, ingredients, digest, larger, previewer, preview_every)


def _one_by_one(larger: Enlarger, pixels: Sequence[Tensor], seeds: Sequence[int]) -> Loop[list[Tensor]]:
    """Pictures (3, H, W) enlarged, one at a time: a large picture takes all the memory there is."""
    large: list[Tensor] = []
    for one, seed in zip(pixels, seeds, strict=True):
        large += yield from larger(one[None], [seed])
    return large


def draw_to(
    config: GenerateConfig,
    out: Path,
    *,
    overwrite: bool = False,
    with_recipe: bool = True,
    preview_every: int = 0,
) -> Loop[Saved]:
    """Draw and write pictures to `out`, as `planned_paths` names them. Names are checked before the work, and
    whether files of that kind hold pictures so large.

    Each batch is written as soon as it is drawn. A run that is interrupted keeps those and says, in a note on
    the KeyboardInterrupt, how to draw the others.
    """
    config = config.seeded()
    paths = planned_paths(out, config.seeds, overwrite=overwrite)
    model = config.load()
    task = config.task(model)
    notes = [RANDOM_MODEL] if model.is_random else []
    notes += weights_notes(config.weights, [config.prompt, config.negative])
    files: list[dict[str, str | int]] = []
    with _drawing(config, model, task, with_recipe=with_recipe, preview_every=preview_every) as drawing:
        check_size(paths[0], drawing.size)

        def written(seeds: Sequence[int], done: int) -> Loop[list[Picture]]:
            pictures = yield from drawing.batch(seeds, done)
            files.extend(save_pictures(pictures, paths[done : done + len(seeds)], with_recipe=with_recipe))
            return [in_sheet(picture, config.count) for picture in pictures]

        try:
            pictures = yield from in_batches(task.seeds, written, config.batch)
        except KeyboardInterrupt as stop:
            # One may be written and not yet in the list; what was to be replaced was there before.
            count = len(files) if overwrite else sum(path.exists() for path in paths[: config.count])
            stop.add_note(_how_to_go_on(config, paths, count))
            raise
    if len(paths) > len(pictures):
        files += save_pictures([sheet(pictures)], paths[-1:], with_recipe=with_recipe)
    if withheld := sum(p.withheld for p in pictures):
        notes.append(
            f"The model's safety checker withheld {withheld} of {len(pictures)} pictures; they are black."
        )
    return Saved(files, " ".join(notes))


def _how_to_go_on(config: GenerateConfig, paths: Sequence[Path], count: int) -> str:
    """What an interrupted run of which `count` pictures are written has to say."""
    left = config.seeds[count:]
    if not left:
        return f"All {config.count} pictures are written, and no grid of them."
    rest = f"--seed {left[0]} --count {len(left)}"
    if len(left) == 1:  # by itself it would go to the name of the grid
        rest = f"--seed {left[0]} -o {quote(str(paths[count]))}"
    which = "it" if config.count == 1 else "the other" if len(left) == 1 else "the others"
    return f"{count} of {config.count} pictures are written; {rest} draws {which}."


def again(config: GenerateConfig, model: Model, _: Mapping[str, Path]) -> Loop[list[Picture]]:
    """Draw as a recipe says; see `scumble.verbs.redo`."""
    return (yield from draw(config, model, config.task(model)))


def estimate_generate(
    config: GenerateConfig, out: Path | None = None, *, overwrite: bool = False
) -> Estimate:
    """What `draw` will need, by tracing one step and one decoding without running them.

    Everything that would stop the run itself is checked: the names in `out`, the model, the `weights`.
    """
    config = config.seeded()
    paths = [] if out is None else planned_paths(out, config.seeds, overwrite=overwrite)
    model = config.load()
    task = config.task(model)
    with _drawing(config, model, task, with_recipe=False) as drawing:
        for path in paths[:1]:
            check_size(path, drawing.size)
        models, costs = [model], [_cost(config, model, task)]
        if (larger := drawing.larger) is not None:
            models.append(larger.model)
            costs.append(cost(larger.model, (task.height, task.width), larger.task, config.count))
        settings = drawing.recipe(task.seeds[0]).settings
    return estimate.needs(models, costs, {**settings, "seed": task.seeds[0], "count": config.count})


def _cost(config: GenerateConfig, model: Model, task: Task) -> Cost:
    """Of every step and decoding, for all pictures."""
    batch = min(config.batch, config.count)
    branches = 1 if task.options.guidance == 1 or not model.text_encoders else 2
    shape, time = model.latent_shape(task.height, task.width), torch.zeros((), device=model.device)
    words = [task.prompt, task.negative]  # the run reads both, and pads the shorter to the longer
    condition = model.prompt(words).select([0]) if model.text_encoders else None

    def call() -> None:
        x = torch.zeros(batch * branches, *shape, device=model.device)
        model.predict(x, time, condition)

    step = estimate.trace(call)
    decoding = estimate.trace(lambda: model.decode(torch.zeros(1, *shape, device=model.device)))
    calls = SAMPLERS[config.sampler].calls(config.steps) * -(-config.count // batch)
    return Cost(
        flops=step.flops * calls + decoding.flops * config.count,
        peak_bytes=max(step.peak_bytes, decoding.peak_bytes),
    )
