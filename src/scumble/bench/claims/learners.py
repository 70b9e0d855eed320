"""Experiments on Textual Inversion and DreamBooth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from scumble.adapters.weights import Weights
from scumble.bench.claims.lab import WORD, Lab
from scumble.bench.common import judged
from scumble.core.events import Loop
from scumble.methods import textual_inversion
from scumble.metrics.prior import diversity, prior_preservation
from scumble.metrics.similarity import paired_similarity
from scumble.verbs.learn import called, config_for
from scumble.world.sampling import PROFILES, sample_scene
from scumble.world.scene import COLOURS, KINDS, PLACES, Scene, Thing
from scumble.world.splits import EVALUATION_SEEDS
from scumble.world.subjects import Subject, SubjectPrompt

__all__ = ["EXPERIMENTS", "Experiment", "Figures", "Found", "learnt_figures"]

Found = dict[str, float]
"""`figure`, which decides, nan where nothing can be told, and whatever else is worth keeping."""
Experiment = Callable[[Lab], Loop[Found]]
INVERSION = textual_inversion.METHOD
STYLE, STYLE_WORD, FAIR_WORD = "watercolour", "<style>", "<fair>"
STYLED, SNOWMEN = 5, 6
"""Pictures that a style, and that an even set, is learnt from."""
LONG = 10
"""Times the preset's steps are what runs were long to be safe: the paper's 5000 beside what is enough."""
LOOKS = 100
"""At the held-out loss in a long run."""
SAME = 0.05
"""Fidelity that may be lost where the quality is called the same."""
SMALL, NOT_SMALL = 0.5, -1.0
"""The share of bytes up to which a file counts as small; the figure of a part whose file does not."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Means over subjects."""

    fidelity: float
    obeyed: float
    """Prompt fidelity, over that of the plain noun."""
    by_kind: dict[str, float]
    """The same for each kind of prompt."""


def learnt_figures(
    lab: Lab, name: str, method: str, weights: Callable[[Subject], Loop[Path]] | None
) -> Loop[Figures]:
    """Draw the prompts of every subject, with its weights, called as those of `method` are, or (None) with
    the plain noun, and measure.
    """
    fidelity: list[float] = []
    told: list[tuple[SubjectPrompt, Tensor, Tensor]] = []
    for subject in lab.subjects:
        prompts = lab.prompts(subject)
        plain = yield from lab.drawn(f"plain-{subject.name}", [p.text.format(subject.noun) for p in prompts])
        drawn = plain
        if weights is not None:
            learnt = yield from weights(subject)
            texts = [p.text.format(called(method, WORD, subject.noun)) for p in prompts]
            drawn = yield from lab.drawn(f"{name}-{subject.name}", texts, learnt)
        fidelity.append(lab.fidelity(subject, drawn))
        told += zip(prompts, drawn, plain, strict=True)

    def relative(rows: Sequence[tuple[SubjectPrompt, Tensor, Tensor]]) -> float:
        prompts = [prompt for prompt, _, _ in rows]
        mine = lab.obeyed(prompts, torch.stack([drawn for _, drawn, _ in rows]))
        base = lab.obeyed(prompts, torch.stack([plain for _, _, plain in rows]))
        return mine / max(base, 0.05)

    kinds = dict.fromkeys(prompt.kind for prompt, *_ in told)
    by_kind = {kind: relative([row for row in told if row[0].kind == kind]) for kind in kinds}
    return Figures(fmean(fidelity), relative(told), by_kind)


def _by(lab: Lab, method: str) -> Loop[Figures]:
    return (yield from learnt_figures(lab, method, method, lambda subject: lab.subject(method, subject)))


def _with(
    lab: Lab, method: str, name: str, **changes: Any
) -> tuple[str, str, Callable[[Subject], Loop[Path]]]:
    """For `learnt_figures`: subjects learnt by the method's preset with `changes`; by the preset itself, by
    which they may be learnt already, where it has them.
    """
    preset = config_for(method, lab.settings.model, None, None)
    if all(getattr(preset, key) == value for key, value in changes.items()):
        return method, method, lambda subject: lab.subject(method, subject)

    def learnt(subject: Subject) -> Loop[Path]:
        photos = [(lab.photos(subject), WORD, subject.noun)]
        return (yield from lab.learnt(f"{method}-{name}-{subject.name}", method, photos, **changes))

    return f"{method}-{name}", method, learnt


# Textual Inversion


def _word(lab: Lab) -> Loop[Found]:
    learnt = yield from _by(lab, INVERSION)
    plain = yield from learnt_figures(lab, "plain", INVERSION, None)
    gain = learnt.fidelity - plain.fidelity
    return {"figure": gain, "fidelity": learnt.fidelity, "plain noun": plain.fidelity}


def _one_vector(lab: Lab) -> Loop[Found]:
    one = yield from learnt_figures(lab, *_with(lab, INVERSION, "one", vectors=1))
    many = yield from _by(lab, INVERSION)
    return {"figure": one.fidelity - many.fidelity, "one": one.fidelity, "several": many.fidelity}


def _composes(lab: Lab) -> Loop[Found]:
    learnt = yield from _by(lab, INVERSION)
    return {"figure": learnt.obeyed, **learnt.by_kind}


def _style(lab: Lab) -> Loop[Found]:
    """A word for a style, put where the toy world's prompts name theirs."""
    scenes = [
        replace(sample_scene(EVALUATION_SEEDS + i, profile=PROFILES["photo"]), style=STYLE)
        for i in range(STYLED)
    ]
    folder = lab.out / "photos" / "style"
    lab.write(folder, scenes)
    given = [(folder, STYLE_WORD, "painting")]
    weights = yield from lab.learnt("style", INVERSION, given, templates="style")
    things = [KINDS[i % len(KINDS)] for i in range(lab.settings.class_pictures)]
    names = {"without": "a painting of a {}", "with": f"a painting of a {{}} in the style of {STYLE_WORD}"}
    shares: dict[str, float] = {}
    for name, text in names.items():
        texts, used = [text.format(kind) for kind in things], weights if name == "with" else None
        drawn = yield from lab.drawn(f"style-{name}", texts, used)
        labels = judged(lab.judge, drawn).labels()
        shares[name] = fmean(label["style"] == STYLE for label in labels)
    return {"figure": shares["with"], "without the word": shares["without"]}


def _debias(lab: Lab) -> Loop[Found]:
    """Snowmen in six colours, each in a place of its own, teach a word; do pictures with it have more even
    colours? The count of each colour that the judge sees is kept, too.
    """
    things = [Thing(kind="snowman", colour=colour) for colour in list(COLOURS)[:SNOWMEN]]
    scenes = [
        Scene(things=(thing,), place=PLACES[i], seed=EVALUATION_SEEDS + i) for i, thing in enumerate(things)
    ]
    folder = lab.out / "photos" / "snowmen"
    lab.write(folder, scenes)
    weights = yield from lab.learnt("debias", INVERSION, [(folder, FAIR_WORD, "snowman")])
    fair = called(INVERSION, FAIR_WORD, "snowman")
    evenness: dict[str, float] = {}
    counts: dict[str, float] = {}
    for name, noun, used in (("without", "snowman", None), ("with", fair, weights)):
        texts = [f"a photo of a {noun}"] * lab.settings.class_pictures
        drawn = yield from lab.drawn(f"debias-{name}", texts, used)
        colours = Counter(label["colour"] for label in judged(lab.judge, drawn).labels())
        counts |= {f"{name}: {colour}": float(colours[colour]) for colour in COLOURS if colours[colour]}
        shares = [count / len(texts) for count in colours.values()]
        evenness[name] = -sum(p * math.log(p) for p in shares) / math.log(len(COLOURS))
    return {"figure": evenness["with"] - evenness["without"], **evenness, **counts}


def _stopped(lab: Lab) -> Loop[Found]:
    """Steps with a stop over those without, in a run that is long to be safe."""
    preset = config_for(INVERSION, lab.settings.model, None, None, steps=lab.settings.learning_steps)
    steps, patience = LONG * preset.steps, textual_inversion.PRESETS["default"].stop_after
    each = max(1, steps // LOOKS)
    early = _with(lab, INVERSION, "stopped", steps=steps, stop_after=patience, stop_every=each)
    stopped = yield from learnt_figures(lab, *early)
    full = yield from learnt_figures(lab, *_with(lab, INVERSION, "long", steps=steps, stop_after=0))
    taken: list[int] = []
    for subject in lab.subjects:
        weights = yield from early[2](subject)
        taken.append(Weights.load(weights).training["steps"])
    share = fmean(taken) / steps
    figure = share if stopped.fidelity >= full.fidelity - SAME else 1.0  # nothing is saved if quality is lost
    return {
        "figure": figure,
        "steps, as a share": share,
        "fidelity, stopped": stopped.fidelity,
        "fidelity, whole": full.fidelity,
    }


# DreamBooth


def _likeness(lab: Lab) -> Loop[Found]:
    mine, other = (yield from _by(lab, "dreambooth")), (yield from _by(lab, INVERSION))
    return {
        "figure": mine.fidelity - other.fidelity,
        "dreambooth": mine.fidelity,
        "textual-inversion": other.fidelity,
    }


def _prompts(lab: Lab) -> Loop[Found]:
    mine, other = (yield from _by(lab, "dreambooth")), (yield from _by(lab, INVERSION))
    return {
        "figure": mine.obeyed - other.obeyed,
        "dreambooth": mine.obeyed,
        "textual-inversion": other.obeyed,
    }


def _uses(lab: Lab) -> Loop[Found]:
    learnt = yield from _by(lab, "dreambooth")
    return {"figure": min(learnt.by_kind.values()), **learnt.by_kind}


def _without_prior(lab: Lab, subject: Subject) -> Loop[Path]:
    photos = [(lab.photos(subject), WORD, subject.noun)]
    name = f"dreambooth-no-prior-{subject.name}"
    return (yield from lab.learnt(name, "dreambooth", photos, prior_weight=0.0))


def _with_and_without(
    lab: Lab, name: str, text: str, measure: Callable[[Subject, Tensor], float]
) -> Loop[dict[str, float]]:
    """The mean over subjects of a measure of pictures of one text, with prior preservation and without."""
    means: dict[str, float] = {}
    for kind in ("with", "without"):
        values: list[float] = []
        for subject in lab.subjects:
            learn = lab.subject("dreambooth", subject) if kind == "with" else _without_prior(lab, subject)
            weights = yield from learn
            texts = [text.format(noun=subject.noun, word=WORD)] * lab.settings.class_pictures
            drawn = yield from lab.drawn(f"{name}-{kind}-{subject.name}", texts, weights)
            values.append(measure(subject, drawn))
        means[kind] = fmean(values)
    return means


def _drift(lab: Lab) -> Loop[Found]:
    def pres(subject: Subject, drawn: Tensor) -> float:
        return prior_preservation(lab.identity(drawn), lab.known(subject))

    means = yield from _with_and_without(lab, "class", "a {noun}", pres)
    return {"figure": means["without"] - means["with"], **means}


def _diverse(lab: Lab) -> Loop[Found]:
    def apart(one: Tensor, other: Tensor) -> Tensor:
        return 1 - paired_similarity(lab.seen(one), lab.seen(other))

    def div(_: Subject, drawn: Tensor) -> float:
        return diversity(drawn[:12], apart)  # 66 pairs

    means = yield from _with_and_without(lab, "one-prompt", "a photo of a {word} {noun}", div)
    return {"figure": means["with"] - means["without"], **means}


def _class_noun(lab: Lab) -> Loop[Found]:
    """Learnt and drawn as what it is, and as a truck (a flower, if it is a truck)."""
    rights: list[float] = []
    wrongs: list[float] = []
    for subject in lab.subjects:
        noun = "flower" if subject.noun == "truck" else "truck"
        photos = [(lab.photos(subject), WORD, noun)]
        wrong = yield from lab.learnt(f"dreambooth-as-{noun}-{subject.name}", "dreambooth", photos)
        right = yield from lab.subject("dreambooth", subject)
        wishes = lab.prompts(subject)
        for name, weights, kind, values in (
            ("dreambooth", right, subject.noun, rights),
            (f"dreambooth-as-{noun}", wrong, noun, wrongs),
        ):
            texts = [p.text.format(called("dreambooth", WORD, kind)) for p in wishes]
            drawn = yield from lab.drawn(f"{name}-{subject.name}", texts, weights)
            values.append(lab.fidelity(subject, drawn))
    return {"figure": fmean(rights) - fmean(wrongs), "right": fmean(rights), "wrong": fmean(wrongs)}


def _few_photos(lab: Lab) -> Loop[Found]:
    def from_one(subject: Subject) -> Loop[Path]:
        photos = [(lab.photos(subject, 1), WORD, subject.noun)]
        return (yield from lab.learnt(f"dreambooth-one-photo-{subject.name}", "dreambooth", photos))

    five = yield from _by(lab, "dreambooth")
    one = yield from learnt_figures(lab, "dreambooth-one-photo", "dreambooth", from_one)
    return {"figure": five.fidelity - one.fidelity, "five": five.fidelity, "one": one.fidelity}


def _part(lab: Lab) -> Loop[Found]:
    """Cross-attention alone beside the whole denoiser: fidelity, drift of the class, bytes."""
    found: dict[str, Found] = {}
    for train in ("cross-attention", "all"):
        name, _, learnt = told = _with(lab, "dreambooth", train, train=train)
        figures = yield from learnt_figures(lab, *told)
        drift: list[float] = []
        sizes: list[int] = []
        for subject in lab.subjects:
            weights = yield from learnt(subject)
            sizes.append(weights.stat().st_size)
            texts = [f"a {subject.noun}"] * lab.settings.class_pictures
            drawn = yield from lab.drawn(f"{name}-part-class-{subject.name}", texts, weights)
            drift.append(prior_preservation(lab.identity(drawn), lab.known(subject)))
        found[train] = {"fidelity": figures.fidelity, "PRES": fmean(drift), "bytes": fmean(sizes)}
    part, whole = found.values()
    share = part["bytes"] / whole["bytes"]
    less = part["fidelity"] - whole["fidelity"]
    each = {f"{what}, {train}": value for train, row in found.items() for what, value in row.items()}
    return {"figure": less if share <= SMALL else NOT_SMALL, "bytes, as a share": share, **each}


EXPERIMENTS: dict[str, Experiment] = {
    "textual-inversion/word": _word,
    "textual-inversion/one-vector": _one_vector,
    "textual-inversion/composes": _composes,
    "textual-inversion/style": _style,
    "textual-inversion/debias": _debias,
    "textual-inversion/early-stop": _stopped,
    "dreambooth/likeness": _likeness,
    "dreambooth/prompts": _prompts,
    "dreambooth/uses": _uses,
    "dreambooth/drift": _drift,
    "dreambooth/diversity": _diverse,
    "dreambooth/class-noun": _class_noun,
    "dreambooth/few-photos": _few_photos,
    "dreambooth/part": _part,
}
"""Claim -> its experiment."""
