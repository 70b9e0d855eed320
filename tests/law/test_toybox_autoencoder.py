"""The toybox's autoencoder: where it starts, and what evening out its latents leaves as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from recipes.toybox import autoencoder
from recipes.toybox.loop import Run
from recipes.toybox.scales import SCALES, AutoencoderSize
from recipes.toybox.whitening import whiten
from safetensors.torch import save_file
from torch import Tensor, nn


def small() -> AutoencoderKL:
    return autoencoder.build(AutoencoderSize(channels=(8, 8, 16, 16))).eval()


def plain_colours() -> Tensor:
    """Eight pictures, each of two plain colours, (8, 3, 64, 64) in [-1, 1]."""
    halves = torch.rand(8, 3, 1, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return halves.repeat_interleave(32, 3).repeat_interleave(64, 2)


@torch.no_grad()
def test_untrained_latents_order_colours_as_pictures_do() -> None:
    x = plain_colours()
    latents = small().encode(x).latent_dist.mode()[:, :3]
    for channel in range(3):
        left, right = latents[:, channel, 2:6, 1].mean(1), latents[:, channel, 2:6, 6].mean(1)
        assert ((left < right) == (x[:, channel, 0, 0] < x[:, channel, 0, -1])).all()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_the_discriminator_can_join_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "compiled", lambda _, module: torch.compile(module, backend="aot_eager"))
    size = AutoencoderSize(channels=(8, 8))
    scale = replace(SCALES["tiny"], autoencoder=size, perceptual=False, crop=8, held_out=1)
    pictures = torch.randint(256, (8, 3, 128, 128), generator=torch.Generator().manual_seed(0)).byte()
    (tmp_path / "pictures").mkdir()
    save_file({"pixels": pictures}, tmp_path / "pictures" / "0000000.safetensors")
    autoencoder.stage(Run(out=tmp_path, scale=scale))
    facts = json.loads((tmp_path / "facts" / "autoencoder.json").read_text())
    assert facts["steps"] == 4


@torch.no_grad()
def test_untrained_decoding_keeps_hues() -> None:
    x = plain_colours()
    model = small()
    y = model.decode(model.encode(x).latent_dist.mode()).sample
    pairs = torch.stack([x.flatten(), y.flatten()])
    assert torch.corrcoef(pairs)[0, 1] > 0.9


def shaken() -> AutoencoderKL:
    model = small()
    generator = torch.Generator().manual_seed(1)
    for layer in (model.quant_conv, model.post_quant_conv):
        assert isinstance(layer, nn.Conv2d)
        with torch.no_grad():
            layer.weight += 0.3 * torch.randn(layer.weight.shape, generator=generator)
            layer.bias += torch.randn(layer.bias.shape, generator=generator)
    return model


@torch.no_grad()
def test_whitening_evens_out_latents_and_changes_no_picture() -> None:
    x = torch.rand(16, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    model = shaken()
    before = model.encode(x).latent_dist
    drawn = model.decode(before.mode()).sample
    whiten(model, before.mean, before.std)
    after = model.encode(x).latent_dist
    points = after.mean.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(points.mean(1), torch.zeros(4, dtype=torch.float64), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(torch.cov(points), torch.eye(4, dtype=torch.float64), atol=1e-3, rtol=0.0)
    torch.testing.assert_close(model.decode(after.mode()).sample, drawn, atol=1e-3, rtol=1e-3)
    assert after.std.std((0, 2, 3)).max() < 1e-6
