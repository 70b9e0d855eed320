"""Subjects: particular things with a private look, to be learnt from five pictures and shown elsewhere.

Every subject takes the numbers of its look from `splits.HELD_VALUES`, which training samples never come near.
Half of the subjects also have a mark on the body, which no training sample has at all: a frozen model may be
able to express the first half, the second half is truly new to it. No picture and no prompt needs a
combination of kind, colour, place and style that training lacks, so a failure is due to the subject.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

from scumble.world.phrases import PLACE_PHRASES, STYLE_PREFIXES, TIME_PHRASES
from scumble.world.sampling import dice, pick, sample_look
from scumble.world.scene import (
    ACCESSORIES,
    COLOURS,
    EFFECTS,
    PLACES,
    STYLES,
    WEARERS,
    Look,
    Scene,
    Thing,
)
from scumble.world.splits import EVALUATION_SEEDS, is_combination_held_out
from scumble.world.words import accessory_phrase, with_article

__all__ = [
    "MARKS",
    "PICTURES",
    "SUBJECTS",
    "TUNING_SEEDS",
    "TUNING_SUBJECTS",
    "Subject",
    "SubjectPrompt",
    "lookalike",
]

MARKS = ("star", "heart", "ring", "zigzag")
"""What may be painted on a subject's body."""

TUNING_SEEDS = 900_000
"""Seeds of the pictures of `TUNING_SUBJECTS` start here."""

PICTURES = 5
"""Pictures that a subject is learnt from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something to be learnt: a thing that looks like no other."""

    name: str
    """Unique; fit for a folder's name."""
    thing: Thing
    first_seed: int
    """Seed of its first picture; pictures and prompts use the 100 seeds from here."""

    @property
    def noun(self) -> str:
        """The class noun: what it is a kind of."""
        return self.thing.kind

    @property
    def is_marked(self) -> bool:
        """Whether it has a mark, which makes it new to any model of this world."""
        return self.thing.look.mark is not None

    @property
    def scenes(self) -> tuple[Scene, ...]:
        """The five pictures that it is learnt from: photos in as many places, mostly from the front."""
        return _scenes(self)

    @property
    def prompts(self) -> tuple[SubjectPrompt, ...]:
        """Twenty prompts: places and times, accessories (effects for what wears none), styles, properties."""
        return _prompts(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectPrompt:
    """A prompt for a subject with what can be checked of its picture."""

    kind: str
    """`recontextualisation`, `accessory`, `effect`, `style` or `property`."""
    text: str
    """With `{}` for the noun, or a learnt word and the noun, without article: "a photo of a {} ..."."""
    expected: Mapping[str, str]
    """The labels (`words.describe`) that the prompt itself asks for."""
    scene: Scene
    """A scene that fulfils the prompt with this very subject."""


_Row = tuple[str, str, tuple[float, float, float], str, str]
"""Kind; main and second colour; head, stretch and limbs; material; mark and its colour, or nothing."""


def _subject(index: int, first_seed: int, row: _Row) -> Subject:
    kind, colours, (head, stretch, limbs), material, painted = row
    colour, second = colours.split()
    mark, mark_colour = painted.split() if painted else (None, None)
    look = Look(
        head=head,
        stretch=stretch,
        limbs=limbs,
        second_colour=second,
        mark=mark,
        mark_colour=mark_colour,
    )
    return Subject(
        name="-".join(filter(None, (colour, kind, mark))),
        thing=Thing(kind=kind, colour=colour, material=material, look=look),
        first_seed=first_seed + 100 * index,
    )


_BENCHMARK: tuple[_Row, ...] = (
    ("cat", "teal white", (1.19, 0.85, 1.28), "striped", ""),
    ("dog", "brown yellow", (0.84, 1.18, 1.28), "matte", ""),
    ("duck", "blue pink", (1.19, 1.18, 0.82), "matte", ""),
    ("bear", "purple orange", (0.84, 0.85, 1.28), "dotted", ""),
    ("robot", "red yellow", (1.19, 0.85, 0.82), "matte", ""),
    ("car", "teal orange", (0.84, 1.18, 1.28), "matte", ""),
    ("house", "yellow blue", (1.19, 0.85, 1.12), "checkered", ""),
    ("mug", "pink purple", (1.06, 1.18, 0.82), "striped", ""),
    ("rabbit", "pink purple", (0.84, 0.96, 1.28), "matte", "star yellow"),
    ("cat", "grey red", (1.19, 1.07, 0.82), "matte", "heart white"),
    ("dog", "teal white", (0.95, 0.85, 1.12), "matte", "zigzag red"),
    ("fish", "yellow blue", (1.06, 0.85, 1.28), "matte", "ring black"),
    ("bear", "green yellow", (1.19, 1.18, 0.82), "matte", "heart pink"),
    ("truck", "white red", (0.95, 1.07, 1.28), "matte", "star blue"),
    ("castle", "orange grey", (0.84, 0.96, 1.12), "matte", "zigzag purple"),
    ("rocket", "blue yellow", (1.06, 0.85, 0.95), "matte", "ring white"),
)
_TUNING: tuple[_Row, ...] = (
    ("rabbit", "white teal", (1.19, 1.18, 0.82), "dotted", ""),
    ("fish", "red white", (0.84, 1.18, 1.28), "striped", ""),
    ("boat", "green white", (1.06, 0.85, 0.82), "matte", ""),
    ("lamp", "purple yellow", (0.84, 1.07, 1.12), "matte", ""),
    ("duck", "yellow green", (0.95, 0.85, 1.28), "matte", "heart red"),
    ("robot", "blue orange", (0.84, 1.18, 1.12), "matte", "star yellow"),
    ("car", "pink white", (1.06, 0.96, 0.82), "matte", "zigzag black"),
    ("mug", "grey blue", (0.95, 1.18, 1.28), "matte", "ring orange"),
)

SUBJECTS = tuple(_subject(i, EVALUATION_SEEDS, row) for i, row in enumerate(_BENCHMARK))
"""The benchmark: 8 subjects without a mark, then 8 with one."""

TUNING_SUBJECTS = tuple(_subject(i, TUNING_SEEDS, row) for i, row in enumerate(_TUNING))
"""What presets are tuned on: 4 subjects without a mark, then 4 with one."""


def _scenes(subject: Subject) -> tuple[Scene, ...]:
    settings = zip(
        ("front", "front", "side", "above", "front"),
        ("day", "day", "day", "sunset", "night"),
        _places(subject, "pictures"),
        strict=False,
    )
    return tuple(
        Scene(things=(subject.thing,), place=place, time=time, view=view, seed=subject.first_seed + i)
        for i, (view, time, place) in enumerate(settings)
    )


def _prompts(subject: Subject) -> tuple[SubjectPrompt, ...]:
    rng = dice(subject.first_seed, "prompts")
    worn = _accessories(rng) if subject.noun in WEARERS else _effects(rng)
    wishes = [*_contexts(), *worn, *_styles(rng), *_properties(subject, rng)]
    places = _places(subject, "prompts")
    return tuple(_fulfil(subject, wish, next(places), index) for index, wish in enumerate(wishes))


def lookalike(subject: Subject, seed: int) -> Thing:
    """Another thing of the subject's kind, colour and material, with a look as training samples have."""
    look = sample_look(dice(seed, "lookalike", subject.name), subject.thing.colour)
    return replace(subject.thing, look=look)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What a prompt wants: the fields of the scene or of the thing that it sets."""

    kind: str
    adjective: str = ""
    worn: str | None = None
    time: str | None = None
    style: str = "photo"
    says_place: bool = True
    colour: str | None = None
    material: str | None = None
    effect: str | None = None


def _contexts() -> list[_Wish]:
    times = (None, None, None, "sunset", "night", "day", "sunset", "night")
    return [_Wish(kind="recontextualisation", time=time) for time in times]


def _accessories(rng: random.Random) -> list[_Wish]:
    return [_Wish(kind="accessory", worn=accessory) for accessory in _some(rng, ACCESSORIES, 4)]


def _effects(rng: random.Random) -> list[_Wish]:
    effects = (*EFFECTS, pick(rng, EFFECTS))
    return [_Wish(kind="effect", adjective=effect, effect=effect) for effect in effects]


def _styles(rng: random.Random) -> list[_Wish]:
    styles = _some(rng, [style for style in STYLES if style != "photo"], 4)
    return [_Wish(kind="style", style=style, says_place=i % 2 == 0) for i, style in enumerate(styles)]


def _properties(subject: Subject, rng: random.Random) -> list[_Wish]:
    thing = subject.thing
    taken = (thing.colour, thing.look.second_colour, thing.look.mark_colour)
    colours = _some(rng, [name for name in COLOURS if name not in taken], 2)
    materials = _some(rng, [name for name in ("shiny", "metal", "wooden") if name != thing.material], 2)
    return [
        *(_Wish(kind="property", adjective=colour, colour=colour) for colour in colours),
        *(_Wish(kind="property", adjective=material, material=material) for material in materials),
    ]


def _fulfil(subject: Subject, wish: _Wish, place: str, index: int) -> SubjectPrompt:
    """The prompt of a wish and a scene that grants it, in `place` or, where training lacks that, another."""
    thing = replace(
        subject.thing,
        colour=wish.colour or subject.thing.colour,
        material=wish.material or subject.thing.material,
        effect=wish.effect,
        accessory=wish.worn,
    )
    start = PLACES.index(place)
    possible = [p for p in (*PLACES[start:], *PLACES[:start]) if p != "green screen"]
    place = next(p for p in possible if not is_combination_held_out(thing.kind, thing.colour, p, wish.style))
    noun = with_article(wish.adjective) + " {}" if wish.adjective else "a {}"
    words = [STYLE_PREFIXES[wish.style][0], noun]
    expected = {"style": wish.style}
    asked = {
        "accessory": wish.worn,
        "time": wish.time,
        "colour": wish.colour,
        "material": wish.material,
        "effect": wish.effect,
    }
    expected |= {name: value for name, value in asked.items() if value is not None}
    if wish.worn:
        words.append(f"wearing {accessory_phrase(wish.worn)}")
    if wish.says_place:
        words.append(PLACE_PHRASES[place][0])
        expected["place"] = place
    if wish.time:
        words.append(TIME_PHRASES[wish.time][0])
    scene = Scene(
        things=(thing,),
        place=place,
        time=wish.time or "day",
        style=wish.style,
        seed=subject.first_seed + PICTURES + index,
    )
    return SubjectPrompt(kind=wish.kind, text=" ".join(words), expected=expected, scene=scene)


def _places(subject: Subject, purpose: str) -> Iterator[str]:
    """Places where training shows photos of its like, in an order of the subject's own, over and over."""
    thing = subject.thing
    names = [name for name in PLACES if name != "green screen"]
    shuffled = _some(dice(subject.first_seed, "places", purpose), names, len(names))
    return cycle(p for p in shuffled if not is_combination_held_out(thing.kind, thing.colour, p, "photo"))


def _some(rng: random.Random, names: Sequence[str], count: int) -> list[str]:
    """`count` different names in random order."""
    return sorted(names, key=lambda _: rng.random())[:count]
