"""`scumble train`: models of one's own."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from scumble.cli import options
from scumble.cli.console import follow, give, give_needs, say

__all__ = ["app", "instruct_pix2pix", "train"]

app = typer.Typer(name="train", help="Train models.", no_args_is_help=True)


@app.callback()
def train() -> None:
    """Train models."""


@app.command("instruct-pix2pix")
def instruct_pix2pix(
    data: Annotated[Path, typer.Argument(help="A folder of pairs with metadata.jsonl.")],
    output: options.Output,
    preset: Annotated[
        str | None, typer.Option(help="default, paper, low-rank, toybox.  [fits the model]")
    ] = None,
    train: Annotated[str | None, typer.Option(help="all, low-rank.  [the preset's]")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of low-rank changes.  [16]")] = None,
    steps: options.LearningSteps = None,
    lr: options.LearningRate = None,
    batch: options.LearningBatch = None,
    micro_batch: Annotated[int | None, typer.Option(help="Pairs computed at once.  [the batch]")] = None,
    size: options.Square = None,
    validate_every: Annotated[
        int | None, typer.Option(help="Steps between looks at held-out edits; 0 never.  [500]")
    ] = None,
    clip: Annotated[
        str | None, typer.Option(help="The CLIP that judges them.  [the toybox's own, or none]")
    ] = None,
    seed: options.Chance = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME_OR_PATH", help="Text-to-image or editing model to start from.  [toybox]"),
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    config: options.ConfigFile = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Train a model that edits by instruction, from pairs of pictures (Brooks et al. 2022).

    The same command again goes on where it stopped. On several GPUs: accelerate launch $(which scumble)
    train ...
    """
    from scumble.verbs.load import ModelConfig
    from scumble.verbs.train_instruct import estimate_train, run_folder, settings_for, train_to

    on = options.settings(ModelConfig, None, model=model, device=device, dtype=dtype)
    given = {"train": train, "rank": rank, "steps": steps, "lr": lr, "batch": batch, "size": size}
    given |= {"micro_batch": micro_batch, "validate_every": validate_every, "seed": seed}
    settings = settings_for(on.model, preset, config, **given)
    if dry_run:
        give_needs(estimate_train(data, settings, on), as_json=as_json)
        return
    if any(run_folder(output).glob("checkpoints/*.safetensors")):
        say(f"Going on from {run_folder(output)}.")
    done = follow(train_to(data, settings, on, output, clip=clip))
    if done.note:
        say(done.note)
    facts = {"path": str(done.path), "steps": done.steps, "pairs": done.pairs, "run": str(done.run)}
    use = f"scumble edit instruct PICTURE 'make it night' --model {quote(str(done.path))} -o out.png"
    give(facts | done.scores, as_json=as_json, text=f"{done.path}\nUse it: {use}")
