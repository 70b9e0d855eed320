"""The phrases of the toy world: what captions and instructions are put together from.

In the wordings of instructions `{it}` stands for the noun or pronoun of what is edited, `{its}` for its
genitive, `{new}` and `{old}` for what comes and goes; `{a_new}` has an article.
"""

from __future__ import annotations

from scumble.world.scene import KINDS

__all__ = [
    "ADDITION_TEXTS",
    "EDIT_TEXTS",
    "EFFECT_PHRASES",
    "EFFECT_REMOVALS",
    "EFFECT_TEXTS",
    "MATERIAL_PHRASES",
    "MATERIAL_TEXTS",
    "PLACE_NAMES",
    "PLACE_PHRASES",
    "PLURALS",
    "RELATION_PHRASES",
    "SIZE_TEXTS",
    "SPELLINGS",
    "STYLE_NAMES",
    "STYLE_PREFIXES",
    "TABLES",
    "TIME_NAMES",
    "TIME_PHRASES",
    "USUAL_ACCESSORY_COLOURS",
    "VIEW_NAMES",
    "VIEW_PHRASES",
]

PLURALS = {kind: f"{kind}s" for kind in KINDS} | {"fish": "fish", "cactus": "cactuses", "snowman": "snowmen"}
"""Plural noun of each kind."""

STYLE_PREFIXES: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of", "a photo of", "a photograph of", "a good photo of", "a nice photo of"),
    "pencil sketch": ("a pencil sketch of", "a pencil drawing of"),
    "watercolour": ("a watercolour of", "a watercolour painting of", "a watercolor of"),
    "oil painting": ("an oil painting of", "an oil painting of", "an oil painting showing"),
    "cartoon": ("a cartoon of", "a cartoon drawing of"),
    "pixel art": ("pixel art of", "a pixel art picture of"),
    "blueprint": ("a blueprint of", "a blueprint drawing of"),
}
STYLE_NAMES: dict[str, str] = {
    "photo": "a photo",
    "pencil sketch": "a pencil sketch",
    "watercolour": "a watercolour",
    "oil painting": "an oil painting",
    "cartoon": "a cartoon",
    "pixel art": "pixel art",
    "blueprint": "a blueprint",
}
"""Styles as nouns with their articles: "as a pencil sketch"."""

PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "grass": ("on the grass", "on grass", "in a meadow"),
    "beach": ("on the beach", "on a beach", "at the beach"),
    "desert": ("in the desert", "in a desert"),
    "snow": ("in the snow", "on snow"),
    "studio": ("in a studio", "in the studio"),
    "moon": ("on the moon", "on the surface of the moon"),
    "table": ("on a table", "on a wooden table", "on the table"),
    "green screen": ("on a green screen", "in front of a green screen"),
}
TIME_PHRASES: dict[str, tuple[str, ...]] = {
    "day": ("by day", "in daylight", "during the day"),
    "sunset": ("at sunset", "at sunset", "at dusk"),
    "night": ("at night", "at night", "by night", "in the dark"),
}
VIEW_PHRASES: dict[str, tuple[str, ...]] = {
    "front": ("seen from the front", "from the front", "front view"),
    "side": ("seen from the side", "from the side", "side view"),
    "back": ("seen from behind", "from behind", "seen from the back"),
    "above": ("seen from above", "from above", "top view"),
}
RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    "next to": ("next to", "next to", "beside"),
    "in front of": ("in front of",),
    "on top of": ("on top of", "on top of", "on"),
}
MATERIAL_PHRASES: dict[str, str] = {
    "metal": "made of metal",
    "wooden": "made of wood",
    "striped": "with stripes",
    "dotted": "with dots",
    "checkered": "with a checkered pattern",
}
"""Materials said after the noun; `shiny` and `matte` are only said before it."""

EFFECT_PHRASES: dict[str, str] = {
    "snow-capped": "capped with snow",
    "glowing": "that glows",
    "smoking": "giving off smoke",
}
SPELLINGS = {"grey": "gray"}
"""Other spellings of colours, used now and then."""

USUAL_ACCESSORY_COLOURS = {
    "party hat": "purple",
    "crown": "yellow",
    "sunglasses": "black",
    "scarf": "red",
    "bow tie": "blue",
}
"""Colours of accessories that are added without saying which."""

EDIT_TEXTS: dict[str, tuple[str, ...]] = {
    "colour": (
        "make {it} {new}",
        "turn {it} {new}",
        "paint {it} {new}",
        "change {its} colour to {new}",
        "let {it} be {new}",
    ),
    "kind": (
        "turn {it} into {a_new}",
        "replace {it} with {a_new}",
        "make {it} {a_new}",
        "change {it} into {a_new}",
        "swap {it} for {a_new}",
    ),
    "place": (
        "put {it} {new}",
        "move {it} to {new_place}",
        "change the background to {new_place}",
        "make the background {new_place}",
        "show {it} {new}",
    ),
    "time": ("make it {new}", "change the time to {new}", "let it be {new}", "turn the time to {new}"),
    "style": (
        "as {new}",
        "make it {new}",
        "turn it into {new}",
        "in the style of {new}",
        "turn the picture into {new}",
        "make the picture look like {new}",
    ),
    "add accessory": (
        "add {new}",
        "give {it} {new}",
        "put {new} on {it}",
        "make {it} wear {new}",
        "add {new} to {it}",
    ),
    "remove accessory": (
        "remove the {old}",
        "take off the {old}",
        "take the {old} away",
        "take the {old} off {it}",
    ),
    "swap accessory": (
        "replace the {old} with {new}",
        "swap the {old} for {new}",
        "change the {old} into {new}",
        "turn the {old} into {new}",
    ),
    "remove thing": ("remove the {old}", "take away the {old}", "delete the {old}", "take the {old} away"),
    "view": ("show {it} {new}", "look at {it} {new}", "view {it} {new}", "draw {it} as seen {new}"),
}
"""Wordings of the kinds that need only one list; `{it}` is a pronoun or the noun of what is edited."""

MATERIAL_TEXTS: dict[str, tuple[str, ...]] = {
    "matte": ("make {it} matte", "give {it} a matte finish", "make {its} surface matte"),
    "shiny": ("make {it} shiny", "polish {it}", "give {it} a shiny finish"),
    "metal": ("make {it} out of metal", "turn {it} into metal", "make {it} of metal"),
    "wooden": ("make {it} out of wood", "make {it} wooden", "turn {it} into wood"),
    "striped": ("give {it} stripes", "make {it} striped", "add stripes to {it}"),
    "dotted": ("give {it} dots", "make {it} dotted", "cover {it} with dots"),
    "checkered": (
        "make {it} checkered",
        "give {it} a checkered pattern",
        "paint a checkered pattern on {it}",
    ),
}
EFFECT_TEXTS: dict[str, tuple[str, ...]] = {
    "snow-capped": ("put snow on {it}", "make {it} snow-capped", "cap {it} with snow"),
    "glowing": ("make {it} glow", "let {it} glow", "make {it} glowing"),
    "smoking": ("make {it} smoke", "add smoke to {it}", "let smoke rise from {it}"),
}
EFFECT_REMOVALS: dict[str, tuple[str, ...]] = {
    "snow-capped": ("remove the snow from {it}", "take the snow off {it}", "brush the snow off {it}"),
    "glowing": ("remove the glow from {it}", "stop {it} from glowing", "make {it} stop glowing"),
    "smoking": ("remove the smoke", "stop {it} from smoking", "make {it} stop smoking"),
}
SIZE_TEXTS: dict[str, tuple[str, ...]] = {
    "bigger": ("make {it} bigger", "make {it} larger", "enlarge {it}"),
    "smaller": ("make {it} smaller", "shrink {it}", "make {it} less big"),
}
ADDITION_TEXTS: dict[str, tuple[str, ...]] = {
    "next to": ("add {new} next to {it}", "put {new} next to {it}", "add {new} beside {it}"),
    "in front of": ("add {new} behind {it}", "put {new} behind {it}", "place {it} in front of {new}"),
    "on top of": ("put {it} on top of {new}", "put {new} under {it}", "place {it} on {new}"),
}
PLACE_NAMES = {place: phrases[0].split(" ", 1)[1] for place, phrases in PLACE_PHRASES.items()}
"""Places as nouns with their articles: "the beach"."""

TIME_NAMES = {"day": ("day", "daytime"), "sunset": ("sunset", "dusk"), "night": ("night", "night-time")}
VIEW_NAMES = {
    "front": "from the front",
    "side": "from the side",
    "back": "from behind",
    "above": "from above",
}

TABLES: tuple[dict[str, tuple[str, ...]], ...] = (
    STYLE_PREFIXES,
    PLACE_PHRASES,
    TIME_PHRASES,
    VIEW_PHRASES,
    RELATION_PHRASES,
    EDIT_TEXTS,
    MATERIAL_TEXTS,
    EFFECT_TEXTS,
    EFFECT_REMOVALS,
    SIZE_TEXTS,
    ADDITION_TEXTS,
    TIME_NAMES,
)
"""All tables of several wordings."""
