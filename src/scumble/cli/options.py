"""Options that several commands share, each written once.

An option that was not given is None, and so leaves its setting to `--config` or to the setting's own default.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from scumble.core.config import Config

    Settings = TypeVar("Settings", bound=Config)

__all__ = [
    "ConfigFile",
    "Device",
    "DryRun",
    "Dtype",
    "Guidance",
    "Height",
    "Json",
    "LowMemory",
    "Model",
    "NoRecipe",
    "Output",
    "Overwrite",
    "Seed",
    "Steps",
    "TrustPickle",
    "Weights",
    "Width",
    "settings",
]

Model = Annotated[
    str | None,
    typer.Option(metavar="NAME_OR_PATH", help="toybox, a folder, a .safetensors file, a hub id.  [toybox]"),
]
Seed = Annotated[int | None, typer.Option(help="Seed of the first picture.  [random]")]
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
Output = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where the result goes.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
NoRecipe = Annotated[bool, typer.Option("--no-recipe", help="Leave the recipe out of the file.")]


def settings(kind: type[Settings], file: Path | None, **given: Any) -> Settings:
    """Settings of `kind`: those of the TOML `file`, if any, under those `given` that are not None."""
    chosen = {name: value for name, value in given.items() if value is not None}
    return kind.from_toml(file, **chosen) if file else kind.of(chosen)
