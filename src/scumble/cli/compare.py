"""`scumble compare`: one task, several methods side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scumble.cli import options
from scumble.cli.console import duration, follow, give, say, size

__all__ = ["compare"]


def compare(
    output: options.Page,
    image: Annotated[Path | None, typer.Argument(help="The picture to edit.")] = None,
    instruction: Annotated[str | None, typer.Option(help="What to do to it: 'make it night'.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What the result shows: 'a cat at night'.")] = None,
    before: Annotated[str | None, typer.Option(help="What the picture shows now: 'a cat'.")] = None,
    guide: Annotated[Path | None, typer.Option(help="Strokes: a painting, or the picture painted.")] = None,
    mask: options.Mask = None,
    subject: Annotated[Path | None, typer.Option(help="A folder with a few photos of a subject.")] = None,
    word: options.Word = None,
    noun: options.Noun = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Only this one; as often as needed.  [all of the six that apply]"),
    ] = None,
    model: options.Model = None,
    editor: options.Editor = None,
    clip: options.Clip = None,
    seed: Annotated[int | None, typer.Option(help="Of every picture.  [0]")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.  [each method's]")] = None,
    learning_steps: Annotated[
        int | None, typer.Option(help="Steps of learning a subject.  [each method's]")
    ] = None,
    layer_steps: Annotated[int | None, typer.Option(help="Steps of Text2LIVE.  [300]")] = None,
    t0: Annotated[float | None, typer.Option(help="Noise of SDEdit.  [0.5]")] = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    config: options.ConfigFile = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    no_recipe: options.NoRecipe = False,
) -> None:
    """Compare methods on one task: pictures side by side on one page, timed and scored.

    A run that was stopped goes on where it was.
    """
    given = dict(locals())
    from scumble.verbs.compare import compare_to, estimate_compare, table
    from scumble.verbs.compare_task import CompareConfig, Task

    settings = options.from_command(CompareConfig, given, methods=method or None)
    task = Task.of(settings, image=image, guide=guide, mask=mask, subject=subject)
    if dry_run:
        needs = estimate_compare(task, output)
        lines = [
            f"{r['method']}: about {duration(r['seconds'])}, {size(r['memory_bytes'])}" for r in needs["rows"]
        ]
        lines += [f"{name} left out: {why}" for name, why in needs["left out"].items()]
        give(needs, as_json=as_json, text="\n".join(lines))
        return
    done = follow(compare_to(task, output, with_recipe=not no_recipe))
    if done.note:
        say(done.note)
    give(done.facts, as_json=as_json, text=f"{table(done.facts)}\nopen {done.page}")
