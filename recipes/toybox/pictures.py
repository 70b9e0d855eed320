"""Stage `render`: every training picture drawn once, with what is said of it; and the tables that other
stages read.

Picture i shows the scene of seed i. Pixels are written in shards, so the stage can be stopped and taken up,
and later stages can begin with the shards there are. Words are cheap and are made again from the seeds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat, takewhile
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTokenizer

from recipes.toybox import tokenizer
from recipes.toybox.loop import Run
from recipes.toybox.scales import SIZE
from scumble.core.errors import InputError
from scumble.core.files import atomic_path
from scumble.world.render import render
from scumble.world.sampling import PROFILES, sample_scene
from scumble.world.scene import Scene
from scumble.world.words import caption, swapped

VALIDATION_SEED = 900_000
"""Seeds from here to 999,999 are for looking at while tuning; from 10^6 up for evaluation only."""

RENDER_BATCH = {"cpu": 16, "cuda": 250}
SMALL_JOB = 4000
"""Below this many scenes words are made in this process; starting others would take longer."""


@dataclass(frozen=True, slots=True)
class Captions:
    """Token ids without padding at the end beyond the longest, and of scenes told nearly alike that look
    different.
    """

    ids: Tensor
    """(N, K, L) int16: K wordings of each scene, padded with the end token."""
    swapped: Tensor
    """(N, K, L) int16: the same wordings of a scene that differs (see `words.swapped`)."""


def stage(run: Run) -> None:
    """Render the shards that are missing; on a CPU in as many processes as the run has threads."""
    end = time.monotonic() + 60.0 * run.minutes
    missing = [f for f in range(0, _all(run), run.scale.shard) if not _shard(run.out, f).exists()]
    if run.device != "cpu" or run.threads == 1:
        for first in missing:
            _render_shard(run, end, first)
    else:
        with ProcessPoolExecutor(run.threads, mp_context=get_context("spawn")) as pool:
            list(pool.map(_render_shard, repeat(run), repeat(end), missing))


def _render_shard(run: Run, end: float, first: int) -> None:
    """Render and write one shard, unless the time is up."""
    start = time.monotonic()
    if start > end:
        return
    if run.device == "cpu":
        torch.set_num_threads(1)  # ray marching is many small steps, in which threads would mostly wait
    seeds = range(first, min(first + run.scale.shard, _all(run)))
    with atomic_path(_shard(run.out, first)) as temporary:
        save_file({"pixels": drawn(scenes(run, seeds), run.device).cpu()}, temporary)
    cost = 1000.0 * (time.monotonic() - start) / len(seeds)
    print(f"render {seeds.stop}/{_all(run)}  {cost:.1f} ms a picture", flush=True)


def _all(run: Run) -> int:
    return run.scale.pictures + run.scale.varied


def scenes(run: Run, seeds: Iterable[int]) -> list[Scene]:
    """What the pictures of these numbers show; the last `varied` ones come from the whole world."""
    usual, whole = PROFILES[run.scale.profile], PROFILES["full"]
    return [sample_scene(seed, profile=usual if seed < run.scale.pictures else whole) for seed in seeds]


def held_out(run: Run, count: int, first: int = VALIDATION_SEED) -> list[Scene]:
    """Scenes of combinations that no training picture shows."""
    profile = PROFILES[run.scale.profile]
    return [sample_scene(first + i, profile=profile, split="held_out") for i in range(count)]


def drawn(scenes: Sequence[Scene], device: str) -> Tensor:
    """Pictures of the scenes, (B, 3, SIZE, SIZE) uint8 on the device."""
    step = RENDER_BATCH[device]
    parts = [
        render(scenes[i : i + step], size=SIZE, device=device).pixels.mul(255.0).round_().to(torch.uint8)
        for i in range(0, len(scenes), step)
    ]
    return torch.cat(parts)


def load(run: Run, *, varied: bool = False) -> Tensor:
    """All pictures up to the first shard not yet rendered, at most as many as the run asks for: (N, 3,
    SIZE, SIZE) uint8. Those of the whole world too where `varied` says so.
    """
    wanted = run.pictures or (_all(run) if varied else run.scale.pictures)
    paths = [_shard(run.out, first) for first in range(0, wanted, run.scale.shard)]
    found = list(takewhile(Path.exists, paths))
    if not found:
        raise InputError(f"{run.out} has no rendered pictures.", "Run the stage `render` first.")
    return torch.cat([load_file(path, device=run.device)["pixels"] for path in found])[:wanted]


def pick(pixels: Tensor, index: Tensor) -> Tensor:
    """The chosen pictures as floats in [-1, 1]: (B, 3, H, W)."""
    return pixels[index].float().div_(127.5).sub_(1.0)


def captions(run: Run, count: int) -> Captions:
    """Tokens for the captions of the first `count` scenes."""
    step = 1000
    jobs = [(run, first, min(step, count - first)) for first in range(0, count, step)]
    if count <= SMALL_JOB:
        parts = [_told(*job) for job in jobs]
    else:
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(_told, *zip(*jobs, strict=True)))
    ids, others = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    longest = (
        int((ids != ids[0, 0, -1]).sum(-1).max()) + 1
    )  # the padding is the end token, which also ends a text
    longest = max(longest, int((others != ids[0, 0, -1]).sum(-1).max()) + 1)
    return Captions(ids[..., :longest].to(run.device), others[..., :longest].to(run.device))


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """(B, 77) int64, padded with the end token as Stable Diffusion pads."""
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


def _told(run: Run, first: int, count: int) -> tuple[Tensor, Tensor]:
    words = tokenizer.load(run.out)
    kept = run.scale.captions
    plain: list[str] = []
    others: list[str] = []
    for seed, scene in zip(
        range(first, first + count), scenes(run, range(first, first + count)), strict=True
    ):
        wordings = range(seed * kept, (seed + 1) * kept)
        plain += [caption(scene, wording) for wording in wordings]
        others += [caption(swapped(scene, wording, split="train"), wording) for wording in wordings]
    return tuple(tokens(words, texts).view(count, kept, -1).short() for texts in (plain, others))


def _shard(out: Path, first: int) -> Path:
    return out / "pictures" / f"{first:07d}.safetensors"
