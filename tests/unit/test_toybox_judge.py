"""What the judge's answers mean, and what it is taught."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recipes.toybox import judge as recipe

from scumble.models.judge import OF_PICTURES, OF_THINGS, Judge, Verdict
from scumble.world.sampling import sample_scene
from scumble.world.scene import COLOURS, KINDS, Scene, Thing
from scumble.world.splits import is_held_out

CAT_AND_BALL = Scene(
    things=(Thing(kind="cat", colour="red", accessory="crown"), Thing(kind="ball", colour="blue")),
    relation="next to",
    place="beach",
    time="night",
)


def certain(scenes: list[Scene]) -> Verdict:
    """The verdict of a judge that is always right."""
    truth = recipe.classes(scenes)
    kinds = torch.zeros(len(scenes), len(KINDS))
    things = {name: torch.zeros(len(scenes), len(KINDS), len(a)) for name, a in OF_THINGS.items()}
    pictures = {name: torch.zeros(len(scenes), len(a)) for name, a in OF_PICTURES.items()}
    for i in range(len(scenes)):
        for j, kind in enumerate(k for k in truth["kind"][i].tolist() if k >= 0):
            kinds[i, kind] = 5.0 - j
            for name in OF_THINGS:
                if truth[name][i, j] >= 0:
                    things[name][i, kind, truth[name][i, j]] = 5.0
        for name in OF_PICTURES:
            if truth[name][i] >= 0:
                pictures[name][i, truth[name][i]] = 5.0
    return Verdict(kinds, things, pictures, torch.ones(len(scenes)), torch.ones(len(scenes), 2))


def test_triples_show_no_combination_that_is_held_out() -> None:
    for number in range(200):
        first, same, alike = recipe.triple(recipe.TWIN_SEED + number)
        assert not any(map(is_held_out, (first, same, alike)))
        assert same.things == first.things
        assert replace(alike, things=first.things) == same
        assert alike.things != first.things


def test_truth_scores_full_marks_on_sixty_scenes() -> None:
    scenes = [sample_scene(seed) for seed in range(60)]
    scores = certain(scenes).scores(scenes)
    assert set(scores) == {*OF_THINGS, *OF_PICTURES, "kind", "count"}
    answers = [answer for row in scores.values() for answer in row if answer is not None]
    assert len(answers) > 60 * 10
    assert all(answers)


def test_labels_say_both_things() -> None:
    (label,) = certain([CAT_AND_BALL]).labels()
    assert label["kind"] == "cat"
    assert label["second_kind"] == "ball"
    assert (label["colour"], label["accessory"], label["place"]) == ("red", "crown", "beach")
    assert (label["time"], label["count"], label["effect"]) == ("night", 2, "none")


def test_attributes_are_read_under_their_own_kind() -> None:
    verdict = certain([CAT_AND_BALL])
    ball = KINDS.index("ball")
    assert verdict.things["colour"][0, ball].argmax() == list(COLOURS).index("blue")
    verdict.things["colour"][0, KINDS.index("cat")] = verdict.things["colour"][0, ball]
    scores = verdict.scores([CAT_AND_BALL])
    assert scores["colour"] == [False]
    assert scores["kind"] == [True]


def test_what_cannot_be_seen_is_not_scored() -> None:
    sketch = Scene(things=(Thing(kind="cat", colour="red"),), style="blueprint", place="green screen")
    scores = certain([sketch]).scores([sketch])
    assert scores["colour"] == [None]
    assert scores["time"] == [None]


def test_saved_and_loaded_is_the_same_up_to_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    judge = Judge([8, 8, 16, 16], [1, 1, 1, 1], 4).eval()
    recipe.save(judge, tmp_path)
    again = Judge.load(recipe.folder(tmp_path))
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(again(x).kinds, judge(x).kinds, rtol=1e-2, atol=1e-2)
    assert not any(p.requires_grad for p in again.parameters())


def test_telling_apart_prefers_the_same_thing() -> None:
    same, other = torch.eye(4)[:2], torch.eye(4)[2:]
    good = torch.stack([same, same, other], dim=1).flatten(0, 1)
    bad = torch.stack([same, other, same], dim=1).flatten(0, 1)
    assert recipe.telling_apart(good) < 0.01
    assert recipe.telling_apart(bad) > 5.0


@pytest.mark.parametrize("seed", range(5))
def test_triples_share_the_thing_or_only_its_kind_and_colour(seed: int) -> None:
    first, second, alike = recipe.triple(recipe.TWIN_SEED + seed)
    assert first.things == second.things
    assert first.seed != second.seed
    thing, other = second.things[0], alike.things[0]
    assert (thing.kind, thing.colour, thing.material) == (other.kind, other.colour, other.material)
    assert thing.look != other.look


def test_what_few_pictures_show_is_seen_more_often() -> None:
    plain = Scene(things=(Thing(kind="ball", colour="blue"),), place="beach", time="day")
    glowing = replace(plain, things=(replace(plain.things[0], effect="glowing"),))
    lifted = recipe.LIFTED
    often = recipe.how_often(recipe.classes([plain, CAT_AND_BALL, glowing, plain]), usual=3)
    assert often.tolist() == [1.0, lifted["accessory"], lifted["effect"], lifted["varied"]]
