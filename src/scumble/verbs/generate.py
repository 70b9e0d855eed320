"""Pictures from words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import randbelow
from typing import Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor

from scumble.core.config import Config
from scumble.core.errors import ConfigError
from scumble.core.events import Loop, finish
from scumble.core.images import from_unit, to_model
from scumble.diffusion.samplers import SAMPLERS
from scumble.diffusion.spacing import SPACINGS
from scumble.history.recipe import Ingredient, Recipe
from scumble.models.model import Model
from scumble.sampling import estimate
from scumble.sampling.guided import default_guidance
from scumble.sampling.text_to_image import SamplerOptions, Task, text_to_image
from scumble.verbs.load import ModelConfig
from scumble.verbs.outputs import Picture, planned_paths, save_pictures

__all__ = [
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
    """Fresh noise in DDIM: 0 none, 1 as much as DDPM."""
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    """Guidance scale; none takes what the makers of the model recommend."""
    guidance_interval: tuple[float, float] | None = None
    """Noise shares, from 0 (clean) to 1 (noise), between which guidance acts."""
    guidance_rescale: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the contrast correction of Lin et al. 2024."""
    width: Annotated[int, Field(ge=8, le=8192)] | None = None
    """Width in pixels; none takes the model's own size."""
    height: Annotated[int, Field(ge=8, le=8192)] | None = None
    """Height in pixels; none takes the model's own size."""
    batch: Annotated[int, Field(ge=1, le=1024)] = 8
    """Pictures drawn at once; halved when memory runs out."""

    def options(self, model: Model) -> SamplerOptions:
        """The sampler's part, with the defaults of `model`. Raises ConfigError for unknown names."""
        _known("sampler", self.sampler, SAMPLERS)
        _known("spacing", self.spacing, SPACINGS)
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

    @property
    def seeds(self) -> range:
        """One seed a picture. The settings need to be `seeded`."""
        if self.seed is None:
            raise ConfigError("The settings have no seed yet.", "Draw one with seeded().")
        return range(self.seed, self.seed + self.count)

    def task(self, model: Model) -> Task:
        """What to draw on `model`. The settings need to be `seeded`."""
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
    with config.attached(model) as learnt:
        drawn = yield from text_to_image(model, task, batch_size=config.batch, preview_every=preview_every)
    return [_picture(config, model, task, learnt, *one) for one in zip(drawn, task.seeds, strict=True)]


def _picture(
    config: GenerateConfig,
    model: Model,
    task: Task,
    learnt: tuple[Ingredient, ...],
    pixels: Tensor,
    seed: int,
) -> Picture:
    """`pixels` (3, H, W) in [0, 1] with their recipe; black if the model's safety checker flags them."""
    withheld = model.safety_checker is not None and model.safety_checker.flagged(to_model(pixels[None]))[0]
    shown = torch.zeros_like(pixels) if withheld else pixels
    return Picture(from_unit(shown[None])[0], _recipe(config, model, task, seed, learnt), withheld)


@dataclass(frozen=True, slots=True)
class Saved:
    """What was written."""

    files: list[dict[str, str | int]]
    """Path, seed and SHA-256 of each file, a grid last."""
    note: str = ""
    """A sentence for the person, if something should be known."""


def draw_to(
    config: GenerateConfig, out: Path, *, overwrite: bool = False, with_recipe: bool = True
) -> Loop[Saved]:
    """Draw and write pictures to `out`, as `planned_paths` names them. Names are checked before the work."""
    config = config.seeded()
    paths = planned_paths(out, config.seeds, overwrite=overwrite)
    model = config.load()
    task = config.task(model)
    pictures = yield from draw(config, model, task)
    files = save_pictures(pictures, paths, with_recipe=with_recipe)
    notes = [RANDOM_MODEL] if model.is_random else []
    if withheld := sum(p.withheld for p in pictures):
        notes.append(
            f"The model's safety checker withheld {withheld} of {len(pictures)} pictures; they are black."
        )
    return Saved(files, " ".join(notes))


def _recipe(
    config: GenerateConfig, model: Model, task: Task, seed: int, learnt: tuple[Ingredient, ...] = ()
) -> Recipe:
    """The recipe of one picture: as if it had been the only one asked for."""
    elsewhere = {"seed", "count", "batch", *ModelConfig.model_fields}
    settings = config.model_dump(mode="json", exclude=elsewhere, exclude_none=True)
    settings |= {"width": task.width, "height": task.height, "guidance": task.options.guidance}
    return Recipe(
        command="generate",
        settings=settings,
        seed=seed,
        batch=together(task.seeds, seed, config.batch),
        model=Ingredient.of("model", config.model, model.hash),
        ingredients=learnt,
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


def estimate_generate(config: GenerateConfig) -> Estimate:
    """What `draw` will need, by tracing one step and one decoding without running them."""
    config = config.seeded()
    model = config.load()
    task = config.task(model)
    batch = min(config.batch, config.count)
    branches = 1 if task.options.guidance == 1 or not model.text_encoders else 2
    condition = model.prompt([task.prompt]) if model.text_encoders else None
    shape, time = model.latent_shape(task.height, task.width), torch.zeros((), device=model.device)

    def call() -> None:
        x = torch.zeros(batch * branches, *shape, device=model.device)
        model.predict(x, time, condition)

    step = estimate.trace(call)
    decoding = estimate.trace(lambda: model.decode(torch.zeros(1, *shape, device=model.device)))
    calls = SAMPLERS[config.sampler].calls(config.steps) * -(-config.count // batch)
    flops = step.flops * calls + decoding.flops * config.count
    speed = estimate.flops_per_second(model.device, model.dtype) * estimate.EFFICIENCY
    weights = estimate.parameter_bytes(model.denoiser, model.autoencoder, *model.text_encoders)
    settings = _recipe(config, model, task, task.seeds[0]).settings
    return Estimate(
        seconds=flops / speed,
        memory_bytes=weights + max(step.peak_bytes, decoding.peak_bytes),
        settings={**settings, "seed": task.seeds[0], "count": config.count},
    )
