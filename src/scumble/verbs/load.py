"""Which model, where, and in which precision: the settings that every verb with a model has."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Literal

import torch

from scumble.adapters.attach import attach
from scumble.adapters.weights import Weights, outline
from scumble.core.config import Config
from scumble.core.errors import WeightsError
from scumble.core.files import sha256
from scumble.core.keep import kept
from scumble.core.memory import memory_for
from scumble.history.recipe import Ingredient, library_versions
from scumble.models import load as models
from scumble.models.load import DType
from scumble.models.model import Model
from scumble.models.prompts import standing

__all__ = ["RANDOM_MODEL", "ModelConfig", "chosen_device", "load", "scaled_weights", "weights_notes"]

RANDOM_MODEL = "This model is random: nobody trained it, so its pictures mean nothing."
SHOWN = 3
"""The most words that a note names."""


class ModelConfig(Config):
    """Settings of everything that works on a model."""

    model: str = "toybox"
    """toybox, a diffusers folder, a single .safetensors file, or a hub id."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps; auto takes an accelerator if there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the networks; auto is float32 on a CPU and float16 on an accelerator."""
    low_memory: bool = False
    """Trade time for memory: sliced attention, tiled decoding, and on a GPU networks moved there in turn."""
    channels_last: bool = False
    """Lay convolutions out for tensor cores."""
    compile: bool = False
    """Compile the denoiser: minutes at its first use, faster afterwards."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    offline: bool = False
    """Use only what is in the hub's cache on this machine."""
    safety_checker: bool = True
    """Use the model's own safety checker, if it has one: pictures that it flags come out black."""
    trust_pickle: bool = False
    """Open pickle files in the model too. They can run anything: only for files whose maker you trust."""
    weights: tuple[str, ...] = ()
    """Learnt weights to attach, each a file or FILE:SCALE; changes add up."""
    any_base: bool = False
    """Attach dense changes to a relative of the model that they were learnt on, too."""

    def load(self) -> Model:
        """Load the model, or take the one that is kept; see `scumble.core.keep`. Raises ModelError,
        InputError and OutOfMemoryError with one sentence.
        """
        device = chosen_device(self.device)
        dtype: DType = (
            self.dtype if self.dtype != "auto" else "float32" if device.startswith("cpu") else "float16"
        )
        elsewhere = {"device", "dtype", "weights", "any_base", "offline"}  # the last three change nothing
        others = ((name, getattr(self, name)) for name in ModelConfig.model_fields if name not in elsewhere)
        return kept((device, dtype, *others), lambda: self._load(device, dtype))

    def _load(self, device: str, dtype: DType) -> Model:
        with memory_for(f"the model {self.model}"):
            return models.load(
                self.model,
                device=device,
                dtype=dtype,
                attention_slicing=self.low_memory,
                vae_tiling=self.low_memory,
                offload="model" if self.low_memory and device.startswith("cuda") else "none",
                channels_last=self.channels_last,
                compile=self.compile,
                revision=self.revision,
                offline=self.offline,
                safety_checker=self.safety_checker,
                trust_pickle=self.trust_pickle,
            )

    @contextmanager
    def attached(self, model: Model) -> Generator[tuple[Ingredient, ...]]:
        """Inside, `model` has the `weights`; what the recipe remembers of them.

        Raises WeightsError, before anything is changed, where one cannot be read or they do not compose.
        """
        given = [scaled_weights(text) for text in self.weights]
        with attach(model, *((w, scale) for _, w, scale in given), any_base=self.any_base):
            yield tuple(Ingredient.of("weights", path, sha256(path), scale) for path, _, scale in given)

    def machine(self, model: Model, **more: str) -> dict[str, str]:
        """What the pixels depend on besides the recipe: versions, device, threads, dtype, and every setting
        here that changes how the same is computed.
        """
        names = ("low_memory", "channels_last", "compile")
        return {
            **library_versions(str(model.device), torch.get_num_threads()),
            "dtype": str(model.dtype).removeprefix("torch."),
            **{name: "yes" for name in names if getattr(self, name)},
            **more,
        }


def scaled_weights(text: str) -> tuple[Path, Weights, float]:
    """FILE or FILE:SCALE, read. Raises WeightsError."""
    path, scale = _place_and_scale(text)
    return path, Weights.load(path), scale


def _place_and_scale(text: str) -> tuple[Path, float]:
    path, scale = Path(text), 1.0
    if not path.exists() and (parts := text.rpartition(":"))[0]:
        try:
            path, scale = Path(parts[0]), float(parts[2])
        except ValueError:
            raise WeightsError(
                f"{parts[2]!r} is no scale for {parts[0]}.", "Write FILE or FILE:0.8."
            ) from None
        if not isfinite(scale):
            raise WeightsError(f"{parts[2]!r} is no scale for {parts[0]}.", "Write FILE or FILE:0.8.")
    return path, scale


def weights_notes(given: Sequence[str], prompts: Sequence[str], *, upscales: bool = False) -> list[str]:
    """What a person should know of the weights `given`, each FILE or FILE:SCALE, beside these prompts: a
    scale of words, which does nothing, and words that no prompt has. Where the file changes the networks
    too, they matter only if none of its words is there. With `upscales` it is what the file holds for an
    upscaler. Raises WeightsError for what is no file of weights.
    """
    notes: list[str] = []
    for path, scale in map(_place_and_scale, given):
        whole = outline(path)
        held = whole.upscaler or whole if upscales else whole
        if scale == 0:
            continue
        if scale != 1 and held.words and not (whole.changes or whole.upscaler):
            notes.append(f"Words take no scale: {path.name} holds nothing else, and {scale:g} does nothing.")
        there = set[str]().union(*(standing(prompt, held.words) for prompt in prompts))
        absent = [word for word in held.words if word not in there]
        if absent and not (held.changes and there):
            notes.append(_absent(absent, path, prompts))
    return notes


def _absent(words: Sequence[str], path: Path, prompts: Sequence[str]) -> str:
    """The sentence on words of a file that stand in no prompt, and on what was typed in other letters."""
    shown = ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")
    told = f"{shown} of {path.name} {'does' if len(words) == 1 else 'do'} not stand in the prompt."
    near = [w for w in words if any(standing(p.lower(), [w.lower()]) for p in prompts)]
    return f"{told} Did you mean {' and '.join(near[:SHOWN])}?" if near else told


def load(
    model: str = "toybox",
    *,
    device: str = "auto",
    dtype: str = "auto",
    low_memory: bool = False,
    channels_last: bool = False,
    compile: bool = False,
    revision: str | None = None,
    offline: bool = False,
    safety_checker: bool = True,
    trust_pickle: bool = False,
) -> Model:
    """Load a model by name: the toybox, a diffusers folder, a single file, a hub id.

    The options are the settings of the same name of `ModelConfig`.

    >>> model = scumble.load("toybox")
    """
    return ModelConfig.of(dict(locals())).load()


def chosen_device(device: str) -> str:
    """`device`; for `auto` an accelerator if there is one, else the CPU."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
