"""Networks from configs and tensors: only known classes and settings, nothing missing, nothing left over.

A config is somebody else's text, so the classes that it may name stand in one table and a setting that the
class does not take is refused by name. Parameters are never initialised and then overwritten: the module is
laid out without memory and the tensors of the file become its parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from transformers.initialization import no_init_weights

from scumble.core.errors import ModelError
from scumble.core.text import printable
from scumble.models.checkpoint import State

__all__ = ["CLASSES", "TEXT_SETTINGS", "build", "canonical_text_state", "expected", "listed", "load_state"]

CLASSES: dict[str, type[nn.Module]] = {
    "UNet2DConditionModel": UNet2DConditionModel,
    "UNet2DModel": UNet2DModel,
    "AutoencoderKL": AutoencoderKL,
    "CLIPTextModel": CLIPTextModel,
    "CLIPTextModelWithProjection": CLIPTextModelWithProjection,
}
"""Every class a config may name."""

TEXT_SETTINGS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "attention_dropout",
    "initializer_range",
    "initializer_factor",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)
"""The settings of a CLIP text encoder's config that are used; the others do nothing here."""
_CONFIG_ERRORS = (
    TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError, NameError,
    StrictDataclassError,
)  # fmt: skip
"""What the libraries' networks raise on values that they do not check, and on those that they do."""
_SHOWN = 3
_LONGEST = 120
"""Characters of a name out of a file that are shown."""
_LARGEST = 1_000_000
"""No size in a config is larger; buffers of such a size would really be made."""


def build(config: Mapping[str, Any], part: str) -> nn.Module:
    """The module a config describes, in evaluation mode and frozen, without memory (on `meta`).

    Raises ModelError for a class that is not in CLASSES and for a setting that the class does not have.
    """
    name = str(config.get("_class_name"))
    if name not in CLASSES:
        raise ModelError(
            f"The model's {part} is a {name}, which is not supported.",
            f"Supported are {', '.join(CLASSES)}.",
        )
    for key, value in config.items():
        if any(isinstance(size, int) and abs(size) > _LARGEST for size in _flat(value)):
            raise ModelError(f"The config of the model's {part} has a {key[:40]!r} of over {_LARGEST:,}.")
    try:
        with init_empty_weights(include_buffers=False), no_init_weights():
            module = _constructed(name, config, part)
    except _CONFIG_ERRORS as problem:
        reason = " ".join(str(problem).split())[:300]
        raise ModelError(f"The config of the model's {part} describes no {name}: {reason}.") from problem
    return module.eval().requires_grad_(False)


def expected(config: Mapping[str, Any], part: str) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the tensors that the part needs."""
    return {name: tuple(tensor.shape) for name, tensor in build(config, part).state_dict().items()}


def load_state(
    module: nn.Module, state: State, part: str, *, dtype: torch.dtype, device: str | torch.device
) -> None:
    """Make the tensors of `state`, cast and moved, the parameters of `module`, which may be without memory.

    Raises ModelError naming the first missing, unexpected or misshapen tensors; the module is then unchanged.
    """
    wanted = module.state_dict()
    _check(wanted, state, part)
    placed = {
        name: state[name].to(device=device, dtype=_stored_dtype(tensor, dtype))
        for name, tensor in wanted.items()
    }
    module.load_state_dict(placed, strict=True, assign=True)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for owner in module.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            setattr(owner, name, buffer.to(device))


def canonical_text_state(state: State, *, wrapped: bool) -> State:
    """A CLIP text encoder's tensors under the names of the current transformers, from any version's.

    Releases before 5.6 wrote `text_model.` before every name of CLIPTextModel and a `position_ids` buffer;
    the class with a projection (`wrapped`) still has the prefix and is read without it too.
    """
    prefix = "text_model."
    named = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    named.pop("embeddings.position_ids", None)
    if not wrapped:
        return named
    return {name if name.startswith("text_projection") else prefix + name: t for name, t in named.items()}


def _flat(value: Any) -> Iterator[Any]:
    """The numbers and words in nested lists."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _constructed(name: str, config: Mapping[str, Any], part: str) -> nn.Module:
    if name.startswith("CLIP"):
        settings = {key: config[key] for key in TEXT_SETTINGS if key in config}
        return CLASSES[name](CLIPTextConfig(**{**settings, "attn_implementation": "sdpa"}))
    known = list(inspect.signature(CLASSES[name].__init__).parameters)[1:]
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    for key, value in settings.items():
        if key not in known and value:  # a setting that is off changes nothing, known or not
            near = get_close_matches(key, known, 1)
            raise ModelError(
                f"The config of the model's {part} has a setting {key!r} that {name} does not know.",
                f"Did you mean {near[0]!r}?" if near else "A newer version of diffusers may know it.",
            )
    return CLASSES[name](**{key: value for key, value in settings.items() if key in known})


def _check(wanted: Mapping[str, Tensor], state: State, part: str) -> None:
    remedy = "The file is incomplete or belongs to another kind of model."
    missing = [name for name in wanted if name not in state]
    if missing:
        raise ModelError(f"The model's {part} lacks {listed(missing)}.", remedy)
    unexpected = [name for name in state if name not in wanted]
    if unexpected:
        raise ModelError(f"The model's {part} has no place for {listed(unexpected)}.", remedy)
    for name, tensor in wanted.items():
        if tensor.shape != state[name].shape:
            found, needed = tuple(state[name].shape), tuple(tensor.shape)
            raise ModelError(
                f"The model's {part} needs {name} of shape {needed} and the file's is {found}.", remedy
            )


def listed(names: list[str]) -> str:
    """How many tensors, and the names of the first few."""
    shown = ", ".join(printable(name, _LONGEST) for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{len(names)} tensor{'s' * (len(names) > 1)}: {shown}" + (f" and {more} more" if more > 0 else "")


def _stored_dtype(tensor: Tensor, dtype: torch.dtype) -> torch.dtype:
    return dtype if tensor.is_floating_point() else tensor.dtype
