"""The table of things: what each kind of `scene.KINDS` is made of."""

from __future__ import annotations

from scumble.world.creatures import CREATURES
from scumble.world.kinds import Kind
from scumble.world.objects import OBJECTS
from scumble.world.vehicles import VEHICLES

__all__ = ["THINGS"]

THINGS: dict[str, Kind] = {**CREATURES, **VEHICLES, **OBJECTS}
"""Every kind by its name."""
