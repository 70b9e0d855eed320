"""Every formula of Text2LIVE beside one derived again, in double precision and with loops."""

from __future__ import annotations

from math import acos, asin, exp, pi, sqrt

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.nn.functional import interpolate, normalize
from torch.testing import assert_close

from scumble.data.guided import RADIUS, RIDGE, guided_filter, guided_upsample, slopes
from scumble.methods.text2live import losses
from scumble.methods.text2live.views import (
    GREEN,
    GREY,
    Jitter,
    Views,
    draw_crop,
    draw_jitter,
    draw_views,
    over,
)
from scumble.models.clip import Clip, load_clip
from scumble.models.clip_vision import attention_of, see, view_size
from scumble.models.edit_layer import COLOUR_AXES, rgb_of_decorrelated
from scumble.models.relevancy import patch_relevancy, relevancy_map, stretched
from tiny_clip import shared_clip

Array = NDArray[np.float64]


def features(*shape: int, seed: int = 0) -> Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def array(tensor: Tensor) -> Array:
    return tensor.double().numpy()


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load_clip(shared_clip())


# Losses


def test_distance_is_half_the_square_of_the_angle() -> None:
    pictures, texts = features(3, 8), features(5, 8, seed=1)
    found = losses.distance(pictures, texts)
    chords, angles = [], []
    for x in array(pictures):
        for y in array(texts):
            chords.append(2 * asin(sqrt(((x - y) ** 2).sum()) / 2) ** 2)
            angles.append(acos(float(x @ y)) ** 2 / 2)
    assert float(found) == pytest.approx(sum(chords) / 15, rel=1e-5)
    assert float(found) == pytest.approx(sum(angles) / 15, rel=1e-5)
    plain = losses.distance(pictures, texts, "cosine")
    assert float(plain) == pytest.approx(1 - (array(pictures) @ array(texts).T).mean(), rel=1e-5)


def test_distance_has_a_slope_even_where_picture_and_text_are_one() -> None:
    pictures = features(1, 8).requires_grad_()
    losses.distance(pictures, pictures.detach()).backward()
    assert pictures.grad is not None
    assert bool(pictures.grad.isfinite().all())


def test_direction() -> None:
    result, source = features(2, 6), features(2, 6, seed=1)
    prompt, region = features(3, 6, seed=2), features(3, 6, seed=3)
    expected = []
    for row in range(2):
        moved = array(result)[row] - array(source)[row]
        for text in range(3):
            wanted = array(prompt)[text] - array(region)[text]
            expected.append(1 - moved @ wanted / sqrt((moved @ moved) * (wanted @ wanted)))
    assert float(losses.direction(result, source, prompt, region)) == pytest.approx(
        np.mean(expected), rel=1e-5
    )
    assert float(losses.direction(result, result, prompt, region)) == 1.0


def test_structure_compares_cosines_of_all_pairs_of_tokens() -> None:
    result, source = torch.randn(1, 4, 5), torch.randn(1, 4, 5)
    total = 0.0
    for i in range(4):
        for j in range(4):
            cosines = []
            for tokens in (array(result)[0], array(source)[0]):
                a, b = tokens[i], tokens[j]
                cosines.append(a @ b / sqrt((a @ a) * (b @ b)))
            total += (cosines[0] - cosines[1]) ** 2
    assert float(losses.structure(result, source)) == pytest.approx(total / 16, rel=1e-4)
    assert float(losses.structure(3 * source, source)) == pytest.approx(0, abs=1e-10)


def test_sparsity_and_bootstrapping() -> None:
    opacity, region = noise(1, 1, 3, 4), noise(1, 1, 3, 4, seed=1)
    expected = np.mean([2 / (1 + exp(-5 * a)) - 1 for a in array(opacity).ravel()])
    assert float(losses.smooth_l0(opacity)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.smooth_l0(torch.zeros(1, 1, 3, 4))) == 0
    expected = ((array(opacity) - array(region)) ** 2).mean()
    assert float(losses.bootstrapping(opacity, region)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("fall", "shares"),
    [
        ("linear", (0.9, 0.8, 0.1, 0, 0)),
        ("exponential", (1, 0.99, 0.99**8, 0.99**9, 0)),
        ("constant", (1,) * 4 + (0,)),
    ],
)
def test_bootstrapping_falls(fall: losses.Fall, shares: tuple[float, ...]) -> None:
    found = [losses.bootstrapping_share(step, 10, fall) for step in (0, 1, 8, 9, 10)]
    assert found == pytest.approx(shares, abs=1e-12)


def test_composition_equation() -> None:
    layer, below = noise(1, 4, 2, 2), noise(1, 3, 2, 2, seed=1)
    expected = array(layer)[:, 3:] * array(layer)[:, :3] + (1 - array(layer)[:, 3:]) * array(below)
    assert_close(over(layer, below).double(), torch.tensor(expected), rtol=0, atol=1e-6)
    green = over(torch.zeros(1, 4, 2, 2), torch.tensor(GREEN))
    assert (green[0, :, 0, 0] * 255).tolist() == pytest.approx([0, 177, 64], abs=1e-4)


def test_decorrelated_colours() -> None:
    axes = torch.randn(1, 3, 2, 2)
    root = np.array(COLOUR_AXES) / np.array([1.6, 1, 1])
    root /= np.sqrt((root**2).sum(0)).max()
    expected = np.einsum("rc,bchw->brhw", root, array(axes))
    assert_close(rgb_of_decorrelated(axes).double(), torch.tensor(expected), rtol=0, atol=1e-6)


# Views


def test_jitter_of_colours_is_pillows() -> None:
    """Brightness, contrast and saturation one at a time; hue turns about grey and keeps what is grey."""
    picture = (noise(1, 3, 6, 7) * 0.5 + 0.25) * 255
    image = Image.fromarray(picture[0].round().byte().permute(1, 2, 0).numpy())
    unit = torch.tensor(np.asarray(image)).permute(2, 0, 1)[None] / 255
    whole, grey = torch.eye(3), torch.tensor(GREY).expand(3, 3)
    for name, matrix, contrast in (
        ("Brightness", 1.08 * whole, 1.0),
        ("Contrast", whole, 0.93),
        ("Color", grey + 1.09 * (whole - grey), 1.0),
    ):
        factor = {"Brightness": 1.08, "Contrast": 0.93, "Color": 1.09}[name]
        theirs = np.asarray(getattr(ImageEnhance, name)(image).enhance(factor)) / 255
        ours = Jitter(matrix[None], torch.tensor([contrast]))(unit)[0].permute(1, 2, 0).numpy()
        assert np.abs(ours - theirs).max() < 2 / 255, name
    drawn = draw_jitter(torch.Generator().manual_seed(1), 64, colour=1.0, grey=0.5)
    level = drawn.matrix @ torch.full((3,), 0.5)
    assert_close(level, level[:, :1].expand(-1, 3))  # grey stays grey, whatever the jitter
    without = (drawn.matrix[:, 0] - drawn.matrix[:, 1]).abs().amax(-1) < 1e-6
    assert 0.3 < float(without.float().mean()) < 0.7
    plain = draw_jitter(torch.Generator().manual_seed(1), 8, colour=0.0)
    assert_close(plain.matrix, whole.expand(8, -1, -1), rtol=0, atol=1e-6)
    assert bool((plain.contrast == 1).all())


def test_a_view_without_chance_is_the_picture() -> None:
    y, x = ((torch.arange(n) + 0.5) * (2 / n) - 1 for n in (8, 12))
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
    crops = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    same = Jitter(torch.eye(3)[None], torch.ones(1))
    picture = noise(1, 3, 8, 12)
    assert_close(Views(places, crops, same).of(picture), picture, rtol=0, atol=1e-5)
    half = Views(places, torch.tensor([[[0.5, 0.0], [0.5, 1.0]]]), same).of(picture)
    expected = interpolate(picture[..., 6:], (8, 12), mode="bilinear", align_corners=False)
    assert_close(half[..., 2:-2], expected[..., 2:-2], rtol=0, atol=1e-5)
    outside = Views(places + 10, crops, same).of(picture, 0.25)
    assert bool((outside == 0.25).all())


def test_corners_pulled_in_are_where_the_pictures_corners_go() -> None:
    """The map takes a point of the view to the picture: found by a solver of numpy and applied to corners."""
    from scumble.methods.text2live import views

    pulled = noise(3, 4, 2) * 0.4
    plane = views._perspective(pulled)
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    start = corners - corners * pulled
    there = torch.einsum("vrc,vkc->vkr", plane, torch.cat([start, torch.ones(3, 4, 1)], -1))
    assert_close(there[..., :2] / there[..., 2:], corners.expand(3, -1, -1), rtol=0, atol=1e-5)
    turned = views._affine(torch.tensor([pi / 2]), torch.tensor([[0.0, 0.1]]), (10, 20))
    # A quarter turn of a view twice as wide as high, in pixels: (1, 0) is 10 px right, and goes 10 px down.
    assert_close(turned[0] @ torch.tensor([1.0, 0, 1]), torch.tensor([0.0, 2.1, 1]), rtol=0, atol=1e-6)


def test_views_are_drawn_within_their_bounds() -> None:
    views = draw_views(torch.Generator().manual_seed(0), 200, (4, 4), 0.6)
    middle, half = views.crops.unbind(1)
    assert bool((half[0] == 1).all())
    assert float(half.min()) >= 0.6
    assert float(half[1:].mean()) == pytest.approx(0.8, abs=0.03)
    assert bool(((middle.abs() + half) <= 1 + 1e-6).all())
    crops = [
        draw_crop(
            torch.Generator().manual_seed(i), (50, 80), cover=0.85, scales=(0.8, 1.2), flip=0.5, least=9
        )
        for i in range(200)
    ]
    assert all(0.84 * 50 <= c.height <= 50 and c.top + c.height <= 50 for c in crops)
    assert all(0.84 * 80 <= c.width <= 80 and c.left + c.width <= 80 for c in crops)
    assert 0.4 < sum(c.mirrored for c in crops) / 200 < 0.6
    ratios = [c.size[1] / c.width for c in crops]
    assert 0.74 < min(ratios) < 0.85  # sides are multiples of 8
    assert 1.15 < max(ratios) < 1.26
    small = draw_crop(torch.Generator(), (8, 8), cover=0.5, scales=(0.5, 0.5), flip=0, least=5)
    assert small.size == (8, 8)
    assert small(noise(1, 3, 8, 8)).shape == (1, 3, 8, 8)


# CLIP


def test_what_is_seen_is_what_transformers_gives(clip: Clip) -> None:
    views = noise(2, 3, 32, 32)
    seen = see(clip, views)
    assert_close(seen.features, clip.image_features(views * 2 - 1))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25]))
    theirs = clip.network.vision_model((views - mean) / std, output_hidden_states=True)
    assert_close(seen.tokens, theirs.hidden_states[-2])
    wide = see(clip, noise(1, 3, 32, 40))
    assert wide.tokens.shape == (1, 1 + 4 * 5, 32)
    assert view_size(clip, 100, 100) == (32, 32)
    assert view_size(clip, 100, 130) == (32, 40)
    assert view_size(clip, 900, 100) == (40, 32)  # at most 320/224 as long as wide, in whole patches


def test_relevancy_of_the_last_block(clip: Clip) -> None:
    """R = 1 + mean (ds/dA A)^+, with the last block written out and A a leaf."""
    views, text = noise(2, 3, 32, 32), clip.text_features(["a red cat"])[0]
    found = patch_relevancy(clip, views, text)
    vision, tokens = clip.network.vision_model, see(clip, views).tokens
    block = vision.encoder.layers[-1]
    for one, hidden in enumerate(tokens):
        inside = block.layer_norm1(hidden)
        heads = [
            getattr(block.self_attn, name)(inside).view(17, 2, 16).transpose(0, 1)
            for name in ("q_proj", "k_proj", "v_proj")
        ]
        attention = (heads[0] @ heads[1].transpose(1, 2) / 4).softmax(-1).detach().requires_grad_()
        mixed = (attention @ heads[2]).transpose(0, 1).reshape(17, 32)
        after = hidden + block.self_attn.out_proj(mixed)
        after = after + block.mlp(block.layer_norm2(after))
        feature = clip.network.visual_projection(vision.post_layernorm(after[0]))
        (gradient,) = torch.autograd.grad(normalize(feature, dim=-1) @ text, attention)
        expected = (gradient * attention).detach().clamp(min=0).mean(0)[0, 1:].view(4, 4)
        assert_close(found[one], expected, rtol=1e-3, atol=1e-6)
    assert float(found.std()) > 0


def test_relevancy_through_two_blocks_multiplies(clip: Clip) -> None:
    views, text = noise(1, 3, 32, 32), clip.text_features(["a red cat"])[0]
    with attention_of(clip, 2) as attention:
        score = (see(clip, views.requires_grad_()).features @ text).sum()
        gradients = torch.autograd.grad(score, attention)
    first, second = (
        (g * a).detach().clamp(min=0).mean(1)[0] for a, g in zip(attention, gradients, strict=True)
    )
    whole = torch.eye(17)
    expected = ((whole + second) @ (whole + first))[0, 1:].view(1, 4, 4)
    assert_close(patch_relevancy(clip, views.detach(), text, blocks=2), expected)
    assert clip.network.vision_model.config._attn_implementation == "sdpa"  # as it was before


def test_relevancy_maps_lie_on_the_picture(clip: Clip) -> None:
    picture, text = noise(1, 3, 48, 64), clip.text_features(["a red cat"])[0]
    maps = [relevancy_map(clip, picture, text, looks=looks) for looks in (1, 2, 3)]
    for found in maps:
        assert found.shape == (1, 1, 48, 64)
        assert float(found.min()) == 0
        assert float(found.max()) == pytest.approx(1)
    assert float((maps[0] - maps[2]).abs().mean()) > 0.01
    mirrored = relevancy_map(clip, picture.flip(-1), text, looks=2)
    assert_close(mirrored.flip(-1), maps[1], rtol=0, atol=1e-3)
    assert bool((stretched(torch.ones(1, 2, 2)) == 0).all())


# The guided filter


def test_slopes_are_least_squares_in_each_window() -> None:
    guide, small = noise(1, 3, 9, 9), noise(1, 2, 9, 9, seed=1)
    found = slopes(small, guide)
    y = x = 4
    window = (slice(y - RADIUS, y + RADIUS + 1), slice(x - RADIUS, x + RADIUS + 1))
    colours = array(guide)[0][:, window[0], window[1]].reshape(3, -1).T
    values = array(small)[0][:, window[0], window[1]].reshape(2, -1).T
    colours, values = colours - colours.mean(0), values - values.mean(0)
    left = colours.T @ colours / 25 + RIDGE * np.eye(3)
    expected = np.linalg.solve(left, colours.T @ values / 25).T
    assert_close(found[0, :, :, y, x].double(), torch.tensor(expected), rtol=1e-3, atol=1e-5)


def test_a_map_of_the_picture_itself_becomes_the_large_picture() -> None:
    large = noise(1, 3, 24, 32)
    large = interpolate(large, (48, 64), mode="bicubic", align_corners=False).clamp(0, 1)
    guide = interpolate(large, (24, 32), mode="area")
    raised = guided_upsample(guide, guide, large)
    plain = interpolate(guide, (48, 64), mode="bilinear", align_corners=False)
    assert (raised - large).abs().mean() < 0.2 * (plain - large).abs().mean()
    assert torch.equal(guided_upsample(guide, guide, guide), guide)


def test_a_vague_map_gets_the_pictures_edges() -> None:
    """The filter by loops: a and b of every window, averaged over the windows that a pixel lies in."""
    guide, vague, radius = noise(1, 3, 9, 8), noise(1, 1, 9, 8, seed=1), 2
    padded = [
        np.pad(array(x[0]), ((0, 0), (radius,) * 2, (radius,) * 2), mode="edge") for x in (guide, vague)
    ]
    a, b = np.zeros((3, 9, 8)), np.zeros((9, 8))
    for y, x in np.ndindex(9, 8):
        i, p = (each[:, y : y + 5, x : x + 5].reshape(len(each), -1) for each in padded)
        a[:, y, x] = np.linalg.solve(
            np.cov(i, bias=True) + RIDGE * np.eye(3), ((i * p).mean(1) - i.mean(1) * p.mean())
        )
        b[y, x] = p.mean() - a[:, y, x] @ i.mean(1)
    steep, offset = np.pad(a, ((0, 0), (2, 2), (2, 2)), mode="edge"), np.pad(b, 2, mode="edge")
    expected = np.zeros((9, 8))
    for y, x in np.ndindex(9, 8):
        mean_a = steep[:, y : y + 5, x : x + 5].mean((1, 2))
        expected[y, x] = mean_a @ array(guide[0])[:, y, x] + offset[y : y + 5, x : x + 5].mean()
    found = guided_filter(vague, guide, radius)
    assert np.abs(array(found[0, 0]) - expected.clip(0, 1)).max() < 1e-3
    step = torch.zeros(1, 3, 16, 16)
    step[..., 8:] = 1
    slope = torch.linspace(0, 1, 16).expand(1, 1, 16, 16)
    sharp = guided_filter(slope, step, 4)[0, 0, 8]
    assert float(sharp[8] - sharp[7]) > 0.3 > float(slope[0, 0, 8, 8] - slope[0, 0, 8, 7])
