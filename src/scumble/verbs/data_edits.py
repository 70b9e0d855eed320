"""Edits in words for a data set, from the source that was asked for."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

from scumble.core.errors import InputError
from scumble.core.events import Loop, finish
from scumble.core.files import read_bytes, sha256
from scumble.datagen.completions import Ask, Sampling, ask_all
from scumble.datagen.remote_model import Address, RemoteModel
from scumble.datagen.shards import Counts
from scumble.datagen.triples import Sieve, Triple, cleaned, grammar, read_triples
from scumble.verbs.data_config import DEFAULT_COUNT, InstructionsConfig
from scumble.verbs.load import chosen_device

__all__ = ["edits_of", "gather_edits"]

MAX_CAPTIONS = 2**30
"""The longest file of captions read, in bytes."""


def gather_edits(config: InstructionsConfig, run: Path) -> Loop[tuple[list[Triple], Counts]]:
    """The triples of the source, and what was counted on the way."""
    sieve = Sieve()
    if config.by == "file" and config.triples is not None:
        return read_triples(config.triples, sieve, most=config.count), sieve.counts
    if config.by == "grammar":
        triples = yield from grammar(
            sieve, config.count or DEFAULT_COUNT, seed=config.seed, profile=config.profile
        )
        return triples, sieve.counts
    captions = yield from _captions(config)
    ask, identity = _asker(config)
    named = blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=8).hexdigest()
    triples = yield from ask_all(
        captions,
        ask,
        sieve,
        journal=run / f"answers-{named}.jsonl",
        tries=config.tries,
        at_once=config.at_once * (1 if config.by == "language-model" else 4),
    )
    if not triples:
        raise InputError(
            f"No usable edit came of {len(captions)} captions: {dict(sieve.counts)}.",
            "Tune the model on the form first, or ask one that is larger.",
        )
    return triples, sieve.counts


def edits_of(config: InstructionsConfig) -> int:
    """How many edits there will be, at most."""
    if config.by == "file" and config.triples is not None:
        return len(read_triples(config.triples, Sieve(), most=config.count))
    if config.captions is not None and config.by in ("language-model", "address"):
        return len(finish(_captions(config)))
    return config.count or DEFAULT_COUNT


def _asker(config: InstructionsConfig) -> tuple[Ask, list[Any]]:
    """Who is asked about captions, and all that the answers depend on."""
    sampling = Sampling(**{name: getattr(config, name) for name in Sampling.model_fields})
    said = sampling.model_dump(mode="json", exclude={"tries"})
    if config.by == "address":
        place = Address(
            url=config.address or "",
            model=config.address_model,
            key_variable=config.key_variable,
            form=config.address_form,
            timeout=config.timeout,
            at_once=config.at_once,
        )
        return RemoteModel(place, sampling), [place.url, place.model, place.form, said]
    from scumble.datagen.language_model import load_language_model

    name = config.language_model or ""
    model = load_language_model(name, sampling, seed=config.seed, device=chosen_device(config.device))
    weights = Path(name) / "model.safetensors"
    return model, [sha256(weights) if weights.is_file() else name, config.seed, config.at_once, said]


def _captions(config: InstructionsConfig) -> Loop[list[str]]:
    if config.captions is None:
        found = yield from grammar(
            Sieve(), config.count or DEFAULT_COUNT, seed=config.seed, profile=config.profile
        )
        return [triple.input_caption for triple in found]
    lines = read_bytes(config.captions, max_bytes=MAX_CAPTIONS).decode(errors="replace").splitlines()
    captions = [caption for line in lines if (caption := cleaned(line)) is not None]
    if not captions:
        raise InputError(f"{config.captions} holds no caption.", "It has one on each line.")
    return captions[: config.count]
