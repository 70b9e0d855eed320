"""Pictures of scenes: vocabulary, looks, accessories, effects, green screen, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scumble.core.errors import InputError
from scumble.world import marks, subjects
from scumble.world.render import Rendering, render
from scumble.world.scene import (
    ACCESSORIES,
    COLOURS,
    EFFECTS,
    KINDS,
    MATERIALS,
    PLACES,
    RELATIONS,
    STYLES,
    TIMES,
    VIEWS,
    WEARERS,
    Look,
    Scene,
    Thing,
)
from scumble.world.things import THINGS

CAT = Thing(kind="cat", colour="orange")


def one(thing: Thing = CAT, size: int = 48, **rest: str | int) -> Rendering:
    return render([Scene(things=(thing,), **rest)], size=size)


def changed(a: Rendering, b: Rendering) -> Tensor:
    """(H, W) pixels that differ by more than 8 levels of 256."""
    return (a.pixels[0] - b.pixels[0]).abs().amax(0) > 8 / 256


def test_the_vocabulary_has_the_promised_size_and_every_kind_is_built() -> None:
    counts = [
        len(names) for names in (KINDS, COLOURS, MATERIALS, PLACES, TIMES, STYLES, ACCESSORIES, EFFECTS)
    ]
    assert counts == [24, 12, 7, 8, 3, 7, 5, 3]
    assert set(THINGS) == set(KINDS)
    wearers = {name for name, kind in THINGS.items() if kind.top and kind.eyes and kind.neck}
    assert wearers == set(WEARERS)
    assert marks.MARK_SHAPES == subjects.MARKS


def test_a_rendering_has_the_documented_shapes_and_ranges() -> None:
    seen = one(size=40)
    assert seen.pixels.shape == (1, 3, 40, 40)
    assert seen.masks.shape == (1, 2, 40, 40)
    assert seen.depth.shape == (1, 40, 40)
    for values in (seen.pixels, seen.masks):
        assert values.dtype == torch.float32
        assert values.min() >= 0
        assert values.max() <= 1
    assert seen.masks[0, 0].sum() > 60
    assert (seen.masks[0, 1] == 0).all()


@pytest.mark.parametrize("view", VIEWS)
def test_every_kind_is_seen_whole_from_every_side(view: str) -> None:
    scenes = [Scene(things=(Thing(kind=kind, colour="red"),), view=view, seed=3) for kind in KINDS]
    masks = render(scenes, size=32, supersample=1).masks[:, 0]
    share = masks.mean(dim=(1, 2))
    assert len(share) == 24
    assert share.min() > 0.04, KINDS[int(share.argmin())]
    assert share.max() < 0.45, KINDS[int(share.argmax())]
    rim = torch.cat([masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]], dim=1)
    assert rim.amax() == 0, [kind for kind, edge in zip(KINDS, rim.amax(1), strict=True) if edge > 0]


def test_all_colours_are_told_apart_at_every_time() -> None:
    for time in TIMES:
        scenes = [Scene(things=(Thing(kind="ball", colour=c),), time=time, place="snow") for c in COLOURS]
        seen = render(scenes, size=24, supersample=1)
        inside = seen.masks[0, 0] == 1
        means = torch.stack([picture[:, inside].mean(1) for picture in seen.pixels])
        apart = torch.cdist(means, means) + 10.0 * torch.eye(len(COLOURS))
        assert apart.min() > 0.09, (time, apart.min())


@pytest.mark.parametrize("names", [MATERIALS, PLACES, TIMES, STYLES, VIEWS], ids=lambda names: names[0])
def test_each_material_place_time_style_and_view_changes_the_picture(names: tuple[str, ...]) -> None:
    fields = {MATERIALS: "material", PLACES: "place", TIMES: "time", STYLES: "style", VIEWS: "view"}
    field = fields[names]
    if field == "material":
        scenes = [Scene(things=(replace(CAT, material=name),)) for name in names]
    else:
        scenes = [Scene(things=(CAT,), **{field: name}) for name in names]
    pictures = render(scenes, size=48).pixels
    for i in range(len(names)):
        for j in range(i):
            share = ((pictures[i] - pictures[j]).abs().amax(0) > 8 / 256).float().mean()
            assert share > 0.02, (names[i], names[j])


LOOKS = (
    Look(head=1.2),
    Look(stretch=1.2),
    Look(limbs=1.3),
    Look(second_colour="purple"),
    Look(mark="star"),
    Look(mark="star", mark_colour="purple"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_the_look_shows_on_every_kind(kind: str) -> None:
    looks = (Look(), *LOOKS)
    scenes = [Scene(things=(Thing(kind=kind, colour="red", look=look),), seed=5) for look in looks]
    pictures = render(scenes, size=56, supersample=1).pixels
    for i, look in enumerate(LOOKS, start=1):
        before = pictures[i - 1] if look.mark_colour else pictures[0]
        count = int(((pictures[i] - before).abs().amax(0) > 8 / 256).sum())
        assert count >= 5, (kind, look, count)


def test_marks_are_at_least_16_pixels_across_at_128() -> None:
    for mark in marks.MARK_SHAPES:
        thing = Thing(kind="cube", colour="yellow")
        marked = replace(thing, look=Look(mark=mark, mark_colour="black"))
        where = changed(one(thing, 128, place="studio"), one(marked, 128, place="studio"))
        assert int(where.any(0).sum()) >= 16, mark
        assert int(where.any(1).sum()) >= 10, mark


@pytest.fixture(scope="module")
def bare() -> tuple[list[Scene], Rendering]:
    """Everything that can wear something, wearing nothing."""
    kinds = [kind for kind in KINDS if kind in WEARERS]
    scenes = [
        Scene(things=(Thing(kind=kind, colour="white"),), place="green screen", seed=2) for kind in kinds
    ]
    return scenes, render(scenes, size=128, supersample=1)


@pytest.mark.parametrize("accessory", ACCESSORIES)
def test_accessories_are_at_least_16_by_8_pixels_from_the_front(
    accessory: str, bare: tuple[list[Scene], Rendering]
) -> None:
    scenes, before = bare
    worn = [
        replace(scene, things=(replace(scene.things[0], accessory=accessory, accessory_colour="purple"),))
        for scene in scenes
    ]
    after = render(worn, size=128, supersample=1)
    assert len(scenes) == 8
    for row, scene in enumerate(scenes):
        kind = scene.things[0].kind
        seen = after.masks[row, 0] > 0
        where = ((before.pixels[row] - after.pixels[row]).abs().amax(0) > 8 / 256) & seen
        assert int(where.any(0).sum()) >= 16, (kind, int(where.any(0).sum()))
        assert int(where.any(1).sum()) >= 8, (kind, int(where.any(1).sum()))
        assert int(where.sum()) >= 100, (kind, int(where.sum()))


def test_green_screen_is_exact_around_the_thing_whatever_the_time() -> None:
    green = torch.tensor([0.0, 177.0, 64.0])
    for time in TIMES:
        seen = one(size=48, place="green screen", time=time)
        outside = seen.masks[0, 0] == 0
        assert int(outside.sum()) > 1200
        levels = (seen.pixels[0] * 255)[:, outside]
        assert torch.allclose(levels, green[:, None].expand_as(levels), atol=1e-3)


def test_smoke_and_halo_belong_to_the_mask() -> None:
    plain = one(size=64)
    for effect in ("smoking", "glowing"):
        seen = one(replace(CAT, effect=effect), 64)
        assert seen.masks[0, 0].sum() > plain.masks[0, 0].sum() + 60
    snowed = one(replace(CAT, effect="snow-capped"), 64)
    assert torch.equal(snowed.masks, plain.masks)
    assert int(changed(snowed, plain).sum()) > 60


def test_relations_put_things_where_they_say() -> None:
    two = (CAT, Thing(kind="ball", colour="blue"))
    rows = {
        relation: render([Scene(things=two, relation=relation, seed=4)], size=64).masks[0]
        for relation in RELATIONS
    }
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")

    def middle(mask: Tensor) -> tuple[float, float]:
        return float((x * mask).sum() / mask.sum()), float((y * mask).sum() / mask.sum())

    beside = [middle(mask) for mask in rows["next to"]]
    assert abs(beside[0][0] - beside[1][0]) > 14
    above = [middle(mask) for mask in rows["on top of"]]
    assert above[0][1] < above[1][1] - 10
    assert abs(above[0][0] - above[1][0]) < 8
    single = render([Scene(things=two[1:], seed=4)], size=64).masks[0, 0]
    assert 0.2 * single.sum() < rows["in front of"][1].sum() < 0.85 * single.sum()
    assert middle(rows["in front of"][1])[1] < middle(rows["in front of"][0])[1]


def test_sizes_order_the_masks() -> None:
    areas = [float(one(replace(CAT, size=size)).masks.sum()) for size in ("small", "medium", "large")]
    assert areas[0] < 0.7 * areas[1]
    assert areas[1] < 0.8 * areas[2]


@pytest.mark.parametrize(
    ("scene", "nearest"),
    [
        (Scene(things=(Thing(kind="kat", colour="red"),)), "cat"),
        (Scene(things=(Thing(kind="cat", colour="rad"),)), "red"),
        (Scene(things=(Thing(kind="cat", colour="red", material="stripes"),)), "striped"),
        (Scene(things=(Thing(kind="cat", colour="red", size="larg"),)), "large"),
        (Scene(things=(Thing(kind="cat", colour="red", accessory="hat"),)), "party hat"),
        (Scene(things=(Thing(kind="cat", colour="red", effect="glow"),)), "glowing"),
        (Scene(things=(Thing(kind="cat", colour="red", look=Look(mark="stars")),)), "star"),
        (Scene(things=(CAT,), place="gras"), "grass"),
        (Scene(things=(CAT,), time="nigth"), "night"),
        (Scene(things=(CAT,), style="cartoons"), "cartoon"),
        (Scene(things=(CAT,), view="aboven"), "above"),
        (Scene(things=(CAT, CAT), relation="nextto"), "next to"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(scene: Scene, nearest: str) -> None:
    with pytest.raises(InputError) as caught:
        render([scene], size=8)
    assert repr(nearest) in caught.value.remedy


@pytest.mark.parametrize(
    "scene",
    [
        Scene(things=()),
        Scene(things=(CAT, CAT, CAT), relation="next to"),
        Scene(things=(CAT, CAT)),
        Scene(things=(CAT,), relation="next to"),
        Scene(things=(Thing(kind="ball", colour="red", accessory="crown"),)),
    ],
)
def test_scenes_that_do_not_go_together_are_refused(scene: Scene) -> None:
    with pytest.raises(InputError):
        render([scene], size=8)
