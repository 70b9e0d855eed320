"""The attention maps of a denoiser: looked at, or replaced, while it runs.

Letters: B rows of the batch, h heads, N places of the picture, M what they look at (tokens, or places again),
d width of a head. A map is softmax(Q K^T / sqrt(d)) over M (Vaswani et al. 2017, equation 1): (B, h, N, M)
float32, each row summing to 1. The batch is as the caller of the denoiser laid it out, for guidance branch
after branch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from scumble.core.errors import ModelError
from scumble.models.model import Model

__all__ = [
    "Site",
    "everywhere",
    "first_token_stopped",
    "observe",
    "record",
    "replace_maps",
    "sites",
]


@dataclass(frozen=True, slots=True)
class Site:
    """One attention layer: its name in the denoiser, whether it looks at the prompt (cross) or at the picture
    itself, the part of the U it is in, and its number of heads.
    """

    name: str
    cross: bool
    place: Literal["down", "mid", "up"]
    heads: int


Where = Callable[[Site], bool]


def everywhere(_: Site) -> bool:
    """Every attention layer."""
    return True


def sites(model: Model) -> list[Site]:
    """The attention layers of the denoiser, in the order in which it holds them."""
    return [site for site, _ in _layers(model, everywhere)]


@contextmanager
def observe(
    model: Model, see: Callable[[Tensor, Site], object], *, where: Where = everywhere
) -> Generator[None]:
    """Inside, `see(map, site)` is called before each attention layer for which `where(site)` holds.

    A compiled denoiser must not have been called yet. The map is computed beside the layer's own work, whose
    result stays the same to the bit. Raises ModelError if there is no such layer.
    """

    def hook(site: Site) -> Any:
        def run(layer: Any, arguments: tuple[Tensor, ...], options: dict[str, Any]) -> None:
            tokens, context = _inputs(
                layer, arguments[0], options.get("encoder_hidden_states"), options.get("temb")
            )
            see(_maps(layer, tokens, context, options.get("attention_mask")), site)

        return run

    with ExitStack() as stack:
        for site, layer in _some(model, where):
            stack.callback(layer.register_forward_pre_hook(hook(site), with_kwargs=True).remove)
        yield


@contextmanager
def record(model: Model, *, where: Where = everywhere) -> Generator[dict[str, list[Tensor]]]:
    """Inside, the maps of each layer are put into a list under its name, one for each call. They keep their
    gradients and their memory: for a large picture choose few layers.
    """
    maps: dict[str, list[Tensor]] = {}
    with observe(model, lambda seen, site: maps.setdefault(site.name, []).append(seen), where=where):
        yield maps


@contextmanager
def replace_maps(
    model: Model, change: Callable[[Tensor, Site], Tensor], *, where: Where = everywhere
) -> Generator[None]:
    """Inside, each attention layer for which `where(site)` holds uses `change(map, site)` instead of its map.

    What `change` returns has the shape of what it gets; returning the very map changes the layer's output by
    rounding only. Raises ModelError if there is no such layer.
    """
    with ExitStack() as stack:
        for site, layer in _some(model, where):
            stack.callback(layer.set_processor, layer.processor)
            cast("Any", layer).set_processor(_Replacing(site, change))
        yield


@contextmanager
def first_token_stopped(model: Model) -> Generator[None]:
    """Inside, no gradient flows through the keys and values of the first token of each chunk of a prompt.

    That token is the start marker, the same in every prompt, and what is learnt from it is learnt for all of
    them (as in Custom Diffusion, Kumari et al. 2022). Outputs stay the same to the bit. Raises ModelError for
    a denoiser that looks at no prompt.
    """

    def stop(_layer: Any, _arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        first = torch.arange(output.shape[1], device=output.device) % length == 0  # (L,)
        return torch.where(first[:, None], output.detach(), output)  # (B, L, D)

    length = model.tokenizers[0].model_max_length  # of a chunk
    with ExitStack() as stack:
        for _, layer in _some(model, lambda site: site.cross):
            for projection in (layer.to_k, layer.to_v):
                stack.callback(cast("Any", projection).register_forward_hook(stop).remove)
        yield


class _Replacing:
    """An attention processor, in diffusers' sense, that asks for the map to use."""

    def __init__(self, site: Site, change: Callable[[Tensor, Site], Tensor]) -> None:
        self.site = site
        self.change = change

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        tokens, context = _inputs(attn, hidden_states, encoder_hidden_states, temb)
        maps = _maps(attn, tokens, context, attention_mask)
        changed = self.change(maps, self.site)
        values = _heads(attn.to_v(context), attn.heads)  # (B, h, M, d)
        output = (changed.to(values.dtype) @ values).transpose(1, 2).flatten(2)  # (B, N, h d)
        output = attn.to_out[1](attn.to_out[0](output))
        if hidden_states.ndim == 4:
            output = output.transpose(1, 2).reshape(hidden_states.shape)
        if attn.residual_connection:
            output = output + hidden_states
        return output / attn.rescale_output_factor


def _layers(model: Model, where: Where) -> list[tuple[Site, Attention]]:
    found: list[tuple[Site, Attention]] = []
    for name, layer in model.denoiser.named_modules():
        if isinstance(layer, Attention):
            place: Any = name.split("_")[0]  # down_blocks, mid_block, up_blocks
            site = Site(name, bool(layer.is_cross_attention), place, layer.heads)
            if where(site):
                found.append((site, layer))
    return found


def _some(model: Model, where: Where) -> list[tuple[Site, Attention]]:
    found = _layers(model, where)
    if not found:
        raise ModelError(f"{model.name} has no attention layer of the kind asked for.")
    return found


def _inputs(attn: Any, hidden: Tensor, context: Tensor | None, time: Tensor | None) -> tuple[Tensor, Tensor]:
    """What queries come from (B, N, C), and what keys and values come from (B, M, D)."""
    if attn.spatial_norm is not None:
        hidden = attn.spatial_norm(hidden, time)
    tokens = hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden
    if attn.group_norm is not None:
        tokens = attn.group_norm(tokens.transpose(1, 2)).transpose(1, 2)
    if context is None:
        return tokens, tokens
    return tokens, attn.norm_encoder_hidden_states(context) if attn.norm_cross else context


def _maps(attn: Any, tokens: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
    query, key = (_heads(p, attn.heads) for p in (attn.to_q(tokens), attn.to_k(context)))  # (B, h, N | M, d)
    scores = query.float() @ key.float().transpose(2, 3) * query.shape[-1] ** -0.5  # (B, h, N, M)
    if mask is not None:  # added to the scores: 0 where a token may be looked at, very negative where not
        rows = attn.prepare_attention_mask(mask, context.shape[1], len(context))  # (B h, 1 | N, M)
        scores = scores + rows.unflatten(0, (len(context), attn.heads)).float()
    return torch.softmax(scores, dim=-1)


def _heads(projected: Tensor, heads: int) -> Tensor:
    """(B, L, h d) -> (B, h, L, d)."""
    return projected.unflatten(2, (heads, -1)).transpose(1, 2)
