"""Every setting of SDEdit has an effect; the presets are the paper's; wrong settings are one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from scumble.core import rng
from scumble.core.errors import ConfigError, ImageError
from scumble.core.events import finish
from scumble.data.paintings import Painting, painting
from scumble.methods.sdedit import PRESETS, Config, edit
from scumble.models.load import load
from tiny import shared

BASE: dict[str, Any] = {"t0": 0.4, "steps": 4, "guidance": 5.0}
CHANGES: dict[str, dict[str, Any]] = {
    "t0": {"t0": 0.4123},
    "steps": {"steps": 5},
    "sampler": {"sampler": "heun"},
    "spacing": {"spacing": "karras"},
    "eta": {"sampler": "ddim", "eta": 0.5},
    "repeats": {"repeats": 2},
    "kept_noise": {"kept_noise": "fresh"},
    "feather": {"feather": 3},
    "negative": {"negative": "night"},
    "guidance": {"guidance": None},
    "guidance_interval": {"guidance_interval": (0.0, 0.2)},
    "guidance_rescale": {"guidance_rescale": 0.7},
}


def work() -> Painting:
    guide = torch.rand(1, 3, 32, 32, generator=rng.generator(1))
    mask = torch.ones(1, 1, 32, 32)
    mask[..., 16:] = 0
    return painting(guide, mask=mask, prompt="a red cat")


def painted(**settings: Any) -> Tensor:
    [picture] = finish(edit(load(shared("sd1")), [work()], [5], Config.of(BASE | settings)))
    return picture


def test_every_setting_has_an_effect() -> None:
    assert CHANGES.keys() == Config.model_fields.keys()
    plain = {"": painted(), "ddim": painted(sampler="ddim")}
    for name, change in CHANGES.items():
        before = plain["ddim" if name == "eta" else ""]
        assert (painted(**change) - before).abs().max() > 1e-4, name


def test_the_presets_are_the_papers() -> None:
    settings = {name: (p.t0, p.steps, p.sampler, p.repeats, p.kept_noise) for name, p in PRESETS.items()}
    assert settings == {
        "fast": (0.5, 12, "dpmpp_2m", 1, "fixed"),
        "strokes": (0.5, 500, "reverse_sde", 1, "fresh"),
        "stroke-edit": (0.45, 1000, "reverse_sde", 1, "fresh"),
        "compositing": (0.35, 700, "reverse_sde", 1, "fresh"),
        "released": (0.5, 500, "ddpm", 3, "fixed"),
    }


@pytest.mark.parametrize(
    "bad", [{"t0": 1.01}, {"t0": -0.01}, {"t0": float("nan")}, {"spacing": "even"}, {"feather": -1}], ids=str
)
def test_wrong_settings_are_named(bad: dict[str, Any]) -> None:
    [name] = bad
    with pytest.raises(ConfigError, match=f"^{name} cannot be"):
        Config.of(bad)


def test_wrong_paintings_are_named() -> None:
    guide, mask = torch.rand(1, 3, 4, 5), torch.zeros(1, 1, 4, 5)
    with pytest.raises(ImageError, match="5 x 4 pixels and the mask 4 x 4"):
        painting(guide, mask=mask[..., :4])
    with pytest.raises(ImageError, match="mask is black"):
        painting(guide, mask=mask)
    with pytest.raises(ImageError, match="guide has values outside"):
        painting(guide * 255)
    with pytest.raises(ImageError, match="equal to the original"):
        painting(guide, original=guide.clone())
    other = painting(torch.rand(1, 3, 9, 9))
    with pytest.raises(ImageError, match="2 different sizes"):
        finish(edit(load(shared("sd1")), [painting(guide), other], [1, 2], Config()))


def test_more_steps_than_there_are_is_as_many_as_there_are() -> None:
    assert torch.equal(painted(t0=0.003, steps=100), painted(t0=0.003, steps=3))
