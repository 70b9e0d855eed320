"""A checkpoint: all that is stored of a pretrained model, from any layout, before a network is built.

Parts are called as in a diffusers folder (`unet`, `vae`, `text_encoder`, `text_encoder_2`) and their tensors
as the current diffusers and transformers modules name them, whatever the file called them. Tensors are read
when asked for and keep the dtype of the file, so a checkpoint costs almost nothing to hold and can be hashed
later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from scumble.core.errors import ModelError
from scumble.core.text import printable

__all__ = ["PARTS", "Checkpoint", "State", "channels"]

State = dict[str, Tensor]
"""Tensors by name, as `module.state_dict()` gives them."""

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
"""The parts that hold tensors, in the order in which they are hashed and saved."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a folder, a single file or a random draw holds.

    `configs` maps a part to its config, with `_class_name` naming the module class; `scheduler` is a
    diffusers scheduler config; `state(part)` gives that part's tensors on the CPU in the dtype they are
    stored in. `prediction_is_a_guess` says that nothing in the file tells what the denoiser was trained to
    predict. `zeros_for_empty` says that no prompt means zeros and not the empty prompt encoded. `guidance` is
    the scale that the makers recommend, if they say one. An upscaler has a `low_res_scheduler` for the noise
    of the small picture, and may say the highest level of it that it was trained on.
    """

    name: str
    configs: Mapping[str, Mapping[str, Any]]
    state: Callable[[str], State]
    scheduler: Mapping[str, Any]
    tokenizers: tuple[Any, ...] = ()
    pipeline: str = "StableDiffusionPipeline"
    zeros_for_empty: bool = False
    safety_checker: Path | None = None
    path: Path | None = None
    is_random: bool = False
    prediction_is_a_guess: bool = False
    guidance: float | None = None
    low_res_scheduler: Mapping[str, Any] | None = None
    max_noise_level: int | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts this checkpoint has, in the order of PARTS."""
        return tuple(part for part in PARTS if part in self.configs)


def channels(config: Mapping[str, Any], key: str, usual: int) -> int:
    """A number of channels in a network's config. Raises ModelError where it is none."""
    count = config.get(key, usual)
    if not isinstance(count, int) or count < 1:
        raise ModelError(
            f"A config of the model has {key} = {printable(str(count), 40)}, which is no number."
        )
    return count
