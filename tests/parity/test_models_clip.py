"""The CLIP wrapper gives the features of transformers' CLIPModel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

import tiny
from scumble.core.errors import ModelError
from scumble.models.clip import Clip, Preparation, load_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = len(tiny.tokenizer())
    text = {
        **sizes,
        "vocab_size": words,
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "pad_token_id": 0,
    }
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    preparation = {"crop_size": 32, "size": 32, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25]}
    (path / "preprocessor_config.json").write_text(json.dumps(preparation))
    return path


@pytest.fixture(scope="module")
def ours(folder: Path) -> Clip:
    return load_clip(folder)


def test_text_features(folder: Path, ours: Clip) -> None:
    theirs = CLIPModel.from_pretrained(folder).eval()
    texts = ["a red cat", "the blue mug on grass", "cat " * 100]
    tokens = tiny.tokenizer()(texts, padding="max_length", truncation=True, return_tensors="pt")
    with torch.inference_mode():
        expected = theirs.get_text_features(tokens.input_ids).pooler_output
        found = ours.text_features(texts)
    assert_close(found, expected / expected.norm(dim=-1, keepdim=True))
    assert (found[0] - found[1]).norm() > 0.05


def test_image_features(folder: Path, ours: Clip) -> None:
    theirs = CLIPModel.from_pretrained(folder).eval()
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25]))
    with torch.inference_mode():
        expected = theirs.get_image_features((pixels / 2 + 0.5 - mean) / std).pooler_output
        found = ours.image_features(pixels)
    assert_close(found, expected / expected.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize(("width", "height"), [(90, 61), (61, 90), (20, 33), (32, 32)])
def test_preparation_is_that_of_the_image_processor(width: int, height: int) -> None:
    """Sizes, cropping and normalisation; resizing differs by rounding to 8 bits only."""
    ramp = torch.linspace(0, 1, width)[None, :] * torch.linspace(0.2, 1, height)[:, None]
    picture = torch.stack([ramp, 1 - ramp, ramp.square()])  # (3, H, W) in [0, 1]
    eight_bit = (picture * 255).round().byte()
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    image = Image.fromarray(eight_bit.permute(1, 2, 0).numpy())
    theirs = processor(image, return_tensors="pt").pixel_values
    ours = Preparation(size=32)(eight_bit[None] / 127.5 - 1)
    assert ours.shape == theirs.shape == (1, 3, 32, 32)
    assert_close(ours, theirs, rtol=0, atol=0.05)


def test_gradients_reach_the_pixels(ours: Clip) -> None:
    pixels = torch.zeros(1, 3, 48, 40, requires_grad=True)
    ours.image_features(pixels)[0, 0].backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in ours.network.parameters())


def test_what_is_no_clip(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelError, match="no CLIP model 'nothing-here'"):
        load_clip("nothing-here")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="no CLIP model but 'bert'"):
        load_clip(tmp_path)
