"""The processes that learn together, as `accelerate launch` starts them."""

from __future__ import annotations

import os

import torch
from accelerate import PartialState

__all__ = ["is_main_process", "processes"]


def processes() -> PartialState:
    """How many processes learn together, and which of them this is; one alone where nobody started several.

    accelerate has to be told that they are on CPUs, or it takes each for one that is alone.
    """
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}
    return PartialState(cpu=asked or not torch.accelerator.is_available())


def is_main_process() -> bool:
    """Whether this is the process, of all that learn together, that writes files."""
    return processes().is_main_process
