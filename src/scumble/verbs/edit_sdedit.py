"""Edit by painting: SDEdit on pictures that people have, one or a folder of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import model_validator

from scumble.core.errors import ConfigError, ImageError
from scumble.core.events import Loop, finish
from scumble.core.images import to_unit
from scumble.data.paintings import Painting, painting
from scumble.diffusion.samplers import SAMPLERS
from scumble.history.recipe import Ingredient, Recipe
from scumble.methods import sdedit
from scumble.models.model import Model
from scumble.sampling import estimate
from scumble.sampling.estimate import Cost, Estimate
from scumble.sampling.image_to_image import padded_size
from scumble.verbs.drawing import SeriesConfig, finished, recipe_of
from scumble.verbs.edits import edited_paths, first_notes, grey, withheld_notes
from scumble.verbs.inputs import Given, Source, picture_files, same_named
from scumble.verbs.load import weights_notes
from scumble.verbs.outputs import Picture, Saved, save_pictures
from scumble.verbs.sweep import T0S, strip, sweep

__all__ = ["SdeditConfig", "Work", "again", "edit_sdedit", "edit_to", "estimate_edit", "prepare", "repaint"]


class SdeditConfig(SeriesConfig, sdedit.Config):
    """What `scumble edit sdedit` can be told."""

    preset: str = "fast"
    """Settings to start from: fast, or the paper's strokes, stroke-edit, compositing, released."""
    prompt: str = ""
    """What the picture should show, if words are wanted. `(word:1.3)` weighs a word."""
    search: Literal["none", "auto", "sweep"] = "none"
    """auto looks for the t0 that balances faithfulness and realism; sweep draws a strip over t0."""

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, values: dict[str, Any]) -> dict[str, Any]:
        name = values.get("preset", "fast")
        if name not in sdedit.PRESETS:
            raise ConfigError(f"There is no preset {name!r}.", f"Choose one of {', '.join(sdedit.PRESETS)}.")
        return sdedit.PRESETS[name].model_dump(exclude_defaults=True) | values

    def method(self) -> sdedit.Config:
        """The method's part."""
        return sdedit.Config.of({name: getattr(self, name) for name in sdedit.Config.model_fields})


@dataclass(frozen=True, slots=True)
class Work:
    """One guide with what belongs to it, ready to be painted."""

    painting: Painting
    ingredients: tuple[Ingredient, ...]


def prepare(guide: Given, original: Given | None = None, mask: Given | None = None, prompt: str = "") -> Work:
    """Read a guide, the original under it and a mask of one size.

    A transparent guide is laid over the original, and where it is not transparent it may change unless a mask
    says otherwise. Raises ImageError, in one sentence, also for a transparent guide without an original.
    """
    sources = {"guide": Source.of(guide)}
    under = omega = None
    if original is not None:
        sources["original"] = Source.of(original)
        under = to_unit(sources["original"].picture.on((255, 255, 255)))
    if mask is not None:
        sources["mask"] = Source.of(mask)
        omega = grey(sources["mask"])
    top, alpha = to_unit(sources["guide"].picture.image), sources["guide"].picture.alpha
    if alpha is not None and under is not None and alpha.size == under.shape[:-3:-1]:
        cover = to_unit(alpha)[:, :1]  # (1, 1, H, W)
        top = torch.where(cover == 0, under, torch.lerp(under, top, cover))
        omega = (cover > 0).float() if omega is None else omega
    elif alpha is not None and under is None:
        raise ImageError(
            f"The guide {sources['guide'].name} has transparent pixels.",
            "Give the picture that shows through it with --original.",
        )
    ingredients = tuple(source.ingredient(role) for role, source in sources.items())
    return Work(painting(top, original=under, mask=omega, prompt=prompt), ingredients)


def edit_sdedit(
    guide: Given, *, original: Given | None = None, mask: Given | None = None, **settings: Any
) -> list[Picture]:
    """Make `guide` natural, keeping what `mask` keeps of `original`; settings are those of `SdeditConfig`.

    >>> [picture] = scumble.edit_sdedit("strokes.png", prompt="a red cat on the beach", t0=0.5, seed=7)
    >>> picture.image.save("cat.png")
    """
    config = SdeditConfig.of(settings).seeded()
    work = prepare(guide, original, mask, config.prompt)
    return finish(repaint(config, config.load(), work))


def repaint(config: SdeditConfig, model: Model, work: Work, *, preview_every: int = 0) -> Loop[list[Picture]]:
    """Paint `count` pictures of `work` as a loop; returns them with their recipes, one t0 for all.

    With `search` sweep it is one picture, the strip over t0 with the first seed.
    """
    with config.attached(model) as learnt:
        return (
            yield from _repaint(config, model, Work(work.painting, work.ingredients + learnt), preview_every)
        )


def _repaint(config: SdeditConfig, model: Model, work: Work, preview_every: int) -> Loop[list[Picture]]:
    seeds, method = config.seeds, config.method()
    if config.search == "sweep":
        tried = yield from sweep(model, work.painting, seeds[0], method)
        return [Picture(strip(tried), _recipe(config, model, work.ingredients, seeds[0]))]
    if config.search == "auto":
        t0 = yield from sdedit.find_t0(model, work.painting, seeds[0], method)
        config = config.replace(t0=t0, search="none")
        method = config.method()
    paintings = [work.painting] * len(seeds)
    drawn = yield from sdedit.edit(
        model, paintings, seeds, method, batch_size=config.batch, preview_every=preview_every
    )
    return [
        finished(model, pixels, _recipe(config, model, work.ingredients, seed))
        for pixels, seed in zip(drawn, seeds, strict=True)
    ]


def _recipe(config: SdeditConfig, model: Model, ingredients: tuple[Ingredient, ...], seed: int) -> Recipe:
    return recipe_of("edit sdedit", config, model, ingredients, seed)


def again(config: SdeditConfig, model: Model, inputs: Mapping[str, Path]) -> Loop[list[Picture]]:
    """Paint as a recipe says; see `scumble.verbs.redo`."""
    work = prepare(inputs["guide"], inputs.get("original"), inputs.get("mask"), config.prompt)
    return (yield from repaint(config, model, work))


def edit_to(
    config: SdeditConfig,
    guide: Path,
    out: Path,
    *,
    original: Path | None = None,
    mask: Path | None = None,
    overwrite: bool = False,
    with_recipe: bool = True,
    preview_every: int = 0,
) -> Loop[Saved]:
    """Edit the picture `guide`, or each one in that folder, and write the results to `out`.

    `original` and `mask` are one picture for all, or folders with pictures of the guides' names. Everything
    is read, and every name checked, before the work.
    """
    config = config.seeded()
    guides = picture_files(guide)

    def work_of(file: Path) -> Work:
        return prepare(file, same_named(original, file), same_named(mask, file), config.prompt)

    kept = [bool((work_of(file).painting.mask < 1).any()) for file in guides]  # and let go of again
    if config.search == "sweep":
        config = config.replace(count=1)
    places = [edited_paths(config, out, g, in_folder=guide.is_dir(), overwrite=overwrite) for g in guides]
    model = config.load()
    notes = first_notes(model, kept, places) + weights_notes(config.weights, [config.prompt, config.negative])
    files: list[dict[str, str | int]] = []
    for file, paths in zip(guides, places, strict=True):
        pictures = yield from repaint(config, model, work_of(file), preview_every=preview_every)
        files += save_pictures(pictures, paths, with_recipe=with_recipe, edited=True)
        notes += _notes(config, file, pictures)
    return Saved(files, " ".join(notes))


def _notes(config: SdeditConfig, file: Path, pictures: Sequence[Picture]) -> Iterator[str]:
    """What a person should know of the `pictures` made of one guide."""
    if config.search == "auto":
        yield f"For {file.name} t0 {pictures[0].recipe.settings['t0']:.2f} was found."
    yield from withheld_notes(file, pictures)


def estimate_edit(
    config: SdeditConfig, guide: Path, *, original: Path | None = None, mask: Path | None = None
) -> Estimate:
    """What `edit_to` will need, by tracing one step for each size of picture without running it."""
    config = config.seeded()
    guides = picture_files(guide)
    model = config.load()
    costs: list[Cost] = []
    for file in guides:
        work = prepare(file, same_named(original, file), same_named(mask, file), config.prompt)
        costs.append(_cost(config, model, work))
    settings = _recipe(config, model, (), config.seeds[0]).settings
    return estimate.needs([model], costs, {**settings, "seed": config.seeds[0], "count": config.count})


def _cost(config: SdeditConfig, model: Model, work: Work) -> Cost:
    """Of encoding, every step and decoding, for all pictures of one guide."""
    prompts = [config.prompt]
    batch = min(config.batch, config.count)
    alone = not model.text_encoders or sdedit.guidance_scale(model, prompts, config) == 1
    condition = model.prompt(prompts) if model.text_encoders else None
    size = padded_size(model, (work.painting.guide.shape[-2], work.painting.guide.shape[-1]))
    shape, time = model.latent_shape(*size), torch.zeros((), device=model.device)

    def call() -> None:
        model.predict(torch.zeros(batch * (1 if alone else 2), *shape, device=model.device), time, condition)

    step = estimate.trace(call)
    encoding = estimate.trace(lambda: model.encode(torch.zeros(1, 3, *size, device=model.device)))
    decoding = estimate.trace(lambda: model.decode(torch.zeros(1, *shape, device=model.device)))
    calls = SAMPLERS[config.sampler].calls(config.steps) * config.repeats * -(-config.count // batch)
    calls *= {"none": 1, "auto": 3, "sweep": len(T0S) - 1}[config.search]
    return Cost(
        flops=step.flops * calls + (encoding.flops + decoding.flops) * config.count,
        peak_bytes=max(step.peak_bytes, encoding.peak_bytes, decoding.peak_bytes),
    )
