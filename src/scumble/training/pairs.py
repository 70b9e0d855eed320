"""Pairs as an editing model is shown them: both pictures encoded once, from several views, in files that a
later run finds again; and what each example of each step draws.

Letters: N pairs, V views of each (crops, then the same crops mirrored), B examples, c h w channels and size
of the latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from scumble.core import rng
from scumble.core.errors import InputError
from scumble.core.events import Loop, Progress
from scumble.core.images import to_model
from scumble.core.safetensor_files import save_safetensors
from scumble.data.pairs import Pair, covering, mirrors, pictures
from scumble.models.model import Model
from scumble.training.processes import is_main_process, processes

__all__ = ["PairLatents", "Shown", "View", "draw", "encoded", "is_main_process"]

SHARD = 256
"""Pairs in a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How pairs are looked at."""

    side: int
    """Pixels of the squares that are cut from them."""
    crops: int = 1
    """Cuts of each: the middle, then such at places of chance."""
    mirror: bool = True
    """Whether they are shown mirrored too, where the instruction allows it."""


@dataclass(frozen=True, slots=True)
class PairLatents:
    """N pairs, unscaled, float16 on the model's device: the posterior's mean of the picture before, mean and
    standard deviation of that after, each (N, V, c, h, w).
    """

    before: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.before)


@dataclass(frozen=True, slots=True)
class Shown:
    """B examples of one step."""

    before: Tensor
    """(B, c, h, w) what the denoiser sees of the picture to edit: unscaled latents at their mode."""
    x0: Tensor
    """(B, c, h, w) scaled latents of the edited picture, drawn from their posterior."""
    eps: Tensor
    """(B, c, h, w) noise."""
    t: Tensor
    """(B,) int64 times, 0 to T - 1, on the CPU."""
    chance: Tensor
    """(B,) uniform in [0, 1), on the CPU: the one draw that says what is left out."""
    pairs: list[int]
    """Which pair each example is of."""


def encoded(
    model: Model, pairs: Sequence[Pair], view: View, *, seed: int = 0, folder: Path | None = None
) -> Loop[PairLatents]:
    """Encode all pairs, in files in `folder` that are written whole and found again, if it is given.

    Several processes share the work. Raises ImageError, with names, for pictures that cannot be read or are
    of two sizes.
    """
    process, tables = processes(), list[dict[str, Tensor] | Path]()
    for first in range(0, len(pairs), SHARD):
        shard = pairs[first : first + SHARD]
        path = None if folder is None else folder / f"{_digest(shard, model, view, seed, first)}.safetensors"
        mine = path is None or len(tables) % process.num_processes == process.process_index
        if mine and (path is None or not path.is_file()):
            made = _encode(model, shard, view, seed, first)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                save_safetensors(path, made, {})
            tables.append(made if path is None else path)
            yield Progress(stage="encoding", step=first + len(shard), total=len(pairs))
        elif path is not None:
            tables.append(path)
    process.wait_for_everyone()
    whole = [load_file(table) if isinstance(table, Path) else table for table in tables]
    joined = (torch.cat([table[name] for table in whole]) for name in ("before", "mean", "std"))
    return PairLatents(*(tensor.to(model.device) for tensor in joined))


def draw(model: Model, latents: PairLatents, seed: int, step: int, rows: Sequence[int]) -> Shown:
    """The examples with numbers `rows` of a step; each depends on `seed`, `step` and its number only."""
    chance = rng.generators(rng.derive(seed, "pair", step, row) for row in rows)
    limits = (len(latents), latents.before.shape[1], model.schedule.num_train_timesteps)
    picks = [[int(torch.randint(limit, (), generator=g)) for limit in limits] for g in chance]
    left_out = torch.stack([torch.rand((), generator=g) for g in chance])  # (B,)
    device, shape = latents.before.device, latents.before.shape[2:]
    pair, view = torch.tensor([pick[:2] for pick in picks]).T.to(device, non_blocking=True)
    before, mean, std = (table[pair, view].float() for table in (latents.before, latents.mean, latents.std))
    of_latents, eps = (rng.randn(shape, chance, device=device) for _ in range(2))
    x0 = model.scale(mean + std * of_latents)
    t = torch.tensor([pick[2] for pick in picks])  # stays on the CPU, where levels are looked up
    return Shown(before, x0, eps, t, left_out, [pick[0] for pick in picks])


@torch.no_grad()
def _encode(model: Model, pairs: Sequence[Pair], view: View, seed: int, first: int) -> dict[str, Tensor]:
    """The latents of one shard, float16 on the CPU; one pair at a time."""
    if view.side % model.downsample:
        raise InputError(
            f"Pictures of {view.side} pixels do not fit.", f"Take a multiple of {model.downsample}."
        )
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for number, pair in enumerate(pairs, first):
        images, chance = pictures(pair), rng.generator(rng.derive(seed, "crop", number))
        places = [(0.5, 0.5)]
        places += [tuple(torch.rand(2, generator=chance).tolist()) for _ in range(view.crops - 1)]
        views = [covering(images, view.side, at) for at in places]  # V of (2, 3, side, side)
        if view.mirror:
            views += [v.flip(-1) if mirrors(pair.instruction) else v for v in views]
        posteriors = [model.encode(to_model(v)) for v in views]
        means, stds = (torch.stack([getattr(p, n) for p in posteriors]) for n in ("mean", "std"))
        rows.append((means[:, 0], means[:, 1], stds[:, 1]))  # each (V, c, h, w)
    before, mean, std = (torch.stack(column).half().cpu() for column in zip(*rows, strict=True))
    return {"before": before, "mean": mean, "std": std}


def _digest(pairs: Sequence[Pair], model: Model, view: View, seed: int, first: int) -> str:
    """What the latents of a shard depend on: files by name, length and time, model, views, places of cuts."""
    about: list[object] = [model.hash, str(model.dtype), repr(view), seed if view.crops > 1 else 0, first]
    for pair in pairs:
        states = [file.stat() for file in (pair.input, pair.edited)]
        about += [pair.input, pair.edited, *((s.st_size, s.st_mtime_ns) for s in states)]
        about.append(mirrors(pair.instruction))
    return sha256("|".join(map(str, about)).encode()).hexdigest()[:24]
