"""Pictures from words."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import randbelow
from typing import Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor

from scumble.core.config import Config
from scumble.core.errors import ConfigError, InputError
from scumble.core.events import Loop, finish
from scumble.core.images import fitted, from_unit, to_model
from scumble.diffusion.samplers import SAMPLERS, with_eta
from scumble.diffusion.spacing import levels_for
from scumble.history.recipe import Ingredient, Recipe
from scumble.models.model import Model
from scumble.sampling import estimate
from scumble.sampling.guided import Interval, default_guidance
from scumble.sampling.memory import in_batches
from scumble.sampling.preview import Previewer
from scumble.sampling.text_to_image import SamplerOptions, Task, draw_batch
from scumble.verbs.enlarging import UPSCALER, Enlarger, cost, enlarger
from scumble.verbs.load import ModelConfig
from scumble.verbs.outputs import Picture, planned_paths, save_pictures, sheet

__all__ = [
    "PREVIEW_EVERY",
    "RANDOM_MODEL",
    "Estimate",
    "GenerateConfig",
    "Saved",
    "again",
    "draw",
    "draw_to",
    "estimate_generate",
    "generate",
    "together",
]

PREVIEW_EVERY = 5
"""Steps from one preview to the next, where a person watches: each waits for the device."""
UNHASHED = "0" * 64
"""Stands for the model's hash, which costs reading all of it, in recipes that are not written."""
RANDOM_MODEL = "This model is random: nobody trained it, so its pictures mean nothing."


class GenerateConfig(ModelConfig):
    """What `scumble generate` can be told."""

    prompt: str
    """What to draw. `(word:1.3)` weighs a word."""
    negative: str = ""
    """What to lead away from."""
    count: Annotated[int, Field(ge=1, le=10_000)] = 1
    """How many pictures; their seeds follow one another."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 10_001)] | None = None
    """Seed of the first picture; none draws one."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    """Denoising steps."""
    sampler: str = "dpmpp_2m"
    """How each step is taken."""
    spacing: str = "trailing"
    """How the steps are spread over the noise levels."""
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fresh noise, in DDIM only: 0 none, 1 as much as DDPM."""
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    """Guidance scale; none takes what the makers of the model recommend."""
    guidance_interval: Interval | None = None
    """Noise shares, from 0 (clean) to 1 (noise), between which guidance acts."""
    guidance_rescale: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the contrast correction of Lin et al. 2024."""
    width: Annotated[int, Field(ge=8, le=8192)] | None = None
    """Width in pixels; none takes the model's own size."""
    height: Annotated[int, Field(ge=8, le=8192)] | None = None
    """Height in pixels; none takes the model's own size."""
    batch: Annotated[int, Field(ge=1, le=1024)] = 8
    """Pictures drawn at once; halved when memory runs out."""
    upscaler: str | None = None
    """A model that makes the pictures larger when they are drawn; none leaves them."""
    noise_level: Annotated[int, Field(ge=0, le=1000)] | None = None
    """What the upscaler is told of noise; none takes its own, or the one that the weights were tuned with."""

    def options(self, model: Model) -> SamplerOptions:
        """The sampler's part, with the defaults of `model`. Raises ConfigError for unknown names, and for
        steps that do not fit its schedule.
        """
        _known("sampler", self.sampler, SAMPLERS)
        with_eta(self.sampler, self.eta)  # asked now, before the work, as are the levels
        levels_for(model.schedule, self.steps, self.spacing)
        return SamplerOptions(
            sampler=self.sampler,
            steps=self.steps,
            spacing=self.spacing,
            eta=self.eta,
            guidance=default_guidance(model) if self.guidance is None else self.guidance,
            guidance_interval=self.guidance_interval,
            guidance_rescale=self.guidance_rescale,
        )

    def seeded(self) -> Self:
        """The same with a seed, drawn if there is none."""
        return self if self.seed is not None else self.replace(seed=randbelow(2**32))

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

    @property
    def seeds(self) -> range:
        """One seed a picture. The settings need to be `seeded`."""
        if self.seed is None:
            raise ConfigError("The settings have no seed yet.", "Draw one with seeded().")
        return range(self.seed, self.seed + self.count)

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


def _known(setting: str, name: str, table: Iterable[str]) -> None:
    if name not in table:
        raise ConfigError(f"There is no {setting} {name!r}.", f"Choose one of {', '.join(table)}.")


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
    with config.attached(model) as learnt, config.enlarging() as larger:
        recipe = _recipe(config, model, task, model.hash, learnt, larger)
        batch = _Batch(config, model, task, recipe, preview_every, larger)
        return (yield from in_batches(task.seeds, batch.drawn, config.batch))


class _Batch:
    """Draws one batch after another: what `in_batches` calls."""

    def __init__(
        self,
        config: GenerateConfig,
        model: Model,
        task: Task,
        recipe: Recipe,
        preview_every: int,
        larger: Enlarger | None,
    ) -> None:
        self._config, self._model, self._task, self._recipe = config, model, task, recipe
        self._larger = larger
        self._previewer = Previewer.fit(model) if preview_every else None
        self._preview_every = preview_every

    def drawn(self, seeds: Sequence[int], done: int) -> Loop[list[Picture]]:
        """The pictures with these `seeds`, `done` of the task's being finished before."""
        pixels = yield from draw_batch(
            self._model, self._task, seeds, done, self._previewer, self._preview_every
        )
        if self._larger is not None:
            pixels = yield from self._enlarged(pixels, seeds)
        return [self._picture(*one) for one in zip(pixels, seeds, strict=True)]

    def _enlarged(self, pixels: Sequence[Tensor], seeds: Sequence[int]) -> Loop[list[Tensor]]:
        """One at a time: a large picture takes all the memory there is."""
        assert self._larger is not None
        large: list[Tensor] = []
        for one, seed in zip(pixels, seeds, strict=True):
            large += yield from self._larger(one[None], [seed])
        return large

    def _picture(self, pixels: Tensor, seed: int) -> Picture:
        """`pixels` (3, H, W) in [0, 1] with their recipe; black if the model's safety checker flags them."""
        checker = self._model.safety_checker
        withheld = checker is not None and checker.flagged(to_model(pixels[None]))[0]
        shown = torch.zeros_like(pixels) if withheld else pixels
        company = together(self._task.seeds, seed, self._config.batch)
        recipe = self._recipe.model_copy(update={"seed": seed, "batch": company})
        return Picture(from_unit(shown[None])[0], recipe, withheld)


@dataclass(frozen=True, slots=True)
class Saved:
    """What was written."""

    files: list[dict[str, str | int]]
    """Path, seed and SHA-256 of each file, a grid last."""
    note: str = ""
    """A sentence for the person, if something should be known."""


def draw_to(
    config: GenerateConfig,
    out: Path,
    *,
    overwrite: bool = False,
    with_recipe: bool = True,
    preview_every: int = 0,
) -> Loop[Saved]:
    """Draw and write pictures to `out`, as `planned_paths` names them. Names are checked before the work.

    Each batch is written as soon as it is drawn. A run that is interrupted keeps those and says, in a note on
    the KeyboardInterrupt, how to draw the others.
    """
    config = config.seeded()
    paths = planned_paths(out, config.seeds, overwrite=overwrite)
    model = config.load()
    task = config.task(model)
    files: list[dict[str, str | int]] = []
    with config.attached(model) as learnt, config.enlarging() as larger:
        recipe = _recipe(config, model, task, model.hash if with_recipe else UNHASHED, learnt, larger)
        batch = _Batch(config, model, task, recipe, preview_every, larger)

        def written(seeds: Sequence[int], done: int) -> Loop[list[Picture]]:
            pictures = yield from batch.drawn(seeds, done)
            files.extend(save_pictures(pictures, paths[done : done + len(seeds)], with_recipe=with_recipe))
            # What is kept for the grid is no larger than the grid, however many pictures there are.
            return [replace(p, image=fitted(p.image, config.count)) for p in pictures]

        try:
            pictures = yield from in_batches(task.seeds, written, config.batch)
        except KeyboardInterrupt as stop:
            # One may be written and not yet in the list; what was to be replaced was there before.
            count = len(files) if overwrite else sum(path.exists() for path in paths[: config.count])
            if left := task.seeds[count:]:
                rest = f"--seed {left[0]} --count {len(left)} draws the others."
                stop.add_note(f"{count} of {config.count} pictures are written; {rest}")
            raise
    if len(paths) > len(pictures):
        files += save_pictures([sheet(pictures)], paths[-1:], with_recipe=with_recipe)
    notes = [RANDOM_MODEL] if model.is_random else []
    if withheld := sum(p.withheld for p in pictures):
        notes.append(
            f"The model's safety checker withheld {withheld} of {len(pictures)} pictures; they are black."
        )
    return Saved(files, " ".join(notes))


def _settings(config: GenerateConfig, task: Task) -> dict[str, Any]:
    """The settings of one picture, defaults filled in: as if it had been the only one asked for."""
    elsewhere = {"seed", "count", "batch", UPSCALER, *ModelConfig.model_fields}
    settings = config.model_dump(mode="json", exclude=elsewhere, exclude_none=True)
    return settings | {"width": task.width, "height": task.height, "guidance": task.options.guidance}


def _recipe(
    config: GenerateConfig,
    model: Model,
    task: Task,
    digest: str,
    learnt: tuple[Ingredient, ...],
    larger: Enlarger | None = None,
) -> Recipe:
    """The recipe of the first picture; the others' differ in seed and batch. `digest` is the model's."""
    return Recipe(
        command="generate",
        settings=_settings(config, task),
        seed=task.seeds[0],
        model=Ingredient.of("model", config.model, digest),
        ingredients=learnt if larger is None else (*learnt, larger.ingredient),
        machine=config.machine(model),
    )


def together(seeds: Sequence[int], seed: int, batch: int) -> tuple[int, int]:
    """First seed and number of the pictures drawn at once with that of `seed`, `batch` at a time.

    Where memory ran out it was fewer, and the same again is the same to rounding only.
    """
    first = seeds.index(seed) // batch * batch
    return seeds[first], min(batch, len(seeds) - first)


def again(config: GenerateConfig, model: Model, _: Mapping[str, Path]) -> Loop[list[Picture]]:
    """Draw as a recipe says; see `scumble.verbs.redo`."""
    return (yield from draw(config, model, config.task(model)))


class Estimate(Config):
    """What a run will need."""

    seconds: float
    """Time for drawing and decoding, without loading."""
    memory_bytes: int
    """Parameters and the most activations alive at once."""
    settings: dict[str, Any]
    """The settings, defaults filled in."""


def estimate_generate(
    config: GenerateConfig, out: Path | None = None, *, overwrite: bool = False
) -> Estimate:
    """What `draw` will need, by tracing one step and one decoding without running them.

    Everything that would stop the run itself is checked: the names in `out`, the model, the `weights`.
    """
    config = config.seeded()
    if out is not None:
        planned_paths(out, config.seeds, overwrite=overwrite)
    model = config.load()
    task = config.task(model)
    batch = min(config.batch, config.count)
    branches = 1 if task.options.guidance == 1 or not model.text_encoders else 2
    shape, time = model.latent_shape(task.height, task.width), torch.zeros((), device=model.device)
    with config.attached(model):
        words = [task.prompt, task.negative]  # the run reads both, and pads the shorter to the longer
        condition = model.prompt(words).select([0]) if model.text_encoders else None

        def call() -> None:
            x = torch.zeros(batch * branches, *shape, device=model.device)
            model.predict(x, time, condition)

        step = estimate.trace(call)
    decoding = estimate.trace(lambda: model.decode(torch.zeros(1, *shape, device=model.device)))
    calls = SAMPLERS[config.sampler].calls(config.steps) * -(-config.count // batch)
    flops = step.flops * calls + decoding.flops * config.count
    speed = estimate.flops_per_second(model.device, model.dtype) * estimate.EFFICIENCY
    weights = estimate.parameter_bytes(model.denoiser, model.autoencoder, *model.text_encoders)
    with config.enlarging() as larger:
        more = estimate.Cost(0, 0)
        if larger is not None:
            more = cost(larger.model, (task.height, task.width), larger.task, config.count)
            also = larger.model
            weights += estimate.parameter_bytes(also.denoiser, also.autoencoder, *also.text_encoders)
    return Estimate(
        seconds=(flops + more.flops) / speed,
        memory_bytes=weights + max(step.peak_bytes, decoding.peak_bytes, more.peak_bytes),
        settings={**_settings(config, task), "seed": task.seeds[0], "count": config.count},
    )
