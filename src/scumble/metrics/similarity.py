"""Likeness as the cosine of features, under the names that papers give it. Features (B, E) have length one.

| name | features | function |
|---|---|---|
| DINO, subject fidelity (Ruiz et al. 2022) | DINO ViT-S/16 | `subject_similarity` |
| CLIP-I of a subject (Gal et al. 2022, Ruiz et al. 2022) | CLIP, pictures | `subject_similarity` |
| identity, in the toy world | `identity` of the judge | `subject_similarity` |
| CLIP-I, DINO of an edit (Zhang et al. 2023) | result and target | `paired_similarity` |
| CLIP image similarity (Brooks et al. 2022) | picture and result | `paired_similarity` |
| CLIP-T (Ruiz et al. 2022) | picture and prompt | `paired_similarity` |
| CLIPScore (Hessel et al. 2021) | picture and prompt | `clip_score` |
| CLIP direction (Gal et al. 2021, 2108.00946) | both and both captions | `directional_similarity` |

Which CLIP matters: ViT-B/32 for Textual Inversion, DreamBooth, Custom Diffusion and MagicBrush, ViT-L/14 for
InstructPix2Pix. Figures compare within one model only.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["clip_score", "directional_similarity", "paired_similarity", "subject_similarity"]

CLIP_SCORE_WEIGHT = 2.5
"""w of Hessel et al. 2021, section 3, which spreads usual values over [0, 1]."""


def subject_similarity(generated: Tensor, real: Tensor) -> float:
    """Mean cosine over all pairs of a generated (N, E) and a real (M, E) picture, in [-1, 1].

    Ruiz et al. 2022, section 4.2: averaged over pictures, then by the caller over prompts and subjects.
    """
    return float((generated.double() @ real.double().T).mean())


def paired_similarity(one: Tensor, other: Tensor) -> Tensor:
    """Cosine of each row of (B, E) with the same row of the other: (B,), in [-1, 1]."""
    return (one * other).sum(-1)


def clip_score(pictures: Tensor, texts: Tensor) -> Tensor:
    """2.5 max(cos, 0) of pictures (B, E) and their texts (B, E): (B,), in [0, 2.5].

    The text alignment of CustomConcept101: 2.5 times CLIP-T, not to be compared with it.
    """
    return CLIP_SCORE_WEIGHT * paired_similarity(pictures, texts).clamp(min=0)


def directional_similarity(before: Tensor, after: Tensor, text_before: Tensor, text_after: Tensor) -> Tensor:
    """Cosine of the way from picture to edited picture with the way from caption to edited caption, all
    (B, E): (B,), in [-1, 1]; 0 where nothing changed.
    """
    seen = normalize(after - before, dim=-1)
    said = normalize(text_after - text_before, dim=-1)
    return paired_similarity(seen, said)
