"""What a denoiser is shown while it learns: pictures encoded once, and for each example of each step its own
noise, time and view, from its own seed.

Letters: N pictures, V views of each (as it is and mirrored, or as a method makes them), B examples, H W size
in pixels, c h w channels and size of the latents, T times of the schedule.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from scumble.core import rng
from scumble.core.images import to_model
from scumble.data.masks import pooled
from scumble.diffusion.parameterisation import Weighting, loss_weight, target
from scumble.models.conditioning import Condition
from scumble.models.model import Model

__all__ = [
    "Drawn",
    "Latents",
    "Part",
    "PromptCache",
    "Prompts",
    "condition_of",
    "draw",
    "encoded",
    "encoded_views",
    "gradient_checkpointing",
    "objective",
    "precision",
    "prompt_caches",
    "total_loss",
]


ENCODED_AT_ONCE = 2
"""Views of a picture that the autoencoder sees at once."""


@dataclass(frozen=True, slots=True)
class Latents:
    """Posteriors over the latents of N pictures of one size, on the model's device: sampling stays possible.

    `mean`, `std` are (N, V, c, h, w), unscaled; `mask` is (N, V, 1, h, w), 1 where the loss looks, or None.
    """

    mean: Tensor
    std: Tensor
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.mean)


@dataclass(frozen=True, slots=True)
class Drawn:
    """B examples of one step."""

    x0: Tensor
    """(B, c, h, w) scaled latents."""
    eps: Tensor
    """(B, c, h, w) noise."""
    t: Tensor
    """(B,) int64 times, 0 to T - 1, on the CPU."""
    pictures: list[int]
    """Which picture each example is of."""
    seeds: list[int]
    """One for each example, for whatever else has to be drawn for it."""
    mask: Tensor | None
    """(B, 1, h, w), or None for ones."""
    views: list[int]
    """Which of its picture's views each example is."""


@dataclass(frozen=True, slots=True)
class Part:
    """Examples with what they are told, and how their loss counts: a term of a loss of several."""

    drawn: Drawn
    condition: Condition
    rows: list[int]
    """Which example of the batch each adds its loss to."""
    weighting: Weighting = "none"
    """Of each time."""
    weight: float = 1.0
    """Of the term."""


def encoded(
    model: Model, pixels: Sequence[Tensor], *, masks: Sequence[Tensor] | None = None, mirrored: bool = False
) -> Latents:
    """Encode pictures (3, H, W) in [0, 1] of one size, with masks (1, H, W), one at a time."""

    def views(picture: Tensor) -> Tensor:
        return torch.stack([picture, picture.flip(-1)] if mirrored else [picture])

    looked_at: Sequence[Tensor | None] = [None] * len(pixels) if masks is None else masks
    pairs = zip(pixels, looked_at, strict=True)
    return encoded_views(model, ((views(p), None if m is None else views(m)) for p, m in pairs))


@torch.no_grad()
def encoded_views(model: Model, pictures: Iterable[tuple[Tensor, Tensor | None]]) -> Latents:
    """Encode the views of each picture: (V, 3, H, W) in [0, 1], V and size the same for all, with masks
    (V, 1, H, W) for all or none. A few at a time, so that the memory needed does not grow with V.
    """
    means: list[Tensor] = []
    stds: list[Tensor] = []
    masks: list[Tensor] = []
    for views, looked_at in pictures:
        posteriors = [model.encode(to_model(part)) for part in views.split(ENCODED_AT_ONCE)]
        means.append(torch.cat([posterior.mean for posterior in posteriors]))
        stds.append(torch.cat([posterior.std for posterior in posteriors]))
        if looked_at is not None:
            masks.append(pooled(looked_at, model.downsample))
    mask = torch.stack(masks).to(model.device) if masks else None
    return Latents(torch.stack(means), torch.stack(stds), mask)


def draw(
    model: Model,
    latents: Latents,
    seed: int,
    step: int,
    rows: Sequence[int],
    purpose: str,
    *,
    shares: Tensor | None = None,
    pictures: Sequence[int] | None = None,
) -> Drawn:
    """The examples with numbers `rows` of a step: which picture and view, latents, noise and time of each.

    An example depends on `seed`, `purpose`, `step` and its number only. Pictures are drawn in proportion to
    `shares` (N,), equally without; or they are `pictures`, one an example.
    """
    seeds = [rng.derive(seed, purpose, step, row) for row in rows]
    chance = rng.generators(seeds)
    views, times = latents.mean.shape[1], model.schedule.num_train_timesteps
    limits = (len(latents), views, times)
    picks = [[int(torch.randint(limit, (), generator=g)) for limit in limits] for g in chance]
    if shares is not None:
        for pick, of in zip(picks, seeds, strict=True):
            again = rng.generator(rng.derive(of, "picture"))
            pick[0] = int(torch.multinomial(shares, 1, generator=again))
    if pictures is not None:
        for pick, given in zip(picks, pictures, strict=True):
            pick[0] = given
    device, shape = latents.mean.device, latents.mean.shape[2:]
    t = torch.tensor([pick[2] for pick in picks])  # stays on the CPU, where levels are looked up
    picture, view = torch.tensor([pick[:2] for pick in picks]).T.to(device, non_blocking=True)
    of_latents, eps = (rng.randn(shape, chance, device=device) for _ in range(2))
    x0 = model.scale(latents.mean[picture, view] + latents.std[picture, view] * of_latents)
    mask = None if latents.mask is None else latents.mask[picture, view]
    return Drawn(x0, eps, t, [pick[0] for pick in picks], seeds, mask, [pick[1] for pick in picks])


class PromptCache:
    """Prompts of a frozen text encoder, each encoded once."""

    def __init__(self, model: Model, size: tuple[int, int]) -> None:
        self._model, self._size = model, size
        self._known: dict[str, Condition] = {}

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Condition:
        """The condition of each text, in order."""
        if new := [text for text in dict.fromkeys(texts) if text not in self._known]:
            fresh = self._model.prompt(new, size=self._size)
            self._known |= {text: fresh.select([i]) for i, text in enumerate(new)}
        return Condition.cat([self._known[text] for text in texts])


Prompts = Mapping[tuple[int, int], PromptCache] | None
"""Caches of prompts by the size of the picture; None where encoding them is part of what learns."""


def prompt_caches(model: Model, sizes: Iterable[tuple[int, int]]) -> dict[tuple[int, int], PromptCache]:
    """A cache for pictures of each size (H, W)."""
    return {size: PromptCache(model, size) for size in sizes}


def condition_of(model: Model, texts: Sequence[str], size: tuple[int, int], prompts: Prompts) -> Condition:
    """The condition of each text for pictures of `size`: from its cache, or encoded now with gradients."""
    return model.prompt(texts, size=size) if prompts is None else prompts[size](texts)


@contextmanager
def precision(model: Model) -> Generator[None]:
    """Inside, networks compute in the model's own dtype although what learns is float32."""
    with torch.autocast(model.device.type, model.dtype, enabled=model.dtype != torch.float32):
        yield


@contextmanager
def gradient_checkpointing(model: Model, on: bool) -> Generator[None]:
    """Inside, if `on`, the denoiser computes its activations twice instead of keeping them."""
    if on:
        model.denoiser.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if on:
            model.denoiser.disable_gradient_checkpointing()


def objective(
    model: Model,
    drawn: Drawn,
    condition: Condition | None,
    *,
    weighting: Weighting = "none",
    beside: Tensor | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """The denoising loss of each example, (B,) float32: ||eps - eps_theta(x_t, t, c)||^2 averaged over the
    numbers of a latent (Ho et al. 2020, equation 14), or the same on what the model predicts instead of eps.

    Where there is a mask, averaged over what it shows: the same scale whatever its size. An upscaler sees
    `beside` (B, k, h, w) too, the noised small pictures, and is told `labels` (B,), their noise levels.
    """
    x = model.schedule.levels(drawn.t).mix(drawn.x0, drawn.eps)
    given = x if beside is None else torch.cat([x, beside], dim=1)
    predicted = model.predict(given, drawn.t, condition, labels)
    return _losses(model, drawn, predicted, weighting)


def total_loss(model: Model, parts: Sequence[Part], count: int) -> Tensor:
    """The sum over `parts` of their weighted losses, for each of the `count` examples of a batch, (count,).
    Parts of one size go through the denoiser in one pass, which is quicker than a pass each.
    """
    total = torch.zeros(count, device=model.device)
    by_shape: dict[torch.Size, list[Part]] = {}
    for part in parts:
        by_shape.setdefault(part.drawn.x0.shape[1:], []).append(part)
    for group in by_shape.values():
        t = torch.cat([part.drawn.t for part in group])
        x0, eps = (torch.cat([getattr(part.drawn, name) for part in group]) for name in ("x0", "eps"))
        condition = Condition.cat([part.condition for part in group])
        predicted = model.predict(model.schedule.levels(t).mix(x0, eps), t, condition)
        sizes = [len(part.rows) for part in group]
        for part, own in zip(group, predicted.split(sizes), strict=True):
            each = part.weight * _losses(model, part.drawn, own, part.weighting)
            total = total.index_add(0, torch.tensor(part.rows, device=total.device), each)
    return total


def _losses(model: Model, drawn: Drawn, predicted: Tensor, weighting: Weighting) -> Tensor:
    """How far what was predicted of each example is from what was wanted, (B,) float32."""
    level = model.schedule.levels(drawn.t)
    wanted = target(drawn.x0, drawn.eps, level, model.prediction).float()
    error = (predicted - wanted).square()  # (B, c, h, w)
    if drawn.mask is None:
        each = error.flatten(1).mean(1)
    else:
        seen = drawn.mask.expand_as(error).flatten(1)
        each = (error.flatten(1) * seen).sum(1) / seen.sum(1).clamp_min(1e-6)
    return each * loss_weight(level, model.prediction, weighting).to(each)
