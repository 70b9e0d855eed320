"""Tuning a language model to write edits, from a file of examples to a folder that is ready to be asked."""

from __future__ import annotations

from pathlib import Path

from scumble.core.events import Loop
from scumble.core.runs import RunFolder
from scumble.datagen.completions import Sampling
from scumble.datagen.language_model import TuneConfig, load_language_model, save_language_model, tune
from scumble.datagen.triples import Sieve, read_triples
from scumble.training.fit import Fitted
from scumble.verbs.load import chosen_device
from scumble.verbs.outputs import check_new

__all__ = ["tune_language_model_to"]


def tune_language_model_to(
    triples: Path, start: str, out: Path, config: TuneConfig, *, device: str = "auto"
) -> Loop[Fitted]:
    """Tune the model `start` on the edits in `triples` and write it to the new folder `out`, from the newest
    checkpoint in `OUT.run`. Raises InputError where `out` exists.
    """
    check_new(out)
    sieve = Sieve()
    examples = read_triples(triples, sieve)
    model = load_language_model(start, Sampling(), device=chosen_device(device))
    run = RunFolder(out.with_name(out.name + ".run"))
    run.write_config(config.to_toml())
    fitted = yield from tune(model, examples, config, run=run)
    save_language_model(model, out)
    if dropped := sieve.counts["taken"] - len(examples):
        fitted.notes.append(f"{dropped} lines of {triples.name} were dropped: broken, unchanged or twice.")
    return fitted
