"""`scumble generate`: pictures from words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scumble.cli import options
from scumble.cli.console import duration, follow, give, say, size

if TYPE_CHECKING:
    from scumble.verbs.generate import Estimate

__all__ = ["Batch", "Count", "Negative", "Preview", "SafetyChecker", "Sampler", "generate"]

Count = Annotated[int | None, typer.Option(help="How many pictures; their seeds follow one another.  [1]")]
Negative = Annotated[str | None, typer.Option(help="What to lead away from.")]
Sampler = Annotated[
    str | None, typer.Option(help="ddim, euler, euler_ancestral, heun, dpmpp_2m, ...  [dpmpp_2m]")
]
SafetyChecker = Annotated[
    bool | None, typer.Option("--no-safety-checker", help="Draw without the model's safety checker.")
]
Preview = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A small picture of the work so far, while it goes on.")
]
Batch = Annotated[int | None, typer.Option(help="Pictures drawn at once.  [8]")]


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw. (word:1.3) weighs a word.")],
    output: options.Output,
    model: options.Model = None,
    weights: options.Weights = None,
    negative: Negative = None,
    count: Count = None,
    seed: options.Seed = None,
    steps: options.Steps = None,
    sampler: Sampler = None,
    guidance: options.Guidance = None,
    width: options.Width = None,
    height: options.Height = None,
    batch: Batch = None,
    upscale: Annotated[
        bool, typer.Option("--upscale", help="Make the pictures larger, with the toybox's upscaler.")
    ] = False,
    upscaler: Annotated[
        str | None, typer.Option(metavar="NAME_OR_PATH", help="Make them larger with this upscaler.")
    ] = None,
    preview: Preview = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    low_memory: options.LowMemory = None,
    trust_pickle: options.TrustPickle = None,
    no_safety_checker: SafetyChecker = None,
    config: options.ConfigFile = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
    no_recipe: options.NoRecipe = False,
) -> None:
    """Draw a prompt. Several pictures are written beside a grid of them all."""
    given = dict(locals())
    from scumble.verbs.generate import GenerateConfig, draw_to, estimate_generate

    chosen = {name: value for name, value in given.items() if name in GenerateConfig.model_fields}
    chosen |= {"weights": weights or None, "safety_checker": False if no_safety_checker else None}
    chosen["upscaler"] = upscaler or ("toybox-upscaler" if upscale else None)
    settings = options.settings(GenerateConfig, config, **chosen)
    if dry_run:
        _give_estimate(estimate_generate(settings, output, overwrite=overwrite), as_json=as_json)
        return
    shown, every = _previews(preview, output, overwrite=overwrite)
    loop = draw_to(settings, output, overwrite=overwrite, with_recipe=not no_recipe, preview_every=every)
    done = follow(loop, preview=shown)
    if done.note:
        say(done.note)
    give({"pictures": done.files}, as_json=as_json, text="\n".join(str(row["path"]) for row in done.files))


def _previews(place: Path | None, output: Path, *, overwrite: bool) -> tuple[Path | None, int]:
    """The file for previews and the steps from one to the next; none and 0 where nobody asked."""
    from scumble.core.errors import InputError
    from scumble.verbs.generate import PREVIEW_EVERY
    from scumble.verbs.outputs import planned_paths

    if place is None:
        return None, 0
    if place.absolute() == output.absolute():
        raise InputError(f"{place} is the picture's own file.", "Give another for the previews.")
    return planned_paths(place, [0], overwrite=overwrite)[0], PREVIEW_EVERY


def _give_estimate(needs: Estimate, *, as_json: bool) -> None:
    text = f"about {duration(needs.seconds)} and {size(needs.memory_bytes)} of memory\n{needs.settings}"
    give(needs.model_dump(), as_json=as_json, text=text)
