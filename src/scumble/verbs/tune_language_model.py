"""Tuning a language model to write edits, from a file of examples to a folder that is ready to be asked."""

from __future__ import annotations

from pathlib import Path

import torch

from scumble.core.errors import InputError
from scumble.core.events import Loop
from scumble.core.runs import RunFolder
from scumble.datagen.completions import Sampling
from scumble.datagen.language_model import TuneConfig, load_language_model, save_language_model, tune
from scumble.datagen.triples import Sieve, read_triples
from scumble.training.fit import Fitted

__all__ = ["tune_language_model_to"]


def tune_language_model_to(
    triples: Path, start: str, out: Path, config: TuneConfig, *, device: str = "auto"
) -> Loop[Fitted]:
    """Tune the model `start` on the edits in `triples` and write it to the new folder `out`, from the newest
    checkpoint in `OUT.run`. Raises InputError where `out` exists.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} exists already.", "Give another name with -o, or remove it.")
    sieve = Sieve()
    examples = read_triples(triples, sieve)
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    model = load_language_model(start, Sampling(), device=place)
    run = RunFolder(out.with_name(out.name + ".run"))
    run.write_config(config.to_toml())
    fitted = yield from tune(model, examples, config, run=run)
    save_language_model(model, out)
    if dropped := sieve.counts["taken"] - len(examples):
        fitted.notes.append(f"{dropped} lines of {triples.name} were dropped: broken, unchanged or twice.")
    return fitted
