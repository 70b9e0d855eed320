"""What scenes are drawn, how often, and what is kept from training."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import product

import pytest

from scumble.world import sampling, scene, splits
from scumble.world.sampling import PROFILES, Profile, dice, pick_weighted, sample_look, sample_scene
from scumble.world.scene import Scene, Thing
from scumble.world.wishes import OF_SCENE, OF_THING, fixed

COUNT = 10_000


@cache
def _full() -> tuple[Scene, ...]:
    return tuple(sample_scene(seed) for seed in range(COUNT))


def _things() -> list[Thing]:
    return [thing for drawn in _full() for thing in drawn.things]


@pytest.mark.parametrize(
    ("field", "names", "least"),
    [
        ("kind", scene.KINDS, 300),
        ("colour", tuple(scene.COLOURS), 500),
        ("material", scene.MATERIALS, 800),
        ("size", tuple(scene.SIZES), 1200),
        ("accessory", (*scene.ACCESSORIES, None), 200),
        ("effect", (*scene.EFFECTS, None), 200),
    ],
)
def test_every_attribute_of_things_occurs(field: str, names: tuple[str | None, ...], least: int) -> None:
    counts = Counter(getattr(thing, field) for thing in _things())
    assert set(counts) == set(names)
    assert min(counts.values()) >= least


@pytest.mark.parametrize(
    ("field", "names", "least"),
    [
        ("place", scene.PLACES, 500),
        ("time", scene.TIMES, 2000),
        ("style", scene.STYLES, 700),
        ("view", scene.VIEWS, 900),
        ("relation", (*scene.RELATIONS, None), 900),
    ],
)
def test_every_attribute_of_scenes_occurs(field: str, names: tuple[str | None, ...], least: int) -> None:
    counts = Counter(getattr(drawn, field) for drawn in _full())
    assert set(counts) == set(names)
    assert min(counts.values()) >= least


def test_nothing_held_out_in_twenty_thousand_training_scenes() -> None:
    held_out = {
        combination
        for combination in product(scene.KINDS, scene.COLOURS, scene.PLACES, scene.STYLES)
        if splits.is_combination_held_out(*combination)
    }
    assert len(held_out) == 1662
    seen = {
        (thing.kind, thing.colour, drawn.place, drawn.style)
        for drawn in (*_full(), *(sample_scene(seed) for seed in range(COUNT, 2 * COUNT)))
        for thing in drawn.things
    }
    assert len(seen) > 8000
    assert not seen & held_out


def test_held_out_share_and_what_remains() -> None:
    total = len(scene.KINDS) * len(scene.COLOURS) * len(scene.PLACES) * len(scene.STYLES)
    assert total == 16_128
    kept = [
        combination
        for combination in product(scene.KINDS, scene.COLOURS, scene.PLACES, scene.STYLES)
        if not splits.is_combination_held_out(*combination)
    ]
    assert 0.88 < len(kept) / total < 0.92
    axes = (scene.KINDS, tuple(scene.COLOURS), scene.PLACES, scene.STYLES)
    for first, second in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)):
        pairs = Counter((combination[first], combination[second]) for combination in kept)
        assert len(pairs) == len(axes[first]) * len(axes[second])
        expected = len(kept) / len(pairs)
        assert min(pairs.values()) > 0.3 * expected


def test_held_out_ignores_colours_that_cannot_be_seen() -> None:
    answers = {splits.is_combination_held_out("cat", c, "moon", "blueprint") for c in scene.COLOURS}
    assert len(answers) == 1


def test_held_out_split_shows_held_out_combinations_only() -> None:
    drawn = [sample_scene(seed, split="held_out") for seed in range(500)]
    assert all(splits.is_held_out(scene) for scene in drawn)
    assert {scene.style for scene in drawn} == set(scene.STYLES)


def test_seed_decides_everything() -> None:
    assert sample_scene(17) == sample_scene(17)
    assert [sample_scene(seed) for seed in (5, 3, 5)] == [_full()[5], _full()[3], _full()[5]]
    assert len(set(_full())) == COUNT
    assert [drawn.seed for drawn in _full()] == list(range(COUNT))


def test_a_known_scene_stays_as_it_is() -> None:
    drawn = sample_scene(1)
    (thing,) = drawn.things
    assert (thing.kind, thing.colour, thing.material) == ("rocket", "grey", "dotted")
    assert (drawn.place, drawn.time, drawn.style, drawn.view) == ("desert", "night", "pixel art", "front")
    assert thing.look.head == pytest.approx(1.0049222250271306, abs=1e-15)


def test_snowmen_are_almost_always_white() -> None:
    colours = Counter(thing.colour for thing in _things() if thing.kind == "snowman")
    assert sum(colours.values()) > 400
    assert 0.93 < colours["white"] / sum(colours.values()) < 0.97
    others = Counter(thing.colour for thing in _things() if thing.kind != "snowman")
    assert max(others.values()) < 1.2 * min(others.values())


def test_looks_keep_to_their_ranges_and_out_of_the_held_bands() -> None:
    for name, (low, high) in splits.LOOK_RANGES.items():
        values = [getattr(thing.look, name) for thing in _things()]
        assert low <= min(values) < low + 0.01
        assert high - 0.01 < max(values) <= high
        for held in splits.HELD_VALUES[name]:
            assert low < held < high
            gap = min(abs(value - held) for value in values)
            assert splits.HELD_HALF_WIDTH < gap < splits.HELD_HALF_WIDTH + 0.002
    looks = [thing.look for thing in _things()]
    assert all(look.mark is None and look.mark_colour is None for look in looks)
    assert 0.47 < sum(look.second_colour is not None for look in looks) / len(looks) < 0.53


def test_scenes_make_sense() -> None:
    for drawn in _full():
        assert (drawn.relation is None) == (len(drawn.things) == 1)
        assert len({thing.kind for thing in drawn.things}) == len(drawn.things)
        assert drawn.place != "green screen" or drawn.time == "day"
        assert drawn.relation is None or all(thing.size != "large" for thing in drawn.things)
        assert drawn.relation != "on top of" or drawn.things[1].kind in sampling.SUPPORTS
        for thing in drawn.things:
            assert thing.effect is None or drawn.style not in scene.COLOURLESS_STYLES
            assert thing.accessory is None or thing.kind in scene.WEARERS
            assert thing.look.second_colour != thing.colour
    second = [drawn for drawn in _full() if len(drawn.things) == 2]
    assert 0.30 < len(second) / COUNT < 0.36  # two things are held out more often than one


def test_photo_profile_is_one_thing_in_a_photo() -> None:
    drawn = [sample_scene(seed, profile=PROFILES["photo"]) for seed in range(2000)]
    assert {s.style for s in drawn} == {"photo"}
    assert {len(s.things) for s in drawn} == {1}
    assert sum(s.view in ("front", "side") for s in drawn) / len(drawn) > 0.85


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"styles": {"cartoon": 1.0}}, "style", "cartoon"),
        ({"views": {"back": 2.0, "front": 0.0}}, "view", "back"),
        ({"places": {"moon": 1.0}}, "place", "moon"),
        ({"times": {"night": 1.0}, "places": {"snow": 1.0}}, "time", "night"),
        ({"two_things": 0.0}, "relation", None),
    ],
)
def test_profiles_decide_scenes(change: dict[str, object], field: str, value: str | None) -> None:
    profile = Profile(**change)
    assert {getattr(sample_scene(seed, profile=profile), field) for seed in range(40)} == {value}


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"materials": {"wooden": 1.0}}, "material", {"wooden"}),
        ({"sizes": {"small": 1.0}}, "size", {"small"}),
        ({"accessory": 0.0}, "accessory", {None}),
        ({"effect": 0.0}, "effect", {None}),
        ({"effect": 1.0, "styles": {"photo": 1.0}}, "effect", set(scene.EFFECTS)),
    ],
)
def test_profiles_decide_things(change: dict[str, object], field: str, expected: set[str | None]) -> None:
    profile = Profile(**change)
    drawn = [sample_scene(seed, profile=profile) for seed in range(60)]
    assert {getattr(s.things[0], field) for s in drawn} == expected


def test_weights_are_respected_to_the_last_name() -> None:
    rng = dice(0, "test")
    counts = Counter(pick_weighted(rng, {"a": 1.0, "b": 0.0, "c": 3.0}) for _ in range(4000))
    assert set(counts) == {"a", "c"}
    assert 0.22 < counts["a"] / 4000 < 0.28


def test_purposes_are_apart() -> None:
    draws = {dice(seed, purpose).random() for seed in range(100) for purpose in ("a", "b", 1)}
    assert len(draws) == 300
    assert sample_look(dice(0, "a"), "red") != sample_look(dice(0, "b"), "red")


@pytest.mark.parametrize("name", [*OF_THING, *OF_SCENE])
def test_a_fixed_attribute_has_its_value_and_the_others_stay(name: str) -> None:
    for value in (OF_THING | OF_SCENE)[name]:
        wanted = None if value == "none" else value
        for drawn in _full()[:50]:
            made = fixed(drawn, {name: value})
            thing = made.things[0]
            has = getattr(thing if name in OF_THING else made, name)
            unable = name == "accessory" and thing.kind not in scene.WEARERS
            lines = name == "effect" and made.style in scene.COLOURLESS_STYLES
            assert has == (None if unable or lines else wanted) or (
                name == "time" and made.place == "green screen"
            )
            assert thing.look == drawn.things[0].look
            assert made.things[1:] == drawn.things[1:]
            assert fixed(made, {name: value}) == made
