"""`scumble learn`: a word for a subject, from a few pictures of it."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from scumble.cli import options
from scumble.cli.console import follow, give, give_needs, say, size

__all__ = ["app", "custom_diffusion", "dreambooth", "learn", "textual_inversion"]

Folder = Annotated[Path | None, typer.Argument(help="A folder with a few pictures of the subject.")]
Subjects = Annotated[
    list[str] | None,
    typer.Option("--subject", metavar="FOLDER:WORD:NOUN", help="Another subject; as often as needed."),
]
PriorWeight = Annotated[
    float | None, typer.Option(help="Weight of what keeps it from forgetting; 0 does without.  [1]")
]

NoCaptions = Annotated[
    bool,
    typer.Option("--no-captions", help="Leave the captions of the pictures unread: templates tell all."),
]

Named = tuple[Path, str, str]
"""The folder of a subject, its word and its noun."""

PREVIEW_EVERY = 25
"""Steps from one preview to the next."""

app = typer.Typer(name="learn", help="Learn a subject from a few pictures.", no_args_is_help=True)


@app.callback()
def learn() -> None:
    """Learn a subject from a few pictures."""


@app.command("textual-inversion")
def textual_inversion(
    output: options.Output,
    folder: Folder = None,
    word: options.Word = None,
    noun: options.Noun = None,
    subject: Subjects = None,
    no_captions: NoCaptions = False,
    preset: Annotated[
        str | None, typer.Option(help="default, paper, style, pivotal, toybox.  [fits the model]")
    ] = None,
    vectors: Annotated[int | None, typer.Option(help="Vectors of the word.  [the preset's]")] = None,
    initial: Annotated[str | None, typer.Option(help="Words to start from.  [the noun]")] = None,
    templates: Annotated[
        str | None,
        typer.Option(help="Sentences it is told in: object, style, plain.  [the preset's]"),
    ] = None,
    steps: options.LearningSteps = None,
    lr: options.LearningRate = None,
    batch: options.LearningBatch = None,
    size: options.Square = None,
    seed: options.Chance = None,
    preview: options.Preview = None,
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
    word: options.Word = None,
    noun: options.Noun = None,
    subject: Subjects = None,
    no_captions: NoCaptions = False,
    preset: Annotated[
        str | None,
        typer.Option(help="default, paper, text-encoder, toybox, toybox-low-rank.  [fits the model]"),
    ] = None,
    train: Annotated[
        str | None, typer.Option(help="all, attention, cross-attention, up, low-rank.  [the preset's]")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of low-rank changes.  [the preset's]")] = None,
    prior_weight: PriorWeight = None,
    upscaler: Annotated[
        str | None,
        typer.Option(metavar="NAME_OR_PATH", help="Teach the subject to this upscaler, too."),
    ] = None,
    upscaler_steps: Annotated[
        int | None, typer.Option(help="Optimiser steps of the upscaler.  [the preset's]")
    ] = None,
    steps: options.LearningSteps = None,
    lr: options.LearningRate = None,
    batch: options.LearningBatch = None,
    size: options.Square = None,
    seed: options.Chance = None,
    preview: options.Preview = None,
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


@app.command("custom-diffusion")
def custom_diffusion(
    output: options.Output,
    folder: Folder = None,
    word: options.Word = None,
    noun: options.Noun = None,
    subject: Subjects = None,
    no_captions: NoCaptions = False,
    preset: Annotated[
        str | None, typer.Option(help="default, paper, joint, face, toybox.  [fits the model]")
    ] = None,
    train: Annotated[str | None, typer.Option(help="key-value, cross-attention.  [the preset's]")] = None,
    regularization: Annotated[
        Path | None,
        typer.Option(
            metavar="PLACE",
            help="Captioned folder, or index of one, with pictures of other things.  [the model draws them]",
        ),
    ] = None,
    prior_weight: PriorWeight = None,
    analyse: Annotated[
        bool, typer.Option("--analyse", help="Measure which layers change most, in the folder OUT, and stop.")
    ] = False,
    steps: options.LearningSteps = None,
    lr: options.LearningRate = None,
    batch: options.LearningBatch = None,
    size: options.Square = None,
    seed: options.Chance = None,
    preview: options.Preview = None,
    model: options.Model = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    config: options.ConfigFile = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Tune how the picture reads the prompt, and a word (Kumari et al. 2022): small, quick, several at once.

    Without --word a folder with captions teaches what is new in them.
    """
    _learn("custom-diffusion", dict(locals()))


def _learn(method: str, given: dict[str, Any]) -> None:
    """Run `method` with the options of its command."""
    from scumble.core.errors import InputError
    from scumble.verbs.learn import config_for
    from scumble.verbs.load import ModelConfig

    subjects = [_subject(text) for text in given["subject"] or []]
    if given["folder"] is not None:
        subjects.insert(0, (given["folder"], given["word"] or "", given["noun"] or ""))
    elif subjects and (given["word"] or given["noun"]):
        raise InputError(
            "--word and --noun are those of FOLDER, and there is none.",
            "Write FOLDER:WORD:NOUN in --subject.",
        )
    where = {name: given[name] for name in ("model", "device", "dtype")}
    on = options.settings(ModelConfig, None, **where)
    common = ("steps", "lr", "batch", "size", "seed")
    own = ("vectors", "initial", "templates", "train", "rank", "prior_weight", "upscaler_steps")
    chosen = {name: given.get(name) for name in (*common, *own)}
    if given["no_captions"]:
        chosen["captions"] = False
    if given.get("regularization"):
        chosen["regularization"] = str(given["regularization"])
    config: Any = config_for(method, on.model, given["preset"], given["config"], **chosen)
    if given.get("rank") is not None and config.train != "low-rank":
        raise InputError(
            f"--rank is of low-rank changes, and {config.train} is trained.", "Add --train low-rank."
        )
    if given["dry_run"]:
        _rehearse(method, subjects, config, on, given)
    elif given.get("analyse"):
        _analyse(subjects, config, on, given)
    else:
        _make(method, subjects, config, on, given)


def _rehearse(method: str, subjects: list[Named], config: Any, on: Any, given: dict[str, Any]) -> None:
    """Refuse what the run would refuse, and say what it needs."""
    from scumble.training.processes import is_main_process
    from scumble.verbs.learn import estimate_learn
    from scumble.verbs.learn_inputs import read_inputs, read_to_analyse

    if given.get("analyse"):
        read_to_analyse(subjects, given["output"])
        read = []  # an analysis has words of its own for them
    else:
        read = read_inputs(subjects, given["output"], overwrite=given["overwrite"])
    needs = estimate_learn(config, on, method=method, upscaler=given.get("upscaler"), subjects=read)
    if is_main_process():
        give_needs(needs, as_json=given["as_json"])


def _make(method: str, subjects: list[Named], config: Any, on: Any, given: dict[str, Any]) -> None:
    """Learn, and say how to use it."""
    from scumble.verbs.learn import learn_to
    from scumble.verbs.outputs import planned_paths

    out: Path = given["output"]
    overwrite, preview, upscaler = given["overwrite"], given["preview"], given.get("upscaler")
    shown = planned_paths(preview, [0], overwrite=overwrite)[0] if preview else None
    every = PREVIEW_EVERY if preview else 0
    loop = learn_to(
        method, subjects, config, on, out, upscaler=upscaler, overwrite=overwrite, preview_every=every
    )
    if (done := _followed(loop, shown)) is None:
        return
    facts = {
        "path": str(out),
        "sha256": done.sha256,
        "bytes": done.bytes,
        "steps": done.steps,
        "words": done.words,
    }
    use = f"scumble generate {quote(done.prompt)} --with {quote(str(out))} -o out.png"
    text = f"{out} ({size(done.bytes)})\nUse it: {use}"
    give(facts, as_json=given["as_json"], text=text)


def _analyse(subjects: list[Named], config: Any, on: Any, given: dict[str, Any]) -> None:
    """Measure how much each layer changes, and say where it is written."""
    from scumble.verbs.analyse import analyse_to

    if (done := _followed(analyse_to(subjects, config, on, given["output"]))) is not None:
        give(done.facts, as_json=given["as_json"], text=done.text)


def _followed(loop: Any, preview: Path | None = None) -> Any:
    """What the loop gives, its note being said; None in all processes but the first, who do not speak."""
    from scumble.core.events import finish
    from scumble.training.processes import is_main_process

    if not is_main_process():
        finish(loop)
        return None
    done = follow(loop, preview=preview)
    if done.note:
        say(done.note)
    return done


def _subject(text: str) -> Named:
    """FOLDER:WORD:NOUN, or FOLDER alone."""
    from scumble.core.errors import InputError

    folder, _, rest = text.partition(":<") if ":<" in text else text.partition(":")
    word, _, noun = (f"<{rest}" if ":<" in text else rest).partition(":")
    if not folder:
        raise InputError(f"{text!r} is no FOLDER:WORD:NOUN.", "Write photos/rex:'<rex>':dog.")
    return Path(folder), word, noun
