"""How far an edit went where the words point, and how much it kept, both in CLIP's space.

The two axes of Brooks et al. 2022, figure 8. Letters: B pictures, H W their size.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import cosine_similarity

from scumble.models.clip import Clip

__all__ = ["direction", "likeness"]


def direction(
    clip: Clip, before: Tensor, after: Tensor, told_before: Sequence[str], told_after: Sequence[str]
) -> Tensor:
    """CLIP directional similarity (Gal et al. 2021, equation 2): the cosine between the way from picture
    `before` to `after`, (B, 3, H, W) in [-1, 1], and that from caption to caption; (B,), 0 if nothing moved.
    """
    seen = clip.image_features(after) - clip.image_features(before)  # (B, E)
    said = clip.text_features(told_after) - clip.text_features(told_before)
    return cosine_similarity(seen, said, dim=-1)


def likeness(clip: Clip, one: Tensor, other: Tensor) -> Tensor:
    """CLIP image similarity: the cosine between two pictures (B, 3, H, W) in [-1, 1]; (B,), 1 if equal."""
    return (clip.image_features(one) * clip.image_features(other)).sum(-1)
