"""Refuses scenes that speak of what the world does not have, naming the nearest thing that it has."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from scumble.core.errors import InputError
from scumble.world.marks import MARK_SHAPES
from scumble.world.scene import (
    ACCESSORIES,
    COLOURS,
    EFFECTS,
    KINDS,
    MATERIALS,
    PLACES,
    RELATIONS,
    SIZES,
    STYLES,
    TIMES,
    VIEWS,
    WEARERS,
    Scene,
    Thing,
)

__all__ = ["check_name", "check_scene"]


def check_name(what: str, name: str, known: Collection[str]) -> None:
    """Raises InputError with the nearest known name where `name` is not among `known`."""
    if name not in known:
        nearest = get_close_matches(name, known, n=1, cutoff=0.0)
        raise InputError(f"There is no {what} {name!r} in the toy world.", f"The nearest is {nearest[0]!r}.")


def check_scene(scene: Scene) -> None:
    """Raises InputError where a scene names what there is not, or joins what does not go together."""
    for what, name, known in (
        ("place", scene.place, PLACES),
        ("time", scene.time, TIMES),
        ("style", scene.style, STYLES),
        ("view", scene.view, VIEWS),
    ):
        check_name(what, name, known)
    if not 1 <= len(scene.things) <= 2:
        raise InputError(f"A scene holds one or two things, not {len(scene.things)}.")
    if (scene.relation is None) != (len(scene.things) == 1):
        raise InputError(
            "A scene has a relation if and only if it has two things.", f"Relations: {', '.join(RELATIONS)}."
        )
    if scene.relation is not None:
        check_name("relation", scene.relation, RELATIONS)
    for thing in scene.things:
        _check_thing(thing)


def _check_thing(thing: Thing) -> None:
    look = thing.look
    names: list[tuple[str, str | None, Collection[str]]] = [
        ("thing", thing.kind, KINDS),
        ("colour", thing.colour, COLOURS),
        ("material", thing.material, MATERIALS),
        ("size", thing.size, SIZES),
        ("accessory", thing.accessory, ACCESSORIES),
        ("colour", thing.accessory_colour, COLOURS),
        ("effect", thing.effect, EFFECTS),
        ("colour", look.second_colour, COLOURS),
        ("mark", look.mark, MARK_SHAPES),
        ("colour", look.mark_colour, COLOURS),
    ]
    for what, name, known in names:
        if name is not None:
            check_name(what, name, known)
    if thing.accessory is not None and thing.kind not in WEARERS:
        raise InputError(
            f"A {thing.kind} wears no {thing.accessory}.", f"These do: {', '.join(sorted(WEARERS))}."
        )
