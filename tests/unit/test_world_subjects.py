"""Subjects: looks that training never has, pictures and prompts that training could have had."""

from __future__ import annotations

import pytest

from scumble.world.sampling import sample_scene
from scumble.world.scene import COLOURS, EFFECTS, KINDS, WEARERS
from scumble.world.splits import (
    EVALUATION_SEEDS,
    HELD_VALUES,
    LOOK_RANGES,
    is_held_out,
    is_held_value,
)
from scumble.world.subjects import MARKS, SUBJECTS, TUNING_SUBJECTS, Subject, lookalike
from scumble.world.words import describe

EVERYONE = (*SUBJECTS, *TUNING_SUBJECTS)


def test_counts() -> None:
    assert [subject.is_marked for subject in SUBJECTS] == [False] * 8 + [True] * 8
    assert [subject.is_marked for subject in TUNING_SUBJECTS] == [False] * 4 + [True] * 4
    assert len({subject.name for subject in EVERYONE}) == 24
    assert {subject.thing.look.mark for subject in SUBJECTS} == {None, *MARKS}
    assert {s.thing.look.mark for s in TUNING_SUBJECTS} == {None, *MARKS}


@pytest.mark.parametrize("subject", EVERYONE, ids=lambda subject: subject.name)
def test_looks_lie_in_the_ranges_and_never_in_training(subject: Subject) -> None:
    look = subject.thing.look
    for name, (low, high) in LOOK_RANGES.items():
        value = getattr(look, name)
        assert low < value < high
        assert value in HELD_VALUES[name]
        assert is_held_value(name, value)
    assert subject.thing.kind in KINDS
    assert subject.noun == subject.thing.kind
    colours = [subject.thing.colour, look.second_colour]
    assert set(colours) <= set(COLOURS)
    assert len(set(colours)) == 2
    assert (look.mark is None) == (look.mark_colour is None)
    assert look.mark_colour != subject.thing.colour


def test_no_training_sample_has_the_look_of_a_subject() -> None:
    looks = [thing.look for seed in range(3000) for thing in sample_scene(seed).things]
    assert len(looks) > 3500
    for name in LOOK_RANGES:
        values = {getattr(subject.thing.look, name) for subject in EVERYONE}
        assert min(abs(getattr(look, name) - value) for look in looks for value in values) > 0.01


@pytest.mark.parametrize("subject", EVERYONE, ids=lambda subject: subject.name)
def test_scenes(subject: Subject) -> None:
    scenes = subject.scenes
    assert len(scenes) == 5
    assert len({scene.place for scene in scenes}) == 5
    assert {scene.view for scene in scenes} == {"front", "side", "above"}
    assert all(scene.things == (subject.thing,) for scene in scenes)
    assert not any(is_held_out(scene) for scene in scenes)


@pytest.mark.parametrize("subject", EVERYONE, ids=lambda subject: subject.name)
def test_prompts(subject: Subject) -> None:
    prompts = subject.prompts
    assert prompts == subject.prompts
    assert len({prompt.text for prompt in prompts}) == len(prompts) == 20
    kinds = [prompt.kind for prompt in prompts]
    worn = "accessory" if subject.noun in WEARERS else "effect"
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "recontextualisation": 8,
        worn: 4,
        "style": 4,
        "property": 4,
    }
    for prompt in prompts:
        assert prompt.text.count("{}") == 1
        labels = describe(prompt.scene)
        assert all(labels[name] == value for name, value in prompt.expected.items()), prompt
        assert not is_held_out(prompt.scene)
        assert prompt.scene.things[0].look == subject.thing.look
        asked = set(prompt.expected.values()) - {"photo", "snow", "grass", "day", "pixel art"}
        for value in asked:
            assert value in prompt.text, prompt


def test_properties_are_new_ones() -> None:
    for subject in EVERYONE:
        for prompt in subject.prompts[16:]:
            (name,) = set(prompt.expected) & {"colour", "material"}
            assert prompt.expected[name] != getattr(subject.thing, name)
    effects = [p.expected["effect"] for p in SUBJECTS[5].prompts if p.kind == "effect"]
    assert set(effects) == set(EFFECTS)


def test_seeds_are_apart() -> None:
    scenes = [s for subject in EVERYONE for s in (*subject.scenes, *(p.scene for p in subject.prompts))]
    assert len({scene.seed for scene in scenes}) == 24 * 25
    assert all(scene.seed >= EVALUATION_SEEDS for scene in scenes[: 16 * 25])
    assert all(scene.seed < EVALUATION_SEEDS for scene in scenes[16 * 25 :])


def test_lookalikes_share_all_but_the_look() -> None:
    subject = SUBJECTS[0]
    others = {lookalike(subject, seed) for seed in range(20)}
    assert len(others) == 20
    for other in others:
        assert (other.kind, other.colour, other.material) == ("cat", "teal", "striped")
        assert other.look != subject.thing.look
        assert other.look.mark is None
        assert not is_held_value("head", other.look.head)
