"""The clip that `scumble demo` edits and its atlas: a clip of the toy world, unrolled by `scumble atlas`.

    python -m recipes.demo_clip

writes `clip.apng` and `clip.atlas` into the package. The atlas is made from the clip and the mask of its
first frame, as a person would make one, and kept in half precision.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch

from scumble.core.events import finish
from scumble.core.images import from_unit, save_image, to_uint8
from scumble.data.video import Video, write_video
from scumble.models.atlas_file import load_atlas, save_atlas
from scumble.verbs.atlas import atlas
from scumble.verbs.demo_clip import CLIP, FOLDER, GAP, SIDE
from scumble.world.clips import render_clip

__all__ = ["make"]


def make(out: Path = FOLDER) -> None:
    """Render the clip and make its atlas, into the folder `out`."""
    rendering = render_clip(CLIP, size=SIDE)
    frames = to_uint8(rendering.pixels)
    times = tuple(Fraction(number) * GAP for number in range(len(frames)))
    video = Video(frames=frames, times=times)
    out.mkdir(parents=True, exist_ok=True)
    place = finish(write_video(out / "clip.apng", video, list(frames)))
    with tempfile.TemporaryDirectory() as temporary:
        mask = Path(temporary) / "first.png"
        [picture] = from_unit(rendering.masks[:1, :1].float().expand(-1, 3, -1, -1))
        save_image(picture, mask)
        whole = load_atlas(atlas(place, Path(temporary) / "clip.atlas", masks=[mask], seed=0, device="cpu"))
    about = {name: value for name, value in whole.about.items() if name != "settings"}
    save_atlas(out / "clip.atlas", replace(whole, atlas=whole.atlas.to(torch.float16), about=about))


if __name__ == "__main__":
    make()
