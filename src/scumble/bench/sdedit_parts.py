"""Edits of a part for the table of SDEdit: another colour brushed over a thing, sunglasses sketched onto an
animal, with what the picture has to show afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from scumble.bench.common import as_saved
from scumble.data.paintings import Painting, painting
from scumble.world.render import render
from scumble.world.sampling import PROFILES, dice, pick, sample_scene
from scumble.world.scene import COLOURS, WEARERS, Scene
from scumble.world.words import caption

__all__ = ["Part", "brushed", "sketched"]


@dataclass(frozen=True, slots=True)
class Part:
    """A picture to be edited in a part, and what it has to show afterwards."""

    job: Painting
    wanted: Scene
    questions: tuple[str, ...]


def brushed(seed: int) -> Part:
    """Another colour brushed over a thing, its shading still showing through."""
    scene = sample_scene(seed, profile=PROFILES["photo"])
    thing = replace(scene.things[0], material="matte", effect=None, accessory=None)
    colour = pick(dice(seed, "brush"), [name for name in COLOURS if name != thing.colour])
    scene = replace(scene, things=(thing,), view="front")
    wanted = replace(scene, things=(replace(thing, colour=colour),))
    drawn = render([scene])
    original, where = as_saved(drawn.pixels), (drawn.masks[:, :1] > 0.5).float()
    paint = torch.tensor(COLOURS[colour]).reshape(1, 3, 1, 1)
    guide = torch.where(where > 0, 0.3 * original + 0.7 * paint, original)
    job = painting(guide, original=original, mask=where, prompt=caption(wanted))
    return Part(job, wanted, ("kind", "colour"))


def sketched(seed: int) -> Part:
    """Two dark discs and a bar over the eyes of an animal."""
    rng = dice(seed, "sunglasses")
    scene = sample_scene(seed, profile=PROFILES["photo"])
    kind = pick(rng, sorted(WEARERS))
    thing = replace(scene.things[0], kind=kind, material="matte", effect=None, accessory=None, size="large")
    scene = replace(scene, things=(thing,), view="front")
    wanted = replace(scene, things=(replace(thing, accessory="sunglasses", accessory_colour="black"),))
    original = as_saved(render([scene]).pixels)
    sketch = _glasses(scene)
    guide = torch.where(sketch > 0, torch.full_like(original, 0.07), original)
    around = max_pool2d(sketch[None, None], 9, 1, 4)
    job = painting(guide, original=original, mask=around, prompt=caption(wanted))
    return Part(job, wanted, ("kind", "accessory"))


def _glasses(scene: Scene) -> Tensor:
    """(H, W) 1 where coarse sunglasses are drawn: where those of the renderer would be, found on a white twin
    of the thing by what turns dark.
    """
    thing = replace(
        scene.things[0], colour="white", look=replace(scene.things[0].look, second_colour="white")
    )
    worn = replace(thing, accessory="sunglasses", accessory_colour="black")
    bare, dressed = (render([replace(scene, things=(t,))]).pixels[0].mean(0) for t in (thing, worn))
    rows, columns = torch.where(bare - dressed > 0.3)
    top, bottom = int(rows.min()), int(rows.max()) + 1
    left, right = int(columns.min()), int(columns.max()) + 1
    y, x = torch.meshgrid(*(torch.arange(side) + 0.5 for side in bare.shape), indexing="ij")
    radius, middle = min((right - left) / 4.2, (bottom - top) / 1.8), (top + bottom) / 2
    discs = [
        (x - centre).square() + (y - middle).square() < radius**2
        for centre in (left + radius, right - radius)
    ]
    bar = ((y - middle).abs() < 1.5) & (x > left) & (x < right)
    return (discs[0] | discs[1] | bar).float()
