"""What holds of every layer: nothing where it is clear, itself where solid, the same again by its seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from scumble.core.errors import ConfigError, ImageError, NumericError, PromptError
from scumble.core.events import Loop, finish
from scumble.core.images import from_uint8
from scumble.methods.text2live import PRESETS, Config
from scumble.methods.text2live.image import Bank, Canvas, Critic, edit
from scumble.methods.text2live.result import composed, finished
from scumble.methods.text2live.texts import TEMPLATES, Texts, filled_in
from scumble.models.clip import Clip, load_clip
from scumble.models.edit_layer import EditLayer, scales_for
from scumble.models.relevancy import relevancy_map, seen_share
from scumble.training.settle import settle
from tiny_clip import shared_clip

TEXTS = Texts("a red cat", "a red cat", "a cat")
TINY = Config(steps=3, channels=6, views=2, size=32, full_every=2, bootstrapping_until=0.5)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load_clip(shared_clip())


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def bytes_like(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


PICTURE = noise(1, 3, 36, 44)


def learnt(
    clip: Clip, config: Config, *, seed: int = 0, mask: Tensor | None = None, texts: Texts = TEXTS
) -> Tensor:
    return finish(edit(Canvas(clip, PICTURE, config, seed=seed, mask=mask), texts))


# The result


def test_a_clear_layer_gives_the_picture_and_a_solid_one_itself() -> None:
    picture, layer = bytes_like(3, 20, 30), bytes_like(4, 20, 30, seed=1)
    clear, solid = layer.clone(), layer.clone()
    clear[3], solid[3] = 0, 255
    assert torch.equal(composed(clear, picture), picture)
    assert torch.equal(composed(solid, picture), solid[:3])
    mixed = composed(layer, picture)
    alpha = layer[3:].double() / 255
    exact = alpha * layer[:3] + (1 - alpha) * picture
    assert (mixed - exact).abs().max() <= 0.5 + 1e-9
    assert torch.equal(mixed[:, layer[3] == 0], picture[:, layer[3] == 0])


def test_the_result_has_the_pictures_own_size_and_no_haze() -> None:
    picture = bytes_like(3, 64, 80)
    layer = noise(1, 4, 32, 40)
    layer[:, 3, :16] = 0.03
    layer[:, 3, 16:] = 0.98
    worked = torch.nn.functional.interpolate(from_uint8(picture)[None], (32, 40), mode="area")
    whole = finished(layer, worked, picture, haze=0.04)
    assert whole.shape == (4, 64, 80)
    assert whole.dtype == torch.uint8
    assert bool((whole[3, :26] == 0).all())
    assert bool((whole[3, 38:] == 255).all())
    assert bool((finished(layer, worked, picture, haze=0.0)[3, :26] == 8).all())
    mask = torch.zeros(1, 1, 64, 80)
    mask[..., 40:] = 1
    bounded = finished(layer, worked, picture, haze=0.04, mask=mask)
    assert torch.equal(composed(bounded, picture)[..., :40], picture[..., :40])


def test_the_same_size_needs_no_filter() -> None:
    picture, layer = bytes_like(3, 20, 30), noise(1, 4, 20, 30)
    whole = finished(layer, from_uint8(picture)[None], picture, haze=0.0)
    assert (whole.float() - layer[0] * 255).abs().max() <= 0.51


# The generator


@pytest.mark.parametrize(
    ("height", "width", "scales"),
    [(32, 32, 3), (33, 70, 3), (16, 90, 2), (64, 47, 3), (128, 128, 5), (130, 129, 5), (512, 33, 3)],
)
def test_the_generator_takes_any_size_and_shape(height: int, width: int, scales: int) -> None:
    assert scales_for(height, width) == scales
    layer = EditLayer(scales=scales, channels=4)(noise(1, 3, height, width))
    assert layer.shape == (1, 4, height, width)
    assert bool(((layer > 0) & (layer < 1)).all())


def test_the_most_scales_are_the_papers() -> None:
    assert scales_for(512, 512) == 7
    assert scales_for(4096, 3000) == 7
    with torch.no_grad():
        assert EditLayer(scales=7, channels=2)(noise(1, 3, 512, 640)).shape == (1, 4, 512, 640)
    with pytest.raises(ImageError, match="90 x 15 pixels is too small"):
        scales_for(15, 90)


def test_a_picture_has_the_same_layer_alone_and_in_a_batch() -> None:
    network, pictures = EditLayer(scales=3, channels=6), noise(2, 3, 32, 32)
    together = network(pictures)
    assert torch.allclose(together[1:], network(pictures[1:]), atol=1e-5)
    assert torch.equal(network.eval()(pictures), together)


# The loop


def test_a_seed_is_a_seed_and_global_chance_plays_no_part(clip: Clip) -> None:
    torch.manual_seed(1)
    first = learnt(clip, TINY, seed=4)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(learnt(clip, TINY, seed=4), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert (learnt(clip, TINY, seed=5) - first).abs().max() > 0.01


def test_learning_lowers_the_loss(clip: Clip) -> None:
    config = TINY.replace(steps=20, lr=1e-2, lr_decay=1.0, patience=0, bootstrapping=0.0)
    records = list(edit(Canvas(clip, PICTURE, config, seed=0), TEXTS))
    assert [r.step for r in records] == list(range(1, 21))
    losses = [r.loss for r in records]
    assert losses[0] is None
    first, last = losses[10], losses[-1]
    assert first is not None
    assert last is not None
    assert last < first


def test_outside_a_mask_the_layer_is_clear(clip: Clip) -> None:
    mask = torch.zeros(1, 1, 36, 44)
    mask[..., :20] = 1
    layer = learnt(clip, TINY.replace(size=64), mask=mask)
    assert layer.shape[-2:] == (36, 44)
    assert bool((layer[:, 3, :, 20:] == 0).all())
    assert bool((layer[:, 3, :, :20] > 0).all())
    assert torch.equal(Canvas(clip, PICTURE, TINY.replace(size=64), seed=0, mask=mask).region(TEXTS), mask)


def test_a_second_prompt_goes_on_from_the_first(clip: Clip) -> None:
    canvas = Canvas(clip, PICTURE, TINY, seed=0)
    finish(edit(canvas, TEXTS))
    before = [p.clone() for p in canvas.network.parameters()]
    loop = edit(canvas, Texts("a blue dog", "a blue dog", "a dog"))
    assert next(loop).step == 1
    moved = max(
        float((a - b).detach().abs().max()) for a, b in zip(before, canvas.network.parameters(), strict=True)
    )
    assert 0 < moved < 1.5 * TINY.lr  # one step from where the first ended, and not from a new network
    fresh = Canvas(clip, PICTURE, TINY, seed=0)
    assert any(
        float((a - b).detach().abs().max()) > 1.5 * TINY.lr
        for a, b in zip(before, fresh.network.parameters(), strict=True)
    )


def test_previews_come_when_they_are_asked_for(clip: Clip) -> None:
    canvas = Canvas(clip, PICTURE, TINY, seed=0)
    shown = [record.preview for record in edit(canvas, TEXTS, preview_every=2)]
    assert [image is not None for image in shown] == [False, True, False]
    assert shown[1] is not None
    assert shown[1].size == (39, 32)


def steady(network: EditLayer, value: float) -> Any:
    """A loss that hardly depends on the network."""

    def loss(step: int) -> dict[str, Tensor]:
        weight = next(network.parameters()).sum()
        return {"composition": value + 0 * weight, "bootstrapping": (100 - step) + 0 * weight}

    return loss


def test_losses_that_settle_end_the_loop_but_not_while_bootstrapping() -> None:
    network = EditLayer(scales=2, channels=2)
    config = Config(steps=100, patience=10, at_least=0.5)

    def settled(config: Config, value: float) -> Loop[int]:
        return settle(
            network,
            steady(network, value),
            config,
            stage="painting",
            least=config.at_least,
            passing="bootstrapping",
            preview=lambda: PICTURE,
        )

    def taken(config: Config) -> int:
        return finish(settled(config, 1.0))

    assert taken(config) == 51  # the first step past the half
    assert taken(config.replace(at_least=0.0)) == 20
    assert taken(config.replace(at_least=0.0, patience=30)) == 60
    assert taken(config.replace(patience=0)) == 100
    with pytest.raises(NumericError, match="no number before step 11"):
        finish(settled(config, float("nan")))


# Settings


CHANGES: dict[str, Any] = {
    "steps": 2,
    "lr": 3e-3,
    "lr_decay": 0.5,
    "weight_decay": 1.0,
    "size": 24,
    "channels": 5,
    "skip_channels": 3,
    "views": 3,
    "smallest_crop": 0.9,
    "paired": False,
    "full_every": 1,
    "flip": 1.0,
    "jitter": 1.0,
    "scales": (1.0, 1.0),
    "cover": 0.5,
    "templates": ("one {}",),
    "screen_templates": ("{} on green",),
    "distance": "cosine",
    "composition": 2.0,
    "direction": 0.0,
    "green": 0.0,
    "structure": 0.0,
    "sparsity": 60.0,
    "sparsity_l1": 1.0,
    "sparsity_l0": 1.0,
    "bootstrapping": 0.0,
    "bootstrapping_until": 0.2,
    "bootstrapping_fall": "constant",
    "negatives": ("grass",),
    "negative_threshold": 0.1,
    "styles_cover": False,
    "relevancy_blocks": 2,
    "relevancy_looks": 2,
    "relevancy_edge": 0.3,
    "hue": 0.0,
    "grey": 1.0,
    "fill": 0.5,
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_has_an_effect(clip: Clip, name: str, plain: Tensor) -> None:
    config = TINY if name != "negative_threshold" else TINY.replace(negatives=("grass",))
    texts = TEXTS if name != "styles_cover" else replace(TEXTS, whole=True)
    before = plain if (config, texts) == (TINY, TEXTS) else learnt(clip, config, texts=texts)
    after = learnt(clip, config.replace(**{name: CHANGES[name]}), texts=texts)
    assert before.shape != after.shape or float((before - after).abs().max()) > 1e-6


@pytest.fixture(scope="module")
def plain(clip: Clip) -> Tensor:
    return learnt(clip, TINY)


def test_no_setting_is_forgotten() -> None:
    elsewhere = {"patience", "at_least", "haze", "frame_distance"}  # above, and with the videos
    assert set(CHANGES) | elsewhere == set(Config.model_fields)
    assert set(PRESETS) == {"fast", "paper", "toybox", "video", "paper-video", "toybox-video"}
    assert PRESETS["paper"].views == 16
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 14
    for wrong in ({"templates": ()}, {"templates": ("no place",)}, {"scales": (1.2, 0.8)}, {"haze": 0.5}):
        with pytest.raises(ConfigError):
            Config.of(wrong)


def test_a_loss_without_weight_is_not_computed(clip: Clip) -> None:
    off = TINY.replace(direction=0.0, green=0.0, structure=0.0)
    critic = Critic(clip, Bank.of(clip, TEXTS, off), off)
    parts = critic(PICTURE, PICTURE, PICTURE, torch.Generator())
    assert set(parts) == {"composition"}
    on = Critic(clip, Bank.of(clip, TEXTS, TINY), TINY)(PICTURE, PICTURE, PICTURE, torch.Generator())
    assert set(on) == {"composition", "direction", "screen", "structure"}
    assert float(on["structure"]) == 0
    assert float(on["direction"]) == pytest.approx(
        1.0, abs=1e-2
    )  # the same views of the same picture have not moved


# Texts


@pytest.mark.parametrize(
    ("prompt", "screen", "region"),
    [
        ("a golden cat", "a golden cat", "a cat"),
        ("a photo of a snow-capped red ball on the beach.", "a snow-capped red ball", "a ball"),
        ("a picture of a wooden cat, asleep", "a wooden cat", "a cat"),
        ("cake, with strawberries", "cake", "cake"),
        ("fire out of the bear's mouth", "fire", "fire"),
        ("the burning wooden house", "the burning wooden house", "the house"),
        ("in flames", "in flames", "flames"),
        ("a cat made of wood on a table", "a cat made of wood", "a cat"),
        ("a red ball capped with snow in a studio", "a red ball capped with snow", "a ball"),
        ("a house giving off smoke", "a house giving off smoke", "a house"),
        ("a black cube that glows on the moon", "a black cube that glows", "a cube"),
        ("a dog with a hat, on a sofa", "a dog with a hat", "a dog"),
        (
            "an old covered bridge covered in snow by night",
            "an old covered bridge covered in snow",
            "a bridge",
        ),
        ("a painting on a wall", "a painting", "a painting"),
    ],
)
def test_what_was_not_said_is_taken_from_the_prompt(prompt: str, screen: str, region: str) -> None:
    assert filled_in(prompt) == Texts(prompt, screen, region)
    assert filled_in(prompt, "gold", "a dog") == Texts(prompt, "gold", "a dog")


@pytest.mark.parametrize(
    ("prompt", "photo", "thing"),
    [
        (
            "an oil painting of an old elephant in snow.",
            "a photo of an old elephant in snow",
            "an old elephant",
        ),
        ("pixel art of a cube on a table", "a photo of a cube on a table", "a cube"),
        ("a Pencil Sketch showing two dogs", "a photo of two dogs", "two dogs"),
    ],
)
def test_a_prompt_that_names_an_art_is_of_the_whole_picture(prompt: str, photo: str, thing: str) -> None:
    assert filled_in(prompt) == Texts(prompt, prompt.rstrip("."), photo, whole=True)
    assert filled_in(prompt, region="a photo of a thing").whole
    assert filled_in(prompt, region="a thing") == Texts(prompt, thing, "a thing")


def test_an_edit_of_the_whole_picture_has_no_place() -> None:
    config, whole = Config(), Texts("a sketch of a cat", "a sketch of a cat", "a photo of a cat", whole=True)
    found = config.of_texts(whole)
    assert (found.green, found.sparsity, found.bootstrapping) == (0, 0, 0)
    assert found.structure == 0.5  # a quarter
    assert found.replace(green=1.0, sparsity=6.0, bootstrapping=3.0, structure=2.0) == config
    assert config.of_texts(TEXTS) == config
    assert PRESETS["paper"].of_texts(whole) == PRESETS["paper"]


def test_a_prompt_has_words() -> None:
    with pytest.raises(PromptError, match="empty"):
        filled_in(" . ")


# Nothing to find


def test_nothing_is_found_in_a_picture_of_nothing(clip: Clip) -> None:
    text = clip.text_features(["a red cat"])[0]
    flat = torch.full((1, 3, 32, 32), 0.5)
    assert seen_share(clip, flat, relevancy_map(clip, flat, text), text) == 0
    for level in (50, 128, 255):  # where what is blurred differs by rounding
        grey = torch.full((1, 3, 136, 168), level / 255)
        assert seen_share(clip, grey, relevancy_map(clip, grey, text), text) == 0
    assert Canvas(clip, flat, TINY, seed=0).found(TEXTS) == 0


def test_what_the_similarity_rests_on_is_found(clip: Clip) -> None:
    """A picture of noise in one corner of grey: only there is anything to be blotted out."""
    picture = torch.full((1, 3, 32, 32), 0.5)
    picture[..., :12, :12] = noise(1, 3, 12, 12)
    where = torch.zeros(1, 1, 32, 32)
    where[..., :12, :12] = 1
    text = clip.image_features(picture * 2 - 1)[0]  # what it shows, said perfectly
    assert seen_share(clip, picture, where, text) > 0.5
    assert seen_share(clip, picture, where.flip(-1, -2), text) < 0.5
