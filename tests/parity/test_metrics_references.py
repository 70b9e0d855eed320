"""SSIM, LPIPS and likeness against derivations of their own, and DINO against transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.testing import assert_close
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from lpips_files import torchvision_like
from scumble.core import rng
from scumble.core.errors import InputError, ModelError
from scumble.metrics.ssim import ssim
from scumble.models.dino import load_dino
from scumble.models.lpips import Lpips, load_lpips


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=rng.generator(seed))


def test_ssim_is_that_of_scipys_filter() -> None:
    """Wang et al. 2004, equation 13, with scipy's Gaussian window, away from the edge as they have it."""
    one = uniform(2, 3, 24, 31)
    other = (one + 0.3 * uniform(2, 3, 24, 31, seed=1)).clamp(0, 1)

    def window(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]  # 11 wide

    expected = []
    for a, b in zip(one.double().numpy(), other.double().numpy(), strict=True):
        maps = []
        for x, y in zip(a, b, strict=True):
            mx, my = window(x), window(y)
            vx, vy, cov = window(x * x) - mx**2, window(y * y) - my**2, window(x * y) - mx * my
            top = (2 * mx * my + 0.0001) * (2 * cov + 0.0009)
            maps.append(top / ((mx**2 + my**2 + 0.0001) * (vx + vy + 0.0009)))
        expected.append(np.mean(maps))
    assert ssim(one, other).tolist() == pytest.approx(expected, abs=1e-9)


def test_ssim_of_known_pictures() -> None:
    one = uniform(1, 3, 16, 16)
    assert ssim(one, one).item() == pytest.approx(1)
    flat = torch.full((1, 3, 16, 16), 0.2)
    luminance = (2 * 0.2 * 0.7 + 0.0001) / (0.04 + 0.49 + 0.0001)
    assert ssim(flat, flat + 0.5).item() == pytest.approx(luminance, abs=1e-6)
    assert ssim(one, 1 - one).item() < 0
    with pytest.raises(InputError, match="at least 11 x 11"):
        ssim(one[..., :10], one[..., :10])


# DINO


def vit(folder: Path) -> ViTModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    network = ViTModel(ViTConfig(**sizes, image_size=56, patch_size=8), add_pooling_layer=False).eval()
    network.save_pretrained(folder)
    return network


def test_dino_is_the_class_token_of_transformers(tmp_path: Path) -> None:
    network, ours = vit(tmp_path), load_dino(tmp_path)
    pixels = uniform(2, 3, 56, 56) * 2 - 1
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    prepared = ours.prepared(pixels)
    assert prepared.shape == (2, 3, 56, 56)
    with torch.inference_mode():
        expected = network(pixel_values=prepared).last_hidden_state[:, 0]
        found = ours.image_features(pixels)
    assert_close(found, expected / expected.norm(dim=-1, keepdim=True))
    assert (found[0] - found[1]).norm() > 1e-3
    whole = load_dino(tmp_path).prepared(torch.full((1, 3, 64, 96), 0.5))  # 64 is 256/224 of 56: no resize
    assert_close(whole[0, :, 0, 0], ((torch.tensor(0.75) - mean) / std)[:, 0, 0])


def test_dino_keeps_the_middle(tmp_path: Path) -> None:
    vit(tmp_path)
    pixels = torch.zeros(1, 3, 64, 96)
    pixels[..., :20], pixels[..., 76:] = 1, 1  # what the crop of 56 leaves out
    prepared = load_dino(tmp_path).prepared(pixels)
    assert torch.equal(prepared, load_dino(tmp_path).prepared(torch.zeros(1, 3, 64, 96)))


def test_dinov2_loads_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14
    )
    network = Dinov2Model(config).eval()
    network.save_pretrained(tmp_path)
    ours = load_dino(tmp_path)
    pixels = uniform(1, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        expected = network(pixel_values=ours.prepared(pixels)).last_hidden_state[:, 0]
        assert_close(ours.image_features(pixels), expected / expected.norm())


def test_what_is_no_dino(tmp_path: Path) -> None:
    vit(tmp_path)
    state = tmp_path / "model.safetensors"
    config = json.loads((tmp_path / "config.json").read_text())
    with pytest.raises(ModelError, match="no DINO model 'nothing'"):
        load_dino("nothing")
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(ModelError, match="no DINO model but 'bert'"):
        load_dino(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ModelError, match="lacks 16 tensors"):
        load_dino(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    state.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        load_dino(tmp_path)


# LPIPS


@pytest.fixture(scope="module", params=["alex", "vgg"])
def metric(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Lpips]:
    folder = tmp_path_factory.mktemp("lpips")
    for file, state in zip(("classifier.pth", "heads.pth"), torchvision_like(request.param), strict=True):
        torch.save(state, folder / file)
    with pytest.raises(ModelError, match="is a pickle"):
        load_lpips(folder)
    return request.param, load_lpips(folder, trust_pickle=True)


def by_hand(name: str, one: Tensor, other: Tensor) -> float:
    """Zhang et al. 2018, equation 1, layer by layer, position by position."""
    state, heads = torchvision_like(name)
    pools = {"alex": {3: (3, 2), 6: (3, 2)}, "vgg": dict.fromkeys((5, 10, 17, 24), (2, 2))}[name]
    compared = {"alex": (0, 3, 6, 8, 10), "vgg": (2, 7, 14, 21, 28)}[name]
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x = [(p - shift.reshape(3, 1, 1)) / scale.reshape(3, 1, 1) for p in (one, other)]
    total, numbers = 0.0, sorted({int(key.split(".")[1]) for key in state if key.startswith("features")})
    for number in numbers:
        weight, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
        stride, padding = (4, 2) if weight.shape[-1] == 11 else (1, weight.shape[-1] // 2)
        if number in pools:
            x = [torch.nn.functional.max_pool2d(p, *pools[number]) for p in x]
        x = [torch.nn.functional.conv2d(p[None], weight, bias, stride, padding)[0].relu() for p in x]
        if number in compared:
            a, b = (p / p.norm(dim=0).clamp(min=1e-10) for p in x)
            head = heads[f"lin{compared.index(number)}.model.1.weight"].flatten()
            total += float((head[:, None, None] * (a - b) ** 2).sum(0).mean())
    return total


def test_lpips_is_equation_1(metric: tuple[str, Lpips]) -> None:
    name, lpips = metric
    one, other = (uniform(2, 3, 40, 36, seed=seed) * 2 - 1 for seed in (0, 1))
    with torch.inference_mode():
        found = lpips(one, other).tolist()
    assert found == pytest.approx([by_hand(name, a, b) for a, b in zip(one, other, strict=True)], rel=1e-4)


def test_lpips_is_a_distance(metric: tuple[str, Lpips]) -> None:
    _, lpips = metric
    one = uniform(1, 3, 40, 36) * 2 - 1
    near, far = one + 0.02 * uniform(1, 3, 40, 36, seed=1), uniform(1, 3, 40, 36, seed=2) * 2 - 1
    with torch.inference_mode():
        assert lpips(one, one).item() == 0
        assert_close(lpips(one, far), lpips(far, one))
        assert 0 < lpips(one, near).item() < lpips(one, far).item()


def test_lpips_says_where_its_weights_are(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not hold the heads of LPIPS\. See `scumble\.models\.lpips`"):
        load_lpips(tmp_path)
