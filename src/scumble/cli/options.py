"""Options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str, typer.Option(metavar="NAME_OR_PATH", help="Model: toybox, a folder, a .safetensors file, a hub id.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of the first picture.  [default: random]")]
Steps = Annotated[int, typer.Option(min=1, max=10_000, help="Denoising steps.")]
Guidance = Annotated[float, typer.Option(min=0.0, help="Guidance scale; 1 is none.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE.toml", help="Settings; options given here win.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, how long it takes, and stop.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where the result goes.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
NoRecipe = Annotated[bool, typer.Option("--no-recipe", help="Leave the recipe out of the file.")]
