"""What CLIP sees in pictures of any shape: features, the tokens of an inner block, and attention.

Letters: B pictures of h x w pixels, both multiples of the patch; L = 1 + (h / patch) (w / patch) tokens, the
first of which stands for the picture; D their width, N heads, E width of the space shared with text. Position
embeddings are interpolated where a picture has not CLIP's own size.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.functional import normalize

from scumble.models.clip import Clip

__all__ = ["LONGEST", "Seen", "attention_of", "grid_of", "see", "view_size"]

LONGEST = 320 / 224
"""The longer side of a view, at most, in units of CLIP's own size; Text2LIVE's."""


class Seen(NamedTuple):
    """What CLIP makes of pictures."""

    features: Tensor
    """(B, E) of length one."""
    tokens: Tensor
    """(B, L, D) after the last block but one."""


def view_size(clip: Clip, height: int, width: int) -> tuple[int, int]:
    """(h, w) at which CLIP looks at a picture: its shape, the shorter side CLIP's size, in whole patches."""
    patch, short = _patch(clip), clip.preparation.size
    factor = short / min(height, width)
    longest = int(short * LONGEST) // patch * patch
    h, w = (min(longest, max(patch, round(side * factor / patch) * patch)) for side in (height, width))
    return h, w


def grid_of(clip: Clip, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches in a view of that `size`."""
    return size[0] // _patch(clip), size[1] // _patch(clip)


def see(clip: Clip, views: Tensor) -> Seen:
    """Features and tokens of views (B, 3, h, w) in [0, 1]. Gradients reach the views."""
    mean, std = (views.new_tensor(v).reshape(-1, 1, 1) for v in (clip.preparation.mean, clip.preparation.std))
    vision = clip.network.vision_model
    prepared = ((views - mean) / std).to(clip.network.dtype)
    hidden = vision.pre_layrnorm(vision.embeddings(prepared, interpolate_pos_encoding=True))
    blocks = list(vision.encoder.layers)
    for block in blocks[:-1]:
        hidden = block(hidden, None)
    last = blocks[-1](hidden, None)
    pooled = clip.network.visual_projection(vision.post_layernorm(last[:, 0]))
    return Seen(normalize(pooled.float(), dim=-1), hidden.float())


@contextmanager
def attention_of(clip: Clip, blocks: int) -> Generator[list[Tensor]]:
    """Inside, whatever `see` looks at leaves its attention (B, N, L, L) here, of the last `blocks` blocks.

    Attention is written out for as long, since the fused kinds keep no weights.
    """
    vision = clip.network.vision_model
    attention = [block.self_attn for block in vision.encoder.layers]
    found: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        found.append(output[1])

    hooks = [module.register_forward_hook(keep) for module in attention[-blocks:]]
    before = vision.config._attn_implementation
    vision.set_attn_implementation("eager")
    try:
        yield found
    finally:
        vision.set_attn_implementation(before)
        for hook in hooks:
            hook.remove()


def _patch(clip: Clip) -> int:
    return int(clip.network.config.vision_config.patch_size)
