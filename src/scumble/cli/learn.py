"""`scumble learn`: a word for a subject, from a few pictures of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scumble.cli import options
from scumble.cli.console import duration, follow, give, say, size

__all__ = ["app", "dreambooth", "learn", "textual_inversion"]

Folder = Annotated[Path | None, typer.Argument(help="A folder with a few pictures of the subject.")]
Word = Annotated[str | None, typer.Option(help="The word for it in prompts, such as '<rex>'.")]
Noun = Annotated[str | None, typer.Option(help="What it is a kind of, such as dog.")]
Subjects = Annotated[
    list[str] | None,
    typer.Option("--subject", metavar="FOLDER:WORD:NOUN", help="Another subject; as often as needed."),
]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps.  [the preset's]")]
Rate = Annotated[float | None, typer.Option(help="Learning rate.  [the preset's]")]
BatchSize = Annotated[int | None, typer.Option(help="Pictures in a step.  [the preset's]")]
Size = Annotated[int | None, typer.Option(help="Pixels, as the side of a square.  [the model's]")]

app = typer.Typer(name="learn", help="Learn a subject from a few pictures.", no_args_is_help=True)


@app.callback()
def learn() -> None:
    """Learn a subject from a few pictures."""


@app.command("textual-inversion")
def textual_inversion(
    output: options.Output,
    folder: Folder = None,
    word: Word = None,
    noun: Noun = None,
    subject: Subjects = None,
    preset: Annotated[
        str | None, typer.Option(help="default, paper, style, pivotal, toybox.  [fits the model]")
    ] = None,
    vectors: Annotated[int | None, typer.Option(help="Vectors of the word.  [the preset's]")] = None,
    initial: Annotated[str | None, typer.Option(help="Words to start from.  [the noun]")] = None,
    steps: Steps = None,
    lr: Rate = None,
    batch: BatchSize = None,
    size: Size = None,
    seed: options.Seed = None,
    model: options.Model = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    config: options.ConfigFile = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Learn a word alone, everything else frozen (Gal et al. 2022): the smallest file."""
    _learn("textual-inversion", dict(locals()))


@app.command()
def dreambooth(
    output: options.Output,
    folder: Folder = None,
    word: Word = None,
    noun: Noun = None,
    subject: Subjects = None,
    preset: Annotated[
        str | None,
        typer.Option(help="default, paper, text-encoder, toybox, toybox-low-rank.  [fits the model]"),
    ] = None,
    train: Annotated[
        str | None, typer.Option(help="all, attention, cross-attention, up, low-rank.  [the preset's]")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of low-rank changes.  [the preset's]")] = None,
    prior_weight: Annotated[
        float | None, typer.Option(help="Weight of what the class looks like; 0 does without.  [1]")
    ] = None,
    steps: Steps = None,
    lr: Rate = None,
    batch: BatchSize = None,
    size: Size = None,
    seed: options.Seed = None,
    model: options.Model = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    config: options.ConfigFile = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Fine-tune the denoiser to a subject while it keeps its class (Ruiz et al. 2022): the best likeness."""
    _learn("dreambooth", dict(locals()))


def _learn(method: str, given: dict[str, Any]) -> None:
    """Run `method` with the options of its command."""
    from scumble.core.errors import InputError
    from scumble.verbs.learn import config_for, estimate_learn, learn_to, run_folder
    from scumble.verbs.load import ModelConfig

    subjects = [_subject(text) for text in given["subject"] or []]
    if given["folder"] is not None:
        subjects.insert(0, (given["folder"], given["word"] or "", given["noun"] or ""))
    if any(not word for _, word, _ in subjects):
        raise InputError("The subject has no word yet.", "Give one: --word '<rex>'.")
    where = {name: given[name] for name in ("model", "device", "dtype") if given[name] is not None}
    on = ModelConfig.of(where)
    common = ("steps", "lr", "batch", "size", "seed")
    own = ("vectors", "initial", "train", "rank", "prior_weight")
    chosen = {name: given.get(name) for name in (*common, *own)}
    config = config_for(method, on.model, given["preset"], given["config"], **chosen)
    if given["dry_run"]:
        needs = estimate_learn(config, on)
        text = f"about {duration(needs.seconds)} and {size(needs.memory_bytes)} of memory\n{needs.settings}"
        give(needs.model_dump(), as_json=given["as_json"], text=text)
        return
    out: Path = given["output"]
    if any(run_folder(out).glob("checkpoints/*.safetensors")):
        say(f"Going on from {run_folder(out)}.")
    done = follow(learn_to(method, subjects, config, on, out, overwrite=given["overwrite"]))
    if done.note:
        say(done.note)
    facts = {
        "path": str(out),
        "sha256": done.sha256,
        "bytes": done.bytes,
        "steps": done.steps,
        "words": done.words,
    }
    use = " ".join([*done.words, *(noun for _, _, noun in subjects[:1])])
    text = (
        f"{out} ({size(done.bytes)})\nUse it: scumble generate 'a photo of a {use}' --with {out} -o out.png"
    )
    give(facts, as_json=given["as_json"], text=text)


def _subject(text: str) -> tuple[Path, str, str]:
    """FOLDER:WORD:NOUN."""
    from scumble.core.errors import InputError

    folder, _, rest = text.partition(":<") if ":<" in text else text.partition(":")
    word, _, noun = (f"<{rest}" if ":<" in text else rest).partition(":")
    if not folder or not word:
        raise InputError(f"{text!r} is no FOLDER:WORD:NOUN.", "Write photos/rex:'<rex>':dog.")
    return Path(folder), word, noun
