"""`scumble generate`: pictures from words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scumble.cli import options
from scumble.cli.console import follow, give_needs, give_saved

__all__ = ["generate"]

SafetyChecker = Annotated[
    bool | None, typer.Option("--no-safety-checker", help="Draw without the model's safety checker.")
]


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw. (word:1.3) weighs a word.")],
    output: options.Output,
    model: options.Model = None,
    weights: options.Weights = None,
    negative: options.Negative = None,
    count: options.Count = None,
    seed: options.Seed = None,
    steps: options.Steps = None,
    sampler: options.Sampler = None,
    guidance: options.Guidance = None,
    width: options.Width = None,
    height: options.Height = None,
    batch: options.Batch = None,
    upscale: Annotated[
        bool, typer.Option("--upscale", help="Make the pictures larger, with the toybox's upscaler.")
    ] = False,
    upscaler: Annotated[
        str | None, typer.Option(metavar="NAME_OR_PATH", help="Make them larger with this upscaler.")
    ] = None,
    preview: options.Preview = None,
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

    settings = options.from_command(
        GenerateConfig,
        given,
        safety_checker=False if no_safety_checker else None,
        upscaler=upscaler or ("toybox-upscaler" if upscale else None),
    )
    if dry_run:
        give_needs(estimate_generate(settings, output, overwrite=overwrite), as_json=as_json)
        return
    shown, every = _previews(preview, output, overwrite=overwrite)
    loop = draw_to(settings, output, overwrite=overwrite, with_recipe=not no_recipe, preview_every=every)
    give_saved(follow(loop, preview=shown), as_json=as_json)


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
