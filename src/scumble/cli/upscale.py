"""`scumble upscale`: pictures made larger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scumble.cli import options
from scumble.cli.console import duration, follow, give, say, size

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
    image: Annotated[Path, typer.Argument(help="The picture, or a folder of pictures.")],
    output: options.Output,
    prompt: Annotated[str | None, typer.Option(help="What it shows, for upscalers that read.")] = None,
    negative: Annotated[str | None, typer.Option(help="What to lead away from.")] = None,
    noise_level: NoiseLevel = None,
    model: Upscaler = None,
    weights: options.Weights = None,
    count: Annotated[int | None, typer.Option(help="How many of each picture.  [1]")] = None,
    seed: options.Seed = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.  [20]")] = None,
    sampler: Annotated[str | None, typer.Option(help="dpmpp_2m, ddim, heun, ...  [dpmpp_2m]")] = None,
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

    chosen = {name: value for name, value in given.items() if name in UpscaleConfig.model_fields}
    settings = options.settings(UpscaleConfig, config, **{**chosen, "weights": weights or None})
    if dry_run:
        needs = estimate_upscale(settings, image)
        text = f"about {duration(needs.seconds)} and {size(needs.memory_bytes)} of memory\n{needs.settings}"
        give(needs.model_dump(), as_json=as_json, text=text)
        return
    done = follow(upscale_to(settings, image, output, overwrite=overwrite, with_recipe=not no_recipe))
    if done.note:
        say(done.note)
    give({"pictures": done.files}, as_json=as_json, text="\n".join(str(row["path"]) for row in done.files))
