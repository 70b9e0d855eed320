"""The model card: what each stage trained on, for how long, and the figures it reached."""

from __future__ import annotations

import json
from pathlib import Path

from recipes.toybox.scales import TOYBOX_VERSION
from scumble.core.files import atomic_write

HEAD = f"""# Toybox {TOYBOX_VERSION}

A small text-to-image model of a rendered toy world, in the layout of Stable Diffusion 1: a byte-pair
tokenizer, a CLIP, an autoencoder, a text encoder and a denoiser, both again for edits by instruction, and a
judge that scores pictures.

- **Trained on** pictures that the package renders itself (`scumble.world`): no photograph, no scraped text,
  no other model.
- **Licence** Apache-2.0, weights and pictures alike.
- **Meant for** trying, teaching, testing and measuring image editing offline. It knows nothing but toys.
- **Not meant for** pictures of people or of anything else real: it cannot make them.
- **Stored** in 8 bits with a scale for each output channel; expanded to float32 on first use.
- **Made by** `python -m recipes.toybox.run --stage all`, deterministic by its seed.

Scores of the stages below are on combinations of thing, colour, place and style that no training picture
shows, from the seeds that are kept for tuning.
"""


MEASURED = "measured.md"
"""In the run's folder: the table that `scumble bench toybox` wrote of the packed weights, if any."""
ABOUT_MEASURED = (
    "`scumble bench toybox -o OUT`: 500 scenes of unseen combinations of the whole world, from seeds\n"
    "that are kept for evaluation; one picture a prompt, none chosen."
)


def record(out: Path, stage: str, facts: dict[str, float | int | str]) -> None:
    """Keep the facts of a stage for the card, and print them."""
    shown = {name: round(value, 3) if isinstance(value, float) else value for name, value in facts.items()}
    atomic_write(_facts(out) / f"{stage}.json", (json.dumps(shown, indent=2) + "\n").encode())
    print(shown, flush=True)


def written(out: Path) -> str:
    """The card, from the facts kept so far."""
    tables = [HEAD]
    for path in sorted(_facts(out).glob("*.json")):
        facts = json.loads(path.read_text())
        rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
        tables.append(f"## {path.stem}\n\n| | |\n|---|---|\n{rows}\n")
    if (measured := out / MEASURED).exists():
        tables.append(f"## Measured\n\n{ABOUT_MEASURED}\n\n{measured.read_text().strip()}\n")
    return "\n".join(tables)


def _facts(out: Path) -> Path:
    return out / "facts"
