"""What fine-tuning does to the rest of a class: PRES and DIV (Ruiz et al. 2022, section 4.3, the ablation of
the prior-preservation loss)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from scumble.core.errors import InputError
from scumble.metrics.similarity import subject_similarity

__all__ = ["diversity", "prior_preservation"]


def prior_preservation(class_pictures: Tensor, subject: Tensor) -> float:
    """PRES: mean cosine of DINO features (N, E) of pictures that the tuned model draws of the class, without
    the learnt word, with those (M, E) of the real subject. In [-1, 1]; lower is better.

    High where every dog has become that dog. The paper has 0.493 with the loss and 0.664 without.
    """
    return subject_similarity(class_pictures, subject)


def diversity(pictures: Tensor, distance: Callable[[Tensor, Tensor], Tensor]) -> float:
    """DIV: mean `distance`, LPIPS in the paper, over all pairs of pictures (N, 3, H, W) of the same subject
    and prompt, averaged by the caller over both. At least 0; higher is better.

    The paper has 0.391 with the prior-preservation loss and 0.371 without. Raises InputError for one picture.
    """
    if len(pictures) < 2:
        raise InputError("The diversity of one picture cannot be measured.", "Draw several of each prompt.")
    one, other = zip(*combinations(range(len(pictures)), 2), strict=True)
    return float(
        torch.cat([distance(pictures[[i]], pictures[[j]]) for i, j in zip(one, other, strict=True)]).mean()
    )
