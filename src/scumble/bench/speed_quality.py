"""How good the pictures are that two sides of a race make with their own settings: a ratio of times says
nothing where the faster side paints worse.

Scenes are combinations that training never shows. Of paintings: what the judge sees, agreement with the
prompt in CLIP, distance from the strokes. Of edits by instruction: the two axes of Brooks et al. 2022, figure
8, and PSNR to the true picture after. Means with their standard errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from scumble.bench.common import as_saved, judged, kept
from scumble.core.events import Loop
from scumble.core.images import from_unit, to_model, to_unit
from scumble.data.strokes import stroke_painting
from scumble.metrics.clip_edit import direction, likeness
from scumble.metrics.l2 import l2
from scumble.metrics.psnr import psnr
from scumble.metrics.similarity import paired_similarity
from scumble.models import toybox
from scumble.models.clip import load_clip
from scumble.world.instructions import Edit, instruct
from scumble.world.pairs import render_edits
from scumble.world.render import render
from scumble.world.sampling import PROFILES, sample_scene
from scumble.world.scene import Scene
from scumble.world.splits import EVALUATION_SEEDS
from scumble.world.words import caption

__all__ = ["Maker", "Scores", "instructed", "painted"]

Maker = Callable[[Image.Image, str, int], Image.Image]
"""(picture, words, seed) -> the picture made of it."""
Scores = dict[str, dict[str, str | float]]
"""Side -> measure -> figure."""
ASKED = ("kind", "colour", "place")


def _scenes(count: int) -> list[Scene]:
    seeds = range(EVALUATION_SEEDS, EVALUATION_SEEDS + count)
    return [sample_scene(seed, profile=PROFILES["photo"], split="held_out") for seed in seeds]


def painted(out: Path, sides: dict[str, Maker], count: int) -> Loop[Scores]:
    """Strokes over `count` scenes, made into pictures by each side; pictures go into the folder `out`."""
    scenes = _scenes(count)
    guides = [stroke_painting(picture) for picture in from_unit(as_saved(render(scenes).pixels))]
    prompts = [caption(scene) for scene in scenes]
    judge, clip = toybox.judge(), load_clip(toybox.clip())
    scores: Scores = {}
    for name, make in sides.items():
        pictures = yield from _made(out / name, make, guides, prompts)
        verdict = judged(judge, pictures)
        answers = verdict.scores(scenes)
        right = torch.tensor([all(answers[asked][i] for asked in ASKED) for i in range(count)])
        with torch.inference_mode():
            seen, words = clip.image_features(to_model(pictures)), clip.text_features(prompts)
        scores[name] = {
            "right to the judge": _mean((right & (verdict.known > 0)).float()),
            "CLIP agreement with the prompt": _mean(paired_similarity(seen, words)),
            "L2 to the strokes": _mean(l2(pictures, to_unit(guides))),
        }
    return scores


def instructed(out: Path, sides: dict[str, Maker], count: int) -> Loop[Scores]:
    """`count` scenes edited as an instruction says by each side; pictures go into the folder `out`."""
    edits: list[Edit] = [instruct(scene, scene.seed) for scene in _scenes(count)]
    drawn = render_edits(edits)
    before, after = as_saved(drawn.before), as_saved(drawn.after)
    clip = load_clip(toybox.clip())
    captions = [caption(e.before) for e in edits], [caption(e.after) for e in edits]
    scores: Scores = {}
    for name, make in sides.items():
        pictures = yield from _made(out / name, make, from_unit(before), [e.text for e in edits])
        with torch.inference_mode():
            pair = to_model(before), to_model(pictures)
            scores[name] = {
                "CLIP direction": _mean(direction(clip, *pair, *captions)),
                "CLIP image similarity": _mean(likeness(clip, *pair)),
                "PSNR to the true picture, dB": _mean(psnr(pictures, after).clamp(max=59.0)),
            }
    return scores


def _made(folder: Path, make: Maker, given: Sequence[Image.Image], words: Sequence[str]) -> Loop[Tensor]:
    def draw(batch: Sequence[int]) -> list[Image.Image]:
        return [make(given[i], words[i], i) for i in batch]

    return (yield from kept(folder, len(given), draw, f"scoring, {folder.name}"))


def _mean(values: Tensor) -> str:
    """With its standard error."""
    return f"{float(values.mean()):.3f} ± {float(values.std() / len(values) ** 0.5):.3f}"
