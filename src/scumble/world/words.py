"""What a scene is called: captions in many wordings, labels for the judge, hard negatives for CLIP.

`caption(scene)` is the canonical caption, which says everything the judge can check; `caption(scene, seed)`
is one of many wordings, of varying completeness. What is not said is what one expects: medium size, matte,
seen from the front. Colours are left out in styles that have none.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cache

from scumble.world import phrases as phrasebook
from scumble.world.phrases import (
    EFFECT_PHRASES,
    MATERIAL_PHRASES,
    PLACE_PHRASES,
    PLURALS,
    RELATION_PHRASES,
    SPELLINGS,
    STYLE_NAMES,
    STYLE_PREFIXES,
    TIME_PHRASES,
    VIEW_PHRASES,
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
    WEARERS,
    Scene,
    Thing,
)
from scumble.world.splits import Split, is_held_out

__all__ = [
    "SPELLED_SHARE",
    "accessory_phrase",
    "caption",
    "describe",
    "noun_phrase",
    "spelled_word",
    "swapped",
    "vocabulary",
    "with_article",
]

SPELLED_SHARE = 0.05
"""Share of the captions with a meaningless spelled word before the noun, so that rare tokens are trained."""

_CONSONANTS = "bcdfghjklmnpqrstvwxyz"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wording:
    """One way to say a scene. `drop_*` leave something out where low; the others choose among phrases.

    All fields are numbers in [0, 1], drawn in one go, so that two scenes told with one seed differ in words
    only where the scenes differ. The defaults are the canonical wording.
    """

    drop_all: float = 1.0
    drop_style: float = 1.0
    drop_place: float = 1.0
    drop_time: float = 1.0
    drop_view: float = 1.0
    drop_size: float = 1.0
    drop_material: float = 1.0
    drop_effect: float = 1.0
    drop_colour: float = 1.0
    drop_accessory: float = 1.0
    drop_second: float = 1.0
    drop_accessory_colour: float = 0.0
    drop_plain: float = 0.0
    style: float = 0.0
    style_form: float = 0.0
    place: float = 0.0
    time: float = 0.0
    view: float = 0.0
    relation: float = 0.0
    article: float = 0.0
    material: float = 0.0
    effect: float = 0.0
    wearing: float = 0.0
    spelling: float = 0.0
    order: float = 0.0

    @classmethod
    def draw(cls, seed: int) -> _Wording:
        rng = dice(seed, "wording")
        return cls(**{field.name: rng.random() for field in fields(cls)})

    def complete(self) -> _Wording:
        """The same wording with nothing left out that is not plain."""
        kept = ("drop_plain", "drop_accessory_colour")
        drops = (f.name for f in fields(self) if f.name.startswith("drop_") and f.name not in kept)
        return replace(self, **dict.fromkeys(drops, 1.0))


def caption(
    scene: Scene, seed: int | None = None, *, complete: bool = False, spelled: float = SPELLED_SHARE
) -> str:
    """A caption of the scene: the canonical one without a seed, otherwise the seed's wording.

    `complete` keeps a wording from leaving anything out (colours in colourless styles aside). `spelled` is
    the chance of a meaningless word before the first noun ("a red zwx cat"); the canonical caption has none.
    """
    if seed is None:
        return _compose(scene, _Wording(), None)
    wording = _Wording.draw(seed)
    if complete:
        wording = wording.complete()
    has_word = dice(seed, "spelled").random() < spelled
    return _compose(scene, wording, spelled_word(seed) if has_word else None)


def spelled_word(seed: int) -> str:
    """A meaningless word of three or four letters, a consonant first, that is no word of this world."""
    rng = dice(seed, "letters")
    known = set(vocabulary())
    while True:
        length = 3 + (rng.random() < 0.5)
        word = pick(rng, _CONSONANTS) + "".join(pick(rng, _LETTERS) for _ in range(length - 1))
        if word not in known:
            return word


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word that captions and instructions are made of, sorted; the spelled ones aside."""
    phrases = [phrase for table in phrasebook.TABLES for choices in table.values() for phrase in choices]
    phrases += [*STYLE_NAMES.values(), *MATERIAL_PHRASES.values(), *EFFECT_PHRASES.values()]
    phrases += [*COLOURS, *SPELLINGS.values(), *KINDS, *PLURALS.values(), *ACCESSORIES, *SIZES, *MATERIALS]
    phrases += [*EFFECTS, "an", "my", "one", "wearing", "with", "a picture of", "in the style of", "as"]
    phrases += ["it", "its", "them", "their"]
    words = {word for phrase in phrases for word in re.sub(r"\{\w+\}", " ", phrase).split()}
    return tuple(sorted(words))


def with_article(phrase: str) -> str:
    """The phrase after "a" or "an", by its first letter; every word of this world that begins with a vowel
    is spoken with one.
    """
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def accessory_phrase(accessory: str, colour: str | None = None) -> str:
    """The accessory with its article, if it takes one: "a red party hat", "sunglasses"."""
    named = accessory if colour is None else f"{colour} {accessory}"
    return named if accessory == "sunglasses" else with_article(named)


def noun_phrase(thing: Thing, *, colourless: bool = False) -> str:
    """The canonical words for a thing, without article, place or accessory: "small shiny blue car"."""
    adjectives, after = _adjectives(thing, _Wording(), colourless)
    return " ".join([*adjectives, thing.kind, *after])


def describe(scene: Scene) -> dict[str, str | int | None]:
    """Labels for the judge, of the first thing and of the picture.

    `kind`, `colour` (None in styles without colour), `material`, `size`, `accessory`, `effect` of the first
    thing; `second_kind` and `second_colour` of the other one or None; `relation`, `place`, `time` (None on
    the green screen, which looks the same at all times), `style`, `view`, and `count`.
    """
    first = scene.things[0]
    second = scene.things[1] if len(scene.things) > 1 else None
    colourless = scene.style in COLOURLESS_STYLES
    return {
        "kind": first.kind,
        "colour": None if colourless else first.colour,
        "material": first.material,
        "size": first.size,
        "accessory": first.accessory,
        "effect": first.effect,
        "second_kind": second.kind if second else None,
        "second_colour": second.colour if second and not colourless else None,
        "relation": scene.relation,
        "place": scene.place,
        "time": None if scene.place == "green screen" else scene.time,
        "style": scene.style,
        "view": scene.view,
        "count": len(scene.things),
    }


def swapped(scene: Scene, seed: int, *, split: Split | None = None) -> Scene:
    """A scene that is told in nearly the same words and looks different: a hard negative for CLIP.

    With two things, their colours or places are exchanged or their relation is changed; with one, its colour,
    its kind, its material, what it wears, its effect, the place, the time or the style is another one. Both
    the canonical captions of the two scenes and `caption(..., seed)` differ: where the seed's wording says
    too little for that, the kind is changed. With a split, the other scene is in it: who learns from these
    should not hear of a combination that training never shows only where it is wrong.
    """
    rng = dice(seed, "swap")
    choices = _swaps_of_two(scene, seed) if len(scene.things) > 1 else _swaps_of_one(scene, seed)
    told = caption(scene, seed)
    for other in sorted(choices, key=lambda _: rng.random()):
        if caption(other, seed) != told and _is_in(other, split):
            return other
    return _with_other_kind(scene, seed, split)


def _is_in(scene: Scene, split: Split | None) -> bool:
    return split is None or is_held_out(scene) == (split == "held_out")


def _swaps_of_two(scene: Scene, seed: int) -> list[Scene]:
    first, second = scene.things
    relations = [name for name in RELATIONS if name != scene.relation]
    if second.kind not in SUPPORTS:
        relations = [name for name in relations if name != "on top of"]
    choices = [replace(scene, relation=pick(dice(seed, "relation"), relations))]
    if scene.relation != "next to":  # being next to something is mutual
        choices.append(replace(scene, things=(second, first)))
    if scene.style not in COLOURLESS_STYLES and first.colour != second.colour:
        exchanged = (replace(first, colour=second.colour), replace(second, colour=first.colour))
        choices += 2 * [replace(scene, things=exchanged)]
    return choices


def _with_other_kind(scene: Scene, seed: int, split: Split | None = None) -> Scene:
    first, *others = scene.things
    taken = [thing.kind for thing in scene.things]
    kinds = [k for k in KINDS if k not in taken and (first.accessory is None or k in WEARERS)]
    possible = [replace(scene, things=(replace(first, kind=kind), *others)) for kind in kinds]
    return pick(dice(seed, "kind"), [other for other in possible if _is_in(other, split)] or possible)


def _swaps_of_one(scene: Scene, seed: int) -> list[Scene]:
    rng = dice(seed, "other")
    (thing,) = scene.things
    other_colour = replace(thing, colour=pick(rng, [name for name in COLOURS if name != thing.colour]))
    other_place = pick(rng, [name for name in PLACES if name not in (scene.place, "green screen")])
    other_time = pick(rng, [name for name in TIMES if name != scene.time])
    other_style = pick(rng, [name for name in STYLES if name != scene.style])
    choices = [
        _with_other_kind(scene, seed),
        replace(scene, place=other_place),
        replace(scene, style=other_style),
    ]
    if scene.place != "green screen":
        choices.append(replace(scene, time=other_time))
    if scene.style not in COLOURLESS_STYLES:
        choices += 2 * [replace(scene, things=(other_colour,))]
    return choices + [replace(scene, things=(other,)) for other in _treated_otherwise(scene, rng)]


def _treated_otherwise(scene: Scene, rng: random.Random) -> list[Thing]:
    """The one thing of another material, and with other things on and another effect where it can."""
    (thing,) = scene.things

    def other(names: Iterable[str], now: str | None) -> str | None:
        return pick(rng, [name for name in (*names, None) if name != now])

    found = [replace(thing, material=pick(rng, [name for name in MATERIALS if name != thing.material]))]
    if thing.kind in WEARERS:
        found.append(replace(thing, accessory=other(ACCESSORIES, thing.accessory)))
    if scene.style not in COLOURLESS_STYLES:
        found.append(replace(thing, effect=other(EFFECTS, thing.effect)))
    return found


def _choose(choices: tuple[str, ...], chance: float) -> str:
    return choices[min(int(chance * len(choices)), len(choices) - 1)]


def _compose(scene: Scene, w: _Wording, word: str | None) -> str:
    """The whole caption: [style of] things [place] [time][, view][, style]."""
    bare = w.drop_all < 0.05
    subject = _first_phrase(scene, w, word, bare)
    if len(scene.things) > 1 and scene.relation and (w.drop_second >= 0.03 and not bare):
        relation = _choose(RELATION_PHRASES[scene.relation], w.relation)
        subject += f" {relation} {_second_phrase(scene, w)}"
    if not bare:
        subject += _surroundings(scene, w)
    return _in_style(scene, w, subject)


def _surroundings(scene: Scene, w: _Wording) -> str:
    """Place, time and view, each with what comes before it."""
    text = ""
    if w.drop_place >= 0.1:
        text += f" {_choose(PLACE_PHRASES[scene.place], w.place)}"
    if scene.place != "green screen" and w.drop_time >= (0.5 if scene.time == "day" else 0.06):
        text += f" {_choose(TIME_PHRASES[scene.time], w.time)}"
    view_said = w.drop_plain >= 0.85 if scene.view == "front" else w.drop_view >= 0.12
    if view_said:
        text += f", {_choose(VIEW_PHRASES[scene.view], w.view)}"
    return text


def _in_style(scene: Scene, w: _Wording, subject: str) -> str:
    """The caption with its style: before it, after it, or (photos often, others seldom) unsaid."""
    style = scene.style
    if w.drop_style < (0.4 if style == "photo" else 0.04):
        return subject
    if w.style_form < 0.7 or style == "photo":
        return f"{_choose(STYLE_PREFIXES[style], w.style)} {subject}"
    if w.style_form < 0.8:
        return f"{subject}, {style}"
    if w.style_form < 0.9:
        return f"{subject} as {STYLE_NAMES[style]}"
    return f"a picture of {subject} in the style of {STYLE_NAMES[style]}"


def _first_phrase(scene: Scene, w: _Wording, word: str | None, bare: bool) -> str:
    thing = scene.things[0]
    colourless = scene.style in COLOURLESS_STYLES
    adjectives, after = ([], []) if bare else _adjectives(thing, w, colourless)
    if word is not None:
        adjectives = [*adjectives, word]
    phrase = _article(" ".join([*adjectives, thing.kind]), w.article)
    phrase = " ".join([phrase, *after])
    return phrase if bare else phrase + _worn(thing, w, colourless, plainly=bool(after))


def _second_phrase(scene: Scene, w: _Wording) -> str:
    thing = scene.things[1]
    colourless = scene.style in COLOURLESS_STYLES
    adjectives, after = _adjectives(thing, w, colourless)
    phrase = " ".join([with_article(" ".join([*adjectives, thing.kind])), *after])
    return phrase + _worn(thing, w, colourless, plainly=bool(after))


def _article(noun: str, chance: float) -> str:
    """The noun after a, the, my or one."""
    for article, share in (("one", 0.97), ("my", 0.94), ("the", 0.88)):
        if chance >= share:
            return f"{article} {noun}"
    return with_article(noun)


def _adjectives(thing: Thing, w: _Wording, colourless: bool) -> tuple[list[str], list[str]]:
    """Words before the noun (size, effect, finish, colour, substance) and phrases after it."""
    before: list[str] = []
    after: list[str] = []
    if w.drop_size >= 0.1 and thing.size != "medium":
        before.append(thing.size)
    elif thing.size == "medium" and w.drop_plain >= 0.95:
        before.append("medium")
    if thing.effect and w.drop_effect >= 0.05:
        if w.effect < 0.7:
            before.append(thing.effect)
        else:
            after.append(EFFECT_PHRASES[thing.effect])
    colour = [] if colourless or w.drop_colour < 0.06 else [_spelling(thing.colour, w)]
    if thing.material == "matte":
        return [*before, *(["matte"] if w.drop_plain >= 0.9 else []), *colour], after
    if w.drop_material < 0.1:
        return [*before, *colour], after
    if thing.material in MATERIAL_PHRASES and w.material > 0.75 and not after:
        return [*before, *colour], [MATERIAL_PHRASES[thing.material]]
    is_last = thing.material in ("metal", "wooden") or (thing.material != "shiny" and w.order > 0.5)
    return [*before, *((*colour, thing.material) if is_last else (thing.material, *colour))], after


def _spelling(colour: str, w: _Wording) -> str:
    return SPELLINGS[colour] if colour in SPELLINGS and w.spelling > 0.7 else colour


def _worn(thing: Thing, w: _Wording, colourless: bool, *, plainly: bool) -> str:
    """What the thing wears; `plainly` says "wearing", since "with dots with a crown" is hard to read."""
    if thing.accessory is None or w.drop_accessory < 0.06:
        return ""
    coloured = w.drop_accessory_colour >= 0.6 and not colourless
    phrase = accessory_phrase(thing.accessory, _spelling(thing.accessory_colour, w) if coloured else None)
    return f" wearing {phrase}" if plainly or w.wearing < 0.75 else f" with {phrase}"
