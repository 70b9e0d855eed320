"""Stage `evaluate`: what the packed toybox draws for captions of unseen combinations, and what the judge
says of it.

It draws with plain diffusers from the very files that ship, one picture a caption, none left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from recipes.toybox import card, clip, pack, pictures
from recipes.toybox.loop import Run
from scumble.core.files import atomic_path
from scumble.core.rng import generators
from scumble.metrics.toy_world import right, share
from scumble.models import toybox
from scumble.models.judge import Judge
from scumble.world.scene import Scene
from scumble.world.words import caption

STEPS = 25
GUIDANCE = 6.0
BATCH = 16
COLUMNS = 8


def stage(run: Run) -> None:
    """Draw, judge, keep the scores for the card and write a contact sheet."""
    folder = toybox.folder(run.out / "expanded", source=pack.folder(run.out))
    scenes = pictures.held_out(run, run.scale.held_out)
    drawn = draw(folder, [caption(scene) for scene in scenes], run)
    card.record(run.out, "evaluate", scores(folder, drawn, scenes))
    with atomic_path(run.out / "sheet.png") as temporary:
        sheet(drawn[: COLUMNS**2]).save(temporary)
    run.out.joinpath("sheet.txt").write_text(
        "\n".join(caption(scene) for scene in scenes[: COLUMNS**2]) + "\n"
    )


def draw(folder: Path, captions: list[str], run: Run) -> Tensor:
    """One picture a caption, (N, 3, H, W) in [-1, 1]; picture i has the start noise of seed i."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder).to(run.device)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    parts: list[Tensor] = []
    for first in range(0, len(captions), BATCH):
        texts = captions[first : first + BATCH]
        images = pipeline(
            texts,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=generators(range(first, first + len(texts))),
            output_type="pt",
        ).images
        parts.append(images.float() * 2.0 - 1.0)
    return torch.cat(parts)


@torch.no_grad()
def scores(folder: Path, drawn: Tensor, scenes: list[Scene]) -> dict[str, float | int | str]:
    """Shares of right answers, and how well CLIP finds a picture's caption among 100."""
    verdict = Judge.load(folder / "judge", str(drawn.device))(drawn)
    shares = share(right(verdict, scenes))
    model = clip.load(folder, str(drawn.device))
    retrieval = clip.retrieval(model, clip.words_of(folder), drawn, [caption(scene) for scene in scenes])
    return {"pictures": len(scenes), "steps": STEPS, "guidance": GUIDANCE} | shares | {"retrieval": retrieval}


def sheet(pictures: Tensor) -> Image.Image:
    """Pictures (N, 3, H, W) in [-1, 1] side by side, COLUMNS in a row."""
    blank = -torch.ones((-len(pictures)) % COLUMNS, *pictures.shape[1:], device=pictures.device)
    rows = torch.cat([pictures, blank]).unflatten(0, (-1, COLUMNS))  # (R, C, 3, H, W)
    whole = rows.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)  # (R H, C W, 3)
    return Image.fromarray((whole.clamp(-1, 1) * 127.5 + 127.5).round().byte().cpu().numpy().astype(np.uint8))
