"""A layer learnt on an atlas: what reaches the frames, what cannot, and the same again by its seed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from scumble.core.errors import InputError
from scumble.core.events import finish
from scumble.methods.text2live import PRESETS, Config
from scumble.methods.text2live.image import Bank, Critic
from scumble.methods.text2live.texts import Texts
from scumble.methods.text2live.video import Box, VideoCanvas, edit
from scumble.models.atlas import Atlas, Layout
from scumble.models.atlas_file import SavedAtlas, finished
from scumble.models.clip import Clip, load_clip
from tiny_clip import shared_clip
from videos import SQUARE, STEP, moving_square

TEXTS = Texts("a red cat", "a red cat", "a cat")
TINY = Config(steps=2, channels=4, views=1, size=32, full_every=2, bootstrapping=0.0, relevancy_looks=1)
FRAMES = moving_square(6)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load_clip(shared_clip())


@pytest.fixture(scope="module")
def saved() -> SavedAtlas:
    """Of the moving square, written by hand: opaque there, and one place of it in the atlas in all frames."""
    atlas = Atlas(Layout(frames=6, height=32, width=40))
    with torch.no_grad():
        for level in atlas.colours[0].levels:
            level.normal_(generator=torch.Generator().manual_seed(0))
        finest = atlas.opacities[0].levels[-1].fill_(-9)
        for t in range(6):
            finest[t, 0, 10 : 10 + SQUARE, 6 + STEP * t : 6 + STEP * t + SQUARE] = 9
            atlas.mappings[0].get_buffer("affine")[t, 0, 2] -= 0.8 * 2 * STEP * t / 40
    return finished(atlas, [0.8, 0.8], {})


def canvas(clip: Clip, saved: SavedAtlas, config: Config = TINY, **more: Any) -> VideoCanvas:
    return VideoCanvas(clip, saved, more.pop("layer", 0), FRAMES, config, seed=more.pop("seed", 0), **more)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_frame_sees_the_square_at_one_place(clip: Clip, saved: SavedAtlas) -> None:
    surveyed = canvas(clip, saved)
    assert surveyed.seen == list(range(6))
    middles = [surveyed.at[t, 10 + SQUARE // 2, 6 + STEP * t + SQUARE // 2] for t in range(6)]
    assert torch.allclose(torch.stack(middles), middles[0].expand(6, 2), atol=1e-4)
    assert bool((surveyed.weights[0, 12:20, 8:16] == 1).all())
    assert bool((surveyed.weights[0, 25:] == 0).all())


def test_a_solid_layer_covers_frames_as_far_as_they_show_it(clip: Clip, saved: SavedAtlas) -> None:
    surveyed = canvas(clip, saved)
    for seed in range(5):
        box = surveyed._crop(2, generator(seed))
        assert 0 <= box.top < box.bottom <= 32
        assert 0 <= box.left < box.right <= 40
        assert min(box.bottom - box.top, box.right - box.left) >= 16
        part = surveyed._part([0, 2, 4], box)
        layer = (
            torch.tensor([0.2, 0.4, 0.6, 1.0])
            .view(1, 4, 1, 1)
            .expand(-1, -1, *part.of(surveyed.sheet).shape[2:])
        )
        cover = surveyed._rendered(layer, part, [0, 2, 4], box)
        expected = layer[..., :1, :1] * box.of(surveyed.weights[[0, 2, 4]])[:, None]
        assert torch.allclose(cover, expected, atol=1e-5)


def test_a_part_of_the_sheet_is_rendered_as_the_whole(clip: Clip, saved: SavedAtlas) -> None:
    """Where a frame looks into the sheet does not depend on the part that was cut out for it."""
    surveyed = canvas(clip, saved, TINY.replace(size=64), layer=1)
    layer = torch.rand(1, 4, *surveyed.sheet.shape[2:], generator=generator())
    box = Box(14, 20, 30, 36)
    part = surveyed._part([1, 3], box)
    whole = Box(0, 0, *surveyed.sheet.shape[2:])
    assert part != whole
    pieces = surveyed._rendered(part.of(layer), part, [1, 3], box)
    assert torch.allclose(pieces, surveyed._rendered(layer, whole, [1, 3], box), atol=1e-4)


def test_losses_of_a_step(clip: Clip, saved: SavedAtlas) -> None:
    surveyed = canvas(clip, saved)
    critic = Critic(clip, Bank.of(clip, TEXTS, TINY), TINY)
    names = {"composition", "direction", "screen", "structure", "sparsity"}
    parts = surveyed.losses(critic, None, 1, generator())
    assert set(parts) == names
    assert all(bool(value.isfinite()) for value in parts.values())
    region = surveyed.region(TEXTS)
    assert region.shape[2:] == surveyed.sheet.shape[2:]
    config = TINY.replace(bootstrapping=2.0, bootstrapping_until=1.0)
    critic = Critic(clip, Bank.of(clip, TEXTS, config), config)
    wanted = canvas(clip, saved, config).losses(critic, region, 0, generator())
    assert set(wanted) == names | {"bootstrapping"}
    assert float(wanted["bootstrapping"].detach()) > 0


def learnt(clip: Clip, saved: SavedAtlas, config: Config = TINY, **more: Any) -> Tensor:
    return finish(edit(canvas(clip, saved, config, **more), TEXTS))


def test_a_layer_is_the_same_again_and_of_the_sheets_size(clip: Clip, saved: SavedAtlas) -> None:
    one = learnt(clip, saved)
    assert one.shape == (4, *saved.pictures[0].shape[1:])
    assert one.dtype == torch.uint8
    assert torch.equal(learnt(clip, saved), one)
    assert not torch.equal(learnt(clip, saved, seed=1), one)
    growing: dict[str, Any] = {"bootstrapping": 5.0, "bootstrapping_until": 1.0}
    for changes in ({"frame_distance": 1}, {"fill": 0.0}, {"channels": 5}, growing):
        assert not torch.equal(learnt(clip, saved, TINY.replace(**changes)), one), changes


def test_a_mask_of_the_sheet_bounds_the_layer(clip: Clip, saved: SavedAtlas) -> None:
    height, width = saved.pictures[0].shape[1:]
    mask = torch.zeros(1, 1, height, width)
    mask[..., : width // 2] = 1
    layer = learnt(clip, saved, mask=mask)
    assert bool((layer[3, :, width // 2 + 3 :] == 0).all())
    assert bool((layer[3, :, : width // 2 - 3] > 0).any())


def test_a_layer_that_no_frame_shows(clip: Clip, saved: SavedAtlas) -> None:
    hidden = Atlas(Layout(frames=6, height=32, width=40))
    with torch.no_grad():
        hidden.opacities[0].levels[-1].fill_(-9)
    with pytest.raises(InputError, match="seen in no frame"):
        canvas(clip, finished(hidden, [0.8, 0.8], {}))


def test_presets_of_videos_are_the_papers_for_videos() -> None:
    for name in ("video", "paper-video", "toybox-video"):
        preset = PRESETS[name]
        assert (preset.structure, preset.sparsity, preset.sparsity_l0) == (3, 0.1, 0.005)
        assert (preset.bootstrapping, preset.fill, preset.frame_distance) == (0, 0, 2)
    assert PRESETS["paper-video"].cover == 0.95


def test_what_speaks_for_the_negatives_is_taken_out_of_the_region(clip: Clip, saved: SavedAtlas) -> None:
    plain = canvas(clip, saved, layer=1).region(TEXTS)
    less = canvas(clip, saved, TINY.replace(negatives=("grass",), negative_threshold=0.5), layer=1)
    found = less.region(TEXTS)
    gone = found != plain
    assert bool(gone.any())
    assert bool((found[gone] == 0).all())
