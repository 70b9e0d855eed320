"""`scumble advise`: what you have and want, and which method does it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scumble.cli.console import give
from scumble.cli.options import Json

if TYPE_CHECKING:
    from scumble.verbs.advise import Advice

__all__ = ["advise"]


def advise(
    want: Annotated[
        str | None,
        typer.Option(help="subject, style, local, whole, strokes.  [asked]"),
    ] = None,
    images: Annotated[int | None, typer.Option(min=0, help="Photos of the subject or style.  [0]")] = None,
    subjects: Annotated[int | None, typer.Option(min=1, max=16, help="Subjects in one picture.  [1]")] = None,
    told: Annotated[str | None, typer.Option(help="How you tell it: words, paint.  [words]")] = None,
    mask: Annotated[bool | None, typer.Option("--mask", help="There is a mask of what may change.")] = None,
    video: Annotated[bool | None, typer.Option("--video", help="It is a video.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Time there is.  [any]")] = None,
    gpu: Annotated[bool | None, typer.Option("--gpu/--no-gpu", help="An accelerator.  [as found]")] = None,
    toybox: Annotated[bool | None, typer.Option("--toybox", help="For the model that ships.")] = None,
    picture: Annotated[str | None, typer.Option(help="The picture or video.")] = None,
    photos: Annotated[str | None, typer.Option(help="The folder of photos.  [photos]")] = None,
    word: Annotated[str | None, typer.Option(help="The subject's word.  [<rex>]")] = None,
    noun: Annotated[str | None, typer.Option(help="What it is a kind of.  [dog]")] = None,
    prompt: Annotated[str | None, typer.Option(help="A caption of the result.")] = None,
    instruction: Annotated[str | None, typer.Option(help="What to do: 'make it night'.")] = None,
    as_json: Json = False,
) -> None:
    """Say what you have and want, or be asked: which method, which command, and why."""
    given = {n: v for n, v in locals().items() if n != "as_json" and v is not None}
    if want is None and sys.stdin.isatty() and not as_json:
        given |= _asked(given)
    from scumble.verbs.advise import advise as verb

    if gpu is None and want is not None:
        import torch

        given["gpu"] = torch.accelerator.is_available()
    advice = verb(**given)
    give(asdict(advice), as_json=as_json, text=_said(advice))


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    """What was not given, asked one by one; what cannot matter any more is not asked."""
    from rich.console import Console
    from rich.prompt import Confirm, FloatPrompt, IntPrompt, Prompt

    from scumble.verbs.advise import WISHES

    console, answers = Console(stderr=True), dict[str, Any]()
    for name, what in WISHES.items():
        console.print(f"  [bold]{name:8}[/bold] {what}")
    answers["want"] = want = Prompt.ask("What do you want?", choices=list(WISHES), console=console)
    if "video" not in given and want != "strokes":
        answers["video"] = Confirm.ask("Is it a video?", default=False, console=console)
    if want in ("subject", "style") and "images" not in given:
        answers["images"] = IntPrompt.ask("How many example pictures have you?", default=4, console=console)
    if want == "subject" and "subjects" not in given:
        answers["subjects"] = IntPrompt.ask("How many subjects, in one picture?", default=1, console=console)
    if want in ("local", "whole") and "told" not in given:
        ask = "Would you rather say it or paint it?"
        answers["told"] = Prompt.ask(ask, choices=["words", "paint"], default="words", console=console)
    if want == "local" and "mask" not in given:
        answers["mask"] = Confirm.ask("Have you a mask of what may change?", default=False, console=console)
    if "minutes" not in given:
        minutes = FloatPrompt.ask("How many minutes have you? 0 is any", default=0.0, console=console)
        answers |= {"minutes": minutes} if minutes > 0 else {}
    if "toybox" not in given:
        ask = "Is it for the toybox, the small model that ships?"
        answers["toybox"] = Confirm.ask(ask, default=False, console=console)
    if "gpu" not in given:
        answers["gpu"] = Confirm.ask("Have you a GPU?", default=False, console=console)
    return answers


def _said(advice: Advice) -> str:
    lines = [advice.title, "", *(f"  {line}" for line in advice.commands), ""]
    lines += [f"- {reason.text} ({reason.source})" for reason in advice.reasons]
    lines += [f"! {note}" for note in advice.notes]
    if advice.others:
        lines += ["", "Or:", *(f"  {other.title}. {other.why}" for other in advice.others)]
    return "\n".join(lines)
