"""The methods that learn, on subjects of the toy world: how alike, how obedient, at what price.

Fidelity is the likeness of the pictures of all prompts with the photos, in the judge's identity features: 0
is another thing of that kind and colour, 1 the subject's own renders through the autoencoder, both as means
over the subjects. Both ends are renders, so a model's drawings may lie below 0; "nearer" is the share of the
way from the untouched model's drawings of the plain noun (0) to the subject's renders (1). Prompts is the
share of what they ask for that the judge sees, over that of the untouched model told the plain noun. PRES is
the likeness of pictures of the plain class with the subject (Ruiz et al. 2022, section 4.3), lower is better;
DIV how far apart pictures of one prompt are, higher is better, in the toybox's CLIP where they have LPIPS.

Each method learns each subject with its own preset, once a seed. Subjects are of both halves of the
benchmark: those that a frozen model may be able to express, and those with a mark, which are new to it;
presets were tuned on others. A run that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from scumble.adapters.merge import compress
from scumble.adapters.weights import Weights
from scumble.bench.claims import custom
from scumble.bench.claims.lab import WORD, Lab
from scumble.bench.claims.lab import Settings as LabSettings
from scumble.bench.common import claim, once, one_of, written
from scumble.core.config import Config
from scumble.core.events import Loop, Progress
from scumble.methods import dreambooth
from scumble.metrics.prior import diversity, prior_preservation
from scumble.metrics.similarity import paired_similarity
from scumble.verbs.learn import called
from scumble.world.subjects import Subject

__all__ = ["GOALS", "METHODS", "Settings", "measure", "table"]

LOW_RANK = dreambooth.PRESETS["toybox-low-rank"]
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "textual-inversion": ("textual-inversion", {}),
    "dreambooth": ("dreambooth", {}),
    "dreambooth-low-rank": ("dreambooth", {"train": "low-rank", "lr": LOW_RANK.lr, "rank": LOW_RANK.rank}),
    "custom-diffusion": ("custom-diffusion", {}),
}
"""Row of the table -> the method, and what is changed in its preset."""
GOALS = {
    "textual-inversion": "0.40 of the first half, prompts 0.9",
    "dreambooth": "0.80, prompts 0.9",
    "custom-diffusion": "0.65, prompts 0.9, 6 % of DreamBooth's bytes, 2 % compressed",
}
KEPT = 0.6
"""Share of the singular values' sum that a compressed file of Custom Diffusion keeps."""
PLAIN, HALF = "two plain things", 0.5
"""The row that two subjects in one picture are held against, and the share of it that is the goal."""
DIVERSE = 12
"""Pictures of one prompt that are compared among themselves."""
HALVES = {"without a mark": False, "with a mark": True}


class Settings(Config):
    """How much is measured."""

    model: str = "toybox"
    """The model that draws and learns."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Rows of the table."""
    subjects: Annotated[int, Field(ge=1, le=16)] = 4
    """Of both halves: 4 are for a CPU, 16 for a GPU."""
    prompts: Annotated[int, Field(ge=1, le=20)] = 20
    """Prompts drawn of each."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    """How often everything is learnt and drawn."""
    class_pictures: Annotated[int, Field(ge=2)] = 24
    """Pictures of the plain class, and of two things."""
    learning_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps of learning; none takes each preset's."""
    prior_count: Annotated[int, Field(ge=1)] | None = None
    """Class pictures that learning uses; none takes each preset's."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    """Denoising steps of a picture."""
    two: bool = True
    """Also two subjects in one picture, learnt together and merged."""


def measure(out: Path, settings: Settings) -> Loop[dict[str, Any]]:
    """Measure in the folder `out`; writes `scores.json` and `table.md`. Raises InputError for a row that is
    not known, and where `out` holds another run.
    """
    for name in settings.methods:
        one_of("method", name, METHODS)
    labs = [_lab(out, settings, seed) for seed in range(settings.seeds)]
    claim(out, {"settings": settings.model_dump(mode="json"), "weights": labs[0].model.hash})
    rows: list[dict[str, Any]] = []
    total = len(settings.methods) * len(labs) * len(labs[0].subjects)
    for name in settings.methods:
        for seed, lab in enumerate(labs):
            for subject in lab.subjects:
                place = out / "rows" / f"{name}-{seed}-{subject.name}.json"
                rows.append((yield from once(place, _row(lab, name, seed, subject))))
                yield Progress(stage="subjects", step=len(rows), total=total)
    scores: dict[str, Any] = {
        "settings": settings.model_dump(mode="json"),
        "methods": {name: _summary([r for r in rows if r["method"] == name]) for name in settings.methods},
        "two subjects": (yield from _two(out, labs)) if settings.two else {},
        "each": rows,
    }
    return written(out, scores, table)


def table(scores: dict[str, Any]) -> str:
    """The scores as Markdown: mean and spread over seeds."""
    heads = ["fidelity", *HALVES, "nearer", "prompts", "PRES", "DIV"]
    rows = [f"| | {' | '.join(heads)} | steps take | bytes | goal |", "|---" * (len(heads) + 4) + "|"]
    for name, found in scores["methods"].items():
        figures = " | ".join(_shown(found.get(head)) for head in heads)
        size = f"{found['bytes']:,}"
        if "bytes compressed" in found:
            size += f" ({found['bytes compressed']:,} compressed)"
        rows.append(
            f"| {name} | {figures} | {found['seconds']['mean']:.0f} s | {size} | {GOALS.get(name, '')} |"
        )
    if scores["two subjects"]:
        rows += ["", "| two subjects in one picture | both seen | goal |", "|---|---|---|"]
        goal = HALF * scores["two subjects"][PLAIN]["mean"]
        rows += [
            f"| {name} | {_shown(found)} | {'' if name == PLAIN else f'{goal:.2f}'} |"
            for name, found in scores["two subjects"].items()
        ]
    return "\n".join(rows)


def _lab(out: Path, settings: Settings, seed: int) -> Lab:
    """Where everything of one seed is learnt and drawn."""
    names = ("model", "subjects", "prompts", "class_pictures", "learning_steps", "prior_count", "steps")
    given = {name: getattr(settings, name) for name in names}
    return Lab(LabSettings(**given, seed=1000 * seed), out / f"seed-{seed}")


def _row(lab: Lab, name: str, seed: int, subject: Subject) -> Loop[dict[str, Any]]:
    """The figures of one subject learnt by one method."""
    method, changes = METHODS[name]
    photos = (lab.photos(subject), WORD, subject.noun)
    weights = yield from lab.learnt(f"{name}-{subject.name}", method, [photos], **changes)
    prompts, name_of = lab.prompts(subject), called(method, WORD, subject.noun)
    plain = yield from lab.drawn(f"plain-{subject.name}", [p.text.format(subject.noun) for p in prompts])
    learnt = f"{name}-{subject.name}"
    drawn = yield from lab.drawn(learnt, [p.text.format(name_of) for p in prompts], weights)
    class_texts = [f"a photo of a {subject.noun}"] * lab.settings.class_pictures
    of_class = yield from lab.drawn(f"{learnt}-class", class_texts, weights)
    alike = yield from lab.drawn(f"{learnt}-alike", [f"a photo of a {name_of}"] * DIVERSE, weights)

    def apart(one: Tensor, other: Tensor) -> Tensor:
        return 1 - paired_similarity(lab.seen(one), lab.seen(other))

    return {
        "method": name,
        "seed": seed,
        "subject": subject.name,
        "marked": subject.is_marked,
        "fidelity": lab.fidelity(subject, drawn),
        "fidelity of the base": lab.fidelity(subject, plain),
        "obeyed": lab.obeyed(prompts, drawn),
        "obeyed by the base": lab.obeyed(prompts, plain),
        "PRES": prior_preservation(lab.identity(of_class), lab.known(subject)),
        "DIV": diversity(alike, apart),
        "seconds": lab.seconds(weights),
        **_bytes(weights, method),
    }


def _bytes(weights: Path, method: str) -> dict[str, int]:
    """The size of the file, and of the same with the leading singular values only."""
    found = {"bytes": weights.stat().st_size}
    if method == "custom-diffusion":
        small = weights.with_name(f"{weights.stem}-compressed.safetensors")
        compress(Weights.load(weights), KEPT).save(small)
        found["bytes compressed"] = small.stat().st_size
    return found


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over subjects, and of these the mean and spread over seeds."""

    def mean(name: str) -> Callable[[Sequence[dict[str, Any]]], float]:
        return lambda some: fmean(row[name] for row in some)

    def nearer(some: Sequence[dict[str, Any]]) -> float:
        base = mean("fidelity of the base")(some)
        return (mean("fidelity")(some) - base) / max(1 - base, 1e-3)

    def relative(some: Sequence[dict[str, Any]]) -> float:
        return mean("obeyed")(some) / max(mean("obeyed by the base")(some), 0.05)

    found: dict[str, Any] = {
        name: _summary_of(rows, mean(name)) for name in ("fidelity", "PRES", "DIV", "seconds")
    }
    found |= {"nearer": _summary_of(rows, nearer), "prompts": _summary_of(rows, relative)}
    for half, marked in HALVES.items():
        if any(row["marked"] == marked for row in rows):
            of_half = [row for row in rows if row["marked"] == marked]
            found[half] = _summary_of(of_half, mean("fidelity"))
    sizes = (name for name in ("bytes", "bytes compressed") if name in rows[0])
    return found | {name: round(fmean(row[name] for row in rows)) for name in sizes}


def _summary_of(
    rows: Sequence[dict[str, Any]], figure: Callable[[Sequence[dict[str, Any]]], float]
) -> dict[str, float]:
    """A figure of each seed's rows: its mean and spread."""
    seeds = sorted({row["seed"] for row in rows})
    return _spread([figure([row for row in rows if row["seed"] == seed]) for seed in seeds])


def _two(out: Path, labs: Sequence[Lab]) -> Loop[dict[str, Any]]:
    """Share of pictures in which both of two things are seen: plain, learnt together, and merged."""
    rows: list[dict[str, float]] = []
    for seed, lab in enumerate(labs):
        rows.append((yield from once(out / "rows" / f"two-{seed}.json", _two_of(lab))))
        yield Progress(stage="two subjects", step=len(rows), total=len(labs))
    return {name: _spread([row[name] for row in rows]) for name in rows[0]}


def _two_of(lab: Lab) -> Loop[dict[str, float]]:
    joint = yield from custom.two_subjects(lab)
    merged = yield from custom.merge(lab)
    return {
        PLAIN: joint["plain nouns"],
        "learnt together": joint["together"],
        "merged": merged["merged"],
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": fmean(values), "spread": stdev(values) if len(values) > 1 else 0.0}


def _shown(found: dict[str, float] | None) -> str:
    return "" if found is None else f"{found['mean']:.2f} ± {found['spread']:.2f}"
