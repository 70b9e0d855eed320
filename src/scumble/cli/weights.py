"""`scumble merge`, `scumble convert`, `scumble inspect`: what is done with learnt weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scumble.cli import options
from scumble.cli.console import give, say, size

__all__ = ["convert", "inspect", "merge"]

AnyBase = Annotated[bool, typer.Option("--any-base", help="On a relative of the model it was learnt on too.")]


def merge(
    files: Annotated[list[str], typer.Argument(metavar="FILE[:SCALE]...", help="Learnt weights.")],
    output: options.Output,
    how: Annotated[
        str, typer.Option(help="closed-form (Custom Diffusion's), sum, or auto, which takes what fits.")
    ] = "auto",
    captions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Sentences to leave as they are, a line each.  [ordinary ones]"),
    ] = None,
    ridge: Annotated[float, typer.Option(min=0, help="Ridge of the closed form.")] = 1e-6,
    model: options.Model = None,
    device: options.Device = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Make one file of the weights of several subjects."""
    from scumble.verbs.load import ModelConfig
    from scumble.verbs.merge import merge_to

    on = options.settings(ModelConfig, None, model=model, device=device)
    done = merge_to(files, on, output, how=how, captions=captions, ridge=ridge, overwrite=overwrite)
    if done.note:
        say(done.note)
    facts = {"path": str(done.path), "sha256": done.sha256, "bytes": done.bytes, "how": done.how}
    text = f"{done.path} ({size(done.bytes)}), {done.how}: {', '.join(done.words) or 'no words'}"
    give(facts | {"words": done.words}, as_json=as_json, text=text)


def convert(
    source: Annotated[Path, typer.Argument(help="Learnt weights of any program, a file or a folder.")],
    output: options.Output,
    to: Annotated[
        str, typer.Option(help="a1111, diffusers, kohya, adobe, diffusers-model (the whole model), scumble.")
    ],
    word: Annotated[str | None, typer.Option(help="Call the word this.")] = None,
    noun: Annotated[str | None, typer.Option(help="What it is a kind of.")] = None,
    compress: Annotated[
        float | None,
        typer.Option(help="Keep this share of the singular values of dense changes, such as 0.6."),
    ] = None,
    model: options.Model = None,
    any_base: AnyBase = False,
    trust_pickle: options.TrustPickle = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Write learnt weights for another program, or read what another program wrote."""
    from scumble.verbs.convert import convert_to
    from scumble.verbs.load import ModelConfig

    on = options.settings(ModelConfig, None, model=model, device="cpu", trust_pickle=trust_pickle)
    done = convert_to(
        source,
        to,
        on,
        output,
        word=word or "",
        noun=noun or "",
        share=compress,
        any_base=any_base,
        overwrite=overwrite,
    )
    if done.note:
        say(done.note)
    text = "\n".join(f"{row['path']} ({size(row['bytes'])})" for row in done.files)
    give({"files": done.files, "words": done.words}, as_json=as_json, text=text)


def inspect(
    file: Annotated[Path, typer.Argument(help="Learnt weights of any program, a model, or a picture.")],
    trust_pickle: options.TrustPickle = None,
    as_json: options.Json = False,
) -> None:
    """Say what a file holds and how it was made."""
    from scumble.verbs import inspect as verb

    facts = verb.inspect(file, trust_pickle=bool(trust_pickle))
    give(facts, as_json=as_json, text=verb.described(facts))
