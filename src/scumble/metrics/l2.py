"""L2 distance, the faithfulness of Meng et al. 2021."""

from __future__ import annotations

from torch import Tensor

__all__ = ["l2"]


def l2(one: Tensor, other: Tensor) -> Tensor:
    """Euclidean distance over all pixels and channels of pictures (B, 3, H, W) in [0, 1]: (B,), 0 to
    sqrt(3 H W).

    It grows with the size of the picture: figures compare at one size only (the paper's are at 256 x 256).
    """
    # In float64: sums over a picture's pixels in float32 are off in the fourth digit.
    return (one - other).double().flatten(1).norm(dim=1)
