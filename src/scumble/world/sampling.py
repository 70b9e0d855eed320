"""Random scenes: the distribution that everything in the toybox is trained and measured on.

A scene is a pure function of its seed, its profile and its split. Choices use nothing of `random.Random` but
`random()`, whose sequence Python guarantees from version to version.

One bias is deliberate: snowmen are white in 95 % of the samples, so that debiasing has something to cure.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from scumble.world.scene import (
    ACCESSORIES,
    COLOURLESS_STYLES,
    COLOURS,
    EFFECTS,
    KINDS,
    MATERIALS,
    PLACES,
    RELATIONS,
    SIZES,
    STYLES,
    WEARERS,
    Look,
    Scene,
    Thing,
)
from scumble.world.splits import LOOK_RANGES, Split, is_held_out, is_held_value

__all__ = [
    "PROFILES",
    "SECOND_COLOUR_SHARE",
    "SUPPORTS",
    "WHITE_SNOWMEN",
    "Profile",
    "T",
    "dice",
    "pick",
    "pick_weighted",
    "sample_colour",
    "sample_look",
    "sample_scene",
]

T = TypeVar("T")

WHITE_SNOWMEN = 0.95
"""Share of snowmen that are white: the deliberate bias."""

SUPPORTS = ("cube", "car", "truck", "boat", "mug", "mushroom", "house", "castle")
"""Things that another thing can stand on top of."""

SECOND_COLOUR_SHARE = 0.5
"""Share of the looks with a second colour of their own; the others have the default of their kind."""


def _even(names: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(names, 1.0)


def _lifted(names: Sequence[str], **weights: float) -> dict[str, float]:
    return _even(names) | weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How often each attribute occurs; weights need not sum to 1, and a name left out never occurs."""

    styles: Mapping[str, float] = field(default_factory=lambda: _lifted(STYLES, photo=4.0))
    views: Mapping[str, float] = field(
        default_factory=lambda: {"front": 0.45, "side": 0.25, "back": 0.12, "above": 0.18}
    )
    places: Mapping[str, float] = field(default_factory=lambda: _even(PLACES) | {"green screen": 0.5})
    times: Mapping[str, float] = field(default_factory=lambda: {"day": 0.5, "sunset": 0.25, "night": 0.25})
    materials: Mapping[str, float] = field(default_factory=lambda: _lifted(MATERIALS, matte=4.0))
    sizes: Mapping[str, float] = field(default_factory=lambda: _lifted(tuple(SIZES), medium=3.0))
    two_things: float = 0.35
    """Chance of a second thing."""
    accessory: float = 0.4
    """Chance that a thing which can wear something does; halved for the second thing."""
    effect: float = 0.12
    """Chance of an effect on the first thing in styles with colour; the second has none."""


PROFILES: dict[str, Profile] = {
    "photo": Profile(
        styles={"photo": 1.0},
        views={"front": 0.6, "side": 0.3, "back": 0.04, "above": 0.06},
        materials=_lifted(MATERIALS, matte=7.0),
        two_things=0.0,
        accessory=0.25,
        effect=0.05,
    ),
    "core": Profile(
        styles=_lifted(STYLES, photo=14.0),
        views={"front": 0.6, "side": 0.25, "back": 0.05, "above": 0.1},
        materials=_lifted(MATERIALS, matte=7.0),
        two_things=0.15,
        accessory=0.3,
        effect=0.06,
    ),
    "full": Profile(),
}
"""`photo`: one thing, photo style, front and side mostly. `core`: all that there is, but mostly one thing in
a photo, for a model with little time to learn. `full`: the whole world, evenly.
"""


def dice(seed: int, *purpose: str | int) -> random.Random:
    """A source of chance that depends on the seed and its purpose only (seeded through SHA-512)."""
    return random.Random("|".join(map(str, ("toy world", seed, *purpose))))


def pick(rng: random.Random, choices: Sequence[T]) -> T:
    """One of the choices, all equally likely; uses one `rng.random()`."""
    return choices[int(rng.random() * len(choices))]


def pick_weighted(rng: random.Random, weights: Mapping[str, float]) -> str:
    """One of the names, as likely as its weight; uses one `rng.random()`."""
    names = [name for name, weight in weights.items() if weight > 0.0]
    left = rng.random() * sum(weights[name] for name in names)
    for name in names[:-1]:
        left -= weights[name]
        if left < 0.0:
            return name
    return names[-1]


def sample_scene(seed: int, *, profile: Profile = PROFILES["full"], split: Split = "train") -> Scene:
    """The scene of a seed: `train` never shows a held-out combination, `held_out` always shows one.

    Scenes of the other split are drawn again. So `train` has about the profile's distribution; `held_out` has
    more scenes of two things, each of which may be what holds them out: 44 % where the profile says 35 %.
    """
    attempt = 0
    while True:
        scene = _draw_scene(dice(seed, "scene", attempt), seed, profile)
        if is_held_out(scene) == (split == "held_out"):
            return scene
        attempt += 1


def sample_look(rng: random.Random, colour: str) -> Look:
    """A look for a thing of this main colour, its proportions uniform outside the bands held for subjects."""
    head, stretch, limbs = (_proportion(rng, name) for name in ("head", "stretch", "limbs"))
    other_colours = [name for name in COLOURS if name != colour]
    has_second = rng.random() < SECOND_COLOUR_SHARE
    second = pick(rng, other_colours)
    return Look(head=head, stretch=stretch, limbs=limbs, second_colour=second if has_second else None)


def sample_colour(rng: random.Random, kind: str) -> str:
    """A main colour for a thing of this kind: uniform, but for the snowmen."""
    if kind == "snowman":
        return "white" if rng.random() < WHITE_SNOWMEN else pick(rng, [c for c in COLOURS if c != "white"])
    return pick(rng, tuple(COLOURS))


def _proportion(rng: random.Random, name: str) -> float:
    low, high = LOOK_RANGES[name]
    while True:
        value = low + (high - low) * rng.random()
        if not is_held_value(name, value):
            return value


def _draw_scene(rng: random.Random, seed: int, profile: Profile) -> Scene:
    place = pick_weighted(rng, profile.places)
    time = pick_weighted(rng, profile.times)
    first = _draw_thing(rng, pick(rng, KINDS), profile, accessory=profile.accessory, effect=profile.effect)
    things, relation = (first,), None
    if rng.random() < profile.two_things:
        relation = pick(rng, RELATIONS)
        kinds = SUPPORTS if relation == "on top of" else KINDS
        kind = pick(rng, [name for name in kinds if name != first.kind])
        second = _draw_thing(rng, kind, profile, accessory=profile.accessory / 2, effect=0.0)
        things = (_in_company(first), _in_company(second))
    style = pick_weighted(rng, profile.styles)
    if style in COLOURLESS_STYLES:  # lines show neither glow nor smoke
        things = (replace(things[0], effect=None), *things[1:])
    return Scene(
        things=things,
        relation=relation,
        place=place,
        time="day" if place == "green screen" else time,  # a plain screen has no time of day
        style=style,
        view=pick_weighted(rng, profile.views),
        seed=seed,
    )


def _in_company(thing: Thing) -> Thing:
    """Two things fit into one picture when neither is large."""
    return replace(thing, size="medium") if thing.size == "large" else thing


def _draw_thing(rng: random.Random, kind: str, profile: Profile, *, accessory: float, effect: float) -> Thing:
    colour = sample_colour(rng, kind)
    wears = rng.random() < accessory and kind in WEARERS
    has_effect = rng.random() < effect
    worn, worn_colour = pick(rng, ACCESSORIES), pick(rng, tuple(COLOURS))
    shown_effect = pick(rng, EFFECTS)
    return Thing(
        kind=kind,
        colour=colour,
        material=pick_weighted(rng, profile.materials),
        size=pick_weighted(rng, profile.sizes),
        accessory=worn if wears else None,
        accessory_colour=worn_colour if wears else "red",
        effect=shown_effect if has_effect else None,
        look=sample_look(rng, colour),
    )
