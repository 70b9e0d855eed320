"""`scumble edit`: change pictures that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scumble.cli import options
from scumble.cli.console import follow, give_needs, give_saved
from scumble.cli.edit_text2live import text2live

__all__ = ["app", "edit", "instruct", "sdedit"]

Original = Annotated[
    Path | None, typer.Option(help="The picture that was painted over; stays where the mask is black.")
]
Mask = Annotated[
    Path | None, typer.Option(help="White may change, black stays, grey changes less.  [what differs]")
]
T0 = Annotated[
    str | None,
    typer.Option(help="Noise: 0 keeps the painting, 1 forgets it; auto, or a sweep over all.  [0.5]"),
]
Preset = Annotated[
    str | None, typer.Option(help="fast, strokes, stroke-edit, compositing, released.  [fast]")
]

Instructions = Annotated[
    list[str], typer.Argument(help="What to do to it; several are done one after the other.")
]
Editable = Annotated[
    Path | None, typer.Option(help="White may change, black stays, grey changes less.  [all]")
]
ImageScale = Annotated[
    float | None, typer.Option(help="How closely to keep to the picture; 1 to 2.2 is usual.  [1.5]")
]
Judge = Annotated[str | None, typer.Option(help="For --auto: the CLIP that judges.  [fits the model]")]

app = typer.Typer(
    name="edit", help="Edit pictures: by instruction, by painting, by a layer.", no_args_is_help=True
)


@app.callback()
def edit() -> None:
    """Edit pictures: by instruction, by painting, by a layer."""


app.command()(text2live)


@app.command()
def instruct(
    image: options.Pictures,
    instructions: Instructions,
    output: options.Output,
    mask: Editable = None,
    image_scale: ImageScale = None,
    text_scale: Annotated[
        float | None, typer.Option(help="How far to follow the words.  [the model's]")
    ] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Look for the two scales; takes three edits.")] = False,
    sweep: Annotated[bool, typer.Option("--sweep", help="One sheet over the two scales.")] = False,
    before: Annotated[str | None, typer.Option(help="For --auto: what the picture shows.")] = None,
    after: Annotated[str | None, typer.Option(help="For --auto: what it should show then.")] = None,
    clip: Judge = None,
    negative: options.Negative = None,
    feather: options.Feather = None,
    preset: Annotated[str | None, typer.Option(help="fast, paper.  [fast]")] = None,
    model: options.Editor = None,
    weights: options.Weights = None,
    count: options.CountOfEach = None,
    seed: options.Seed = None,
    steps: options.Steps = None,
    sampler: options.Sampler = None,
    batch: options.Batch = None,
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
    """Edit by instruction (InstructPix2Pix): say what to change."""
    given = dict(locals())
    from scumble.core.errors import ConfigError
    from scumble.verbs.edit_instruct import InstructConfig, edit_to, estimate_edit

    if auto and sweep:
        raise ConfigError("--auto and --sweep exclude each other.", "Give one of them.")
    search = "auto" if auto else "sweep" if sweep else None
    settings = options.from_command(InstructConfig, given, search=search)
    if dry_run:
        give_needs(estimate_edit(settings, image, mask=mask), as_json=as_json)
        return
    files = {"image": image, "out": output, "mask": mask}
    done = follow(edit_to(settings, **files, overwrite=overwrite, with_recipe=not no_recipe))
    give_saved(done, as_json=as_json)


@app.command()
def sdedit(
    guide: Annotated[Path, typer.Argument(help="The painting, or a folder of paintings.")],
    output: options.Output,
    original: Original = None,
    mask: Mask = None,
    prompt: Annotated[str | None, typer.Option(help="What to show, if words are wanted.")] = None,
    negative: options.Negative = None,
    t0: T0 = None,
    repeats: Annotated[int | None, typer.Option(help="How often to noise and denoise.  [1]")] = None,
    feather: options.Feather = None,
    preset: Preset = None,
    model: options.Model = None,
    weights: options.Weights = None,
    count: options.CountOfEach = None,
    seed: options.Seed = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.  [12]")] = None,
    sampler: Annotated[str | None, typer.Option(help="dpmpp_2m, ddim, reverse_sde, ...  [dpmpp_2m]")] = None,
    guidance: options.Guidance = None,
    batch: options.Batch = None,
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
    """Make a rough painting natural (SDEdit): noise it up to t0, then denoise it."""
    given = dict(locals())
    from scumble.verbs.edit_sdedit import SdeditConfig, edit_to, estimate_edit

    searched = {"search": t0, "t0": None} if t0 in ("auto", "sweep") else {"t0": options.number(t0)}
    settings = options.from_command(SdeditConfig, given, **searched)
    if dry_run:
        give_needs(estimate_edit(settings, guide, original=original, mask=mask), as_json=as_json)
        return
    files = {"guide": guide, "out": output, "original": original, "mask": mask}
    done = follow(edit_to(settings, **files, overwrite=overwrite, with_recipe=not no_recipe))
    give_saved(done, as_json=as_json)
