"""What the pictures of a comparison are worth: faithfulness, realism, alignment, preservation; on the toybox
what its judge sees, and the truth where it is known.

Each figure says its metric, the features that it is on, and which way is better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from scumble.core.events import Loop, Progress, finish
from scumble.core.images import from_unit, read_image, read_mask, to_model, to_unit
from scumble.data.strokes import stroke_painting
from scumble.metrics.features import Features
from scumble.metrics.l2 import l2
from scumble.metrics.pixels import l1
from scumble.metrics.psnr import psnr
from scumble.metrics.realism import picture_residual, realism
from scumble.metrics.similarity import directional_similarity, paired_similarity, subject_similarity
from scumble.metrics.ssim import SIDE, ssim
from scumble.models import toybox
from scumble.models.clip import Clip, load_clip
from scumble.models.model import Model
from scumble.verbs.compare_task import Task
from scumble.verbs.compare_truth import Truth, answers, truth_of
from scumble.verbs.generate import GenerateConfig, draw
from scumble.verbs.inputs import picture_files

__all__ = ["AXES", "Scorer", "score"]

AXES = ("faithfulness", "realism", "alignment", "preservation", "judge")
LEAST_DIFFERENCE = 0.5 / 255


def score(
    axis: str, name: str, value: float, *, better: str, on: str, what: str
) -> dict[str, str | float | None]:
    """One figure; a value that is no number is None."""
    return {
        "axis": axis,
        "name": name,
        "value": round(value, 4) if isfinite(value) else None,
        "better": better,
        "on": on,
        "what": what,
    }


@dataclass
class Scorer:
    """Everything that the figures of one task need, loaded when it is first used."""

    task: Task

    @cached_property
    def clip(self) -> Clip:
        ruler = self.task.config.ruler
        return load_clip(toybox.clip() if ruler == "toybox" else ruler)

    @cached_property
    def model(self) -> Model:
        return self.task.config.on.load()

    @cached_property
    def truth(self) -> Truth:
        return truth_of(self.task)

    @cached_property
    def image(self) -> Tensor | None:
        return None if self.task.image is None else to_unit(read_image(self.task.image).image)

    @cached_property
    def guide(self) -> Tensor | None:
        """The strokes; transparent ones over the picture."""
        if self.task.guide is None:
            return None
        read = read_image(self.task.guide, background=None)
        if read.alpha is None or self.image is None:
            return to_unit(read.on((255, 255, 255)))
        cover = to_unit(read.alpha)[:, :1]
        return torch.lerp(self.image, to_unit(read.image), cover)

    @cached_property
    def kept(self) -> Tensor | None:
        """(1, 1, H, W) bool: where nothing may change; None where the task does not say."""
        if self.task.mask is not None:
            return read_mask(self.task.mask) == 0
        if self.guide is not None and self.image is not None and self.guide.shape == self.image.shape:
            return ((self.guide - self.image).abs() <= LEAST_DIFFERENCE).all(1, keepdim=True)
        return None

    @cached_property
    def photos(self) -> list[Image.Image]:
        place = self.task.subject
        return [] if place is None else [read_image(p).image for p in picture_files(place)]

    def scored(self, pictures: Mapping[str, Path]) -> Loop[dict[str, list[dict[str, Any]]]]:
        """For each method the figures of its picture."""
        found: dict[str, list[dict[str, Any]]] = {}
        for done, (method, place) in enumerate(pictures.items(), 1):
            found[method] = self.of(to_unit(read_image(place).image))
            yield Progress(stage="scoring", step=done, total=len(pictures))
        return found

    @torch.inference_mode()
    def of(self, pixels: Tensor) -> list[dict[str, Any]]:
        """All figures of a picture (1, 3, H, W) in [0, 1]."""
        rows = [*self._faithful(pixels), *self._real(pixels), *self._aligned(pixels), *self._kept(pixels)]
        return rows + (list(self._judged(pixels)) if self.task.config.is_toybox else [])

    # Faithfulness

    def _faithful(self, pixels: Tensor) -> Iterator[dict[str, Any]]:
        clip_name, seen = self._clip_name, self._seen(pixels)
        if self.guide is not None:
            distance = float(l2(_as_large(pixels, self.guide), self.guide))
            what = "distance from the strokes over all pixels (Meng et al. 2021)"
            yield score("faithfulness", "L2 to the strokes", distance, better="lower", on="pixels", what=what)
        if self.photos:
            real = torch.cat([self._seen(to_unit(photo)) for photo in self.photos])
            what = "mean likeness to the subject's photos (Ruiz et al. 2022)"
            value = subject_similarity(seen, real)
            yield score("faithfulness", "CLIP-I", value, better="higher", on=clip_name, what=what)
            if self.task.config.is_toybox:
                identity = Features("identity", lambda x: self._judge(x).identity)
                real = torch.cat([identity(to_unit(photo)) for photo in self.photos])
                value = subject_similarity(identity(pixels), real)
                what = "the same for the judge's features that tell one thing from its likes"
                on = "judge, identity"
                yield score("faithfulness", "identity", value, better="higher", on=on, what=what)
        if self.image is not None:
            value = float(paired_similarity(seen, self._seen(self.image)))
            what = "likeness to the picture as it was (Brooks et al. 2022)"
            yield score("faithfulness", "CLIP image", value, better="higher", on=clip_name, what=what)

    # Realism

    def _real(self, pixels: Tensor) -> Iterator[dict[str, Any]]:
        rough, natural = self._references
        of_picture = picture_residual(self.model, pixels, prompt=self.task.config.plain_prompt)
        value = float(realism(of_picture, rough, natural))
        what = "0 as flat as strokes, 1 as natural as what was given, by what one denoising leaves"
        on = f"denoiser of {self.task.config.model}"
        yield score("realism", "residual", value, better="higher", on=on, what=what)

    @cached_property
    def _references(self) -> tuple[Tensor, Tensor]:
        """Residuals, see `scumble.metrics.realism`, of a rough picture and of a natural one: the strokes, or
        strokes of the other; and the picture or the photos that were given, or else what the model draws from
        nothing.
        """
        config = self.task.config
        given = [self.image] if self.image is not None else [to_unit(photo) for photo in self.photos]
        if not given:
            settings = config.given("seed", "steps", "model", "dtype")
            drawing = GenerateConfig.of({**settings, "prompt": config.plain_prompt})
            given = [to_unit(finish(draw(drawing, self.model, drawing.task(self.model)))[0].image)]
        rough = [self.guide] if self.guide is not None else [_strokes(pixels) for pixels in given]

        def residual(pictures: list[Tensor]) -> Tensor:
            each = [picture_residual(self.model, p, prompt=config.plain_prompt) for p in pictures]
            return torch.cat(each).log().mean().exp()[None]

        return residual(rough), residual(given)

    # Alignment

    def _aligned(self, pixels: Tensor) -> Iterator[dict[str, Any]]:
        config, clip_name = self.task.config, self._clip_name
        if not config.prompt:
            return
        seen, told = self._seen(pixels), self._told(config.plain_prompt)
        what = "likeness to the prompt, the noun standing for a learnt word (Ruiz et al. 2022)"
        value = float(paired_similarity(seen, told))
        yield score("alignment", "CLIP-T", value, better="higher", on=clip_name, what=what)
        if config.before and self.image is not None:
            ways = self._seen(self.image), seen, self._told(config.before), told
            what = "how far it moved the way from caption to caption (Gal et al. 2021)"
            value = float(directional_similarity(*ways))
            yield score("alignment", "CLIP direction", value, better="higher", on=clip_name, what=what)

    # Preservation

    def _kept(self, pixels: Tensor) -> Iterator[dict[str, Any]]:
        if self.image is None:
            return
        pixels = _as_large(pixels, self.image)
        where = torch.ones_like(pixels[:, :1], dtype=torch.bool) if self.kept is None else self.kept
        named = "of all pixels" if self.kept is None else "outside of what may change"
        if bool(where.any()):
            change = (pixels - self.image).abs().mean(1, keepdim=True)[where]
            what = f"mean absolute change {named} (Zhang et al. 2023)"
            value = float(change.mean())
            yield score("preservation", "L1", value, better="lower", on="pixels", what=what)
        if self.kept is not None and bool(where.any()):
            touched = ((pixels - self.image).abs().amax(1, keepdim=True) > LEAST_DIFFERENCE)[where]
            value = float(touched.float().mean())
            what = "share of the pixels outside of what may change that changed"
            yield score("preservation", "touched", value, better="lower", on="pixels", what=what)
        if min(pixels.shape[-2:]) >= SIDE:
            what = "structural similarity with the picture as it was (Wang et al. 2004)"
            value = float(ssim(pixels, self.image))
            yield score("preservation", "SSIM", value, better="higher", on="pixels", what=what)

    # The judge and the truth

    def _judged(self, pixels: Tensor) -> Iterator[dict[str, Any]]:
        verdict, truth, on = self._judge(to_model(pixels)), self.truth, "judge"
        what = "logit that it shows the toy world at all"
        yield score("judge", "known", float(verdict.known), better="higher", on=on, what=what)
        if truth.after is None:
            return
        given = answers(verdict, 0, truth.after)
        asked = [bool(given[name]) for name in sorted(truth.asked) if given.get(name) is not None]
        if asked:
            what = f"share of what was asked for that it shows: {', '.join(sorted(truth.asked))}"
            share = sum(asked) / len(asked)
            yield score("judge", "done", share, better="higher", on=on, what=what)
        if truth.before is None or self.image is None:
            return
        before = answers(self._judge(to_model(self.image)), 0, truth.after)
        others = [n for n, right in before.items() if right and n not in truth.asked]
        if others:
            share = sum(bool(given[name]) for name in others) / len(others)
            what = "share of what should stay, of what it saw before, that it still sees"
            yield score("judge", "preserved", share, better="higher", on=on, what=what)
        yield from self._against_truth(_as_large(pixels, self.image))

    def _against_truth(self, pixels: Tensor) -> Iterator[dict[str, Any]]:
        side = pixels.shape[-1]
        right, may = self.truth.right_picture(side), self.truth.may_change(side)
        if right is None or may is None or self.image is None:
            return
        what = "to the true picture after the edit"
        yield score("judge", "PSNR", float(psnr(pixels, right)), better="higher", on="pixels", what=what)
        if bool((may == 0).any()):
            stay = (may == 0).expand_as(pixels)
            value = float(l1(pixels[stay][None, None], self.image[stay][None, None]))
            what = "mean absolute change where the edit gives no reason for one"
            yield score("judge", "change elsewhere", value, better="lower", on="pixels", what=what)

    # Features

    @property
    def _clip_name(self) -> str:
        return f"CLIP of {self.task.config.ruler}"

    def _seen(self, pixels: Tensor) -> Tensor:
        return self.clip.image_features(to_model(pixels)).cpu()

    def _told(self, text: str) -> Tensor:
        return self.clip.text_features([text]).cpu()

    @cached_property
    def _judge(self) -> Any:
        return toybox.judge()


def _as_large(pixels: Tensor, reference: Tensor) -> Tensor:
    """Pictures at the size of `reference`, to which tables of edits resize results."""
    if pixels.shape[-2:] == reference.shape[-2:]:
        return pixels
    size = (reference.shape[-1], reference.shape[-2])
    return to_unit([p.resize(size, Image.Resampling.LANCZOS) for p in from_unit(pixels)])


def _strokes(pixels: Tensor) -> Tensor:
    return to_unit(stroke_painting(from_unit(pixels)[0]))
