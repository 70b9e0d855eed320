"""Which CLIP, and where: the settings of verbs that work on pictures with nothing but CLIP."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from scumble.core.config import Config
from scumble.core.files import sha256
from scumble.core.keep import kept
from scumble.history.recipe import Ingredient, library_versions
from scumble.models import toybox
from scumble.models.clip import Clip, clip_folder, load_clip
from scumble.verbs.load import chosen_device

__all__ = ["VisionConfig"]


class VisionConfig(Config):
    """Settings of everything that works with CLIP alone."""

    clip: str = "toybox"
    """toybox, a folder with a CLIP model in transformers' layout, or a hub id of one."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps; auto takes an accelerator if there is one."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    offline: bool = False
    """Use only what is in the hub's cache on this machine."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    """Of all chance in the run; none draws one."""

    def load_clip(self) -> tuple[Clip, Ingredient]:
        """CLIP in single precision, and what a recipe remembers of it. Raises ModelError."""
        name = toybox.clip() if self.clip == "toybox" else self.clip
        folder = clip_folder(name, revision=self.revision, offline=self.offline)
        device = chosen_device(self.device)
        loaded = kept(("clip", str(folder), device), lambda: load_clip(folder, device=device))
        return loaded, Ingredient.of("model", self.clip, sha256(folder / "model.safetensors"))

    def machine(self, clip: Clip) -> dict[str, str]:
        """What the pixels depend on besides the recipe."""
        return library_versions(str(clip.device), torch.get_num_threads())
