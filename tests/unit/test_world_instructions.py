"""Instructions: what they say, what they change, and what they leave alone."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import fields, replace
from functools import cache
from itertools import pairwise

import pytest
import torch

from scumble.core.errors import InputError
from scumble.world.instructions import (
    EDIT_KINDS,
    GLOBAL_KINDS,
    Edit,
    changed_labels,
    every_edit,
    instruct,
    instruct_chain,
    is_local,
    triple,
)
from scumble.world.pairs import SAME_PIXEL, change_mask, render_edits
from scumble.world.render import render
from scumble.world.sampling import PROFILES, sample_scene
from scumble.world.scene import COLOURLESS_STYLES, SIZES, STYLES, WEARERS, Scene, Thing
from scumble.world.splits import is_held_out
from scumble.world.words import vocabulary

CAT = Scene(things=(Thing(kind="cat", colour="orange"),), seed=11)
DRESSED = Scene(things=(Thing(kind="duck", colour="blue", accessory="party hat", effect="glowing"),), seed=3)
TWO = Scene(
    things=(Thing(kind="dog", colour="brown"), Thing(kind="cube", colour="red")), relation="next to", seed=5
)

# kind of instruction: the fields of the scene and those of one thing that it may set
CHANGES: dict[str, tuple[set[str], set[str]]] = {
    "colour": (set(), {"colour"}),
    "kind": (set(), {"kind"}),
    "place": ({"place"}, set()),
    "time": ({"time"}, set()),
    "style": ({"style"}, set()),
    "material": (set(), {"material"}),
    "add accessory": (set(), {"accessory", "accessory_colour"}),
    "remove accessory": (set(), {"accessory"}),
    "swap accessory": (set(), {"accessory"}),
    "add thing": ({"relation"}, set()),
    "remove thing": ({"relation"}, set()),
    "size": (set(), {"size"}),
    "add effect": (set(), {"effect"}),
    "remove effect": (set(), {"effect"}),
    "view": ({"view"}, set()),
}


@cache
def _edits() -> tuple[Edit, ...]:
    scenes = (CAT, DRESSED, TWO, *(sample_scene(seed) for seed in range(25)))
    return tuple(edit for scene in scenes for edit in every_edit(scene))


def _differences(before: object, after: object, skip: tuple[str, ...] = ()) -> set[str]:
    names = [field.name for field in fields(before) if field.name not in skip]
    return {name for name in names if getattr(before, name) != getattr(after, name)}


def test_there_are_fifteen_kinds_with_several_wordings() -> None:
    assert set(EDIT_KINDS) == set(CHANGES)
    assert len(EDIT_KINDS) == 15
    wordings: dict[tuple[str, Scene, Scene], set[str]] = defaultdict(set)
    for edit in _edits():
        wordings[edit.kind, edit.before, edit.after].add(edit.text)
    for kind in EDIT_KINDS:
        counts = [len(texts) for (k, *_), texts in wordings.items() if k == kind]
        assert min(counts) >= 3, kind


def test_each_edit_changes_exactly_what_it_names() -> None:
    assert len(_edits()) > 10_000
    for edit in _edits():
        scene_fields, thing_fields = CHANGES[edit.kind]
        changed = _differences(edit.before, edit.after, skip=("things",))
        assert changed == scene_fields, edit
        if edit.kind == "add thing":
            assert edit.after.things[:1] == edit.before.things
            assert len(edit.after.things) == 2
            continue
        if edit.kind == "remove thing":
            assert edit.after.things == edit.before.things[:1]
            assert len(edit.before.things) == 2
            continue
        for index, (old, new) in enumerate(zip(edit.before.things, edit.after.things, strict=True)):
            differing = _differences(old, new)
            if index == edit.target and thing_fields:
                assert differing, edit
                assert differing <= thing_fields
                assert min(thing_fields) in differing
            else:
                assert not differing, edit


def test_texts_name_what_they_ask_for() -> None:
    for edit in _edits():
        assert not re.search(r"[{}]", edit.text)
        assert not re.search(r"\ba [aeiou]", edit.text), edit.text
        assert not re.search(r"\ban [^aeiou]", edit.text), edit.text
        after = edit.after.things[edit.target or 0] if edit.after.things[edit.target or 0 :] else None
        named = {
            "colour": after and after.colour,
            "kind": after and after.kind,
            "add thing": edit.after.things[-1].kind,
            "add accessory": after and after.accessory,
            "swap accessory": after and after.accessory,
            "remove thing": edit.before.things[-1].kind,
            "style": edit.after.style,
        }.get(edit.kind)
        assert named is None or named in edit.text, edit
        words = set(re.findall(r"[\w-]+", edit.text.replace("'s", "")))
        assert words <= set(vocabulary()), words - set(vocabulary())


def test_two_things_are_told_apart_by_their_nouns() -> None:
    for edit in every_edit(TWO):
        if edit.target is not None and edit.kind != "remove thing":
            assert f"the {TWO.things[edit.target].kind}" in edit.text
            assert " it" not in re.sub(r" it(s|self)\b", "", edit.text)


def test_after_scenes_are_possible() -> None:
    for edit in _edits():
        after = edit.after
        assert (after.relation is None) == (len(after.things) == 1)
        assert len({thing.kind for thing in after.things}) == len(after.things)
        assert after.place != "green screen" or after.time == "day"
        assert all(t.accessory is None or t.kind in WEARERS for t in after.things)
        assert edit.kind != "colour" or after.style not in COLOURLESS_STYLES
        assert "effect" not in edit.kind or after.style not in COLOURLESS_STYLES
        assert edit.kind != "style" or edit.before.style not in COLOURLESS_STYLES


def test_what_can_be_done_depends_on_the_scene() -> None:
    kinds = {scene: {edit.kind for edit in every_edit(scene)} for scene in (CAT, DRESSED, TWO)}
    assert kinds[CAT] == set(EDIT_KINDS) - {
        "remove accessory",
        "swap accessory",
        "remove thing",
        "remove effect",
    }
    assert kinds[DRESSED] == set(EDIT_KINDS) - {"add accessory", "remove thing", "add effect"}
    assert kinds[TWO] == set(EDIT_KINDS) - {
        "remove accessory",
        "swap accessory",
        "add thing",
        "remove effect",
    }
    sizes = {e.text: e.after.things[0].size for e in every_edit(CAT, kinds=["size"])}
    assert sizes["make it bigger"] == "large"
    assert sizes["make it smaller"] == "small"
    assert set(SIZES) == {"small", "medium", "large"}
    assert {e.after.style for e in every_edit(CAT, kinds=["style"])} == set(STYLES) - {"photo"}


def test_instruct_is_pure_and_takes_every_kind() -> None:
    scenes = [sample_scene(seed) for seed in range(300)]
    edits = [instruct(scene, seed) for seed, scene in enumerate(scenes)]
    assert edits == [instruct(scene, seed) for seed, scene in enumerate(scenes)]
    counts = Counter(edit.kind for edit in edits)
    assert set(counts) == set(EDIT_KINDS)
    assert counts["kind"] > 15
    assert len({instruct(CAT, seed).text for seed in range(200)}) > 100


def test_instruct_keeps_the_splits_apart() -> None:
    scenes = [sample_scene(seed) for seed in range(200)]
    assert not any(is_held_out(instruct(scene, scene.seed).after) for scene in scenes)
    photos = [scene for scene in scenes[:60] if scene.style == "photo"]
    held_out = [instruct(scene, 1, kinds=["colour", "kind", "place"], split="held_out") for scene in photos]
    assert len(held_out) > 10
    assert all(is_held_out(edit.after) for edit in held_out)
    free = [is_held_out(instruct(scene, scene.seed, split=None).after) for scene in scenes]
    assert any(free)
    assert not all(free)


def test_instruct_refuses_what_cannot_be_done() -> None:
    with pytest.raises(InputError, match="remove accessory"):
        instruct(CAT, 0, kinds=["remove accessory"])


def test_chains_go_on_from_the_last_result() -> None:
    chain = instruct_chain(CAT, 4, 4)
    assert len({edit.kind for edit in chain}) == len(chain) == 4
    assert chain[0].before == CAT
    assert all(a.after == b.before for a, b in pairwise(chain))
    assert chain == instruct_chain(CAT, 4, 4)
    assert chain != instruct_chain(CAT, 5, 4)


def test_changed_labels() -> None:
    edits = {edit.text: edit for edit in every_edit(CAT)}
    assert changed_labels(edits["make it red"]) == {"colour": "red"}
    assert changed_labels(edits["make it night"]) == {"time": "night"}
    assert changed_labels(edits["as a pencil sketch"]) == {"style": "pencil sketch", "colour": None}
    assert changed_labels(edits["turn the cat into a dog"]) == {"kind": "dog"}
    assert changed_labels(edits["make it glow"]) == {"effect": "glowing"}


def test_triples_differ_in_what_is_edited_only() -> None:
    edits = {edit.text: edit for edit in every_edit(CAT)}
    assert triple(edits["turn it red"]) == (
        "a photo of an orange cat on the grass by day",
        "turn it red",
        "a photo of a red cat on the grass by day",
    )
    for seed in range(20):
        before, _, after = triple(edits["turn it red"], seed)
        assert re.sub(r"\ban orange\b", "a red", before).replace("orange", "red") == after


def _one_of_each(scene: Scene, kinds: tuple[str, ...]) -> list[Edit]:
    return [next(iter(every_edit(scene, kinds=[kind]))) for kind in kinds]


def test_pictures_agree_outside_the_mask_and_differ_inside() -> None:
    kinds = ("colour", "kind", "material", "size", "add thing")
    edits = _one_of_each(CAT, kinds)
    shown = render_edits(edits, size=48, supersample=1)
    assert all(is_local(edit) for edit in edits)
    difference = (shown.before - shown.after).abs().amax(dim=1)
    assert shown.mask.shape == (5, 48, 48)
    assert shown.mask.dtype == torch.bool
    for row, kind in enumerate(kinds):
        assert difference[row][~shown.mask[row]].max() <= SAME_PIXEL, kind
        assert difference[row][shown.mask[row]].max() > 0.1, kind
        assert 0.01 < shown.mask[row].float().mean() < 0.6, kind


def test_mask_covers_the_changed_thing_and_not_the_other() -> None:
    seen = render([TWO], size=48, supersample=2).masks[0]  # (2, H, W)
    (edit,) = _one_of_each(TWO, ("colour",))
    assert edit.target == 0
    mask = change_mask(edit.before, edit.after, size=48)
    assert mask[seen[0] > 0].all()
    assert mask[(seen[1] > 0.9) & (seen[0] == 0)].float().mean() < 0.3


def test_mask_covers_a_thing_that_an_edit_of_the_other_moves() -> None:
    before = replace(TWO, relation="on top of", place="green screen")
    after = replace(before, things=(before.things[0], replace(before.things[1], size="small")))
    seen = render([before, after], size=48, supersample=2).masks[:, 0] > 0  # (2, H, W) of the dog
    mask = change_mask(before, after, size=48)
    assert not torch.equal(*seen)
    assert mask[seen.any(0)].all()


def test_mask_is_everything_for_global_edits_and_nothing_for_none() -> None:
    assert frozenset({"place", "time", "style", "view"}) == GLOBAL_KINDS
    (edit,) = _one_of_each(CAT, ("time",))
    assert not is_local(edit)
    assert change_mask(edit.before, edit.after, size=16).all()
    assert not change_mask(CAT, CAT, size=16).any()


def test_photo_profile_scenes_take_instructions() -> None:
    for seed in range(50):
        edit = instruct(sample_scene(seed, profile=PROFILES["photo"]), seed)
        assert edit.before != edit.after
