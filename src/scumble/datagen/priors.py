"""What a class looks like to the frozen model: latents that it draws of the class noun, for prior
preservation (Ruiz et al. 2022, section 4.2).

They are kept as latents, which is what learning needs, in the user's cache under a name that depends on the
model, the words and the settings: another learning of a dog on the same model finds them there.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from scumble.core import rng
from scumble.core.events import Loop, Progress
from scumble.core.safetensor_files import safetensors_header, save_safetensors
from scumble.diffusion.spacing import levels_for
from scumble.models import toybox
from scumble.models.model import Model
from scumble.sampling.guided import guided
from scumble.sampling.memory import in_batches
from scumble.sampling.text_to_image import SamplerOptions, sample_latents

__all__ = ["class_latents"]


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
    `seed`; read from `folder` (the user's cache) where they are there.
    """
    shape = model.latent_shape(*size)
    what = (model.hash, prompt, count, size, seed, repr(options), str(model.dtype))
    digest = sha256("|".join(map(str, what)).encode()).hexdigest()[:24]
    path = (folder or toybox.cache() / "priors") / f"{digest}.safetensors"
    if path.is_file() and safetensors_header(path).keys() >= {"latents"}:
        return load_file(path)["latents"].to(model.device)
    denoise = guided(model, [prompt], size=size, scale=options.guidance)
    levels = [level.to(model.device) for level in levels_for(model.schedule, options.steps, options.spacing)]

    def draw(seeds: Sequence[int], done: int) -> Loop[list[Tensor]]:
        generators = rng.generators(seeds)
        x = rng.randn(shape, generators, device=model.device) * levels[0].spread
        with torch.no_grad():
            for step in sample_latents(denoise, x, levels, generators, options):
                x = step.x
        yield Progress(stage="class pictures", step=done + len(seeds), total=count)
        return list(x)

    seeds = [rng.derive(seed, "class", i) for i in range(count)]
    latents = torch.stack((yield from in_batches(seeds, draw, batch_size)))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_safetensors(path, {"latents": latents.cpu()}, {"prompt": prompt[:1000]})
    return latents
