"""`scumble data`: training data that methods make for themselves."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from scumble.cli import options
from scumble.cli.console import follow, give, give_needs, say

__all__ = ["app", "data", "instructions", "language_model", "regularization"]

Source = Annotated[
    str | None,
    typer.Option(help="grammar, exact, file, language-model, address.  [by what is given]"),
]
LanguageModel = Annotated[
    str | None, typer.Option(metavar="NAME_OR_PATH", help="A local language model that writes edits.")
]
Url = Annotated[
    str | None, typer.Option(metavar="URL", help="Where a model speaks OpenAI's protocol, with its /v1.")
]
KeyVariable = Annotated[
    str | None, typer.Option(metavar="NAME", help="The environment's variable with the key.  [no key]")
]
GuidanceRange = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="LOW HIGH", help="Range of guidance scales.  [the preset's]"),
]
Triples = Annotated[Path | None, typer.Option(metavar="FILE", help="Edits in words, JSONL.")]
Captions = Annotated[Path | None, typer.Option(metavar="FILE", help="Captions to edit, a line each.")]

app = typer.Typer(name="data", help="Make training data.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Make training data."""


@app.command()
def instructions(
    output: options.Output,
    source: Source = None,
    triples: Triples = None,
    captions: Captions = None,
    language_model: LanguageModel = None,
    address: Url = None,
    address_model: Annotated[str | None, typer.Option(help="The name of the model there.")] = None,
    key_variable: KeyVariable = None,
    count: Annotated[int | None, typer.Option(help="Edits.  [100, or all in the file]")] = None,
    samples: Annotated[int | None, typer.Option(help="Pairs drawn for each edit.  [the preset's]")] = None,
    keep: Annotated[int | None, typer.Option(help="Best pairs kept of each.  [4]")] = None,
    preset: Annotated[str | None, typer.Option(help="paper, toybox.  [fits the model]")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.  [the preset's]")] = None,
    guidance: GuidanceRange = None,
    size: options.Square = None,
    batch: Annotated[int | None, typer.Option(help="Pairs drawn at once.  [4]")] = None,
    seed: options.Chance = None,
    model: options.Model = None,
    clip: options.Clip = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    form: Annotated[str | None, typer.Option(help="folder, webdataset, parquet.  [folder]")] = None,
    text_only: Annotated[bool | None, typer.Option("--text-only", help="Only the edits, as JSONL.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with its own models.")] = 1,
    ray: Annotated[
        bool, typer.Option("--ray", help="Let Ray Data run the workers, on a cluster too.")
    ] = False,
    config: options.ConfigFile = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Make pairs of pictures with instructions (Brooks et al. 2022), for training an editing model.

    A run that was stopped goes on where it was when the same command is given again.
    """
    given = dict(locals())
    from scumble.verbs.data_config import config_for
    from scumble.verbs.data_estimate import estimate_instructions
    from scumble.verbs.data_instructions import data_instructions_to

    elsewhere = ("output", "preset", "workers", "ray", "config", "dry_run", "as_json")
    chosen = {name: value for name, value in given.items() if name not in elsewhere}
    settings = config_for(preset, config, **chosen)
    if dry_run:
        give_needs(estimate_instructions(settings, workers=workers), as_json=as_json)
        return
    made = follow(data_instructions_to(settings, output, workers=workers, ray=ray))
    text = f"{made.pairs} {'edits' if settings.text_only else 'pairs'} in {made.path}"
    if not settings.text_only:
        text = f"{_survival(made.summary)}\n{text}"
    if not settings.text_only and settings.form == "folder":
        text += f"\nTrain on it: scumble train instruct-pix2pix {quote(str(made.path))} -o OUT"
    give({"path": str(made.path), "pairs": made.pairs, **made.summary}, as_json=as_json, text=text)


@app.command("language-model")
def language_model(
    triples: Annotated[Path, typer.Argument(help="Edits in words, JSONL, as examples.")],
    output: options.Output,
    start: Annotated[str, typer.Option("--from", metavar="NAME_OR_PATH", help="The model to tune.")],
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.  [200]")] = None,
    batch: Annotated[int | None, typer.Option(help="Edits in a step.  [8]")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.  [1e-5]")] = None,
    seed: options.Chance = None,
    device: options.Device = None,
    config: options.ConfigFile = None,
    as_json: options.Json = False,
) -> None:
    """Tune a local language model to write edits, from examples of edits in words."""
    from scumble.datagen.language_model import TuneConfig
    from scumble.verbs.tune_language_model import tune_language_model_to

    settings = options.settings(TuneConfig, config, steps=steps, batch=batch, lr=lr, seed=seed)
    done = follow(tune_language_model_to(triples, start, output, settings, device=device or "auto"))
    for note in done.notes:
        say(note)
    facts = {"path": str(output), "steps": done.steps, "losses": done.losses}
    text = f"{output}\nUse it: scumble data instructions --language-model {quote(str(output))} -o OUT"
    give(facts, as_json=as_json, text=text)


@app.command()
def regularization(
    folder: Annotated[Path, typer.Argument(help="Pictures with captions, cat.txt for cat.png.")],
    output: options.Output,
    model: options.Model = None,
    clip: options.Clip = None,
    faiss: Annotated[bool, typer.Option("--faiss", help="Search by FAISS: for millions.")] = False,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Index a captioned folder, to look in for pictures of other things (learn custom-diffusion)."""
    from scumble.verbs.data_regularization import index_captions

    making = index_captions(
        folder, output, model=model or "toybox", clip=clip or "", faiss=faiss, overwrite=overwrite
    )
    done = follow(making)
    if done.note:
        say(done.note)
    facts = {"path": str(output), "count": done.count, "without_caption": done.without}
    give(
        facts,
        as_json=as_json,
        text=f"{done.count} {'caption' if done.count == 1 else 'captions'} in {output}",
    )


def _survival(summary: dict[str, Any]) -> str:
    """How many each stage let through, a line a stage."""
    stages = [*summary["text"], *summary["pictures"]]
    return "\n".join(f"{row['left']:>9,}  {row['share']:>7.1%}  {row['stage']}" for row in stages)
