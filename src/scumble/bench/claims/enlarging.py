"""The experiment on DreamBooth's super-resolution stage: renders of the subject made small and large again,
by the upscaler as it is, by the one that saw the subject's photos, and by none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from scumble.bench.claims.lab import RAYS, WORD, Lab
from scumble.bench.claims.learners import Experiment, Found
from scumble.bench.common import as_saved
from scumble.core.events import Loop
from scumble.core.images import from_unit, grid, save_image, to_unit
from scumble.data.subjects import read_subject
from scumble.methods import dreambooth
from scumble.metrics.psnr import psnr
from scumble.metrics.similarity import subject_similarity
from scumble.models.model import Model
from scumble.sampling.upscaling import upscaling
from scumble.verbs import upscale
from scumble.verbs.learn import config_for
from scumble.world.render import render
from scumble.world.subjects import Subject

__all__ = ["EXPERIMENTS"]

SHOWN = 6
"""Pictures of a subject in its strip."""


def _upscaling(lab: Lab) -> Loop[Found]:
    """PSNR in dB, and likeness with the photos, of enlarged renders that the upscaler has not seen. Keeps a
    strip of each subject: bicubic, before, after, the renders.
    """
    model = lab.on.replace(model=lab.settings.upscaler).load()
    factor = upscaling(model).factor
    rows: dict[str, list[float]] = {}
    for subject in lab.subjects:
        scenes = [prompt.scene for prompt in lab.prompts(subject)]
        large = as_saved(render(scenes, size=model.default_size, supersample=RAYS).pixels)
        small = as_saved(interpolate(large, scale_factor=1 / factor, mode="area"))
        folder = lab.out / "small" / subject.name
        for i, picture in enumerate(from_unit(small)):
            save_image(picture, folder / f"{i:03d}.png")
        weights = yield from _tuned(lab, model, subject)
        shown = {"bicubic": as_saved(interpolate(small, scale_factor=factor, mode="bicubic").clamp(0, 1))}
        for name, learnt in (("before", ()), ("after", (str(weights),))):
            shown[name] = yield from _enlarged(lab, model, sorted(folder.iterdir()), learnt)
        strip = [picture for drawn in (*shown.values(), large) for picture in from_unit(drawn[:SHOWN])]
        save_image(grid(strip, columns=len(large[:SHOWN])), lab.out / f"upscaled-{subject.name}.png")
        for name, drawn in shown.items():
            rows.setdefault(f"PSNR {name}", []).append(fmean(psnr(drawn, large).tolist()))
            alike = subject_similarity(lab.identity(drawn), lab.known(subject))
            rows.setdefault(f"identity {name}", []).append(alike)
    means = {name: fmean(values) for name, values in rows.items()}
    return {"figure": means["PSNR after"] - means["PSNR before"], **means}


def _tuned(lab: Lab, model: Model, subject: Subject) -> Loop[Path]:
    """What the upscaler learns of the subject's photos."""
    place = lab.out / "weights" / f"upscaler-{subject.name}.safetensors"
    if not place.is_file():
        settings = {"seed": lab.settings.seed, "upscaler_steps": lab.settings.learning_steps}
        config = config_for("dreambooth", lab.settings.model, None, None, **settings)
        assert isinstance(config, dreambooth.Config)
        read = read_subject(lab.photos(subject), WORD, subject.noun)
        learnt, _ = yield from dreambooth.learn_upscaler(model, [read], config)
        learnt.save(place)
    return place


def _enlarged(lab: Lab, model: Model, files: Sequence[Path], weights: tuple[str, ...]) -> Loop[Tensor]:
    """The pictures made large, each with its number for its seed: (N, 3, H, W) in [0, 1]."""
    drawn: list[Tensor] = []
    for i, file in enumerate(files):
        settings = {"model": lab.settings.upscaler, "seed": lab.settings.seed + i, "weights": weights}
        config = upscale.UpscaleConfig.of({**settings, "steps": lab.settings.steps})
        [picture] = yield from upscale.again(config, model, {"image": file})
        drawn.append(to_unit(picture.image))
    return torch.cat(drawn)


EXPERIMENTS: dict[str, Experiment] = {"dreambooth/upscaling": _upscaling}
"""Claim -> its experiment."""
