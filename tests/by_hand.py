"""What the learners lower, derived again in float64, from pictures to the error of the denoiser, by nothing
but the networks themselves and the papers' formulas. For tiny models of the family `sd1`.

    found = caught(monkeypatch, dreambooth, model, subject, config)     # what `learn` hands to the fit
    error(found.denoiser, example, told(model, "a cat"))                # the same, by hand
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from learnt import noise
from scumble.core import rng
from scumble.core.events import Loop, finish
from scumble.data.subjects import Subject
from scumble.models.model import Model
from scumble.training.fit import Fitted, Group, Loss
from tiny import BETAS

__all__ = ["Caught", "Example", "agree", "caught", "drawn", "error", "latents", "slopes", "told"]

ROUNDING = 1e-4
"""Of float32 through all layers, as a share of the largest number: some hundred roundings of 6e-8 each."""
STEP = 1e-4
"""Of central differences in float64: their own error is its square, 1e-8 times a third derivative."""
SCALING = 0.18215
BETA = torch.linspace(
    BETAS["beta_start"] ** 0.5, BETAS["beta_end"] ** 0.5, 1000, dtype=torch.float64
).square()
KEPT = torch.cumprod(1 - BETA, 0)
"""alpha_t bar of Ho et al. 2020."""


@dataclass(frozen=True)
class Caught:
    """What a learner handed to its fit, and that loss at step 0."""

    losses: Tensor
    """(B,)"""
    gradients: dict[str, Tensor]
    """Of their mean, by parameter."""
    parameters: dict[str, Tensor]
    """In float64, with gradients, where the loss was taken."""
    denoiser: Any
    """A copy in float64, with gradients where it learns."""


@dataclass(frozen=True)
class Example:
    picture: int
    t: int
    x0: Tensor
    eps: Tensor


def caught(
    monkeypatch: pytest.MonkeyPatch,
    method: Any,
    model: Model,
    subject: Subject,
    config: Any,
    *,
    moved: float = 0.0,
) -> Caught:
    """Learn, but for the fit: its loss is taken once, each parameter `moved` by chance from its start."""
    seen: list[Caught] = []

    def look(groups: Sequence[Group], loss: Loss, *_: Any, **__: Any) -> Loop[Fitted]:
        named = {name: p for group in groups for name, p in group.parameters.items()}
        for seed, parameter in enumerate(named.values()):
            parameter.data.add_(noise(*parameter.shape, seed=seed), alpha=moved)
        losses = loss(0, range(config.batch))
        gradients = torch.autograd.grad(losses.sum() / config.batch, list(named.values()))
        copies = {name: p.detach().double().requires_grad_() for name, p in named.items()}
        denoiser = deepcopy(model.denoiser).double()
        seen.append(Caught(losses.detach(), dict(zip(named, gradients, strict=True)), copies, denoiser))
        yield from ()
        return Fitted(steps=1)

    with monkeypatch.context() as patch:
        patch.setattr(method, "fit", look)
        finish(method.learn(model, [subject], config))
    [found] = seen
    return found


def latents(model: Model, images: Sequence[Image.Image], *, mirrored: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the pictures' latents, each (N, V, 4, h, w), unscaled."""
    autoencoder: Any = model.autoencoder
    found = []
    for image in images:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
        with torch.no_grad():
            views = torch.stack([pixels, pixels.flip(2)] if mirrored else [pixels])
            posterior = autoencoder.encode(views).latent_dist
        found.append((posterior.mean, posterior.std))
    mean, std = (torch.stack(parts) for parts in zip(*found, strict=True))
    return mean, std


def drawn(of: tuple[Tensor, Tensor], seed: int, purpose: str, row: int, step: int = 0) -> Example:
    """Example number `row` of a step: picture, view, time, then latents and noise, by its own generator."""
    chance = rng.generator(rng.derive(seed, purpose, step, row))
    mean, std = of
    picture, view, t = (int(torch.randint(n, (), generator=chance)) for n in (*mean.shape[:2], len(KEPT)))
    of_latents, eps = (torch.randn(mean.shape[2:], generator=chance) for _ in range(2))
    x0 = SCALING * (mean[picture, view] + std[picture, view] * of_latents)
    return Example(picture, t, x0.double(), eps.double())


def told(model: Model, *pieces: str | Tensor) -> Tensor:
    """A prompt as the text encoder reads it in float64, (1, 77, D): words, and vectors (n, D) where a learnt
    word stands.
    """
    tokenizer, encoder = model.tokenizers[0], deepcopy(model.text_encoders[0]).double()
    table = encoder.get_input_embeddings().weight
    start, end = (table[i][None] for i in (tokenizer.bos_token_id, tokenizer.eos_token_id))
    read = [
        table[tokenizer(p, add_special_tokens=False).input_ids] if isinstance(p, str) else p for p in pieces
    ]
    rows = torch.cat([start, *read, end])
    rows = torch.cat([rows, table[tokenizer.pad_token_id].expand(77 - len(rows), -1)])[None]
    hook = encoder.get_input_embeddings().register_forward_hook(lambda *_: rows)
    try:
        return encoder(torch.full((1, 77), tokenizer.eos_token_id)).last_hidden_state
    finally:
        hook.remove()


def error(denoiser: Any, example: Example, condition: Tensor) -> Tensor:
    """||eps - eps_theta(x_t, t, c)||^2 as a mean over the latent's numbers."""
    kept = KEPT[example.t]
    x = kept.sqrt() * example.x0 + (1 - kept).sqrt() * example.eps
    output = denoiser(x[None], torch.tensor(example.t), encoder_hidden_states=condition).sample[0]
    return (output - example.eps).square().mean()


def agree(found: Tensor, expected: Tensor) -> None:
    """Equal to the rounding of float32."""
    assert found.shape == expected.shape
    off = (found.double() - expected.detach()).abs().max()
    assert float(off) <= ROUNDING * float(expected.detach().abs().max())


def slopes(value: Any, parameter: Tensor, places: Sequence[int]) -> list[float]:
    """Central differences of `value()` along the numbers `places` of a parameter in float64."""
    found = []
    flat = parameter.data.view(-1)
    for place in places:
        before = float(flat[place])
        sides = []
        for sign in (1, -1):
            flat[place] = before + sign * STEP
            with torch.no_grad():
                sides.append(float(value()))
        flat[place] = before
        found.append((sides[0] - sides[1]) / (2 * STEP))
    return found
