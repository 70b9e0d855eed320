"""Training data for editing by instruction: edits in words, pictures for them, the good ones kept.

OUT              the finished data set, see `scumble.datagen.pair_files`
OUT.run/         settings, answers of language models, and finished shards: what a stopped run goes on from
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch

from scumble.core import rng
from scumble.core.errors import InputError
from scumble.core.events import Loop, finish
from scumble.core.files import atomic_write, sha256
from scumble.core.version import VERSION
from scumble.datagen.clip_filter import STAGES
from scumble.datagen.completions import Sampling
from scumble.datagen.drawn_pairs import DrawPairs, PairConfig
from scumble.datagen.exact_pairs import RenderPairs
from scumble.datagen.pair_files import require, write_pairs
from scumble.datagen.ray_shards import run_on_ray
from scumble.datagen.shards import Counts, Prepare, Shard, Work, cut, run_shards
from scumble.datagen.triples import Triple, write_triples
from scumble.history.embed import save_options
from scumble.models import toybox
from scumble.models.clip import load_clip
from scumble.models.hash import fingerprint
from scumble.models.load import find
from scumble.verbs.data_config import DEFAULT_COUNT, InstructionsConfig, config_for
from scumble.verbs.data_edits import gather_edits
from scumble.verbs.outputs import check_new

__all__ = ["Made", "clip_name", "data_instructions", "data_instructions_to", "plan"]

VERSION_OF_SHARDS = 1
"""Raised when the same settings come to give other pictures, so that no old shard is taken for a new one."""
CLIP = "openai/clip-vit-large-patch14"


@dataclass(frozen=True, slots=True)
class Made:
    """What came of it."""

    path: Path
    pairs: int
    summary: dict[str, Any]


def data_instructions(out: Path | str, *, preset: str | None = None, **settings: Any) -> Path:
    """Make pairs for training by instruction in the new folder `out`; settings are those of
    `InstructionsConfig`.

    >>> scumble.data_instructions("pairs", source="exact", count=200)
    """
    return finish(data_instructions_to(config_for(preset, None, **settings), Path(out))).path


def data_instructions_to(
    config: InstructionsConfig, out: Path, *, workers: int = 1, ray: bool = False
) -> Loop[Made]:
    """Make the data set `out`, going on from what an earlier run left in `OUT.run`.

    Nothing of `workers` and `ray` shows in the result. Raises InputError where `out` exists, before any work.
    """
    check_new(out)
    if config.text_only and out.suffix != ".jsonl":
        raise InputError(f"{out} does not end in .jsonl.", "Edits in words are one such file.")
    require(config.form)
    run = out.with_name(out.name + ".run")
    words: Counts = Counter()
    triples: list[Triple] = []
    if config.by != "exact":
        triples, words = yield from gather_edits(config, run)
    if config.text_only:
        write_triples(out, triples)
        return Made(out, len(triples), {"text": dict(words)})
    shards, prepare = plan(config, triples)
    atomic_write(run / "config.toml", config.to_toml().encode())
    atomic_write(run / "README.txt", f"The making of {out.name}: safe to remove.\n".encode())
    folder = run / "shards"
    if ray:
        gpus = config.device != "cpu" and torch.cuda.is_available()
        counts = yield from run_on_ray(shards, folder, prepare, workers=workers, gpus=gpus)
    else:
        counts = yield from run_shards(shards, folder, prepare, workers=workers)
    summary = _summary(config, words, counts)
    if not counts["kept"]:
        lost = ", ".join(f"{counts[stage]} for {stage}" for stage in ("broken", "flagged", *STAGES))
        raise InputError(
            f"Not one of {counts['drawn'] + counts['rendered']} pairs was kept; dropped were {lost}.",
            "Lower the thresholds (min_image, min_text, min_direction), or draw more samples.",
        )
    pairs = yield from write_pairs(shards, folder, out, config.form, summary)
    return Made(out, pairs, summary)


# Pictures


def plan(config: InstructionsConfig, triples: Sequence[Triple]) -> tuple[list[Shard], Prepare]:
    """The shards of the work, and who can do them."""
    if config.by == "exact":
        size = config.size or 128
        settings: dict[str, Any] = {"exact": VERSION_OF_SHARDS, "size": size, "profile": config.profile}
        seeds = [rng.derive(config.seed, "exact", i) for i in range(config.count or DEFAULT_COUNT)]
        return cut(seeds, config.shard, key=int, settings=settings), _PrepareRendering(config.profile, size)
    settings = config.model_dump(mode="json", include=set(PairConfig.model_fields))
    computing = {"dtype", "low_memory", "channels_last", "compile", "safety_checker", "any_base"}
    settings |= config.model_dump(mode="json", include=computing)
    settings |= {"drawn": VERSION_OF_SHARDS, "model": _model_hash(config), "clip": _clip_hash(config)}
    settings["weights"] = [_weights_key(text) for text in config.weights]
    shards = cut(
        triples,
        config.shard,
        key=lambda t: [t.id, t.kind],
        settings=settings,
        weight=config.samples,
    )
    return shards, _PrepareDrawing(config)


@dataclass(frozen=True, slots=True)
class _PrepareRendering:
    profile: str
    size: int

    def __call__(self, _worker: int) -> Work:
        return RenderPairs(self.profile, self.size)


@dataclass(frozen=True, slots=True)
class _PrepareDrawing:
    """Loads the models for a worker, each on a GPU of its own where there are several."""

    config: InstructionsConfig

    def __call__(self, worker: int) -> Work:
        config = self.config
        if config.device == "auto" and (gpus := torch.cuda.device_count()) > 1:
            config = config.replace(device=f"cuda:{worker % gpus}")
        model = config.load()
        clip = load_clip(clip_name(config), device=str(model.device), offline=config.offline)
        draw = DrawPairs(model, clip, config, save_options(".png", None))

        def work(shard: Shard, folder: Path) -> Loop[Counts]:
            with config.attached(model):
                return (yield from draw(shard, folder))

        return work


def clip_name(config: InstructionsConfig) -> str:
    """Which CLIP judges."""
    return config.clip or (str(toybox.clip()) if config.model == "toybox" else CLIP)


def _clip_hash(config: InstructionsConfig) -> str:
    weights = Path(clip_name(config)) / "model.safetensors"
    return sha256(weights) if weights.is_file() else clip_name(config)


def _model_hash(config: InstructionsConfig) -> str:
    return fingerprint(
        find(
            config.model,
            revision=config.revision,
            offline=config.offline,
            trust_pickle=config.trust_pickle,
        )
    )


def _weights_key(text: str) -> list[str]:
    """What tells learnt weights apart: the file's content, and the scale as it was written."""
    path = Path(text) if Path(text).exists() else Path(text.rpartition(":")[0])
    return [sha256(path), text.removeprefix(str(path))]


# What is said about it


def _summary(config: InstructionsConfig, words: Counts, counts: Counts) -> dict[str, Any]:
    """How much each stage took and let through. Nothing in it depends on the machine or the clock."""
    text: list[tuple[str, int]] = []
    if words:
        left = words["taken"]
        text = [("taken", left)]
        for reason in ("too long", "refused", "unanswered", "malformed", "unchanged", "duplicate"):
            if words[reason]:
                left -= words[reason]
                text.append((f"not {reason}", left))
    begun = "rendered" if config.by == "exact" else "drawn"
    left = counts[begun]
    pictures = [(begun, left)]
    dropping = ("unchanged",) if config.by == "exact" else ("broken", "flagged", *STAGES)
    for reason in dropping:
        left -= counts[reason]
        pictures.append((f"passed {reason}" if reason in STAGES else f"not {reason}", left))
    pictures.append(("kept", counts["kept"]))
    drawn = config.by != "exact"
    told = {"count", "profile", "seed", "size"}
    told |= set(PairConfig.model_fields) | {"dtype"} if drawn else set[str]()
    told |= set(Sampling.model_fields) if config.by in ("language-model", "address") else set[str]()
    return {
        "scumble": VERSION,
        "source": config.by,
        "model": {"name": PurePath(config.model).name, "hash": _model_hash(config)} if drawn else None,
        "clip": {"name": PurePath(clip_name(config)).name, "hash": _clip_hash(config)} if drawn else None,
        "weights": [{"name": PurePath(text).name, "hash": _weights_key(text)[0]} for text in config.weights],
        "text": [_stage(name, count, text[0][1]) for name, count in text],
        "asked_again": words["asked again"],
        "pictures": [_stage(name, count, pictures[0][1]) for name, count in pictures],
        "edits_with_pairs": counts["triples"] if drawn else counts["kept"],
        "settings": config.model_dump(mode="json", include=told, exclude_none=True),
    }


def _stage(name: str, count: int, of: int) -> dict[str, Any]:
    return {"stage": name, "left": count, "share": round(count / of, 6) if of else 0.0}
