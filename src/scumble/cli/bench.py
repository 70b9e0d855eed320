"""`scumble bench`: the measured tables."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from scumble.cli.bench_claims import claims
from scumble.cli.console import follow, give
from scumble.cli.options import Guidance, Json, Model, Output, TrustPickle

__all__ = ["app", "bench", "edits", "full_size", "speed", "toybox"]

Trying = Annotated[
    bool,
    typer.Option("--trying", help="With --instruct, --text2live: on scenes for tuning, edits alone."),
]
Video = Annotated[bool, typer.Option("--video", help="With --text2live: atlases and edits of clips.")]
Published = Annotated[
    str | None,
    typer.Option("--set", help="dreambench, customconcept101, instructpix2pix, magicbrush.  [the toybox's]"),
]
Count = Annotated[int | None, typer.Option(min=1, help="Scenes, subjects or cases.  [the table's own]")]
PerPrompt = Annotated[
    int | None, typer.Option(min=1, help="Pictures of each prompt of a set.  [the protocol's]")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of drawing or editing.  [the table's]")]

app = typer.Typer(name="bench", help="The measured tables.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """The measured tables."""


app.command()(claims)


@app.command(name="full-size")
def full_size(
    kind: Annotated[str, typer.Argument(help="sd1, sd2, sdxl or ip2p.")],
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16.")] = "float32",
    guidance: Annotated[float, typer.Option(help="1 draws without guidance, in half the time.")] = 7.5,
    work: Annotated[
        Path | None, typer.Option(help="Folder for the model's files.  [a temporary one]")
    ] = None,
    photo: Annotated[Path | None, typer.Option(help="Picture to edit.  [a render]")] = None,
    as_json: Json = False,
) -> None:
    """Make, load, draw and edit with and convert a full-size model of random weights."""
    from scumble.bench import full_size as bench
    from scumble.core.errors import InputError

    if kind not in bench.KINDS:
        raise InputError(f"There is no model {kind!r}.", f"Choose one of {', '.join(bench.KINDS)}.")
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=work) as folder:
        phases = follow(bench.full_size(kind, Path(folder), dtype=dtype, guidance=guidance, photo=photo))
    give({"phases": [asdict(p) for p in phases]}, as_json=as_json, text=bench.table(phases))


@app.command()
def toybox(
    output: Output,
    count: Annotated[int, typer.Option(min=2, help="Scenes, each rendered and drawn once.")] = 500,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 25,
    sampler: Annotated[str, typer.Option(help="How each step is taken.")] = "dpmpp_2m",
    guidance: Guidance = None,
    profile: Annotated[str, typer.Option(help="Which scenes: full, core, photo.")] = "full",
    as_json: Json = False,
) -> None:
    """Measure the toybox against the truth; a run that was stopped goes on where it was."""
    from scumble.bench.toybox import Settings, measure, table

    settings = Settings(count=count, steps=steps, sampler=sampler, guidance=guidance, profile=profile)
    scores = follow(measure(output, settings))
    give(scores, as_json=as_json, text=table(scores))


@app.command()
def edits(
    output: Output,
    copy: Annotated[Path | None, typer.Argument(help="Your copy of the set that --set names.")] = None,
    sdedit: Annotated[bool, typer.Option("--sdedit", help="Measure SDEdit.")] = False,
    instruct: Annotated[bool, typer.Option("--instruct", help="Measure InstructPix2Pix.")] = False,
    trying: Trying = False,
    learn: Annotated[bool, typer.Option("--learn", help="Measure the methods that learn.")] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="With --learn: how often.  [3]")] = None,
    text2live: Annotated[bool, typer.Option("--text2live", help="Measure Text2LIVE.")] = False,
    video: Video = False,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="With --video: time of an atlas in the faithful form.  [none]")
    ] = None,
    published: Published = None,
    method: Annotated[
        str | None, typer.Option(help="dreambooth, textual-inversion, sdedit, ...  [with --learn: all]")
    ] = None,
    model: Model = None,
    count: Count = None,
    per_prompt: PerPrompt = None,
    steps: Steps = None,
    clip: Annotated[str | None, typer.Option(help="Another CLIP to judge with.  [the protocol's]")] = None,
    dino: Annotated[str | None, typer.Option(help="Another DINO to judge with.  [the protocol's]")] = None,
    trust_pickle: TrustPickle = None,
    as_json: Json = False,
) -> None:
    """Measure edits: of toybox pictures against the truth, or on your copy of a published set.

    A run that was stopped goes on where it was.
    """
    given = dict(locals())
    from scumble.core.errors import InputError

    named = [name for name in _OF_TABLE if given[name] not in (None, False)]
    if len(named) != 1:
        raise InputError(
            "No method was named." if not named else f"{len(named)} tables are too many for one folder.",
            "Give --sdedit, --instruct, --text2live, --learn, or --set and --method.",
        )
    takes, measure = _OF_TABLE[named[0]]
    for name, value in given.items():
        if value not in (None, False) and name not in {"output", "as_json", named[0], *takes}:
            raise InputError(f"{_option(name)} is nothing for {_option(named[0])}.", "Leave it out.")
    measure(given)


def _option(name: str) -> str:
    """As it is typed."""
    return {"published": "--set", "copy": "COPY"}.get(name, "--" + name.replace("_", "-"))


def _sdedit(given: dict[str, Any]) -> None:
    from scumble.bench.sdedit import Settings, measure, table

    chosen = {name: given[name] for name in ("count", "steps") if given[name] is not None}
    if given["count"] is not None:
        chosen["edits"] = given["count"]
    scores = follow(measure(given["output"], Settings.of(chosen)))
    give(scores, as_json=given["as_json"], text=table(scores))


def _instruct(given: dict[str, Any]) -> None:
    from scumble.bench.instruct import TRYING, Settings, measure, table

    chosen = {name: given[name] for name in ("model", "count", "steps") if given[name] is not None}
    if given["count"] is not None:
        settings = Settings.of(chosen)
        chosen |= {name: min(getattr(settings, name), settings.count) for name in ("curve", "chains")}
    if given["trying"]:
        chosen |= {"first": TRYING, "curve": 0, "chains": 0}
    scores = follow(measure(given["output"], Settings.of(chosen)))
    give(scores, as_json=given["as_json"], text=table(scores))


def _layers(given: dict[str, Any]) -> None:
    from scumble.bench import text2live, text2live_video
    from scumble.core.errors import InputError

    if given["minutes"] is not None and not given["video"]:
        raise InputError("--minutes are those of an atlas.", "Give --video too.")
    chosen = {name: given[name] for name in ("count", "steps", "minutes") if given[name] is not None}
    if given["video"]:
        settings = text2live_video.Settings.of(chosen)
        scores = follow(text2live_video.measure(given["output"], settings))
        give(scores, as_json=given["as_json"], text=text2live_video.table(scores))
        return
    if given["trying"]:
        chosen["first"] = text2live.TRYING
    scores = follow(text2live.measure(given["output"], text2live.Settings.of(chosen)))
    give(scores, as_json=given["as_json"], text=text2live.table(scores))


def _learners(given: dict[str, Any]) -> None:
    from scumble.bench.learning import Settings, measure, table

    chosen = {"subjects": given["count"], "methods": given["method"] and (given["method"],)}
    chosen |= {name: given[name] for name in ("model", "seeds", "steps")}
    settings = Settings.of({name: value for name, value in chosen.items() if value is not None})
    scores = follow(measure(given["output"], settings))
    give(scores, as_json=given["as_json"], text=table(scores))


def _on_a_set(given: dict[str, Any]) -> None:
    from scumble.bench.protocols import Settings, measure, table
    from scumble.core.errors import InputError

    if given["copy"] is None:
        raise InputError("There is no copy of the set.", "Give its folder; nothing is fetched.")
    if given["method"] is None:
        raise InputError("No method was named.", "Give --method, such as dreambooth or sdedit.")
    names = ("method", "model", "count", "per_prompt", "steps", "clip", "dino", "trust_pickle")
    chosen = {name: given[name] for name in names if given[name] is not None}
    scores = follow(
        measure(given["output"], given["copy"], Settings.of({"set": given["published"], **chosen}))
    )
    give(scores, as_json=given["as_json"], text=table(scores))


@app.command()
def speed(
    output: Output,
    model: Model = None,
    repeats: Annotated[int, typer.Option(min=1, help="How often each side is timed.")] = 9,
    steps: Annotated[
        int | None,
        typer.Option(min=2, help="Steps of both sides.  [20; 30 of learning; 100 of Text2LIVE's original]"),
    ] = None,
    instruct: Annotated[
        bool, typer.Option("--instruct", help="Time edits by instruction, or with --learn learning them.")
    ] = False,
    learn: Annotated[
        Path | None,
        typer.Option(metavar="CHECKOUT", help="Time learning beside the scripts of this diffusers checkout."),
    ] = None,
    text2live: Annotated[
        Path | None,
        typer.Option(metavar="CHECKOUT", help="Time Text2LIVE beside this checkout of its original code."),
    ] = None,
    method: Annotated[str | None, typer.Option(help="With --learn: only this one.")] = None,
    size: Annotated[int | None, typer.Option(help="With --learn, --text2live: pixels.  [128]")] = None,
    as_json: Json = False,
) -> None:
    """Time pictures and edits beside the pipelines of diffusers on the same model, learning beside its
    scripts, or Text2LIVE beside its original code.
    """
    if text2live is not None:
        from scumble.bench import text2live_speed as layers

        asked = {"model": model, "repeats": repeats, "steps": steps, "size": size}
        told = layers.Settings.of({name: value for name, value in asked.items() if value is not None})
        raced = follow(layers.measure(output, text2live, told))
        give(raced, as_json=as_json, text=layers.table(raced))
        return
    if learn is not None:
        from scumble.bench import learning_speed as bench

        chosen = {"model": model, "steps": steps, "size": size, "methods": method and (method,)}
        if instruct:
            chosen |= {"methods": ("instruct-pix2pix",), "batch": 4}
        given = bench.Settings.of({name: value for name, value in chosen.items() if value is not None})
        found = follow(bench.measure(output, learn, given))
        give(found, as_json=as_json, text=bench.table(found))
        return
    from scumble.bench.speed import Settings, measure, table

    usual = "toybox-instruct" if instruct else "toybox"
    given = Settings(model=model or usual, repeats=repeats, steps=steps or 20, instruct=instruct)
    scores = follow(measure(output, given))
    give(scores, as_json=as_json, text=table(scores))


_OF_TABLE = {
    "sdedit": (("count", "steps"), _sdedit),
    "instruct": (("model", "count", "steps", "trying"), _instruct),
    "text2live": (("count", "steps", "trying", "video", "minutes"), _layers),
    "learn": (("model", "count", "steps", "seeds", "method"), _learners),
    "published": (
        ("copy", "method", "model", "count", "per_prompt", "steps", "clip", "dino", "trust_pickle"),
        _on_a_set,
    ),
}
"""What names a table -> the options that it takes, and what measures it."""
