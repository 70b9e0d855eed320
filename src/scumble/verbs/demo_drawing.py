"""The demo's chapters of drawing: from words, and of a subject that was learnt in three ways."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from torch import Tensor

from scumble.core.events import Loop, Progress
from scumble.core.files import atomic_write
from scumble.metrics.similarity import subject_similarity
from scumble.metrics.toy_world import right, share
from scumble.verbs.demo_chapter import Chapter, Check, Row, Score, Shown, Work, rendered
from scumble.verbs.learn import called, config_for, learn_to
from scumble.verbs.learn_inputs import begun_anew
from scumble.verbs.load import ModelConfig
from scumble.world.scene import Scene, Thing
from scumble.world.subjects import SUBJECTS, SubjectPrompt

__all__ = ["ASKED", "LEARNERS", "SUBJECT", "learnt", "painted", "plain"]


def _asked(prompt: str, kind: str, colour: str, place: str, time: str = "day") -> tuple[str, Scene]:
    return prompt, Scene(things=(Thing(kind=kind, colour=colour),), place=place, time=time)


ASKED = (
    _asked("a red cat on the grass", "cat", "red", "grass"),
    _asked("a blue car in the snow", "car", "blue", "snow"),
    _asked("a yellow duck on the beach", "duck", "yellow", "beach"),
    _asked("a green robot in the desert", "robot", "green", "desert"),
    _asked("an orange fish in a studio", "fish", "orange", "studio"),
    _asked("a purple castle on the moon", "castle", "purple", "moon"),
    _asked("a white rabbit on the grass at night", "rabbit", "white", "grass", "night"),
    _asked("a pink mushroom in the snow", "mushroom", "pink", "snow"),
    _asked("a brown bear on the beach at sunset", "bear", "brown", "beach", "sunset"),
    _asked("a teal rocket on the moon", "rocket", "teal", "moon"),
    _asked("a grey house in the desert at sunset", "house", "grey", "desert", "sunset"),
    _asked("a black dog on a wooden table", "dog", "black", "table"),
    _asked("a red mug on a wooden table", "mug", "red", "table"),
    _asked("a green cactus in the desert", "cactus", "green", "desert"),
    _asked("a blue boat on the beach", "boat", "blue", "beach"),
    _asked("a white snowman in the snow", "snowman", "white", "snow"),
)
"""Prompts with what they ask for. One picture each: no choosing."""
LEAST_CONTRAST = 16 / 255
"""What NaN, overflow and untrained decoders draw has less."""
PLACES_RIGHT = 0.5
"""The least share of pictures in which the judge has to see the place that was asked for."""

SUBJECT = SUBJECTS[0]
WORD = "<momo>"
PROMPTS = tuple(SUBJECT.prompts[number] for number in (0, 1, 3, 8))
"""Three places, and something to wear."""
LEARNERS = {
    "textual-inversion": (
        "A word alone",
        "Textual Inversion: new vectors for a new word, in a model that stays as it is. The smallest file.",
    ),
    "dreambooth": (
        "All of the model",
        "DreamBooth: the denoiser is tuned to the subject, while pictures of its class keep it from "
        "forgetting the others. The best likeness, the largest file.",
    ),
    "custom-diffusion": (
        "Keys and values",
        "Custom Diffusion: the word, and keys and values of cross-attention, a twentieth of the model.",
    ),
}
"""Method -> how its chapter is called, and what it does."""
NEARER = {"textual-inversion": 0.1, "dreambooth": 0.2, "custom-diffusion": 0.1}
"""By how much a learnt subject has to be nearer to its photos, in the judge's identity features, than what
the untouched model draws of the same prompts with the plain noun. With the toybox 0.5 the three are nearer by
0.46, 0.41 and 0.40.
"""


def painted(work: Work) -> Loop[Chapter]:
    """Pictures from words, by the model as it is."""
    asked = ASKED[: work.amount.prompts]
    shown: list[Shown] = []
    for number, (prompt, _) in enumerate(asked, 1):
        picture = yield from work.drawn(prompt, f"painted/{number:02}.png")
        shown.append(picture.replace(text=prompt))
        yield Progress(stage="pictures", step=number, total=len(asked))
    pixels = work.pixels(shown)
    seen = share(right(work.judged(pixels), [scene for _, scene in asked]))
    contrast = pixels.mean(1).flatten(1)
    least = float((contrast.amax(1) - contrast.amin(1)).min())
    what = "share of the pictures in which the judge sees the {} that was asked for"
    return Chapter(
        name="painted",
        title="From words",
        text=f"{len(asked)} prompts, one picture each, none chosen: what the toybox draws before it learns.",
        rows=(Row(text="", pictures=tuple(shown)),),
        scores=tuple(
            Score(name=f"{name} right", value=seen[name], what=what.format(name))
            for name in ("place", "time", "colour", "kind")
        ),
        checks=(
            Check(claim="No picture is blank (the least contrast)", figure=least, limit=LEAST_CONTRAST),
            Check(
                claim="The places are right in half of the pictures", figure=seen["place"], limit=PLACES_RIGHT
            ),
        ),
        commands=(work.drawing(asked[0][0], "painted/again.png"),),
    )


def _photos(work: Work) -> tuple[Path, list[Shown]]:
    """The folder with the subject's photos, made if it is not there."""
    folder = work.out / "subject"
    names = [f"subject/{number}.png" for number in range(len(SUBJECT.scenes))]
    if not all((work.out / name).is_file() for name in names):
        for picture, name in zip(rendered(SUBJECT.scenes), names, strict=True):
            work.save(picture, name)
    return folder, [Shown(file=name) for name in names]


def plain(work: Work) -> Loop[Chapter]:
    """The subject, and what the untouched model draws of its kind."""
    _, photos = _photos(work)
    shown = yield from _in_new_places(work, "plain", SUBJECT.noun)
    alike, obeyed = _measured(work, photos, shown)
    return Chapter(
        name="plain",
        title="A subject",
        text=f"Five photos of a particular {SUBJECT.noun}, and what the untouched model draws when it is "
        f"told of a {SUBJECT.noun}: any one, and not this one.",
        rows=(Row(text="The photos to learn from", pictures=tuple(photos)), *_rows(shown)),
        scores=_scores(alike, obeyed),
        commands=tuple(_commands(work, "plain", SUBJECT.noun)),
    )


def learnt(work: Work, method: str) -> Loop[Chapter]:
    """The subject, learnt by a method and put into new places."""
    folder, photos = _photos(work)
    title, text = LEARNERS[method]
    weights = work.place(f"{method}/{SUBJECT.noun}.safetensors")
    note = yield from _learn(work, method, folder, weights)
    name = called(method, WORD, SUBJECT.noun)
    shown = yield from _in_new_places(work, method, name, weights)
    alike, obeyed = _measured(work, photos, shown)
    before, _ = _measured(work, photos, _files("plain", work.amount.takes))
    learn = ["learn", method, folder, "--word", WORD, "--noun", SUBJECT.noun]
    for option, value in (("steps", work.amount.learning_steps),):
        learn += [] if value is None else [f"--{option}", str(value)]
    size = Score(
        name="size", value=weights.stat().st_size / 1e6, what="megabytes of what was learnt; less is better"
    )
    return Chapter(
        name=method,
        title=title,
        method=method,
        text=" ".join(filter(None, [text, note])),
        rows=_rows(shown),
        scores=(*_scores(alike, obeyed), size),
        checks=(
            Check(
                claim=f"It is nearer to the photos than the untouched model's {SUBJECT.noun}s "
                "(likeness, less theirs)",
                figure=alike - before,
                limit=NEARER[method],
            ),
        ),
        commands=(work.command(*learn, "-o", weights), *_commands(work, method, name, weights)),
    )


def _learn(work: Work, method: str, folder: Path, weights: Path) -> Loop[str]:
    """Learn, unless that is done; returns what is to be said of the time, if anything."""
    took = weights.with_suffix(".json")
    if weights.is_file() and took.is_file():
        work.seconds["learning"] = json.loads(took.read_bytes())["seconds"]
        return ""
    goes_on = not begun_anew(weights, overwrite=True)
    amount = work.amount
    prior = {} if method == "textual-inversion" else {"prior_count": amount.prior_count}
    config = config_for(method, "toybox", None, None, steps=amount.learning_steps, **prior)
    subject = (folder, WORD, SUBJECT.noun)
    with work.timed("learning"):
        yield from learn_to(method, [subject], config, ModelConfig(), weights, overwrite=True)
    atomic_write(took, json.dumps({"seconds": work.seconds["learning"]}).encode())
    return "It was stopped and went on, so its time is that of the last go." if goes_on else ""


def _files(name: str, takes: int) -> list[Shown]:
    """Every prompt's pictures, prompt by prompt."""
    return [Shown(file=f"{name}/{n}-{take}.png") for n in range(len(PROMPTS)) for take in range(1, takes + 1)]


def _in_new_places(work: Work, name: str, subject: str, *weights: Path) -> Loop[list[Shown]]:
    """The pictures of every prompt, whose seeds are the same for all that is compared."""
    shown = _files(name, work.amount.takes)
    for number, one in enumerate(shown, 1):
        prompt = PROMPTS[(number - 1) // work.amount.takes].text.format(subject)
        yield from work.drawn(prompt, one.file, *weights, seed=1 + (number - 1) % work.amount.takes)
        yield Progress(stage="pictures", step=number, total=len(shown))
    return [
        one.replace(text=PROMPTS[i // work.amount.takes].text.format(subject)) for i, one in enumerate(shown)
    ]


def _commands(work: Work, name: str, subject: str, *weights: Path) -> list[str]:
    return [work.drawing(PROMPTS[0].text.format(subject), f"{name}/again.png", *weights)]


def _rows(shown: Sequence[Shown]) -> tuple[Row, ...]:
    return (Row(text="In new places", pictures=tuple(shown)),)


def _measured(work: Work, photos: Sequence[Shown], shown: Sequence[Shown]) -> tuple[float, float]:
    """Likeness with the photos, and the share of what the prompts ask for that the judge sees."""

    def identity(pixels: Tensor) -> Tensor:
        return work.judged(pixels).identity

    pixels = work.pixels(shown)
    alike = subject_similarity(identity(pixels), identity(work.pixels(photos)))
    prompts = [prompt for prompt in PROMPTS for _ in range(work.amount.takes)]
    return alike, _obeyed(work, prompts, pixels)


def _obeyed(work: Work, prompts: Sequence[SubjectPrompt], pixels: Tensor) -> float:
    answers = right(work.judged(pixels), [prompt.scene for prompt in prompts])
    given = [answers[name][i] for i, prompt in enumerate(prompts) for name in prompt.expected]
    return fmean(float(answer) for answer in given if answer is not None)


def _scores(alike: float, obeyed: float) -> tuple[Score, ...]:
    return (
        Score(
            name="likeness", value=alike, what="with the photos, in the judge's identity features; 1 is most"
        ),
        Score(name="prompts", value=obeyed, what="share of what was asked for that the judge sees"),
    )
