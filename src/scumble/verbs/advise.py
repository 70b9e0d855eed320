"""Which of the six methods, for what a person has and wants: the method, the command, and the reasons,
measured where there are figures, and published, with their source, where there are none yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from shlex import join
from typing import Annotated, Literal

from pydantic import Field

from scumble.core.config import Config
from scumble.core.errors import ConfigError
from scumble.verbs.known import Known, claim_figures, compared, methods

__all__ = ["WISHES", "Advice", "Need", "Other", "Reason", "advise"]

WISHES = {
    "subject": "a particular subject in new pictures",
    "style": "a style",
    "local": "a change to a part of a picture",
    "whole": "a change to the whole picture",
    "strokes": "a natural picture from rough paint",
}
"""What a person may want."""
Want = Literal["subject", "style", "local", "whole", "strokes"]
LONG = 5.0
"""Minutes that learning a subject takes at least on a GPU, by the papers."""
HOUR = 60.0
"""Minutes under which nothing is learnt at full size without a GPU."""
LEARN = ("textual-inversion", "dreambooth", "custom-diffusion")
"""Methods that learn once; Text2LIVE learns for each picture, and the rest are ready."""


class Need(Config):
    """What a person has and wants."""

    want: Want | None = None
    """subject: it elsewhere; style; local: a part; whole: everything; strokes: paint made natural."""
    images: Annotated[int, Field(ge=0)] = 0
    """Photos of the subject, or pictures in the style."""
    subjects: Annotated[int, Field(ge=1)] = 1
    """How many subjects, in one picture."""
    told: Literal["words", "paint"] = "words"
    """How the change is told."""
    mask: bool = False
    """Whether there is a mask of what may change."""
    video: bool = False
    """Whether it is a video."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Time there is; none is any."""
    gpu: bool = False
    """Whether there is an accelerator."""
    toybox: bool = False
    """Whether it is for the toybox, which learns in minutes on a CPU."""
    picture: str = "photo.png"
    """The picture, or the video."""
    photos: str = "photos"
    """The folder with the photos."""
    word: str = "<rex>"
    """The subject's word."""
    noun: str = "dog"
    """What it is a kind of."""
    prompt: str = ""
    """What the result shows."""

    @property
    def is_hurried(self) -> bool:
        """Whether there is less time than learning anything takes: a minute on the toybox."""
        least = 1.0 if self.toybox else LONG if self.gpu else HOUR
        return self.minutes is not None and self.minutes < least

    @property
    def is_short(self) -> bool:
        """Whether there is no time for what learns slowly."""
        return self.minutes is not None and self.minutes <= 2 * LONG


@dataclass(frozen=True, slots=True)
class Reason:
    """Why, in a sentence, and where that comes from."""

    text: str
    source: str
    """measured, published, or how it works."""


@dataclass(frozen=True, slots=True)
class Other:
    """Another method that would do, and what speaks for the first."""

    method: str
    title: str
    why: str


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do."""

    method: str
    title: str
    commands: list[str]
    reasons: list[Reason]
    others: list[Other]
    notes: list[str]
    """What should be known or done first."""


def advise(**need: object) -> Advice:
    """The method for what a person has and wants; settings are those of `Need`.

    >>> print(scumble.advise(want="subject", images=5, gpu=True).commands)
    """
    asked = Need.of(need)
    if asked.want is None:
        raise ConfigError("What is wanted was not said.", f"Say one of {', '.join(WISHES)}.")
    order = list(_ORDER[asked.want](asked))
    (first, why), rest = order[0], order[1:]
    known = methods()[first]
    reasons = [Reason(why, "how it works"), *_evidence(first, known)]
    others = [Other(name, methods()[name].title, reason) for name, reason in rest]
    return Advice(first, known.title, _commands(first, asked), reasons, others, list(_notes(first, asked)))


Ranked = Iterator[tuple[str, str]]


def _subject(need: Need) -> Ranked:
    if need.video:
        yield (
            "text2live",
            "Of the six it alone keeps an edit consistent over a video; it cannot put in new things.",
        )
        return
    if need.images == 0:
        yield (
            "instruct",
            "Without photos nothing can be learnt; a picture that is there can be told to change.",
        )
        yield "sdedit", "Paste or paint the subject into a picture, and make it natural."
        return
    names = {
        "custom-diffusion": "It learns fast and in a small file, and takes several subjects in one run.",
        "dreambooth": "It has the best likeness of the three that learn.",
        "textual-inversion": "It leaves the model as it is, and its file is a few kilobytes.",
    }
    slow = {"textual-inversion": "It takes thousands of steps, and has the loosest likeness."}
    if need.subjects > 1:
        order = ["custom-diffusion", "dreambooth", "textual-inversion"]
        names["custom-diffusion"] = (
            "It is made for several subjects in one picture, learnt together or merged."
        )
    elif need.is_short:
        order = ["custom-diffusion", "dreambooth", "textual-inversion"]
        names["custom-diffusion"] = "It is the fastest of the three that learn, for nearly the same likeness."
    else:
        order = ["dreambooth", "custom-diffusion", "textual-inversion"]
    for name in order:
        yield name, names[name] if name == order[0] else slow.get(name, names[name])
    if need.is_hurried:
        yield "sdedit", "It learns nothing: paste the subject into a picture, and make it natural."


def _style(need: Need) -> Ranked:
    if need.video:
        yield "text2live", "Of the six it alone keeps an edit consistent over a video."
        return
    learnt = [
        ("textual-inversion", "A word is enough for a style, and goes with every prompt afterwards."),
        ("custom-diffusion", "It takes up more of a style, and changes the model for it."),
    ]
    if need.is_short:
        learnt = [("custom-diffusion", "It learns in a fraction of Textual Inversion's steps."), learnt[0]]
    told = [
        ("instruct", "A style that has a name can be told: 'make it a watercolour'."),
        ("sdedit", "With a prompt that names the style and a t0 of about a half."),
    ]
    if need.is_hurried:
        yield from told
    if need.images:
        yield from learnt
    if not need.is_hurried and (not need.images or need.told == "words"):
        yield from told


def _local(need: Need) -> Ranked:
    if need.video:
        yield "text2live", "It edits the clip's atlas, so the edit moves with what it lies on."
        return
    paint = "Paint shows where and what; outside of it no pixel changes by a bit."
    if need.told == "paint":
        yield "sdedit", paint
        yield (
            "text2live",
            "If it is a material or an effect on what is there: it finds the place by the words.",
        )
        return
    if need.mask:
        yield "instruct", "The words say what, the mask says where, and what it keeps stays to the bit."
        yield "text2live", "A mask bounds its layer; for materials, colours and effects."
    elif need.is_hurried:
        yield "instruct", "It is ready at once; the words have to name the thing, or a mask shows it."
        yield "text2live", "The rest keeps its detail, but its layer is learnt, for which there is no time."
    else:
        yield (
            "text2live",
            "It finds the place by the words and lays a layer there: the rest keeps its detail.",
        )
        yield "instruct", "The words have to name the thing; give a mask where they cannot."
    yield "sdedit", paint


def _whole(need: Need) -> Ranked:
    if need.video:
        yield (
            "text2live",
            "Its layer over the background's atlas is the nearest to it; layout stays as it is.",
        )
        return
    if need.told == "paint":
        yield "sdedit", "Rough paint over everything says layout and colours; t0 says how freely to follow."
        yield "instruct", "If it can be said after all, in a sentence."
        return
    yield "instruct", "One sentence, one sampling: no mask, no tuning, nothing to find."
    yield "sdedit", "With a prompt of the result; little of the picture's detail stays."


def _strokes(need: Need) -> Ranked:
    if need.video:
        yield "sdedit", "It starts from paint, here on the clip's atlas, so that it moves with what it is on."
        return
    yield "sdedit", "It is the one that starts from paint."


_ORDER: dict[str, Callable[[Need], Ranked]] = {
    "subject": _subject,
    "style": _style,
    "local": _local,
    "whole": _whole,
    "strokes": _strokes,
}


def _evidence(method: str, known: Known) -> Iterator[Reason]:
    """Figures measured here, or the published ones where nothing is."""
    row = compared().get(method)
    if row is not None:
        parts = [f"{row['seconds']:.0f} s", *(f"{n} {row[n]:.2f}" for n in ("done", "preserved") if n in row)]
        yield Reason(f"On {row['tasks']:.0f} tasks of the toybox: {', '.join(parts)}.", "measured: compare")
    else:
        yield Reason(f"Time: {known.time}.", f"published: {known.paper}, arXiv:{known.arxiv}")
    found = [name for name in known.claims if name in claim_figures()]
    for name in found:
        figure = claim_figures()[name]
        said = "holds" if figure["holds"] else "does not hold on the toybox"
        yield Reason(f"{name}: {figure['figure']:.3g}, which {said}.", "measured: bench claims")
    if not found:
        yield Reason(f"Quality: {known.quality}.", f"published: {known.paper}, arXiv:{known.arxiv}")


def _commands(method: str, need: Need) -> list[str]:
    """Exact command lines, with the names that were given."""
    named = f"{need.word} {need.noun}"
    model = [] if need.toybox else ["--model", "MODEL"]
    if method in LEARN:
        return _learning(method, need, named, model)
    if need.video:
        return _filming(need, model)
    mask = ["--mask", "mask.png"] if need.mask else []
    if method == "instruct":
        editor = [] if need.toybox else ["--model", "EDITING_MODEL"]
        told = need.prompt or ("make it a watercolour" if need.want == "style" else "make it night")
        return [_line("edit", "instruct", need.picture, told, *mask, *editor, "-o", "out.png")]
    if method == "text2live":
        return [_line("edit", "text2live", need.picture, *_told(need), *mask, "-o", "out.png")]
    told = ["--prompt", need.prompt] if need.prompt else []
    if need.want == "local":
        painted = ["painted.png", "--original", need.picture]
        return [_line("edit", "sdedit", *painted, *mask, *told, "--t0", "0.45", *model, "-o", "out.png")]
    return [_line("edit", "sdedit", need.picture, *told, *_t0(need), *model, "-o", "out.png")]


def _filming(need: Need, model: list[str]) -> list[str]:
    """An atlas, and the edit of the clip by it: from words, or from paint on one of its sheets."""
    lines = [_line("atlas", need.picture, "--mask", "first-frame.png", "-o", "atlas.safetensors")]
    edit = ("edit", "text2live", need.picture, "--atlas", "atlas.safetensors")
    layer = ["--layer", "background"] if need.want == "whole" else []
    if need.want == "strokes":
        told = ["--prompt", need.prompt] if need.prompt else []
        lines.append(_line("edit", "sdedit", "painted.png", *told, *_t0(need), *model, "-o", "natural.png"))
        how = ["--painted", "natural.png"]
    else:
        how = ["--painted", "painted.png"] if _is_painted(need) else _told(need)
    return [*lines, _line(*edit, *how, *layer, "-o", "out.mp4")]


def _is_painted(need: Need) -> bool:
    """Whether a change is shown by paint."""
    return need.want == "strokes" or (need.want in ("local", "whole") and need.told == "paint")


def _t0(need: Need) -> list[str]:
    """Where SDEdit starts; looking for it takes several samplings."""
    return ["--t0", "0.5" if need.is_hurried else "auto"]


def _learning(method: str, need: Need, named: str, model: list[str]) -> list[str]:
    if need.want == "style":
        word = "<style>" if need.word == "<rex>" else need.word
        preset = ["--preset", "style"] if method == "textual-inversion" and not need.toybox else []
        tell = ["--word", word, "--noun", "painting", *preset]
        prompt = need.prompt or f"a painting of a {need.noun} in the style of {word}"
    elif need.subjects > 1:
        words = [f"<subject{i}>" for i in range(1, need.subjects + 1)]
        words = [need.word, *words[1:]] if "word" in need.model_fields_set else words
        each = [f"{need.photos}/{i}:{word}:{need.noun}" for i, word in enumerate(words, 1)]
        tell = [part for subject in each for part in ("--subject", subject)]
        both = " next to a ".join(f"{word} {need.noun}" for word in words)
        prompt = need.prompt or f"a photo of a {both}"
    else:
        tell = ["--word", need.word, "--noun", need.noun]
        prompt = need.prompt or f"a photo of a {named} on the beach"
    photos = [] if need.subjects > 1 and need.want == "subject" else [need.photos]
    weights = "learnt.safetensors"
    return [
        _line("learn", method, *photos, *tell, *model, "-o", weights),
        _line("generate", prompt, "--with", weights, *model, "-o", "out.png"),
    ]


def _told(need: Need) -> list[str]:
    """What Text2LIVE is told, and the CLIP that judges it."""
    clip = [] if need.toybox else ["--clip", "openai/clip-vit-base-patch32"]
    return ["--prompt", need.prompt or "a golden dog", *clip]


def _line(*words: str) -> str:
    return join(["scumble", *words])


def _notes(method: str, need: Need) -> Iterator[str]:
    learns = method in LEARN
    if need.want in ("subject", "style") and need.images == 0:
        yield "With 3 to 5 photos of it a subject or a style can be learnt: the result is closer."
    if learns and 0 < need.images < 3:
        yield f"{need.images} photos are few: what is learnt clings to them; 3 to 5 are better."
    yield from _time(method, need)
    if method == "instruct":
        yield "It needs an editing model, such as timbrooks/instruct-pix2pix, or toybox-instruct."
    if method == "sdedit" and need.want == "local":
        yield "painted.png is the picture with your paint on it, at the same size, from any paint program."
    if need.video:
        yield "first-frame.png is a mask of what moves, on the clip's first frame; the extra video is needed."
        sheet = "background" if need.want == "whole" else "foreground"
        if _is_painted(need):
            yield f"painted.png is atlas-{sheet}.png, which is made with the atlas, with your paint on it."
        if need.want == "subject":
            yield "None of the six puts a new subject into a video."


def _time(method: str, need: Need) -> Iterator[str]:
    """What should be known of the time that it takes, with what there is."""
    slow = not need.gpu and not need.toybox
    if method in LEARN:
        if slow:
            yield "Without a GPU, learning on a full-size model takes hours; the toybox learns in minutes."
        if need.is_hurried and need.minutes is not None and need.minutes < LONG and not need.toybox:
            yield f"By the papers, learning takes {LONG:g} minutes at least, on a large GPU."
    elif slow and method != "text2live":
        yield "Without a GPU, a full-size model takes minutes for what takes the toybox seconds."
    if (need.video or method == "text2live") and (slow or need.is_hurried):
        if not need.video:
            what = "The layer of each picture is learnt, in up to 1,000 steps"
        elif _is_painted(need):
            what = "The atlas of each clip is fitted first"
        else:
            what = "The layer of each clip is learnt, in up to 3,000 steps, and its atlas before that"
        yield f"{what}: much longer than one sampling takes."
