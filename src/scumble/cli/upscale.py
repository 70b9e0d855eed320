"""`scumble upscale`: pictures made larger."""

from __future__ import annotations

from typing import Annotated

import typer

from scumble.cli import options
from scumble.cli.console import follow, give_needs, give_saved

__all__ = ["upscale"]

Upscaler = Annotated[
    str | None,
    typer.Option(
        metavar="NAME_OR_PATH",
        help="toybox-upscaler, or an x4-upscaler's folder or file.  [the toybox's]",
    ),
]
NoiseLevel = Annotated[
    int | None, typer.Option(help="Noise on the small picture; more leaves more to invent.  [the upscaler's]")
]


def upscale(
    image: options.Pictures,
    output: options.Output,
    prompt: Annotated[str | None, typer.Option(help="What it shows, for upscalers that read.")] = None,
    negative: options.Negative = None,
    noise_level: NoiseLevel = None,
    model: Upscaler = None,
    weights: options.Weights = None,
    count: options.CountOfEach = None,
    seed: options.Seed = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.  [20]")] = None,
    sampler: options.Sampler = None,
    guidance: options.Guidance = None,
    tile: Annotated[
        int | None, typer.Option(help="Pixels, the side of the windows large pictures are done in.")
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    low_memory: options.LowMemory = None,
    trust_pickle: options.TrustPickle = None,
    config: options.ConfigFile = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
    no_recipe: options.NoRecipe = False,
) -> None:
    """Make pictures larger with an upscaler, in windows, so that any size fits."""
    given = dict(locals())
    from scumble.verbs.upscale import UpscaleConfig, estimate_upscale, upscale_to

    settings = options.from_command(UpscaleConfig, given)
    if dry_run:
        give_needs(estimate_upscale(settings, image), as_json=as_json)
        return
    done = follow(upscale_to(settings, image, output, overwrite=overwrite, with_recipe=not no_recipe))
    give_saved(done, as_json=as_json)
