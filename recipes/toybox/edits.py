"""Stage `edits`: for every training picture one edit in words, and the picture that it asks for.

An edit is of a scene whose picture the stage `render` drew, so the after-picture alone is new; where the
denoiser saw photos of one thing only, so does what learns to edit. Only what the edit names differs between
the two: such exact pairs are what no data engine can make of photographs. They are written in shards, like
pictures; words are cheap and are made again from the seeds.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import repeat, takewhile
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recipes.toybox import pictures, tokenizer
from recipes.toybox.loop import Run
from recipes.toybox.scales import Scale
from scumble.core.errors import InputError
from scumble.core.files import atomic_path
from scumble.world.instructions import Edit, every_edit, instruct
from scumble.world.sampling import PROFILES, dice, pick, sample_scene


def stage(run: Run) -> None:
    """Render the shards that are missing; on a CPU in as many processes as the run has threads."""
    end = time.monotonic() + 60.0 * run.minutes
    count = len(sources(run.scale))
    missing = [f for f in range(0, count, run.scale.shard) if not shard(run.out, f).exists()]
    if run.device != "cpu" or run.threads == 1:
        for first in missing:
            _render_shard(run, end, first)
    else:
        with ProcessPoolExecutor(run.threads, mp_context=get_context("spawn")) as pool:
            list(pool.map(_render_shard, repeat(run), repeat(end), missing))


@cache
def sources(scale: Scale) -> tuple[int, ...]:
    """The numbers of the pictures that are edited."""
    profile = PROFILES[scale.profile]
    scenes = (sample_scene(seed, profile=profile) for seed in range(scale.edits))
    return tuple(
        scene.seed
        for scene in scenes
        if not scale.simple_edits or (scene.style == "photo" and len(scene.things) == 1)
    )


def edits(run: Run, first: int, count: int) -> list[Edit]:
    """The edits number `first`, `first` + 1, ..., each of the picture of that number in `sources`."""
    seeds = sources(run.scale)[first : first + count]
    return [instruct(scene, scene.seed) for scene in pictures.scenes(run, seeds)]


def wordings(edit: Edit, count: int) -> list[str]:
    """`count` ways to ask for the same edit, its own first; some may be the same."""
    others = [other.text for other in every_edit(edit.before, kinds=[edit.kind]) if other.after == edit.after]
    return [edit.text] + [pick(dice(edit.before.seed, "wording", i), others) for i in range(1, count)]


def instructions(run: Run, count: int) -> Tensor:
    """Tokens of the wordings of the first `count` edits, without the padding that all share: (N, K, L)
    int16.
    """
    step = 1000
    jobs = [(run, first, min(step, count - first)) for first in range(0, count, step)]
    if count <= pictures.SMALL_JOB:
        parts = [_told(*job) for job in jobs]
    else:
        with ProcessPoolExecutor(max(1, run.threads), mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(_told, *zip(*jobs, strict=True)))
    ids = torch.cat(parts)
    longest = int((ids != ids[0, 0, -1]).sum(-1).max()) + 1  # the padding is the end token, which ends a text
    return ids[..., :longest].to(run.device)


def shards(run: Run) -> list[Path]:
    """Those rendered so far, up to the first that is not, at most as many as the run asks for."""
    count = len(sources(run.scale))
    wanted = min(run.pictures or count, count)
    paths = [shard(run.out, first) for first in range(0, wanted, run.scale.shard)]
    found = list(takewhile(Path.exists, paths))
    if not found:
        raise InputError(f"{run.out} has no rendered edits.", "Run the stage `edits` first.")
    return found


def shard(out: Path, first: int) -> Path:
    return out / "edits" / f"{first:07d}.safetensors"


def load(path: Path, device: str) -> Tensor:
    """The after-pictures of one shard: (N, 3, SIZE, SIZE) uint8."""
    return load_file(path, device=device)["pixels"]


def _told(run: Run, first: int, count: int) -> Tensor:
    texts = [text for edit in edits(run, first, count) for text in wordings(edit, run.scale.captions)]
    return pictures.tokens(tokenizer.load(run.out), texts).view(count, run.scale.captions, -1).short()


def _render_shard(run: Run, end: float, first: int) -> None:
    """Render and write one shard, unless the time is up."""
    start = time.monotonic()
    if start > end:
        return
    if run.device == "cpu":
        torch.set_num_threads(1)  # ray marching is many small steps, in which threads would mostly wait
    whole = len(sources(run.scale))
    count = min(run.scale.shard, whole - first)
    scenes = [edit.after for edit in edits(run, first, count)]
    with atomic_path(shard(run.out, first)) as temporary:
        save_file({"pixels": pictures.drawn(scenes, run.device).cpu()}, temporary)
    cost = 1000.0 * (time.monotonic() - start) / count
    print(f"edits {first + count}/{whole}  {cost:.1f} ms a picture", flush=True)
