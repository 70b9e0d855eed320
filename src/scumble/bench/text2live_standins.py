"""Stand-ins for what the original code of Text2LIVE imports and this machine may lack: MADGRAD, imageio,
OpenAI's CLIP, and torchvision, which has a file of its own. Each holds what that code calls and no more, and
behaves as the library's documentation says; where a library is installed, it is used instead.

CLIP is always a stand-in: a `CLIPModel` of transformers under the names of OpenAI's package, so that both
sides of a race look through the same network.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from scumble.bench.text2live_torchvision import FUNCTIONAL, TRANSFORMS
from scumble.models.clip import Clip, Preparation

__all__ = ["MADGRAD", "GridOfSeven", "Named", "put_in"]


def put_in(load: Callable[[], Clip]) -> None:
    """Make the imports of the original code work; `load` gives a CLIP of its own to whoever loads one."""
    if find_spec("torchvision") is None:
        _module("torchvision").transforms = _module("torchvision.transforms", **TRANSFORMS)
        _module("torchvision.transforms.functional", **FUNCTIONAL)
    if find_spec("madgrad") is None:
        _module("madgrad", MADGRAD=MADGRAD)
    if find_spec("imageio") is None:
        _module("imageio")
    package = _module("CLIP")
    for name, kind in (("clip", Named), ("clip_explainability", GridOfSeven)):
        made = _module(f"CLIP.{name}", load=_loader(load, kind), tokenize=_tokenizer(load))
        setattr(package, name, made)


def _module(name: str, **content: Any) -> Any:
    module: Any = ModuleType(name)
    module.__spec__, module.__path__ = SimpleNamespace(name=name, origin=None), []
    vars(module).update(content)
    sys.modules[name] = module
    return module


# CLIP


def _loader(load: Callable[[], Clip], kind: type[nn.Module]) -> Callable[..., Any]:
    def loaded(_: str, **__: Any) -> tuple[nn.Module, None]:
        return kind(load()), None

    return loaded


def _tokenizer(load: Callable[[], Clip]) -> Callable[[Any], Tensor]:
    def tokenize(texts: Any) -> Tensor:
        clip = load()
        length = clip.network.config.text_config.max_position_embeddings
        told = [texts] if isinstance(texts, str) else list(texts)
        options = {"padding": "max_length", "truncation": True, "max_length": length}
        return clip.tokenizer(told, return_tensors="pt", **options).input_ids

    return tokenize


class Named(nn.Module):
    """A CLIP under OpenAI's names. Pictures come as that code normalises them, by the values of OpenAI's own
    preparation, whatever the network was trained with."""

    scale: Tensor
    shift: Tensor

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.network = clip.network
        own, theirs = clip.preparation, Preparation()
        scale = torch.tensor(theirs.std) / torch.tensor(own.std)
        shift = (torch.tensor(theirs.mean) - torch.tensor(own.mean)) / torch.tensor(own.std)
        self.prepared = (own.mean, own.std) == (theirs.mean, theirs.std)
        self.register_buffer("scale", scale.view(-1, 1, 1).to(clip.device))
        self.register_buffer("shift", shift.view(-1, 1, 1).to(clip.device))

    def _own(self, pictures: Tensor) -> Tensor:
        return pictures if self.prepared else pictures * self.scale + self.shift

    def encode_image(self, pictures: Tensor) -> Tensor:
        """(B, E), of any length, of pictures (B, 3, h, w)."""
        seen = self.network.vision_model(pixel_values=self._own(pictures), interpolate_pos_encoding=True)
        return self.network.visual_projection(seen.pooler_output)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(B, E), of any length, of token numbers (B, L)."""
        return self.network.text_projection(self.network.text_model(input_ids=tokens).pooler_output)

    def calculate_self_sim(self, pictures: Tensor) -> Tensor:
        """(B, L, L): cosines of the tokens after the last block but one."""
        vision = self.network.vision_model
        embedded = vision.embeddings(self._own(pictures), interpolate_pos_encoding=True)
        hidden = vision.pre_layrnorm(embedded)
        for block in list(vision.encoder.layers)[:-1]:
            hidden = block(hidden, None)
        unit = normalize(hidden, dim=-1)
        return unit @ unit.transpose(1, 2)


class GridOfSeven(Named):
    """The same, keeping the attention of each block, from which that code finds relevancy. It takes a grid of
    7 x 7 patches for granted, so pictures are brought to it."""

    def __init__(self, clip: Clip) -> None:
        super().__init__(clip)
        self.side = 7 * clip.network.config.vision_config.patch_size
        self.network.requires_grad_(requires_grad=True)  # or attention had no gradient
        self.network.vision_model.set_attn_implementation("eager")  # the fused kinds keep no weights
        blocks = [_Kept(block.self_attn) for block in self.network.vision_model.encoder.layers]
        self.visual = nn.Module()
        self.visual.transformer = nn.Module()
        self.visual.transformer.resblocks = nn.ModuleList(blocks)

    def forward(self, pictures: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of pictures by texts, and of texts by pictures."""
        if pictures.shape[-1] != self.side:
            pictures = interpolate(pictures, (self.side, self.side), mode="bilinear", align_corners=False)
        seen, told = (
            normalize(found, dim=-1) for found in (self.encode_image(pictures), self.encode_text(tokens))
        )
        logits = self.network.logit_scale.exp() * seen @ told.T
        return logits, logits.T


class _Kept(nn.Module):
    """A block's attention, as it was last."""

    attn_probs: Tensor

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        attention.register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, __: Any, output: Any) -> None:
        self.attn_probs = output[1]  # (B, N, L, L)


# MADGRAD


class MADGRAD(torch.optim.Optimizer):
    """Defazio and Jelassi 2021, "Adaptivity without Compromise" (2101.11075), algorithm 1, with weight decay
    added to the gradient."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eps: float = 1e-6,
    ) -> None:
        given = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eps": eps}
        super().__init__(params, given)

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step."""
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1
            rate = group["lr"] * group["k"] ** 0.5
            for x in group["params"]:
                if x.grad is None:
                    continue
                state = self.state[x]
                if not state:
                    state |= {"start": x.clone(), "sum": torch.zeros_like(x), "squares": torch.zeros_like(x)}
                gradient = x.grad.add(x, alpha=group["weight_decay"])
                state["sum"].add_(gradient, alpha=rate)
                state["squares"].addcmul_(gradient, gradient, value=rate)
                root = state["squares"].pow(1 / 3).add_(group["eps"])
                x.lerp_(state["start"].addcdiv(state["sum"], root, value=-1), 1 - group["momentum"])
