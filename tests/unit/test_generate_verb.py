"""Every setting of `generate` has an effect, and what the verb promises besides pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scumble
import tiny
from scumble.core.errors import ConfigError, NumericError, OutOfMemoryError
from scumble.core.events import finish
from scumble.diffusion.samplers import with_eta
from scumble.methods import instruct_pix2pix, sdedit
from scumble.models import load as loading
from scumble.models.load import load
from scumble.models.model import Model
from scumble.sampling import image_to_image, upscaling
from scumble.sampling import text_to_image as to_pictures
from scumble.sampling.guided import default_guidance
from scumble.sampling.preview import Previewer
from scumble.sampling.text_to_image import text_to_image
from scumble.sampling.tiles import Tiling
from scumble.verbs.generate import GenerateConfig, draw
from scumble.verbs.load import ModelConfig
from tiny import make

BASE: dict[str, Any] = {"prompt": "a red cat", "seed": 3, "steps": 4, "sampler": "ddim", "guidance": 5.0}
CHANGES: dict[str, Any] = {
    "prompt": "a blue ball at night",
    "negative": "night",
    "count": 2,
    "seed": 4,
    "steps": 5,
    "sampler": "heun",
    "spacing": "karras",
    "eta": 1.0,
    "guidance": 2.0,
    "guidance_interval": (0.2, 0.9),
    "guidance_rescale": 0.7,
    "width": 32,
    "height": 32,
}
"""A value of each setting of the drawing that has to make another picture."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return ModelConfig(model=str(make("sd1", tmp_path_factory.mktemp("m") / "tiny"))).load()


def drawn(model: Model, **changes: Any) -> Tensor:
    config = GenerateConfig(**(BASE | changes))
    return torch.stack(finish(text_to_image(model, config.task(model))))


def test_every_setting_of_the_drawing_has_an_effect(model: Model) -> None:
    elsewhere = {
        "batch",
        "upscaler",
        "noise_level",
    }  # the last two: test_upscaler_and_noise_level_have_an_effect
    assert set(CHANGES) | elsewhere == set(GenerateConfig.model_fields) - set(ModelConfig.model_fields)
    before = drawn(model)
    for name, value in CHANGES.items():
        after = drawn(model, **{name: value})
        assert after.shape != before.shape or (after - before).abs().max() > 1e-3, name


def test_batches_are_split_and_halved_when_memory_runs_out(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = drawn(model, count=5)
    sizes: list[int] = []
    predict = Model.predict

    def small(self: Model, x: Tensor, *rest: Any) -> Tensor:
        sizes.append(len(x))
        if len(x) > 4:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")
        return predict(self, x, *rest)

    monkeypatch.setattr(Model, "predict", small)
    assert (drawn(model, count=5) - whole).abs().max() < 1e-4
    assert sizes[0] == 10
    assert set(sizes[1:]) == {2, 4}


def test_one_picture_too_many_is_a_sentence_with_a_remedy(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Model, "predict", none)
    with pytest.raises(OutOfMemoryError, match="--low-memory"):
        drawn(model)


@pytest.mark.parametrize(
    ("dtype", "remedy"), [(torch.float32, "the scale of learnt weights"), (torch.float16, "--dtype float32")]
)
def test_nan_is_named_with_a_remedy_for_what_is_computed_in(
    model: Model, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, remedy: str
) -> None:
    monkeypatch.setattr(Model, "decode", lambda self, x: torch.full((len(x), 3, 64, 64), torch.nan))
    computing = replace(model, dtype=dtype)
    latents, whole = torch.zeros(1, 4, 8, 8), Tiling(8, 0)
    for decode in (
        lambda: to_pictures._unit(computing, computing.decode(latents)),
        lambda: image_to_image.decode(computing, latents, (64, 64)),
        lambda: upscaling._decoded(computing, latents, (64, 64), whole),
    ):
        with pytest.raises(NumericError, match=rf"gave NaN .*{remedy}"):
            decode()


def test_flagged_pictures_come_out_black(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    class Strict:
        def flagged(self, pixels: Tensor) -> list[bool]:
            assert pixels.min() < 0
            return [True]

    monkeypatch.setattr(model, "safety_checker", Strict())
    config = GenerateConfig(**BASE)
    [picture] = finish(draw(config, model, config.task(model)))
    assert picture.withheld
    assert picture.image.getextrema() == ((0, 0),) * 3


def test_progress_counts_to_the_end_and_previews_come_when_asked(model: Model) -> None:
    config = GenerateConfig(**BASE, count=3, batch=2)
    events = list(text_to_image(model, config.task(model), batch_size=2, preview_every=2))
    drawing = [e for e in events if e.stage == "drawing"]
    assert [e.step for e in drawing] == [2, 4, 6, 8, 9, 10, 11, 12]
    assert {e.total for e in drawing} == {12}
    assert [e.preview is not None for e in drawing] == [True, False] * 4
    assert drawing[0].preview is not None
    assert drawing[0].preview.size == (8, 8)


def test_preview_of_a_plain_colour_is_that_colour() -> None:
    """With an autoencoder that is an exact linear map, the fit finds its inverse."""

    class Linear:
        autoencoder, downsample, device, dtype = object(), 2, torch.device("cpu"), torch.float32

        def encode(self, pixels: Tensor) -> Any:
            pooled = torch.nn.functional.avg_pool2d(pixels, 2)
            mixed = torch.einsum(
                "bchw,cd->bdhw", pooled, torch.tensor([[1.0, 0, 2, 1], [0, 1, 1, 0], [1, 1, 0, 3]])
            )
            return type("P", (), {"mode": lambda _: mixed})()

        def scale(self, latents: Tensor) -> Tensor:
            return latents * 0.3

    model = Linear()
    previewer = Previewer.fit(model)  # pyright: ignore[reportArgumentType]
    colour = torch.tensor([0.8, 0.2, 0.4])
    latents = model.scale(model.encode((colour * 2 - 1).reshape(1, 3, 1, 1).expand(1, 3, 8, 8)).mode())
    assert previewer(latents).getpixel((1, 1)) == tuple(round(float(c) * 255) for c in colour)


def test_black_previews_as_black_and_white_as_white_in_pixel_space() -> None:
    for family in ("ddpm", "ve"):
        model = load(tiny.shared(family))
        previewer = Previewer.fit(model)
        for shade in (0, 255):
            pixels = torch.full((1, 3, 4, 4), shade / 127.5 - 1)
            assert previewer(model.scale(pixels)).getpixel((1, 1)) == (shade,) * 3


@pytest.mark.parametrize("interval", [(0.9, 0.1), (5, 7), (float("nan"), 1), (-0.1, 0.5)])
@pytest.mark.parametrize("kind", [GenerateConfig, sdedit.Config, instruct_pix2pix.Config])
def test_an_interval_is_two_shares_in_order(kind: Any, interval: tuple[float, float]) -> None:
    given = {"prompt": "a cat"} if kind is GenerateConfig else {}
    with pytest.raises(ConfigError, match="guidance_interval"):
        kind(**given, guidance_interval=interval)
    assert kind(**given, guidance_interval=(0.0, 1.0)).guidance_interval == (0.0, 1.0)


def test_eta_is_of_ddim_alone(model: Model) -> None:
    with pytest.raises(ConfigError, match="euler has no eta"):
        drawn(model, sampler="euler", eta=0.5)
    with pytest.raises(ConfigError, match="heun has no eta"):
        with_eta("heun", 1.0)
    assert (with_eta("heun", 0.0), with_eta("ddim", 0.5)) == ({}, {"eta": 0.5})


def test_the_makers_of_a_model_say_its_guidance(tmp_path: Path) -> None:
    folder = make("sd1", tmp_path / "tiny")
    assert default_guidance(load(folder)) == 7.5
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_guidance_scale": 3.0}))
    model = load(folder)
    assert default_guidance(model) == 3.0
    assert GenerateConfig(prompt="").options(model).guidance == 3.0


def test_seeds_count_up_from_the_first() -> None:
    assert list(GenerateConfig(prompt="", seed=7, count=3).seeds) == [7, 8, 9]
    with pytest.raises(ConfigError, match="no seed"):
        _ = GenerateConfig(prompt="").seeds
    assert GenerateConfig(prompt="").seeded().seed is not None


def test_every_option_of_load_reaches_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(loading, "load", lambda name, **options: seen.update(options, name=name))
    given: dict[str, Any] = {
        "device": "cpu", "dtype": "bfloat16", "channels_last": True, "compile": True, "revision": "v2",
        "offline": True, "safety_checker": False, "trust_pickle": True,
    }  # fmt: skip
    assert given.keys() | {"model", "low_memory"} == signature(scumble.load).parameters.keys()
    scumble.load("owner/model", low_memory=True, **given)
    slow = {"attention_slicing": True, "vae_tiling": True, "offload": "none"}
    assert seen == given | slow | {"name": "owner/model"}


def test_python_is_one_call(tmp_path: Path) -> None:
    folder = make("sd1", tmp_path / "tiny")
    pictures = scumble.generate("a cat", model=str(folder), seed=1, steps=1, count=2)
    assert [p.seed for p in pictures] == [1, 2]
    assert pictures[0].image.size == (64, 64)
