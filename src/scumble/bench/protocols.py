"""The protocols of published sets, on a person's own copy of them: draw or edit with one method, and score.

| set | what is made | scores |
|---|---|---|
| dreambench | 4 pictures of each prompt (Ruiz et al. 2022, section 4.2) | DINO, CLIP-I, CLIP-T |
| customconcept101 | 50 pictures of each prompt (Kumari et al. 2022, section 4.1) | CLIPScore, CLIP-I, DINO |
| instructpix2pix | 5000 edits (Brooks et al. 2022, section 4.2, figure 8) | direction and image similarity |
| magicbrush | every turn alone, every session (Zhang et al. 2023, section 4) | L1, L2, CLIP-I, DINO, CLIP-T |

CLIP is ViT-B/32, ViT-L/14 for instructpix2pix; DINO is ViT-S/16. Prompts are scored with the class noun
alone, since no word of a subject's own means anything to CLIP. Figures of other runs differ with crops and
models, and compare within one harness only: OmniGen has a DINO of 0.693 in one paper and of 0.801 in another.

Pictures are kept in the run's folder, and those that are there already are scored and not made: a run that
was stopped goes on, and pictures that another program made under the same names are scored the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from scumble.bench.common import claim, one_of, written
from scumble.bench.editors import EDITORS
from scumble.bench.sets import EDITS, SUBJECTS, EditCase, SubjectCase, read_edits, read_subjects
from scumble.core import rng
from scumble.core.config import Config
from scumble.core.events import Loop, Progress
from scumble.core.images import read_image, save_image, to_unit
from scumble.metrics.features import Features
from scumble.metrics.pixels import l1, mse
from scumble.metrics.similarity import (
    clip_score,
    directional_similarity,
    paired_similarity,
    subject_similarity,
)
from scumble.models.clip import Clip, load_clip
from scumble.models.dino import load_dino
from scumble.verbs.generate import GenerateConfig, draw
from scumble.verbs.learn import METHODS, called, config_for, learn_to
from scumble.verbs.load import ModelConfig

__all__ = ["PER_PROMPT", "PUBLISHED", "Rulers", "Settings", "measure", "table"]

WORD = "<subject>"
PER_PROMPT = {"dreambench": 4, "customconcept101": 50}
"""Pictures of each prompt."""
MOST = {"instructpix2pix": 5000}
"""Edits of sets that have more than their protocol uses."""
CLIPS = {"instructpix2pix": "openai/clip-vit-large-patch14"}
CLIP, DINO = "openai/clip-vit-base-patch32", "facebook/dino-vits16"

PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "dreambench": {  # Ruiz et al. 2022, table 1, Stable Diffusion
        "dreambooth": {"DINO": 0.668, "CLIP-I": 0.803, "CLIP-T": 0.305},
        "textual-inversion": {"DINO": 0.569, "CLIP-I": 0.780, "CLIP-T": 0.255},
    },
    "customconcept101": {  # its README, 50 steps
        "dreambooth": {"CLIPScore": 0.7514, "CLIP-I": 0.7521, "DINO": 0.5541},
        "textual-inversion": {"CLIPScore": 0.6117, "CLIP-I": 0.7530, "DINO": 0.5128},
        "custom-diffusion": {"CLIPScore": 0.7583, "CLIP-I": 0.7456, "DINO": 0.5335},
    },
    "magicbrush": {  # Zhang et al. 2023, single turn
        "instruct": {"L1": 0.1122, "L2": 0.0371, "CLIP-I": 0.8524, "DINO": 0.7428, "CLIP-T": 0.2764},
        "sdedit": {"L1": 0.1014, "L2": 0.0278, "CLIP-I": 0.8526, "DINO": 0.7726, "CLIP-T": 0.2777},
        "text2live": {"L1": 0.0636, "L2": 0.0169, "CLIP-I": 0.9244, "DINO": 0.8807, "CLIP-T": 0.2424},
    },
}
"""What papers have for the method on the set."""


class Settings(Config):
    """What is measured, and with which rulers."""

    set: str
    """dreambench, customconcept101, instructpix2pix or magicbrush."""
    method: str
    """One that learns for sets of subjects, one that edits for sets of edits."""
    model: str = "toybox"
    """The model that draws."""
    count: Annotated[int, Field(ge=1)] | None = None
    """Subjects or edits, the first so many; none takes what the protocol says."""
    per_prompt: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Pictures of each prompt; none takes what the protocol says."""
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Denoising steps; none takes the method's own."""
    learning_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps of learning; none takes the method's own."""
    clip: str | None = None
    """Another CLIP: a folder or hub id. Its figures are of another scale."""
    dino: str | None = None
    """Another DINO, likewise."""
    trust_pickle: bool = False
    """Open a DINO that comes as a pickle."""


@dataclass(frozen=True, slots=True)
class Rulers:
    """The models that judge."""

    clip: Clip
    dino: Features
    clip_images: Features

    @classmethod
    def of(cls, settings: Settings) -> Rulers:
        """Those of the protocol, or of the settings. Raises ModelError where one is missing."""
        clip = load_clip(settings.clip or CLIPS.get(settings.set, CLIP))
        dino = load_dino(settings.dino or DINO, trust_pickle=settings.trust_pickle)
        return cls(clip, Features("dino", dino.image_features), Features("clip", clip.image_features))

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """(B, E)."""
        return self.clip.text_features(texts).cpu()

    def pictures(self, ruler: Features, files: Sequence[Path]) -> Tensor:
        """(B, E) of pictures of any sizes."""
        return torch.cat([ruler(to_unit(_opened(file))) for file in files])


def measure(out: Path, place: Path, settings: Settings) -> Loop[dict[str, Any]]:
    """Run the protocol of `settings.set`, a copy of which is in `place`, in the folder `out`; writes
    `scores.json` and `table.md`. Raises InputError for another layout, or where `out` holds another run.
    """
    start = time.perf_counter()
    one_of("set", settings.set, (*SUBJECTS, *EDITS))
    learns = settings.set in SUBJECTS
    one_of("method for this set", settings.method, METHODS if learns else EDITORS)
    cases = read_subjects(settings.set, place) if learns else read_edits(settings.set, place)
    cases = _chosen(cases, settings)
    claim(out, {"settings": settings.model_dump(mode="json"), "cases": [case.name for case in cases]})
    rulers = Rulers.of(settings)
    runs = {"dreambench": _subjects, "customconcept101": _subjects}
    run: Any = (
        runs.get(settings.set) or {"instructpix2pix": _instructions, "magicbrush": _sessions}[settings.set]
    )
    scores = {"set": settings.set, "method": settings.method, "cases": len(cases)}
    scores |= yield from run(out, cases, settings, rulers)
    scores["settings"] = settings.model_dump(mode="json")
    return written(out, scores, table, begun=start)


def table(scores: dict[str, Any]) -> str:
    """The scores as Markdown, under what the paper has."""
    parts = {name: row for name, row in scores.items() if isinstance(row, dict) and "scores" in row}
    names = list(next(iter(parts.values()))["scores"])
    rows = [f"| {scores['set']}, {scores['method']} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name, part in parts.items():
        rows.append(f"| {name} | {' | '.join(_shown(part['scores'].get(n)) for n in names)} |")
    if known := PUBLISHED.get(scores["set"], {}).get(scores["method"]):
        rows.append(f"| published, single | {' | '.join(_shown(known.get(n)) for n in names)} |")
    return "\n".join(rows)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _chosen(cases: Sequence[Any], settings: Settings) -> list[Any]:
    """The first so many; of a session that is begun, all turns before."""
    most = settings.count or MOST.get(settings.set, len(cases))
    return list(cases[:most])


# Subjects


def _subjects(
    out: Path, cases: Sequence[SubjectCase], settings: Settings, rulers: Rulers
) -> Loop[dict[str, Any]]:
    each: dict[str, Any] = {}
    for done, case in enumerate(cases, 1):
        files = yield from _drawn(out, case, settings)
        each[case.name] = _subject_scores(case, files, settings, rulers)
        yield Progress(stage="scoring subjects", step=done, total=len(cases))
    names = next(iter(each.values()))
    return {"all": {"scores": {n: fmean(row[n] for row in each.values()) for n in names}}, "each": each}


def _drawn(out: Path, case: SubjectCase, settings: Settings) -> Loop[list[list[Path]]]:
    """For each prompt its pictures, those drawn that are not there."""
    each = settings.per_prompt or PER_PROMPT[settings.set]
    folder = out / "pictures" / case.name
    files = [[folder / f"{p:02d}-{s:02d}.png" for s in range(each)] for p in range(len(case.prompts))]
    if all(file.is_file() for row in files for file in row):
        return files
    weights = out / "weights" / f"{case.name}.safetensors"
    on = ModelConfig(model=settings.model)
    if not weights.is_file():
        config = config_for(settings.method, settings.model, None, None, steps=settings.learning_steps)
        yield from learn_to(settings.method, [(case.folder, WORD, case.noun)], config, on, weights)
    model = on.load()
    for number, (prompt, row) in enumerate(zip(case.prompts, files, strict=True)):
        if all(file.is_file() for file in row):
            continue
        config = GenerateConfig.of(
            {
                "prompt": prompt.replace("{}", called(settings.method, WORD, case.noun)),
                "model": settings.model,
                "weights": (str(weights),),
                "seed": number * each,
                "count": each,
                **({"steps": settings.steps} if settings.steps else {}),
            }
        )
        pictures = yield from draw(config, model, config.task(model))
        for picture, file in zip(pictures, row, strict=True):
            save_image(picture.image, file)
    return files


def _subject_scores(
    case: SubjectCase, files: Sequence[Sequence[Path]], settings: Settings, rulers: Rulers
) -> dict[str, float]:
    """Averaged over pictures, then over prompts."""
    real = {ruler.name: rulers.pictures(ruler, case.pictures) for ruler in (rulers.dino, rulers.clip_images)}
    said = rulers.texts([prompt.replace("{}", case.noun) for prompt in case.prompts])
    rows: list[tuple[float, float, Tensor, Tensor]] = []
    for row, text in zip(files, said, strict=True):
        dino, seen = (rulers.pictures(ruler, row) for ruler in (rulers.dino, rulers.clip_images))
        told = text.expand_as(seen)
        fidelity = subject_similarity(dino, real["dino"]), subject_similarity(seen, real["clip"])
        rows.append((*fidelity, paired_similarity(seen, told).mean(), clip_score(seen, told).mean()))
    dino, clip_i, clip_t, scored = (fmean(float(row[i]) for row in rows) for i in range(4))
    text = {"CLIP-T": clip_t} if settings.set == "dreambench" else {"CLIPScore": scored}
    return {"DINO": dino, "CLIP-I": clip_i, **text}


# Edits

Edit = Callable[[EditCase, Path, int], Loop[Image.Image]]


def _instructions(
    out: Path, cases: Sequence[EditCase], settings: Settings, rulers: Rulers
) -> Loop[dict[str, Any]]:
    """How far pictures go the way their captions go, and how alike they stay."""
    edit = EDITORS[settings.method](settings.model, settings.steps)
    files = yield from _edited(
        edit, [(case, case.image, out / "pictures" / f"{case.name}.png") for case in cases]
    )
    before, after = (rulers.pictures(rulers.clip_images, row) for row in ([c.image for c in cases], files))
    told = [rulers.texts([getattr(case, side) for case in cases]) for side in ("before", "after")]
    direction = directional_similarity(before, after, *told)
    found = {
        "direction": float(direction.mean()),
        "image": float(paired_similarity(before, after).mean()),
        "CLIP-T": float(paired_similarity(after, told[1]).mean()),
    }
    return {"all": {"scores": found}}


def _sessions(
    out: Path, cases: Sequence[EditCase], settings: Settings, rulers: Rulers
) -> Loop[dict[str, Any]]:
    """Single turn: every edit from what a person made of the ones before. Multi-turn: from the method's own
    results, and only the end of each session counts.
    """
    edit, folder = EDITORS[settings.method](settings.model, settings.steps), out / "pictures"
    single = yield from _edited(edit, [(case, case.image, folder / f"{case.name}.png") for case in cases])
    chain = [
        (case, _in_session(folder, case.follows), _in_session(folder, case.name))
        for case in cases
        if case.follows
    ]
    again = yield from _edited(edit, chain)
    ends = dict(zip((case.name for case, *_ in chain), again, strict=True))
    last = [(c, ends.get(c.name, file)) for c, file in zip(cases, single, strict=True) if c.is_last]
    scores = {"single turn": {"edits": len(cases), "scores": _to_target(cases, single, rulers)}}
    if last:
        found = _to_target([case for case, _ in last], [file for _, file in last], rulers)
        scores["multi-turn"] = {"edits": len(last), "scores": found}
    return scores


def _in_session(folder: Path, name: str) -> Path:
    """Where the result of a turn in its session is: the first turn is the same as alone."""
    return folder / (f"{name}.png" if name.endswith("-1") else f"{name}-session.png")


def _edited(edit: Edit, jobs: Sequence[tuple[EditCase, Path, Path]]) -> Loop[list[Path]]:
    """Edit each picture into its file, in order, unless that is there."""
    for done, (case, image, file) in enumerate(jobs, 1):
        if not file.is_file():
            result = yield from edit(case, image, rng.derive(0, case.name) % 2**32)
            save_image(result, file)
        yield Progress(stage="edits", step=done, total=len(jobs))
    return [file for *_, file in jobs]


def _to_target(cases: Sequence[EditCase], files: Sequence[Path], rulers: Rulers) -> dict[str, float]:
    targets = [case.target for case in cases if case.target is not None]
    differences = list(_differences(files, targets))
    features = {
        ruler.name: [rulers.pictures(ruler, row) for row in (files, targets)]
        for ruler in (rulers.dino, rulers.clip_images)
    }
    said = rulers.texts([case.after for case in cases])
    return {
        "L1": fmean(one for one, _ in differences),
        "L2": fmean(two for _, two in differences),
        "CLIP-I": float(paired_similarity(*features["clip"]).mean()),
        "DINO": float(paired_similarity(*features["dino"]).mean()),
        "CLIP-T": float(paired_similarity(features["clip"][0], said).mean()),
    }


def _differences(files: Sequence[Path], targets: Sequence[Path]) -> Iterator[tuple[float, float]]:
    """L1 and L2, results brought to the size of their targets."""
    for file, target in zip(files, targets, strict=True):
        wanted = _opened(target)
        found = _opened(file).resize(wanted.size, Image.Resampling.BICUBIC)
        pair = to_unit(found), to_unit(wanted)
        yield float(l1(*pair)), float(mse(*pair))


def _opened(file: Path) -> Image.Image:
    return read_image(file).image
