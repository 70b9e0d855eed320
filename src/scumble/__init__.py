"""scumble: six published ways to edit images with diffusion models."""

from __future__ import annotations

__version__ = "0.1.0.dev0"
