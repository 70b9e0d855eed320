"""Experiments on Custom Diffusion."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from math import nan
from pathlib import Path
from statistics import fmean

from torch import Tensor

from scumble.adapters.changes import parameters_of
from scumble.adapters.dense import dense
from scumble.adapters.merge import compress
from scumble.adapters.weights import Weights
from scumble.bench.claims.lab import WORD, Lab
from scumble.bench.claims.learners import Experiment, Figures, Found, learnt_figures
from scumble.bench.common import judged
from scumble.core.events import Loop
from scumble.methods.custom_diffusion import TRAIN
from scumble.metrics.kid import kid
from scumble.verbs.analyse import analyse_to
from scumble.verbs.learn import called, config_for
from scumble.verbs.merge import merge_to
from scumble.world.sampling import PROFILES, sample_scene
from scumble.world.scene import PLACES, Scene
from scumble.world.splits import EVALUATION_SEEDS
from scumble.world.subjects import SUBJECTS, Subject
from scumble.world.words import caption

__all__ = ["EXPERIMENTS", "merge", "two_subjects"]

METHOD = "custom-diffusion"
COMPRESSED = 0.6
"""Share of the singular values that a compressed file keeps: the released code's."""
REAL = 128
"""Captioned renders that stand for real regularisation pictures."""
FRESH_SEED = 3 * EVALUATION_SEEDS
REAL_SEED = 700_000
SECOND = "<second>"


def _by(lab: Lab, method: str = METHOD) -> Loop[Figures]:
    return (yield from learnt_figures(lab, method, method, lambda subject: lab.subject(method, subject)))


def _rates(lab: Lab) -> Loop[Found]:
    """Everything tuned on each subject; the folder of an analysis holds it whole."""
    found: list[dict[str, float]] = []
    for subject in lab.subjects:
        folder = lab.out / "analysis" / subject.name
        if not folder.is_dir():
            changes = {"steps": lab.settings.learning_steps, "seed": lab.settings.seed, "prior_weight": 0.0}
            config = config_for(METHOD, lab.settings.model, None, None, **changes)
            yield from analyse_to([(lab.photos(subject), WORD, subject.noun)], config, lab.on, folder)
        groups = json.loads((folder / "rates.json").read_bytes())["groups"]
        found.append({name: value or 0.0 for name, value in groups.items()})
    means = {name: fmean(row[name] for row in found) for name in found[0]}
    others = max(means["self-attention"], means["rest"])
    return {"figure": means["cross-attention"] / others, **means}


def _parameters(lab: Lab) -> Loop[Found]:
    """Counted, not learnt."""
    yield from ()
    everything = sum(p.numel() for n, p in parameters_of(lab.model).items() if n.startswith("unet."))
    with dense(lab.model, TRAIN["key-value"]) as layers:
        learning = sum(p.numel() for p in layers.named_parameters().values())
    return {"figure": learning / everything, "learning": float(learning), "denoiser": float(everything)}


def _size(lab: Lab) -> Loop[Found]:
    subject = lab.subjects[0]
    mine, whole = (yield from lab.subject(METHOD, subject)), (yield from lab.subject("dreambooth", subject))
    small = lab.out / "weights" / f"{METHOD}-compressed-{subject.name}.safetensors"
    compress(Weights.load(mine), COMPRESSED).save(small)
    sizes = {name: float(p.stat().st_size) for name, p in (("bytes", mine), ("compressed", small))}
    other = float(whole.stat().st_size)
    share = sizes["compressed"] / other
    return {"figure": sizes["bytes"] / other, "compressed, as a share": share, **sizes, "dreambooth": other}


def _duration(lab: Lab) -> Loop[Found]:
    """Of the steps themselves; what class pictures take is left out, since they are kept for the next run."""
    mine: list[float] = []
    other: list[float] = []
    for subject in lab.subjects:
        for method, seconds in ((METHOD, mine), ("dreambooth", other)):
            seconds.append(lab.seconds((yield from lab.subject(method, subject))))
    return {"figure": sum(mine) / max(sum(other), 1e-9), METHOD: fmean(mine), "dreambooth": fmean(other)}


def _likeness(lab: Lab) -> Loop[Found]:
    mine, other = (yield from _by(lab)), (yield from _by(lab, "dreambooth"))
    return {"figure": mine.fidelity - other.fidelity, METHOD: mine.fidelity, "dreambooth": other.fidelity}


def _prompts(lab: Lab) -> Loop[Found]:
    mine, other = (yield from _by(lab)), (yield from _by(lab, "dreambooth"))
    return {"figure": mine.obeyed - other.obeyed, METHOD: mine.obeyed, "dreambooth": other.obeyed}


# What keeps the class


def _drifted(lab: Lab, kind: str) -> Loop[float]:
    """KID of pictures of the class, drawn with weights that were learnt in one of three ways."""
    values: list[float] = []
    for subject in lab.subjects:
        weights = yield from _kept_by(lab, kind, subject)
        texts = [f"a photo of a {subject.noun}"] * lab.settings.class_pictures
        drawn = yield from lab.drawn(f"{METHOD}-class-{kind}-{subject.name}", texts, weights)
        values.append(kid(lab.features(drawn), _of_class(lab, subject.noun)).mean)
    return fmean(values)


def _kept_by(lab: Lab, kind: str, subject: Subject) -> Loop[Path]:
    if kind == "drawn":
        return (yield from lab.subject(METHOD, subject))
    photos = [(lab.photos(subject), WORD, subject.noun)]
    changes: dict[str, object] = {"prior_weight": 0.0}
    if kind == "real":
        folder = lab.out / "real" / subject.noun
        scenes = _scenes(subject.noun, REAL_SEED, REAL)
        lab.write(folder, scenes, [caption(scene) for scene in scenes])
        # The toybox's CLIP reads short captions of one world: they are all alike to it, so none is refused.
        changes = {"regularization": str(folder), "similarity": -1.0, "clip_model": str(_clip())}
    return (yield from lab.learnt(f"{METHOD}-{kind}-{subject.name}", METHOD, photos, **changes))


def _clip() -> Path:
    from scumble.models import toybox

    return toybox.clip()


def _scenes(noun: str, seed: int, count: int) -> list[Scene]:
    """Photos of things of one kind, all else by chance."""
    found: list[Scene] = []
    for i in range(count):
        scene = sample_scene(seed + i, profile=PROFILES["photo"])
        thing = replace(scene.things[0], kind=noun, accessory=None, effect=None)
        found.append(replace(scene, things=(thing,)))
    return found


def _of_class(lab: Lab, noun: str) -> Tensor:
    """Features of fresh renders of the class."""
    return lab.features(lab.rendered(_scenes(noun, FRESH_SEED, min(lab.settings.fresh, 200))))


def _drift(lab: Lab) -> Loop[Found]:
    kept, free = (yield from _drifted(lab, "drawn")), (yield from _drifted(lab, "free"))
    return {"figure": kept / max(free, 1e-9), "with": kept, "without": free}


def _real_pictures(lab: Lab) -> Loop[Found]:
    real, drawn = (yield from _drifted(lab, "real")), (yield from _drifted(lab, "drawn"))
    return {"figure": real / max(drawn, 1e-9), "real": real, "drawn": drawn}


# Two subjects


def _pair(lab: Lab) -> tuple[Subject, Subject]:
    """A subject of the run and another of another kind."""
    first = lab.subjects[0]
    return first, next(s for s in reversed(SUBJECTS) if s.noun != first.noun)


def _both(lab: Lab, name: str, first: str, second: str, weights: Path | None) -> Loop[float]:
    """Share of pictures of two things in which the judge sees both kinds."""
    one, other = _pair(lab)
    # As the toy world's captions say it; a place in each, so that pictures differ in more than their seed.
    texts = [
        f"a photo of a {first} next to a {second} in the {PLACES[i % 4]}"
        for i in range(lab.settings.class_pictures)
    ]
    drawn = yield from lab.drawn(f"two-{name}", texts, weights)
    wanted = {one.noun, other.noun}
    labels = judged(lab.judge, drawn).labels()
    return fmean({label["kind"], label.get("second_kind")} == wanted for label in labels)


def _joint(lab: Lab) -> Loop[Path]:
    """Both in one run, of as many steps as two of one subject."""
    one, other = _pair(lab)
    both = [(lab.photos(one), WORD, one.noun), (lab.photos(other), SECOND, other.noun)]
    alone = config_for(METHOD, lab.settings.model, None, None, steps=lab.settings.learning_steps)
    return (yield from lab.learnt("custom-diffusion-joint", METHOD, both, steps=2 * alone.steps))


def two_subjects(lab: Lab) -> Loop[Found]:
    """Share of pictures that show two subjects learnt together, over that of two plain things."""
    one, other = _pair(lab)
    learnt = yield from _joint(lab)
    words = called(METHOD, WORD, one.noun), called(METHOD, SECOND, other.noun)
    together = yield from _both(lab, "together", *words, learnt)
    plain = yield from _both(lab, "plain", one.noun, other.noun, None)
    return {"figure": together / plain if plain else nan, "together": together, "plain nouns": plain}


def _merged(lab: Lab) -> Loop[tuple[Path, float]]:
    one, other = _pair(lab)
    first = yield from lab.subject(METHOD, one)
    photos = [(lab.photos(other), SECOND, other.noun)]
    second = yield from lab.learnt("custom-diffusion-second", METHOD, photos)
    place, start = lab.out / "weights" / "merged.safetensors", time.perf_counter()
    merge_to([str(first), str(second)], lab.on, place, how="closed-form", overwrite=True)
    return place, time.perf_counter() - start


def merge(lab: Lab) -> Loop[Found]:
    """Share of pictures that show two subjects merged in closed form, over that of two learnt together."""
    one, other = _pair(lab)
    words = called(METHOD, WORD, one.noun), called(METHOD, SECOND, other.noun)
    weights, _ = yield from _merged(lab)
    merged = yield from _both(lab, "merged", *words, weights)
    together = yield from _both(lab, "together", *words, (yield from _joint(lab)))
    return {"figure": merged / together if together else nan, "merged": merged, "together": together}


def _merge_seconds(lab: Lab) -> Loop[Found]:
    """With the loading of the model in it, which `scumble merge` does each time."""
    _, seconds = yield from _merged(lab)
    return {"figure": seconds}


EXPERIMENTS: dict[str, Experiment] = {
    "custom-diffusion/rates": _rates,
    "custom-diffusion/parameters": _parameters,
    "custom-diffusion/bytes": _size,
    "custom-diffusion/time": _duration,
    "custom-diffusion/likeness": _likeness,
    "custom-diffusion/prompts": _prompts,
    "custom-diffusion/drift": _drift,
    "custom-diffusion/real-pictures": _real_pictures,
    "custom-diffusion/two-subjects": two_subjects,
    "custom-diffusion/merge": merge,
    "custom-diffusion/merge-seconds": _merge_seconds,
}
"""Claim -> its experiment."""
