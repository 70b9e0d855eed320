"""Edits in words: an instruction for a scene, and the exact scene it asks for.

The scene after an edit differs from the one before in the named attribute only and shares its seed, so
whatever the edit does not touch is drawn the same, but for a second thing that makes room or a first one
that stands higher; `pairs` renders both and says where they may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from scumble.core.errors import InputError
from scumble.world.phrases import (
    ADDITION_TEXTS,
    EDIT_TEXTS,
    EFFECT_REMOVALS,
    EFFECT_TEXTS,
    MATERIAL_TEXTS,
    PLACE_NAMES,
    PLACE_PHRASES,
    SIZE_TEXTS,
    STYLE_NAMES,
    TIME_NAMES,
    USUAL_ACCESSORY_COLOURS,
    VIEW_NAMES,
)
from scumble.world.sampling import SUPPORTS, dice, pick
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
    TIMES,
    VIEWS,
    WEARERS,
    Scene,
    Thing,
)
from scumble.world.splits import Split, is_held_out
from scumble.world.words import accessory_phrase, caption, describe, with_article

__all__ = [
    "EDIT_KINDS",
    "GLOBAL_KINDS",
    "Edit",
    "changed_labels",
    "every_edit",
    "instruct",
    "instruct_chain",
    "is_local",
    "triple",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """An instruction and the scenes before and after it."""

    kind: str
    """One of `EDIT_KINDS`."""
    text: str
    before: Scene
    after: Scene
    target: int | None
    """Index in `before.things` of the thing that is edited (the first one where one is added); None where the
    picture as a whole is."""


@dataclass(frozen=True, slots=True)
class _Option:
    """One possible edit, with all its wordings."""

    target: int | None
    after: Scene
    texts: tuple[str, ...]


def _with_thing(scene: Scene, index: int, thing: Thing) -> Scene:
    return replace(scene, things=(*scene.things[:index], thing, *scene.things[index + 1 :]))


def _worded(templates: Iterable[str], scene: Scene, target: int | None, **words: str) -> tuple[str, ...]:
    """Every template with every name of the target: its noun, and "it" where only one thing is there."""
    if target is None:
        names = [("it", "its")] if len(scene.things) == 1 else [("them", "their")]
    else:
        noun = f"the {scene.things[target].kind}"
        names = [(noun, f"{noun}'s")] + ([("it", "its")] if len(scene.things) == 1 else [])
    texts = (text.format(it=it, its=its, **words) for text in templates for it, its in names)
    return tuple(dict.fromkeys(texts))  # templates without a name are the same for each


def _colours(scene: Scene) -> Iterator[_Option]:
    if scene.style in COLOURLESS_STYLES:
        return
    for index, thing in enumerate(scene.things):
        for colour in COLOURS:
            if colour not in (thing.colour, thing.look.second_colour):
                after = _with_thing(scene, index, replace(thing, colour=colour))
                yield _Option(index, after, _worded(EDIT_TEXTS["colour"], scene, index, new=colour))


def _kinds(scene: Scene) -> Iterator[_Option]:
    present = [thing.kind for thing in scene.things]
    for index, thing in enumerate(scene.things):
        bears = index == 1 and scene.relation == "on top of"
        for kind in KINDS:
            wears_on = thing.accessory is None or kind in WEARERS
            if kind not in present and wears_on and (not bears or kind in SUPPORTS):
                after = _with_thing(scene, index, replace(thing, kind=kind))
                yield _Option(
                    index, after, _worded(EDIT_TEXTS["kind"], scene, index, a_new=with_article(kind))
                )


def _places(scene: Scene) -> Iterator[_Option]:
    for place in PLACES:
        if place != scene.place and (place != "green screen" or scene.time == "day"):
            phrase, name = PLACE_PHRASES[place][0], PLACE_NAMES[place]
            texts = _worded(EDIT_TEXTS["place"], scene, None, new=phrase, new_place=name)
            yield _Option(None, replace(scene, place=place), texts)


def _times(scene: Scene) -> Iterator[_Option]:
    if scene.place == "green screen":
        return
    for time in TIMES:
        if time != scene.time:
            texts = [
                t for name in TIME_NAMES[time] for t in _worded(EDIT_TEXTS["time"], scene, None, new=name)
            ]
            yield _Option(None, replace(scene, time=time), tuple(texts))


def _styles(scene: Scene) -> Iterator[_Option]:
    if scene.style in COLOURLESS_STYLES:
        return  # the colours to paint with cannot be seen
    for style in STYLES:
        if style != scene.style:
            texts = _worded(EDIT_TEXTS["style"], scene, None, new=STYLE_NAMES[style])
            yield _Option(None, replace(scene, style=style), texts)


def _materials(scene: Scene) -> Iterator[_Option]:
    for index, thing in enumerate(scene.things):
        for material in MATERIALS:
            if material != thing.material:
                after = _with_thing(scene, index, replace(thing, material=material))
                yield _Option(index, after, _worded(MATERIAL_TEXTS[material], scene, index))


def _added_accessories(scene: Scene) -> Iterator[_Option]:
    for index, thing in enumerate(scene.things):
        if thing.kind not in WEARERS or thing.accessory is not None:
            continue
        # "add a crown" says who only where one thing is there
        templates = EDIT_TEXTS["add accessory"][0 if len(scene.things) == 1 else 1 :]
        for accessory in ACCESSORIES:
            colours = [None] if scene.style in COLOURLESS_STYLES else [None, None, *COLOURS]
            drawn = pick(dice(scene.seed, "accessory", index, accessory), colours)
            worn = replace(
                thing, accessory=accessory, accessory_colour=drawn or USUAL_ACCESSORY_COLOURS[accessory]
            )
            texts = _worded(templates, scene, index, new=accessory_phrase(accessory, drawn))
            yield _Option(index, _with_thing(scene, index, worn), texts)


def _accessory_names(accessory: str) -> tuple[str, ...]:
    return (accessory, "hat") if accessory == "party hat" else (accessory,)


def _wearers(scene: Scene) -> Iterator[tuple[int, Thing, str]]:
    """Things with an accessory that no other thing of the scene has too."""
    worn = [thing.accessory for thing in scene.things]
    for index, thing in enumerate(scene.things):
        if thing.accessory is not None and worn.count(thing.accessory) == 1:
            yield index, thing, thing.accessory


def _removed_accessories(scene: Scene) -> Iterator[_Option]:
    for index, thing, worn in _wearers(scene):
        templates = EDIT_TEXTS["remove accessory"]
        texts = [t for old in _accessory_names(worn) for t in _worded(templates, scene, index, old=old)]
        yield _Option(index, _with_thing(scene, index, replace(thing, accessory=None)), tuple(texts))


def _swapped_accessories(scene: Scene) -> Iterator[_Option]:
    for index, thing, worn in _wearers(scene):
        for accessory in ACCESSORIES:
            if accessory == worn:
                continue
            after = _with_thing(scene, index, replace(thing, accessory=accessory))
            words = {"new": accessory_phrase(accessory)}
            templates = EDIT_TEXTS["swap accessory"]
            texts = [
                t
                for old in _accessory_names(worn)
                for t in _worded(templates, scene, index, old=old, **words)
            ]
            yield _Option(index, after, tuple(texts))


def _added_things(scene: Scene) -> Iterator[_Option]:
    """Each kind in each relation, in a colour of the scene's own choice, beside a thing that leaves room."""
    first, *others = scene.things
    if others or first.size == "large":  # it would not fit, see `sampling`
        return
    for relation in RELATIONS:
        kinds = SUPPORTS if relation == "on top of" else KINDS
        for kind in kinds:
            if kind == first.kind:
                continue
            colour = pick(dice(scene.seed, "added", relation, kind), tuple(COLOURS))
            noun = kind if scene.style in COLOURLESS_STYLES else f"{colour} {kind}"
            things = (first, Thing(kind=kind, colour=colour))
            texts = _worded(ADDITION_TEXTS[relation], scene, 0, new=with_article(noun))
            yield _Option(0, replace(scene, things=things, relation=relation), texts)


def _removed_things(scene: Scene) -> Iterator[_Option]:
    if len(scene.things) > 1:
        after = replace(scene, things=scene.things[:1], relation=None)
        yield _Option(1, after, _worded(EDIT_TEXTS["remove thing"], scene, 1, old=scene.things[1].kind))


def _sizes(scene: Scene) -> Iterator[_Option]:
    names = [name for name in SIZES if name != "large" or len(scene.things) == 1]  # as in samples
    for index, thing in enumerate(scene.things):
        if thing.size not in names:
            continue
        at = names.index(thing.size)
        for step, direction in ((1, "bigger"), (-1, "smaller")):
            if 0 <= at + step < len(names):
                after = _with_thing(scene, index, replace(thing, size=names[at + step]))
                yield _Option(index, after, _worded(SIZE_TEXTS[direction], scene, index))


def _added_effects(scene: Scene) -> Iterator[_Option]:
    if scene.things[0].effect is None and scene.style not in COLOURLESS_STYLES:  # as in samples
        for effect in EFFECTS:
            after = _with_thing(scene, 0, replace(scene.things[0], effect=effect))
            yield _Option(0, after, _worded(EFFECT_TEXTS[effect], scene, 0))


def _removed_effects(scene: Scene) -> Iterator[_Option]:
    first = scene.things[0]
    effect = first.effect
    if effect is not None and scene.style not in COLOURLESS_STYLES:
        after = _with_thing(scene, 0, replace(first, effect=None))
        yield _Option(0, after, _worded(EFFECT_REMOVALS[effect], scene, 0))


def _views(scene: Scene) -> Iterator[_Option]:
    for view in VIEWS:
        if view != scene.view:
            texts = _worded(EDIT_TEXTS["view"], scene, None, new=VIEW_NAMES[view])
            yield _Option(None, replace(scene, view=view), texts)


_OPTIONS: dict[str, Callable[[Scene], Iterator[_Option]]] = {
    "colour": _colours,
    "kind": _kinds,
    "place": _places,
    "time": _times,
    "style": _styles,
    "material": _materials,
    "add accessory": _added_accessories,
    "remove accessory": _removed_accessories,
    "swap accessory": _swapped_accessories,
    "add thing": _added_things,
    "remove thing": _removed_things,
    "size": _sizes,
    "add effect": _added_effects,
    "remove effect": _removed_effects,
    "view": _views,
}

EDIT_KINDS = tuple(_OPTIONS)
"""The kinds of instruction."""

GLOBAL_KINDS = frozenset({"place", "time", "style", "view"})
"""Kinds that may change every pixel; the others leave most of the picture as it is."""


def is_local(edit: Edit) -> bool:
    """Whether the edit may change only a region: its thing and what that casts on its surroundings."""
    return edit.kind not in GLOBAL_KINDS


def changed_labels(edit: Edit) -> dict[str, str | int | None]:
    """The labels (`words.describe`) of the after-scene that the before-scene does not have."""
    before = describe(edit.before)
    return {name: value for name, value in describe(edit.after).items() if value != before[name]}


def triple(edit: Edit, seed: int | None = None) -> tuple[str, str, str]:
    """Caption, instruction and edited caption, both captions complete and in the same wording.

    The text half of the data of InstructPix2Pix (Brooks et al. 2022, section 3.1).
    """
    before, after = (caption(s, seed, complete=True, spelled=0.0) for s in (edit.before, edit.after))
    return before, edit.text, after


def every_edit(
    scene: Scene, *, kinds: Sequence[str] = EDIT_KINDS, split: Split | None = None
) -> Iterator[Edit]:
    """All edits of the scene in all their wordings; with a split, only those whose after-scene is in it."""
    for kind in kinds:
        for option in _options(scene, kind, split):
            for text in option.texts:
                yield Edit(kind=kind, text=text, before=scene, after=option.after, target=option.target)


def instruct(
    scene: Scene, seed: int, *, kinds: Sequence[str] = EDIT_KINDS, split: Split | None = "train"
) -> Edit:
    """An edit of the scene: a pure function of scene and seed, each of the possible `kinds` equally likely.

    With `split="train"` (the default, so that nothing held out is trained on by oversight) the after-scene
    shows no held-out combination, with "held_out" it shows one, and with None it may be any. Raises
    InputError where none of the kinds can be done to the scene.
    """
    rng = dice(seed, "edit")
    for kind in sorted(kinds, key=lambda _: rng.random()):  # the first possible one of a random order
        options = _options(scene, kind, split)
        if options:
            option = pick(rng, options)
            text = pick(rng, option.texts)
            return Edit(kind=kind, text=text, before=scene, after=option.after, target=option.target)
    raise InputError(
        f"None of these edits can be done to the scene: {', '.join(kinds)}.",
        f"Choose among {', '.join(EDIT_KINDS)}.",
    )


def instruct_chain(scene: Scene, seed: int, length: int, *, split: Split | None = None) -> list[Edit]:
    """Edits one after the other, each of the last one's after-scene and each of a different kind."""
    edits: list[Edit] = []
    kinds = list(EDIT_KINDS)
    rng = dice(seed, "chain")
    for _ in range(length):
        before = edits[-1].after if edits else scene
        edits.append(instruct(before, int(rng.random() * 2**53), kinds=kinds, split=split))
        kinds.remove(edits[-1].kind)
    return edits


def _options(scene: Scene, kind: str, split: Split | None) -> list[_Option]:
    options = _OPTIONS[kind](scene)
    return [o for o in options if split is None or is_held_out(o.after) == (split == "held_out")]
