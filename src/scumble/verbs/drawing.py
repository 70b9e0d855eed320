"""What makers of pictures share: their seeds, how noise becomes a picture, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Mapping
from secrets import randbelow
from typing import Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor

from scumble.core.errors import ConfigError
from scumble.core.images import from_unit, to_model
from scumble.diffusion.samplers import SAMPLERS, with_eta
from scumble.diffusion.spacing import levels_for
from scumble.history.recipe import Ingredient, Recipe
from scumble.models.model import Model
from scumble.sampling.guided import Interval, default_guidance
from scumble.sampling.text_to_image import SamplerOptions
from scumble.verbs.load import ModelConfig
from scumble.verbs.outputs import Picture

__all__ = ["DrawConfig", "SeriesConfig", "finished", "recipe_of"]


class SeriesConfig(ModelConfig):
    """Settings of everything that makes one picture or several, each from a seed of its own."""

    count: Annotated[int, Field(ge=1, le=10_000)] = 1
    """How many pictures, of each one given where some are; their seeds follow one another."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 10_001)] | None = None
    """Seed of the first picture; none draws one."""
    batch: Annotated[int, Field(ge=1, le=1024)] = 8
    """Pictures made at once; halved when memory runs out."""

    def seeded(self) -> Self:
        """The same with a seed, drawn if there is none."""
        return self if self.seed is not None else self.replace(seed=randbelow(2**32))

    @property
    def seeds(self) -> range:
        """One seed a picture. The settings need to be `seeded`."""
        if self.seed is None:
            raise ConfigError("The settings have no seed yet.", "Draw one with seeded().")
        return range(self.seed, self.seed + self.count)

    def company(self, seed: int) -> tuple[int, int]:
        """First seed and number of the pictures that are made at once with that of `seed`.

        Where memory ran out it was fewer, and the same again is the same to rounding only.
        """
        first = self.seeds.index(seed) // self.batch * self.batch
        return self.seeds[first], min(self.batch, self.count - first)


class DrawConfig(SeriesConfig):
    """Settings of what draws from words and noise with any of the samplers."""

    prompt: str
    """What the picture shows."""
    negative: str = ""
    """What to lead away from."""
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

    def options(self, model: Model) -> SamplerOptions:
        """The sampler's part, with the defaults of `model`. Raises ConfigError for unknown names, and for
        steps that do not fit its schedule.
        """
        if self.sampler not in SAMPLERS:
            raise ConfigError(
                f"There is no sampler {self.sampler!r}.", f"Choose one of {', '.join(SAMPLERS)}."
            )
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


def recipe_of(
    command: str,
    config: SeriesConfig,
    model: Model,
    ingredients: tuple[Ingredient, ...],
    seed: int,
    *,
    settled: Mapping[str, Any] | None = None,
    digest: str | None = None,
) -> Recipe:
    """The recipe of the picture with `seed`: as if it had been the only one asked for.

    `settled` holds what the settings leave to the model, as it came out. `digest` stands for the model's
    hash, which is read from its files if it is not given.
    """
    elsewhere = {"seed", "count", "batch", "preset", "clip", "upscaler", *ModelConfig.model_fields}
    settings = config.model_dump(mode="json", exclude=elsewhere, exclude_none=True)
    return Recipe(
        command=command,
        settings=settings | dict(settled or {}),
        seed=seed,
        batch=config.company(seed),
        model=Ingredient.of("model", config.model, digest or model.hash),
        ingredients=ingredients,
        machine=config.machine(model),
    )


def finished(model: Model, pixels: Tensor, recipe: Recipe) -> Picture:
    """`pixels` (3, H, W) in [0, 1] with their recipe; black if the model's safety checker flags them."""
    withheld = model.safety_checker is not None and model.safety_checker.flagged(to_model(pixels[None]))[0]
    shown = torch.zeros_like(pixels) if withheld else pixels
    return Picture(from_unit(shown[None])[0], recipe, withheld)
