"""The recipe's optimiser: orthogonal steps, the same for a matrix and its transpose, kernels as matrices."""

from __future__ import annotations

import pytest
import torch
from recipes.toybox.muon import LIKE_ADAM, Muon, orthogonal
from torch import nn


@pytest.mark.parametrize("shape", [(5, 24, 40), (5, 40, 24), (3, 16, 16)])
def test_singular_vectors_stay_and_singular_values_become_about_one(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(shape, generator=generator)
    made = orthogonal(matrices)
    values = torch.linalg.svdvals(made)
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(made.flatten(1), (u @ v).flatten(1)).min() > 0.95


def test_a_step_has_the_size_of_adams_and_lowers_the_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    kernel = nn.Parameter(torch.randn(12, 6, 3, 3, generator=generator))
    target = torch.randn(12, 6, 3, 3, generator=generator)
    optimiser = Muon([kernel], lr=0.2, weight_decay=0.0)
    losses: list[float] = []
    for _ in range(40):
        before = kernel.detach().clone()
        loss = (kernel - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        moved = float((kernel.detach() - before).square().mean().sqrt()) / 0.2
        assert moved == pytest.approx(LIKE_ADAM, rel=0.25)
    assert losses[-1] < 0.5 * losses[0]


def test_weight_decay_alone_shrinks_the_weights() -> None:
    kernel = nn.Parameter(torch.ones(4, 4))
    kernel.grad = torch.zeros(4, 4)
    Muon([kernel], lr=0.1, weight_decay=0.5).step()
    assert torch.allclose(kernel, torch.full((4, 4), 0.95))
