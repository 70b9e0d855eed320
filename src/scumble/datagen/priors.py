"""What keeps a model from forgetting while it learns: pictures, each with what it is told with. Here are
those that the frozen model draws of a class noun (Ruiz et al. 2022, section 4.2), and the loss on any such.

Drawn ones are kept as latents, which is what learning needs, in the user's cache under a name that depends on
the model, the words and the settings: another learning of a dog on the same model finds them there. Several
processes that learn together draw a share each, and all have all of them.
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
from scumble.core.places import cache_folder
from scumble.core.safetensor_files import safetensors_header, save_safetensors
from scumble.diffusion.parameterisation import Weighting
from scumble.diffusion.spacing import levels_for
from scumble.models.model import Model
from scumble.sampling.guided import guided
from scumble.sampling.memory import in_batches
from scumble.sampling.text_to_image import SamplerOptions, sample_latents
from scumble.training.examples import Latents, Part, Prompts, condition_of, draw
from scumble.training.processes import processes

__all__ = ["Prior", "class_latents", "drawn_prior", "prior_parts"]


@dataclass(frozen=True, slots=True)
class Prior:
    """N pictures of what must not be forgotten, and the caption of each."""

    latents: Latents
    captions: tuple[str, ...]

    @property
    def cells(self) -> tuple[int, int]:
        """(h, w) of its latents."""
        height, width = self.latents.mean.shape[-2:]
        return int(height), int(width)


def drawn_prior(
    model: Model, prompt: str, count: int, *, side: int, options: SamplerOptions, seed: int = 0
) -> Loop[Prior]:
    """`count` pictures of `side` x `side` pixels that `model` draws of `prompt`; see `class_latents`."""
    x0 = yield from class_latents(model, prompt, count, size=(side, side), options=options, seed=seed)
    mean = model.unscale(x0)[:, None]  # (N, 1, c, h, w)
    return Prior(Latents(mean, torch.zeros_like(mean)), (prompt,) * count)


def prior_parts(
    model: Model,
    priors: Sequence[Prior],
    *,
    seed: int,
    batch: int,
    step: int,
    rows: Sequence[int],
    prompts: Prompts,
    weighting: Weighting = "none",
    weight: float = 1.0,
) -> list[Part]:
    """What must not be forgotten, for the examples `rows` of a step of `batch`. The priors take turns by the
    example. Pictures, noise and times are drawn by themselves, whatever is learnt beside them.
    """
    parts: list[Part] = []
    for i, prior in enumerate(priors):
        mine = [j for j, row in enumerate(rows) if (step * batch + row) % len(priors) == i]
        if mine:
            drawn = draw(model, prior.latents, seed, step, [rows[j] for j in mine], "class")
            size = (prior.cells[0] * model.downsample, prior.cells[1] * model.downsample)
            texts = [prior.captions[picture] for picture in drawn.pictures]
            condition = condition_of(model, texts, size, prompts)
            parts.append(Part(drawn, condition, mine, weighting, weight))
    return parts


def class_latents(
    model: Model,
    prompt: str,
    count: int,
    *,
    size: tuple[int, int],
    options: SamplerOptions,
    seed: int = 0,
    batch_size: int = 8,
    folder: Path | None = None,
) -> Loop[Tensor]:
    """Scaled latents (count, c, h, w) of pictures that `model` draws of `prompt`, the i-th from seed i of
    `seed`; read from `folder` (the user's cache) where they are there, and whole.
    """
    shape = model.latent_shape(*size)
    what = (model.hash, prompt, count, size, seed, repr(options), str(model.dtype))
    digest = sha256("|".join(map(str, what)).encode()).hexdigest()[:24]
    path = (folder or cache_folder() / "priors") / f"{digest}.safetensors"
    if _all(model, _is_whole(path, (count, *shape))):
        return load_file(path)["latents"].to(model.device)
    denoise = guided(model, [prompt], size=size, scale=options.guidance)
    levels = [level.to(model.device) for level in levels_for(model.schedule, options.steps, options.spacing)]

    def draw(seeds: Sequence[int], done: int) -> Loop[list[Tensor]]:
        generators = rng.generators(seeds)
        x = rng.randn(shape, generators, device=model.device) * levels[0].spread
        with torch.no_grad():
            for step in sample_latents(denoise, x, levels, generators, options):
                x = step.x
        yield Progress(stage="class pictures", step=done + len(seeds), total=len(mine))
        return list(x)

    process = processes()
    mine = range(process.process_index, count, process.num_processes)
    latents = torch.zeros(count, *shape, device=model.device)
    drawn = yield from in_batches([rng.derive(seed, "class", i) for i in mine], draw, batch_size)
    for i, latent in zip(mine, drawn, strict=True):
        latents[i] = latent
    if process.num_processes > 1:
        torch.distributed.all_reduce(latents)  # nobody else drew mine: zeros are added to them
    if process.is_local_main_process:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_safetensors(path, {"latents": latents.cpu()}, {"prompt": prompt[:1000]})
    return latents


def _all(model: Model, found: bool) -> bool:
    """Whether it holds for every process, which may be on several machines: they draw together or not at
    all.
    """
    answer = torch.tensor(int(found), device=model.device)
    if processes().num_processes > 1:
        torch.distributed.all_reduce(answer, torch.distributed.ReduceOp.MIN)
    return bool(answer)


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether the file holds latents of that shape; a damaged one is as good as none."""
    try:
        found = safetensors_header(path) if path.is_file() else {}
    except InputError:
        return False
    return "latents" in found and found["latents"]["shape"] == list(shape)
