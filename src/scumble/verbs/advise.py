"""Which of the six methods, for what a person has and wants: the method, the command, and the reasons,
measured where there are figures, and published, with their source, where there are none yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from scumble.core.errors import ConfigError
from scumble.verbs.advise_commands import commands, is_painted
from scumble.verbs.advise_need import LEARN, LONG, WISHES, Need
from scumble.verbs.known import Known, claim_figures, compared, methods

__all__ = ["WISHES", "Advice", "Need", "Other", "Reason", "advise"]


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
    if first in LEARN and not (asked.word.strip() and asked.noun.strip()):
        raise ConfigError("What is learnt needs a word and a noun.", "Such as --word '<rex>' --noun dog.")
    known = methods()[first]
    reasons = [Reason(why, "how it works"), *_evidence(first, known)]
    others = [Other(name, methods()[name].title, reason) for name, reason in rest]
    return Advice(first, known.title, commands(first, asked), reasons, others, list(_notes(first, asked)))


Ranked = Iterator[tuple[str, str]]


def _subject(need: Need) -> Ranked:
    if need.is_film:
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
        names["custom-diffusion"] = "It takes the fewest steps of the three that learn, by the papers."
    else:
        order = ["dreambooth", "custom-diffusion", "textual-inversion"]
    for name in order:
        yield name, names[name] if name == order[0] else slow.get(name, names[name])
    if need.is_hurried:
        yield "sdedit", "It learns nothing: paste the subject into a picture, and make it natural."


def _style(need: Need) -> Ranked:
    if need.is_film:
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
    if need.is_film:
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
    if need.is_film:
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
    if need.is_film:
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
        yield Reason(f"Quality: {known.quality}.", "published")


def _notes(method: str, need: Need) -> Iterator[str]:
    """What should be known or done first."""
    if need.want in ("subject", "style") and need.images == 0 and not need.is_film:
        yield "With 3 to 5 photos of it (--images 5) a subject or a style can be learnt, which is closer."
    if method in LEARN:
        yield from _learner_notes(need)
    elif method == "instruct" and need.prompt and not need.instruction:
        yield "It is told a command and no caption: say it as in 'make it night' (--instruction)."
    elif method != "instruct" and need.instruction and not need.prompt:
        yield "It is told a caption of the result and no command (--prompt)."
    yield from _time(method, need)
    yield from _names(method, need)
    if need.is_film and need.want == "subject":
        yield "None of the six puts a new subject into a video."


def _learner_notes(need: Need) -> Iterator[str]:
    if 0 < need.images < 3:
        few = "One photo is" if need.images == 1 else "Two photos are"
        yield f"{few} few: what is learnt clings to them; 3 to 5 are better."
    if need.want == "subject" and need.subjects > 1:
        yield "Each subject has a folder and a word of its own, as the command shows."
    elif need.want == "subject" and need.prompt and need.word not in need.prompt:
        yield f"The prompt does not speak of {need.word}: put the word where the subject is to be."


def _names(method: str, need: Need) -> Iterator[str]:
    """What the names in the commands stand for."""
    if method == "instruct":
        yield "EDITING_MODEL is such as timbrooks/instruct-pix2pix; the toybox has its own (--toybox)."
    elif method != "text2live" and not need.toybox:
        yield "MODEL is a folder, a .safetensors file or a hub id; the toybox needs none (--toybox)."
    if need.is_film:
        yield "first-frame.png is a mask of what moves, on the clip's first frame; the extra video is needed."
        sheet = "background" if need.want == "whole" else "foreground"
        if is_painted(need):
            yield f"painted.png is atlas-{sheet}.png, which is made with the atlas, with your paint on it."
    elif method == "sdedit" and need.want == "local":
        yield "painted.png is the picture with your paint on it, at the same size, from any paint program."
    elif method == "sdedit" and need.file == "painted.png":
        yield "painted.png is the paint that it starts from: all that the picture shall have, roughly."


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
    if (need.is_film or method == "text2live") and (slow or need.is_hurried):
        if not need.is_film:
            what = "The layer of each picture is learnt, in up to 1,000 steps"
        elif is_painted(need):
            what = "The atlas of each clip is fitted first"
        else:
            what = "The layer of each clip is learnt, in up to 3,000 steps, and its atlas before that"
        yield f"{what}: much longer than one sampling takes."
