"""L2, PSNR and KID against their formulas, written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scumble.core import rng
from scumble.core.errors import InputError
from scumble.metrics.kid import kid
from scumble.metrics.l2 import l2
from scumble.metrics.psnr import psnr


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=rng.generator(seed))


def test_l2_sums_over_all_pixels() -> None:
    black, grey = torch.zeros(2, 3, 256, 256), torch.zeros(2, 3, 256, 256)
    grey[1] = 0.1
    assert l2(black, grey).tolist() == pytest.approx([0, math.sqrt(3 * 256 * 256 * 0.01)], rel=1e-5)


def test_psnr() -> None:
    one = torch.zeros(2, 3, 4, 4)
    other = torch.stack([one[0] + 0.1, one[1]])
    assert psnr(one, other).tolist() == [pytest.approx(20, abs=1e-4), math.inf]


def spelled_out(x: Tensor, y: Tensor) -> float:
    """The sums of Binkowski et al. 2018, equation 4, term by term."""

    def k(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_kid_of_whole_sets_is_the_formula() -> None:
    x, y = draw(7, 5).double(), draw(7, 5, seed=1).double() + 0.5
    found = kid(x, y, subsets=3)
    assert found.mean == pytest.approx(spelled_out(x, y), rel=1e-9)
    assert found.spread == pytest.approx(0, abs=1e-12)


def test_kid_is_seeded_unbiased_and_grows_with_the_distance() -> None:
    x, same, far = draw(400, 8), draw(300, 8, seed=1), draw(300, 8, seed=2) + 1
    near = kid(x, same, size=50)
    assert near == kid(x, same, size=50)
    assert near != kid(x, same, size=50, seed=1)
    assert abs(near.mean) < near.spread  # one distribution: around 0
    assert kid(x, far, size=50).mean > 10 * near.spread


def test_kid_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(InputError, match=r"shapes \(1, 5\) and \(4, 5\)"):
        kid(draw(1, 5), draw(4, 5))
    with pytest.raises(InputError, match=r"\(4, 5\) and \(4, 6\)"):
        kid(draw(4, 5), draw(4, 6))
