"""Options for memory and speed change neither a prediction nor a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import SlicedAttnProcessor
from torch import Tensor
from torch.testing import assert_close

import tiny
from scumble.core.errors import InputError, ModelError
from scumble.models.load import load
from scumble.models.model import Model
from scumble.models.save import save_folder


def outputs(model: Model, size: int = 64) -> tuple[Tensor, Tensor]:
    """A prediction under a prompt and the picture of some latents."""
    x = torch.randn(2, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(0))
    level = model.schedule.levels(torch.tensor(400.0))
    with torch.inference_mode():
        branches = model.branches([model.empty(), model.prompt(["a red cat"])])
        return torch.cat(branches(x, level, (0, 1))), model.decode(x)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize(
    "option",
    [
        {"attention_slicing": True},
        {"channels_last": True},
        {"offload": "model"},
        {"offload": "sequential"},
        {"attention_slicing": True, "channels_last": True, "offload": "model", "vae_tiling": True},
    ],
    ids="+".join,
)
def test_an_option_changes_nothing(family: str, option: dict[str, Any]) -> None:
    expected = outputs(load(tiny.shared(family)))
    model = load(tiny.shared(family), **option)
    for _ in range(2):  # the second time everything has been moved about once
        for found, wanted in zip(outputs(model), expected, strict=True):
            assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert not model.empty().embeddings.is_meta


def test_options_take_effect() -> None:
    folder = tiny.shared("sd1")
    sliced = load(folder, attention_slicing=True).denoiser
    assert all(isinstance(p, SlicedAttnProcessor) for p in sliced.attn_processors.values())
    tiled = load(folder, vae_tiling=True).autoencoder
    assert tiled is not None
    assert tiled.use_tiling
    last = load(folder, channels_last=True).denoiser.conv_in.weight
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert not load(folder).denoiser.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert load(folder, offload="sequential").denoiser.conv_in.weight.is_meta
    away = load(folder, offload="model")
    assert away.autoencoder is not None
    for network, before in ((away.denoiser, away.text_encoders[0]), (away.autoencoder, away.denoiser)):
        assert network._hf_hook.prev_module_hook.model is before
    assert load(folder, compile="eager").denoiser._compiled_call_impl is not None


def test_compile_is_asked_for_by_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, *, backend: asked.append(backend))
    load(tiny.shared("sd1"), compile=True)
    load(tiny.shared("sd1"), compile="eager")
    load(tiny.shared("sd1"))
    assert asked == ["inductor", "eager"]
    with pytest.raises(InputError, match=r"no backend 'nonsense'.*eager"):
        load(tiny.shared("sd1"), compile="nonsense")


def test_a_compiled_model_keeps_its_names(tmp_path: Path) -> None:
    model = load(tiny.shared("ddpm"), compile="eager")
    assert load(save_folder(model, tmp_path / "saved")).hash == model.hash


def test_tiling_changes_nothing_below_the_autoencoders_own_size() -> None:
    plain, tiled = load(tiny.shared("sd1")), load(tiny.shared("sd1"), vae_tiling=True)
    assert outputs(plain)[1].equal(outputs(tiled)[1])
    large, pieced = outputs(plain, 128)[1], outputs(tiled, 128)[1]
    assert large.shape == pieced.shape
    assert not large.equal(pieced)


def test_what_cannot_be_done() -> None:
    with pytest.raises(InputError, match="no offload 'disk'"):
        load(tiny.shared("sd1"), offload="disk")
    model = load(tiny.shared("sd1"), offload="sequential")
    with pytest.raises(ModelError, match="offloaded layer by layer"):
        save_folder(model, "never")


def test_options_on_a_pixel_model() -> None:
    options: dict[str, Any] = {"attention_slicing": True, "vae_tiling": True, "channels_last": True}
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = load(tiny.shared("ddpm")).predict(x, torch.tensor(3.0))
        assert_close(load(tiny.shared("ddpm"), **options).predict(x, torch.tensor(3.0)), plain)
