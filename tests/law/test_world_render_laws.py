"""Identities of the renderer: determinism, independence of the batch, pixel-aligned edits, cameras."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scumble.world import render as renderer
from scumble.world.field import distance, pack
from scumble.world.kinds import part, rod
from scumble.world.render import Pose, grid, render
from scumble.world.scene import KINDS, PLACES, STYLES, TIMES, Scene, Thing
from scumble.world.solid import bounds

CAT = Thing(kind="cat", colour="orange", accessory="crown", effect="smoking")
BALL = Thing(kind="ball", colour="blue", material="dotted")
SCENES = (
    Scene(things=(CAT,), seed=1),
    Scene(things=(CAT, BALL), relation="next to", place="beach", time="sunset", seed=2),
    Scene(things=(BALL,), time="night", seed=3),
    Scene(things=(BALL, replace(CAT, effect="glowing")), relation="in front of", seed=4, view="above"),
    Scene(things=(replace(BALL, kind="mug"),), place="beach", seed=5),
)


def test_the_same_scenes_give_the_same_bytes() -> None:
    one, two = (render(SCENES, size=32) for _ in range(2))
    for a, b in ((one.pixels, two.pixels), (one.masks, two.masks), (one.depth, two.depth)):
        assert torch.equal(a, b)


@pytest.mark.parametrize("together", [1, 2, 5])
def test_a_picture_does_not_depend_on_its_batch(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = torch.cat([render([scene], size=32).pixels for scene in SCENES])
    monkeypatch.setitem(renderer.CHUNKS, "cpu", together)
    batch = render(SCENES, size=32)
    assert (batch.pixels - alone).abs().max() <= (0 if together == 1 else 1e-5)
    assert batch.camera.origin.shape == (len(SCENES), 3)


@pytest.mark.parametrize("style", STYLES)
def test_styles_do_not_depend_on_the_batch(style: str) -> None:
    scenes = [replace(scene, style=style) for scene in SCENES[:2]]
    batch = render(scenes, size=32).pixels
    for picture, scene in zip(batch, scenes, strict=True):
        assert (picture - render([scene], size=32).pixels[0]).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_colour_leaves_the_mask_and_all_pixels_outside_it_as_they_are(kind: str) -> None:
    scene = Scene(things=(Thing(kind=kind, colour="red"),), seed=7)
    other = replace(scene, things=(replace(scene.things[0], colour="green"),))
    seen = render([scene, other], size=48)
    assert torch.equal(seen.masks[0], seen.masks[1])
    differ = (seen.pixels[0] != seen.pixels[1]).any(0)
    assert differ.any()
    assert not (differ & (seen.masks[0, 0] == 0)).any()


def test_removing_a_thing_changes_what_its_mask_covers_and_its_shadow_only() -> None:
    both = Scene(things=(Thing(kind="cat", colour="red"), BALL), relation="next to", seed=2)
    seen, without = (
        render([scene], size=64) for scene in (both, replace(both, things=both.things[:1], relation=None))
    )
    differ = (seen.pixels[0] - without.pixels[0]).abs().amax(0) > 4 / 256
    own = seen.masks[0, 1] > 0.5
    assert (differ & own).sum() > 0.95 * own.sum()
    assert (seen.masks[0, 0] - without.masks[0, 0]).abs().max() == 0
    green = [
        replace(scene, place="green screen")
        for scene in (both, replace(both, things=both.things[:1], relation=None))
    ]
    seen, without = render(green[:1], size=64), render(green[1:], size=64)
    differ = (seen.pixels[0] != without.pixels[0]).any(0)
    assert not (differ & (seen.masks[0].sum(0) == 0)).any()


@pytest.mark.parametrize("place", PLACES)
def test_the_seed_alone_decides_the_surroundings(place: str) -> None:
    scenes = [
        Scene(things=(Thing(kind=kind, colour="red"),), place=place, seed=9) for kind in ("cat", "cone")
    ]
    seen = render([*scenes, replace(scenes[0], seed=10)], size=32)
    free = (seen.masks[:2].sum((0, 1)) == 0)[:8]  # the sky, where no shadow falls
    assert int(free.sum()) > 100
    assert torch.allclose(seen.pixels[0, :, :8][:, free], seen.pixels[1, :, :8][:, free], atol=1e-5)
    assert not torch.equal(seen.pixels[0], seen.pixels[2])


def test_turning_the_camera_back_gives_the_still_picture_and_poses_move_things() -> None:
    scene = Scene(things=(BALL,), seed=3)
    still = render([scene], size=32)
    posed = render([scene] * 3, size=32, poses=[Pose(), Pose(orbit=20.0), Pose(moves=((0.3, 0.0, 0.0),))])
    assert torch.equal(posed.pixels[0], still.pixels[0])
    assert not torch.equal(posed.pixels[1], still.pixels[0])
    columns = torch.arange(32.0)
    middles = [(mask[0].sum(0) * columns).sum() / mask[0].sum() for mask in posed.masks]
    assert middles[2] > middles[0] + 3
    assert torch.equal(posed.camera.origin[0], posed.camera.origin[2])


def test_projecting_what_a_ray_sees_gives_back_its_pixel() -> None:
    seen = render(SCENES[:1], size=16, supersample=1)
    centres = grid(16, torch.device("cpu"))
    rays = seen.camera.directions(centres)
    points = seen.camera.origin[..., None] + rays * seen.depth.flatten(1)[:, None].clamp(max=50.0)
    back, depth = seen.camera.project(points)
    assert torch.allclose(back, centres, atol=1e-4)
    assert (depth > 0).all()


def test_day_is_brighter_than_night_everywhere() -> None:
    for place in PLACES[:-1]:
        means = [
            float(
                render([Scene(things=(BALL,), place=place, time=time)], size=24, supersample=1).pixels.mean()
            )
            for time in TIMES
        ]
        assert means[0] > means[2] + 0.08, place


def test_distances_are_those_of_the_primitives() -> None:
    parts = (
        part("ellipsoid", (1, 0, 0), (0.5, 0.5, 0.5), "main", "x", "hard"),
        part("box", (0, 3, 0), (0.4, 0.2, 0.3), "main", "hard", edge=0.0),
        rod((0, 5, 0), (0, 6, 0), 0.25, "main", "hard"),
        part("cylinder", (0, 9, 0), (0.5, 1.0, 0), "main", "hard", edge=0.0),
        part("torus", (0, 12, 0), (1.0, 0.2, 0), "main", "hard"),
    )
    solid, _ = pack([parts], [0.0])
    points = torch.tensor(
        [[-2.0, 0, 0], [0.9, 3, 0], [0.0, 6.75, 0], [0.0, 10.5, 0], [1.2, 9, 0], [1.0, 12.5, 0], [1.0, 12, 0]]
    )
    found = distance(solid, points.T[None])[0]
    assert torch.allclose(found, torch.tensor([0.5, 0.5, 0.5, 0.5, 0.7, 0.3, -0.2]), atol=1e-5)


def test_smooth_union_is_quilez_for_two_parts() -> None:
    parts = (part("ellipsoid", (0, 0, 0), (1, 1, 1)), part("ellipsoid", (1.5, 0, 0), (1, 1, 1)))
    blend = 0.3
    solid, _ = pack([parts], [blend])
    x = torch.linspace(-0.5, 2.5, 31)
    points = torch.stack([x, torch.full_like(x, 1.1), torch.zeros_like(x)])[None]
    one, two = points[0].norm(dim=0) - 1, (points[0] - torch.tensor([1.5, 0, 0])[:, None]).norm(dim=0) - 1
    h = (blend - (one - two).abs()).clamp(min=0) / blend
    assert torch.allclose(distance(solid, points)[0], torch.minimum(one, two) - h * h * blend / 4, atol=1e-5)


def test_bounds_hold_every_part() -> None:
    for piece in (
        part("ellipsoid", (0.3, 0.2, 0.1), (0.1, 0.3, 0.2), turn=(30, 40, 50)),
        part("box", (0.3, 0.2, 0.4), (0.1, 0.3, 0.2), "main", "xz", turn=(10, 20, 60)),
        part("cone", (0, 0.5, 0), (0.3, 0.4, 0.1), turn=(70, 0, 20)),
        part("torus", (0.2, 0.5, 0), (0.3, 0.1, 0), "main", "x", turn=(70, 0, 20)),
        rod((0, 0, 0), (0.3, 0.5, 0.2), 0.1),
    ):
        solid, _ = pack([(piece,)], [0.0])
        generator = torch.Generator().manual_seed(1)
        points = torch.rand(1, 3, 20000, generator=generator) * 2 - 1
        inside = points[0][:, distance(solid, points)[0] < 0]
        low, high = (torch.tensor(corner) for corner in bounds(piece))
        assert inside.shape[1] > 20
        assert (inside.amin(1) >= low - 1e-5).all()
        assert (inside.amax(1) <= high + 1e-5).all()
