"""Identities of editing by instruction: guidance, masks, sizes, the search for the scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from scumble.core import rng
from scumble.core.errors import ConfigError, ImageError, ModelError, PromptError
from scumble.core.events import finish
from scumble.diffusion.levels import Level
from scumble.diffusion.parameterisation import to_eps
from scumble.methods.instruct_pix2pix import Config, Request, edit, find_scales
from scumble.methods.instruct_pix2pix.editing import PRESETS, balanced, guided
from scumble.models.clip import Clip
from scumble.models.load import load
from scumble.models.model import Model
from tiny import shared

QUICK = Config(steps=2, text_scale=4.0)


@pytest.fixture(scope="module")
def model() -> Model:
    return load(shared("ip2p"))


def picture(height: int = 64, width: int = 64) -> Tensor:
    return torch.rand(1, 3, height, width, generator=rng.generator(1))


def done(
    model: Model, config: Config = QUICK, *, mask: Tensor | None = None, shown: Tensor | None = None
) -> Tensor:
    request = Request(picture=picture() if shown is None else shown, instruction="make it night", mask=mask)
    [result] = finish(edit(model, [request], [5], config))
    return result


@contextmanager
def counted(model: Model) -> Iterator[Callable[[], int]]:
    """Counts how many rows the denoiser is given."""
    seen: list[int] = []
    handle = model.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    try:
        yield lambda: sum(seen)
    finally:
        handle.remove()


# Guidance


def test_guidance_of_x0_is_equation_3_on_the_noise(model: Model) -> None:
    """In the paper's order and in that of other implementations, from three calls of the denoiser."""
    seen, x = (rng.randn((4, 8, 8), [rng.generator(s)]) for s in (1, 2))
    t = torch.tensor(600.0)
    level = model.schedule.levels(t)
    level = Level(level.alpha.double(), level.sigma.double())
    with torch.no_grad():
        told, untold = model.prompt(["make it night"]), model.empty()
        none, image, both = (
            model.predict(torch.cat([x, shown], 1), t, words)
            for shown, words in ((torch.zeros_like(x), untold), (seen, untold), (seen, told))
        )
        x0 = guided(model, ["make it night"], seen, Config(image_scale=1.5, text_scale=7.5))(x, level)
    found = to_eps(x0, x, level)
    paper = none + 1.5 * (image - none) + 7.5 * (both - image)
    other = none + 7.5 * (both - image) + 1.5 * (image - none)
    torch.testing.assert_close(found, paper, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, other, rtol=1e-4, atol=1e-4)
    assert (paper - both).abs().max() > 0.01


@pytest.mark.parametrize(
    ("image_scale", "text_scale", "rows"), [(1.5, 4.0, 3), (1.0, 4.0, 2), (4.0, 4.0, 2), (1.0, 1.0, 1)]
)
def test_branches_of_no_weight_are_not_asked_for(
    model: Model, image_scale: float, text_scale: float, rows: int
) -> None:
    with counted(model) as asked:
        done(model, Config(steps=2, image_scale=image_scale, text_scale=text_scale))
    assert asked() == 2 * rows


def test_outside_the_interval_the_whole_condition_stands_alone(model: Model) -> None:
    with counted(model) as asked:
        done(model, QUICK.replace(guidance_interval=(0.0, 0.0)))
    assert asked() == 2


# Pictures and masks


@pytest.mark.parametrize("size", [(40, 72), (17, 33), (64, 64)])
def test_the_result_has_the_pictures_size(model: Model, size: tuple[int, int]) -> None:
    assert done(model, shown=picture(*size)).shape == (3, *size)


def test_what_the_mask_keeps_is_the_pictures_to_the_bit(model: Model) -> None:
    mask, shown = torch.zeros(1, 1, 40, 72), picture(40, 72)
    mask[..., 5:30, 7:31] = 1
    result = done(model, QUICK.replace(feather=3), mask=mask, shown=shown)
    kept = (mask[0] == 0).expand_as(result)
    assert torch.equal(result[kept], shown[0][kept])
    assert (result - shown[0]).abs()[~kept].max() > 0.05


def test_a_white_mask_is_no_mask_and_grey_is_between(model: Model) -> None:
    plain = done(model)
    assert torch.equal(done(model, mask=torch.ones(1, 1, 64, 64)), plain)
    grey = done(model, mask=torch.full((1, 1, 64, 64), 0.25))
    torch.testing.assert_close(grey, torch.lerp(picture()[0], plain, 0.25))


def test_a_picture_depends_on_its_own_seed_alone(model: Model) -> None:
    request = Request(picture=picture(), instruction="make it night")
    both = finish(edit(model, [request, request], [4, 5], QUICK))
    torch.testing.assert_close(both[1], done(model), rtol=1e-4, atol=1e-4)
    assert (both[0] - both[1]).abs().max() > 0.01


def test_long_instructions_are_read_to_their_end(model: Model) -> None:
    words = "make it night and make the red cat blue on the grass " * 10
    results = [
        finish(edit(model, [Request(picture=picture(), instruction=words + end)], [5], QUICK))[0]
        for end in ("dog", "toy")
    ]
    assert len(model.tokenizers[0](words).input_ids) > 80
    assert (results[0] - results[1]).abs().max() > 1e-3


# Settings


CHANGES: dict[str, dict[str, Any]] = {
    "image_scale": {"image_scale": 1.2},
    "text_scale": {"text_scale": 2.0},
    "steps": {"steps": 3},
    "sampler": {"sampler": "heun"},
    "spacing": {"spacing": "log_sigma"},
    "eta": {"sampler": "ddim", "eta": 0.5},
    "feather": {"feather": 3},
    "negative": {"negative": "a red cat"},
    "guidance_interval": {"guidance_interval": (0.0, 0.2)},
    "guidance_rescale": {"guidance_rescale": 0.7},
}


def test_every_setting_has_an_effect(model: Model) -> None:
    assert CHANGES.keys() == Config.model_fields.keys()
    mask = torch.ones(1, 1, 64, 64)
    mask[..., 32:] = 0
    plain = {name: done(model, QUICK.replace(sampler=name), mask=mask) for name in ("dpmpp_2m", "ddim")}
    for name, change in CHANGES.items():
        before = plain["ddim" if name == "eta" else "dpmpp_2m"]
        assert (done(model, QUICK.replace(**change), mask=mask) - before).abs().max() > 1e-4, name


def test_the_paper_edits_like_the_released_code() -> None:
    paper = PRESETS["paper"]
    assert (paper.image_scale, paper.text_scale, paper.steps) == (1.5, 7.5, 100)
    assert (paper.sampler, paper.spacing) == ("euler_ancestral", "log_sigma")


@pytest.mark.parametrize(
    "bad", [{"image_scale": -0.1}, {"text_scale": -1.0}, {"sampler": "x"}, {"spacing": "x"}]
)
def test_wrong_settings_are_named(bad: dict[str, Any]) -> None:
    [name] = bad
    with pytest.raises(ConfigError, match=f"^{name} cannot be"):
        Config.of(bad)


def test_wrong_requests_are_named(model: Model) -> None:
    with pytest.raises(PromptError, match="instruction is empty"):
        Request(picture=picture(), instruction="  ")
    with pytest.raises(ImageError, match="64 x 64 pixels and the mask 32 x 64"):
        Request(picture=picture(), instruction="x", mask=torch.ones(1, 1, 64, 32))
    with pytest.raises(ImageError, match="mask is black"):
        Request(picture=picture(), instruction="x", mask=torch.zeros(1, 1, 64, 64))
    both = [Request(picture=picture(s, 64), instruction="x") for s in (64, 32)]
    with pytest.raises(ImageError, match="2 different sizes"):
        finish(edit(model, both, [1, 2], QUICK))
    with pytest.raises(ModelError, match="sd1 cannot be told what to edit"):
        done(load(shared("sd1")))


# The search


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    from transformers import CLIPConfig, CLIPModel

    from scumble.models.clip import load_clip
    from tiny import tokenizer

    folder = tmp_path_factory.mktemp("clip")
    words = tokenizer()
    text = {"vocab_size": len(words), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    vision = {"image_size": 32, "patch_size": 16, "hidden_size": 16, "intermediate_size": 32}
    heads = {"num_attention_heads": 2}
    marks = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    config = CLIPConfig(
        text_config=text | heads | marks,
        vision_config=vision | heads | {"num_hidden_layers": 1},
        projection_dim=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    write_preprocessor(folder)
    return load_clip(folder)


def write_preprocessor(folder: Path) -> None:
    import json

    settings = {"crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 32}}
    settings |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True, "do_resize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def test_scales_are_nearest_to_the_best_of_both() -> None:
    found = {(1.0, 7.0): (0.3, 0.5), (1.5, 7.0): (0.27, 0.85), (2.2, 7.0): (0.0, 0.9)}
    assert balanced(found) == (1.5, 7.0)
    assert balanced({(1.0, 2.0): (0.1, 0.2), (3.0, 4.0): (0.1, 0.2)}) == (1.0, 2.0)


@pytest.mark.parametrize(("sampler", "steps"), [("dpmpp_2m", 12), ("heun", 8), ("ddim", 2)])
def test_the_search_costs_at_most_two_edits_more(model: Model, clip: Clip, sampler: str, steps: int) -> None:
    config = Config.of({"sampler": sampler, "steps": steps})
    request = Request(picture=picture(), instruction="make it night")
    with counted(model) as rows:
        image, text = finish(find_scales(model, request, 5, config, clip))
    calls = 2 * steps - 1 if sampler == "heun" else steps
    assert rows() <= 2 * calls * 3
    assert image in (1.0, 1.2, 1.5, 1.8, 2.2)
    assert text in (0.6 * 7.5, 7.5, 1.5 * 7.5)
