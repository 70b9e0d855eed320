"""Options that several commands share, each written once.

An option that was not given is None, and so leaves its setting to `--config` or to the setting's own default.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from scumble.core.config import Config

    Settings = TypeVar("Settings", bound=Config)

__all__ = [
    "Batch",
    "Chance",
    "Clip",
    "ConfigFile",
    "Count",
    "CountOfEach",
    "Device",
    "DryRun",
    "Dtype",
    "Editor",
    "Feather",
    "Guidance",
    "Height",
    "Json",
    "LearningBatch",
    "LearningRate",
    "LearningSteps",
    "LowMemory",
    "Mask",
    "Model",
    "Negative",
    "NoRecipe",
    "Noun",
    "Output",
    "Overwrite",
    "Page",
    "Pictures",
    "Preview",
    "Sampler",
    "Seed",
    "Square",
    "Steps",
    "TrustPickle",
    "Weights",
    "Width",
    "Word",
    "from_command",
    "number",
    "settings",
]

Model = Annotated[
    str | None,
    typer.Option(metavar="NAME_OR_PATH", help="toybox, a folder, a .safetensors file, a hub id.  [toybox]"),
]
Seed = Annotated[int | None, typer.Option(help="Seed of the first picture.  [random]")]
Count = Annotated[int | None, typer.Option(help="How many pictures; their seeds follow one another.  [1]")]
CountOfEach = Annotated[int | None, typer.Option(help="How many results of each picture.  [1]")]
Batch = Annotated[int | None, typer.Option(help="Pictures made at once.  [8]")]
Negative = Annotated[str | None, typer.Option(help="What to lead away from.")]
Sampler = Annotated[
    str | None, typer.Option(help="dpmpp_2m, ddim, euler, euler_ancestral, heun, ...  [dpmpp_2m]")
]
Steps = Annotated[int | None, typer.Option(help="Denoising steps.  [25]")]
Guidance = Annotated[float | None, typer.Option(help="Guidance scale; 1 is none.  [the model's]")]
Width = Annotated[int | None, typer.Option(help="Pixels.  [the model's]")]
Height = Annotated[int | None, typer.Option(help="Pixels.  [the model's]")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.  [auto]")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16, float16.  [auto]")]
LowMemory = Annotated[bool | None, typer.Option("--low-memory", help="Trade time for memory.")]
TrustPickle = Annotated[
    bool | None, typer.Option("--trust-pickle", help="Open pickle files too; they can run anything.")
]
Weights = Annotated[
    list[str] | None,
    typer.Option("--with", metavar="FILE[:SCALE]", help="Learnt weights to use; as often as needed."),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE.toml", help="Settings; options given here win.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would need, and stop.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Pictures = Annotated[Path, typer.Argument(help="The picture, or a folder of pictures.")]
Preview = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A small picture of the work so far, while it goes on.")
]
Mask = Annotated[Path | None, typer.Option(help="White may change, black stays.")]
Feather = Annotated[int | None, typer.Option(help="Pixels over which the edit fades in.  [0]")]
Editor = Annotated[
    str | None, typer.Option(metavar="NAME_OR_PATH", help="An editing model.  [toybox-instruct]")
]
Clip = Annotated[str | None, typer.Option(help="The CLIP that judges.  [fits the model]")]
Word = Annotated[str | None, typer.Option(help="The subject's word in prompts, such as '<rex>'.")]
Noun = Annotated[str | None, typer.Option(help="What the subject is a kind of, such as dog.")]
LearningSteps = Annotated[int | None, typer.Option(help="Optimiser steps.  [the preset's]")]
LearningRate = Annotated[float | None, typer.Option(help="Learning rate.  [the preset's]")]
LearningBatch = Annotated[int | None, typer.Option(help="Examples in a step.  [the preset's]")]
Square = Annotated[int | None, typer.Option(help="Pixels, as the side of a square.  [the model's]")]
Chance = Annotated[int | None, typer.Option(help="Of all chance.  [0]")]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where the result goes.")]
Page = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the page.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
NoRecipe = Annotated[bool, typer.Option("--no-recipe", help="Leave the recipe out of the file.")]


def settings(kind: type[Settings], file: Path | None, **given: Any) -> Settings:
    """Settings of `kind`: those of the TOML `file`, if any, under those `given` that are not None."""
    chosen = {name: value for name, value in given.items() if value is not None}
    return kind.from_toml(file, **chosen) if file else kind.of(chosen)


def from_command(kind: type[Settings], given: Mapping[str, Any], **changed: Any) -> Settings:
    """Settings of `kind` from the options of a command, `given` as its `locals()`.

    `changed` are settings that are not the option of their name. An option that may be given several times,
    and was not, leaves its setting alone.
    """
    chosen = {name: value for name, value in given.items() if name in kind.model_fields and value != []}
    return settings(kind, given["config"], **(chosen | changed))


def number(text: str | None) -> float | str | None:
    """What was typed where a word may stand too, as a number if it is one; else the setting refuses it."""
    try:
        return text if text is None else float(text)
    except ValueError:
        return text
