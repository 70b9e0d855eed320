"""Clips: what moves, and flow that carries every visible pixel to the same point of the world."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from scumble.core.errors import InputError
from scumble.world.clips import (
    BENCHMARK_CLIPS,
    CLIP_KINDS,
    ORBIT,
    PATH,
    Clip,
    ClipRendering,
    Flow,
    render_clip,
    sample_clip,
)
from scumble.world.scene import Scene, Thing
from scumble.world.splits import EVALUATION_SEEDS

SIZE = 64
SCENE = Scene(things=(Thing(kind="house", colour="yellow", material="dotted"),), place="moon", seed=4)
FULL = 24


@cache
def _rendered(kind: str, backwards: bool = False) -> ClipRendering:
    """A clip of five frames, so with steps six times those of a whole one."""
    clip = Clip(scene=SCENE, kind=kind, frames=5, backwards=backwards)
    return render_clip(clip, size=SIZE)


def _warped(pixels: Tensor, flow: Flow) -> Tensor:
    """Pictures (F, C, H, W) pulled back along the flow."""
    size = pixels.shape[-1]
    line = torch.arange(size) + 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    at = (torch.stack([x, y]) + flow.offset) * (2.0 / size) - 1.0  # (F, 2, H, W)
    return grid_sample(pixels, at.permute(0, 2, 3, 1), align_corners=False, padding_mode="border")


@pytest.mark.parametrize("kind", CLIP_KINDS)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_flow_carries_pixels_to_the_same_point(kind: str, direction: str) -> None:
    clip = _rendered(kind)
    frames = (clip.pixels[:-1], clip.pixels[1:])
    here, there = frames if direction == "forward" else frames[::-1]
    flow: Flow = getattr(clip, direction)
    assert flow.offset.shape == (4, 2, SIZE, SIZE)
    assert flow.visible.shape == (4, SIZE, SIZE)
    error = (_warped(there, flow) - here).abs().mean(dim=1)  # (F, H, W)
    still = (there - here).abs().mean(dim=1)
    # shadows and highlights stay behind, and rims are mixed: hence a mean and a median, not a bound
    assert error[flow.visible].mean() < 0.02
    assert error[flow.visible].median() < 0.006
    on_thing = flow.visible & (clip.masks[:-1] if direction == "forward" else clip.masks[1:])[:, 0]
    assert error[on_thing].mean() < 0.5 * still[on_thing].mean()
    for shift in ((0.6, 0.0), (-0.6, 0.0), (0.0, 0.6), (0.0, -0.6)):
        wrong = replace(flow, offset=flow.offset + torch.tensor(shift)[:, None, None])
        assert (
            error[on_thing].mean() < 0.9 * (_warped(there, wrong) - here).abs().mean(dim=1)[on_thing].mean()
        )


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_forward_and_backward_flow_undo_each_other(kind: str) -> None:
    clip = _rendered(kind)
    back = _warped(clip.backward.offset, clip.forward)
    both_seen = clip.forward.visible & (
        _warped(clip.backward.visible[:, None].float(), clip.forward)[:, 0] > 0.99
    )
    residual = (clip.forward.offset + back).square().sum(dim=1).sqrt()[both_seen]
    assert both_seen.float().mean() > 0.7
    assert residual.median() < 0.02
    assert (residual > 0.5).float().mean() < 0.05  # interpolation across the rim of the thing


def test_ground_rests_while_a_thing_moves() -> None:
    clip = _rendered("move")
    ground = (clip.opacity.amax(dim=1)[:-1] == 0.0) & clip.forward.visible
    assert clip.forward.offset.abs().amax(dim=1)[ground].max() < 1e-3
    on_thing = clip.masks[:-1, 0] & (clip.opacity[:-1, 0] == 1.0)
    across = clip.forward.offset[:, 0][on_thing]
    expected = (PATH[1][0] - PATH[0][0]) / 4 / (3.35 * 0.3346) * SIZE / 2  # distance x tan(half angle)
    assert across.mean().item() == pytest.approx(expected, rel=0.2)
    hidden = ~clip.forward.visible
    assert 0.0 < hidden.float().mean() < 0.2


def test_orbit_moves_everything_but_keeps_the_thing_in_the_middle() -> None:
    clip = _rendered("orbit")
    moving = clip.forward.offset.square().sum(dim=1).sqrt()
    assert (moving > 0.2).float().mean() > 0.8
    xs = torch.arange(SIZE) + 0.5
    centres = [(mask.float().sum(dim=0) * xs).sum() / mask.sum() for mask in clip.masks[:, 0]]
    assert max(centres) - min(centres) < 0.1 * SIZE


def test_backwards_runs_the_same_way_back() -> None:
    there, back = _rendered("move"), _rendered("move", backwards=True)
    assert torch.equal(there.pixels, back.pixels.flip(0))
    assert torch.equal(there.forward.offset, back.backward.offset.flip(0))


def test_opacity_is_the_coverage_of_the_thing() -> None:
    clip = _rendered("orbit")
    assert clip.opacity.shape == (5, 2, SIZE, SIZE)
    assert clip.opacity[:, 1].max() == 0.0
    rim = (clip.opacity[:, 0] > 0.0) & (clip.opacity[:, 0] < 1.0)
    assert 0.0 < rim.float().mean() < 0.1
    assert 0.05 < clip.masks[:, 0].float().mean() < 0.6


def test_poses_go_at_constant_speed() -> None:
    orbit = Clip(scene=SCENE, kind="orbit").poses
    assert len(orbit) == FULL
    assert (orbit[0].orbit, orbit[-1].orbit) == (-ORBIT / 2, ORBIT / 2)
    steps = [b.orbit - a.orbit for a, b in pairwise(orbit)]
    assert steps == pytest.approx([ORBIT / (FULL - 1)] * (FULL - 1))
    move = Clip(scene=SCENE, kind="move").poses
    assert move[0].moves == (pytest.approx(PATH[0]),)
    assert move[-1].moves == (pytest.approx(PATH[1]),)
    assert not any(pose.orbit for pose in move)


def test_samples_are_pure_and_plain() -> None:
    clips = [sample_clip(seed) for seed in range(100)]
    assert clips == [sample_clip(seed) for seed in range(100)]
    assert {clip.kind for clip in clips} == set(CLIP_KINDS)
    assert {clip.backwards for clip in clips} == {True, False}
    for clip in clips:
        (thing,) = clip.scene.things
        assert (clip.scene.style, clip.scene.time, clip.scene.view) == ("photo", "day", "front")
        assert thing.effect is None
        assert clip.scene.place != "green screen"
    assert sample_clip(3, kind="orbit").kind == "orbit"


def test_benchmark_clips() -> None:
    assert len(BENCHMARK_CLIPS) == 8
    assert [clip.kind for clip in BENCHMARK_CLIPS].count("orbit") == 4
    assert len({clip.scene.things[0].kind for clip in BENCHMARK_CLIPS}) == 8
    assert all(clip.scene.seed >= EVALUATION_SEEDS and clip.frames == FULL for clip in BENCHMARK_CLIPS)


def test_impossible_clips_are_refused() -> None:
    with pytest.raises(InputError, match="zoom"):
        Clip(scene=SCENE, kind="zoom")
    with pytest.raises(InputError, match="1 frames"):
        replace(BENCHMARK_CLIPS[0], frames=1)
