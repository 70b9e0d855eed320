"""Layered neural atlases: where fits start, the laws of sheets, fits of small clips, and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from scumble.core.errors import ConfigError, ImageError, InputError, NumericError
from scumble.core.events import finish
from scumble.core.safetensor_files import save_safetensors
from scumble.data.flow import agreeing
from scumble.models.atlas import Atlas, layer_weights
from scumble.models.atlas_file import SavedAtlas, finished, load_atlas, save_atlas
from scumble.models.atlas_fit import PRESETS, AtlasConfig, Fit, Footage
from scumble.models.atlas_sheets import (
    check_frames,
    draw,
    overlay,
    paint_of,
    premultiplied,
    surveyed,
)
from scumble.models.atlas_start import affine_between, start_maps
from videos import STEP, moving_square, square_masks


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def footage(frames: int = 4, *, still: bool = False) -> Footage:
    """The moving square, with its true masks and flow; or its first frame again and again."""
    video, masks = moving_square(frames), square_masks(frames)
    if still:
        video, masks = video[:1].repeat(frames, 1, 1, 1), masks[:1].repeat(frames, 1, 1, 1)
    step = 0 if still else STEP
    forward, backward = torch.zeros(frames - 1, 2, 32, 40), torch.zeros(frames - 1, 2, 32, 40)
    forward[:, 0], backward[:, 0] = step * masks[:-1, 0], -step * masks[1:, 0]
    trusted = agreeing(forward, backward), agreeing(backward, forward)
    return Footage(
        frames=video, masks=(masks * 255).byte(), forward=forward, backward=backward, trusted=trusted
    )


def psnr(one: Tensor, other: Tensor) -> float:
    return float(-10 * ((one.float() - other.float()) / 255).square().mean().log10())


def restored(atlas: Atlas, frames: int) -> Tensor:
    places = atlas.layout.pixel_centres(32, 40)
    with torch.inference_mode():
        found = [atlas.reconstruct([t], places[None])[0].T.unflatten(1, (32, 40)) for t in range(frames)]
    return (torch.stack(found) * 255).round()


# The start


def test_an_affine_flow_is_found_in_spite_of_some_wrong_pixels() -> None:
    start = noise(400, 2) * 2 - 1
    true = torch.tensor([[1.02, 0.03, 0.1], [-0.02, 0.98, -0.05]])
    end = start @ true[:, :2].T + true[:, 2]
    end[:40] += 0.5
    found = affine_between(start.double(), end.double(), torch.ones(400, dtype=torch.float64))
    assert_close(found[:2].float(), true, rtol=0, atol=0.01)
    still = affine_between(start.double(), end.double(), torch.zeros(400, dtype=torch.float64))
    assert torch.equal(still, torch.eye(3, dtype=torch.float64))


def test_maps_start_where_the_square_is_one_place() -> None:
    given = footage(4)
    layout = given.layout()
    seen = given.masks[:, 0].float() / 255
    maps, scale = start_maps(given.forward, given.trusted[0], seen, layout)
    corners = []
    for t in range(4):
        pixels = torch.tensor([[6.0 + STEP * t, 10.0], [18.0 + STEP * t, 22.0]])
        corners.append(layout.normalised(pixels) @ maps[t, :, :2].T + maps[t, :, 2])
    for corner in corners[1:]:
        assert_close(corner, corners[0], rtol=0, atol=0.02)
    assert scale > 0
    assert float(torch.stack(corners).abs().max()) < 1


# Fits


QUICK = AtlasConfig(steps=120, points=2000, frames=4)


@pytest.fixture(scope="module")
def moving() -> SavedAtlas:
    fit = Fit(footage(4), QUICK, seed=0)
    return finished(finish(fit.run()), fit.scales, {"first": 0})


def test_the_atlas_of_a_still_clip_is_the_frame() -> None:
    """Every frame has one place in the atlas, and the sheets, laid over one another there, are the frame."""
    given = footage(3, still=True)
    fit = Fit(given, QUICK.replace(steps=100), seed=0)
    atlas = finish(fit.run())
    places = atlas.layout.pixel_centres(32, 40)
    with torch.inference_mode():
        for layer in range(2):
            uvs = [atlas.uv(layer, [t], places[None]) for t in range(3)]
            weight = layer_weights(atlas.opacity([0], places[None]))[..., layer] > 0.5
            pixels = 40 / (2 * fit.scales[layer])
            assert float((uvs[0] - uvs[2]).norm(dim=-1)[weight].max()) * pixels < 0.5
        saved = finished(atlas, fit.scales, {})
        background = saved.pictures[1].float()[None] / 255
        at = saved.sheets[1].within(atlas.uv(1, [0], places[None]))[:, :, None]
        shown = torch.nn.functional.grid_sample(background, at, align_corners=False)[0, ..., 0]
        outside = (square_masks(1)[0, 0] < 0.5).flatten()
    frame = given.frames[0].flatten(1).float()
    assert psnr(shown[:, outside] * 255, frame[:, outside]) > 30
    assert psnr(restored(atlas, 3), given.frames[:3]) > 30


def test_a_moving_square_is_found_and_given_back(moving: SavedAtlas) -> None:
    given = footage(4)
    assert psnr(restored(moving.atlas, 4), given.frames) > 28
    places = moving.atlas.layout.pixel_centres(32, 40)
    with torch.inference_mode():
        opacity = torch.stack([moving.atlas.opacity([t], places[None])[0, :, 0] for t in range(4)])
    found, true = opacity.view(4, 1, 32, 40) > 0.5, square_masks(4) > 0.5
    assert float((found & true).sum() / (found | true).sum()) > 0.9


def test_paint_moves_with_what_it_lies_on(moving: SavedAtlas) -> None:
    """Red on all of the foreground's sheet is red on the square in every frame, and nowhere else."""
    frames = footage(4).frames
    paint = torch.zeros(4, *moving.pictures[0].shape[1:])
    clear = list(overlay(moving.atlas, moving.sheets, {0: paint}, frames))
    assert torch.equal(torch.stack(clear), frames)
    paint[0], paint[3] = 1.0, 1.0
    red = torch.stack(list(overlay(moving.atlas, moving.sheets, {0: paint}, frames)))
    weights = torch.stack([surveyed(moving.atlas, t, (32, 40))[0][:, 0].view(32, 40) for t in range(4)])
    untouched = weights == 0
    assert torch.equal(red.movedim(1, -1)[untouched], frames.movedim(1, -1)[untouched])
    solid = (weights == 1)[:, None].expand_as(red)
    assert bool((red.movedim(1, 0)[0][weights == 1] == 255).all())
    assert bool((red[solid].view(-1) % 255 == 0).all())
    inside = square_masks(4)[:, 0] > 0.5
    assert float((red.movedim(1, 0)[0][inside] > 240).float().mean()) > 0.9
    large = frames.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert next(iter(overlay(moving.atlas, moving.sheets, {0: paint}, large))).shape == (3, 64, 80)


def test_a_sheet_is_painted_with_or_without_transparency() -> None:
    original = torch.full((3, 4, 5), 100, dtype=torch.uint8)
    edited = original.clone()
    edited[0, 1, 2] = 200
    layer = paint_of(edited, None, original)
    assert layer.shape == (4, 4, 5)
    assert int((layer[3] > 0).sum()) == 1
    assert float(layer[0, 1, 2]) == pytest.approx(200 / 255)
    alpha = torch.zeros(4, 5, dtype=torch.uint8)
    alpha[0] = 51
    assert float(paint_of(original, alpha, original)[3, 0, 0]) == pytest.approx(0.2)
    assert float(premultiplied(layer)[0, 0, 0]) == 0
    for picture, opacity, sentence in (
        (original[:, :2], None, "5 x 2 pixels, and the atlas 5 x 4"),
        (original, None, "Nothing is painted"),
    ):
        with pytest.raises(ImageError, match=sentence):
            paint_of(picture, opacity, original)


def test_a_fit_is_the_same_again_and_goes_on_where_it_stopped() -> None:
    given, config = footage(3), QUICK.replace(steps=6, points=300)
    whole = Fit(given, config, seed=1)
    finish(whole.run())
    half = Fit(given, config, seed=1)
    loop = half.run()
    for _ in range(3):
        next(loop)
    state = {name: tensor.clone() for name, tensor in half.state().items()}
    taken_up = Fit(given, config, seed=1)
    taken_up.load_state(state)
    records = list(taken_up.run())
    assert [record.step for record in records] == [4, 5, 6]
    pairs = zip(whole.atlas.parameters(), taken_up.atlas.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    other = Fit(given, config, seed=2)
    finish(other.run())
    pairs = zip(whole.atlas.parameters(), other.atlas.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_the_faithful_form_is_brought_to_its_start_and_learns() -> None:
    config = PRESETS["faithful"].replace(steps=3, pretraining=40, points=200, frames=3, mapping_rate=1e-3)
    fit = Fit(footage(3), config, form="faithful", seed=0)
    loop = fit.run()
    for _ in range(40):
        next(loop)
    places = fit.layout.pixel_centres(32, 40)[None]
    with torch.inference_mode():
        miss = (fit.atlas.uv(1, [1], places) - 0.8 * places).norm(dim=-1).mean()
    assert float(miss) < 0.2
    assert set(fit.losses()) == {
        "colour", "gradient", "sparsity", "rigidity", "global rigidity", "flow", "flow opacity",
        "bootstrapping",
    }  # fmt: skip
    finish(loop)
    assert fit.step == 43


def test_several_foregrounds_lie_over_one_another() -> None:
    given = footage(3)
    second = torch.zeros_like(given.masks)
    second[:, :, :6] = 255
    both = Footage(
        frames=given.frames, masks=torch.cat([given.masks, second], 1), forward=given.forward,
        backward=given.backward, trusted=given.trusted,
    )  # fmt: skip
    fit = Fit(both, QUICK.replace(steps=100, points=1500, frames=3), seed=0)
    atlas = finish(fit.run())
    saved = finished(atlas, fit.scales, {})
    assert saved.names == ["foreground-1", "foreground-2", "background"]
    weights = surveyed(saved.atlas.requires_grad_(False), 1, (32, 40))[0].view(32, 40, 3)
    assert float(weights[12:20, 10:18, 0].mean()) > 0.75
    assert float(weights[:5, :, 1].mean()) > 0.75
    assert float(weights[25:, :, 2].mean()) > 0.75


CHANGES: dict[str, Any] = {
    "steps": 2, "points": 150, "frames": 2, "pretraining": 1, "rate": 1e-1, "mapping_rate": 1e-1,
    "decay": False, "scale": 0.5, "colour": 1.0, "gradient": 1.0, "rigidity": 100.0,
    "global_rigidity": (500.0, 500.0), "global_until": 0.0, "flow": 500.0, "flow_opacity": 5000.0,
    "bootstrapping": 0.0, "bootstrapping_until": 0.0, "sparsity": 0.0, "gain": 5e4,
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_of_a_fit_has_an_effect(name: str) -> None:
    assert set(CHANGES) == set(AtlasConfig.model_fields)
    config, given = QUICK.replace(steps=3, points=300), footage(3)
    form = "faithful" if name == "scale" else "fast"
    config = config.replace(pretraining=1) if name == "scale" else config
    fits = [Fit(given, c, form=form, seed=0) for c in (config, config.replace(**{name: CHANGES[name]}))]
    one, other = (finish(fit.run()) for fit in fits)
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_what_cannot_be_fitted() -> None:
    given = footage(3)
    parts = {name: getattr(given, name) for name in ("frames", "masks", "forward", "backward", "trusted")}
    with pytest.raises(InputError, match="3 masks of 40 x 31 pixels for 3 frames of 40 x 32"):
        Footage(**(parts | {"masks": given.masks[:, :, :31]}))
    with pytest.raises(InputError, match="flow does not belong"):
        Footage(**(parts | {"forward": given.forward[:1]}))
    with pytest.raises(NumericError, match="no number"):
        finish(Fit(given, QUICK.replace(steps=25, points=60, rate=1e30, colour=1e38), seed=0).run())
    with pytest.raises(ConfigError):
        AtlasConfig.of({"steps": 0})


# Files


def test_an_atlas_comes_back_from_its_file(moving: SavedAtlas, tmp_path: Path) -> None:
    save_atlas(tmp_path / "a.atlas", moving)
    again = load_atlas(tmp_path / "a.atlas")
    assert again.sheets == moving.sheets
    assert again.scales == moving.scales
    assert again.about == {"first": 0}
    assert all(torch.equal(a, b) for a, b in zip(again.pictures, moving.pictures, strict=True))
    assert torch.equal(restored(again.atlas, 4), restored(moving.atlas, 4))
    assert torch.equal(draw(again.atlas, 0, again.sheets[0]), moving.pictures[0])
    check_frames(again.atlas, footage(4).frames)
    for frames in (footage(3).frames, torch.zeros(4, 3, 40, 32, dtype=torch.uint8)):
        with pytest.raises(InputError, match="another video"):
            check_frames(again.atlas, frames)


def test_files_that_are_no_atlas(moving: SavedAtlas, tmp_path: Path) -> None:
    path = tmp_path / "a.atlas"
    save_safetensors(path, {"x": torch.zeros(1)}, {"format": "something else"})
    with pytest.raises(InputError, match="no video atlas but of the format 'something else'"):
        load_atlas(path)
    save_atlas(path, moving)
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = file.keys()
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in names}
    layout = header["layout"]
    for wrong in (
        {"layout": layout.replace('"frames": 4', '"frames": 100000')},
        {"layout": layout.replace('"frames": 4', '"frames": 1000000000')},
        {"layout": layout.replace('"height": 32', '"height": 60000')},
        {"layout": "[]"},
        {"sheets": "[]"},
        {"scales": "[1]"},
    ):
        save_safetensors(path, tensors, header | wrong)
        with pytest.raises(InputError, match="not a sound atlas"):
            load_atlas(path)
    save_safetensors(path, {k: v for k, v in tensors.items() if not k.startswith("sheet")}, header)
    with pytest.raises(InputError, match="not a sound atlas"):
        load_atlas(path)
