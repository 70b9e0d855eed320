"""What DreamBooth and Custom Diffusion lower: the subject's loss and the weighted loss of the class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from by_hand import agree, caught, drawn, error, latents, slopes, told
from learnt import noise
from scumble.core import rng
from scumble.core.events import Loop, finish
from scumble.data.subjects import Shot, Subject
from scumble.datagen.priors import Prior
from scumble.methods import custom_diffusion, dreambooth
from scumble.models.load import load
from scumble.models.model import Model
from scumble.training.examples import Latents, Part, draw, objective, total_loss
from tiny import shared

WEIGHT = 0.25
QUICK: dict[str, Any] = {"steps": 1, "batch": 2, "size": 64, "seed": 5, "prior_weight": WEIGHT}
LEARNERS: dict[Any, Any] = {
    dreambooth: dreambooth.Config(**QUICK, train="cross-attention", identifier="cat"),
    custom_diffusion: custom_diffusion.Config(**QUICK, initial="cat", augment=False, stop_first=False),
}
CLASS = (noise(3, 1, 4, 8, 8, seed=1, scale=9.0), noise(3, 1, 4, 8, 8, seed=2).abs())
"""Mean and deviation of the latents of three pictures of the class, far from those of the subject."""


@pytest.fixture(scope="module")
def model() -> Model:
    return load(shared("sd1"))


def picture(seed: int) -> Image.Image:
    pixels = torch.randint(0, 256, (64, 64, 3), generator=rng.generator(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


SUBJECT = Subject("<rex>", "dog", (Shot("0.png", picture(0)), Shot("1.png", picture(1))))


@pytest.fixture(autouse=True)
def _classes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SCUMBLE_CACHE", str(tmp_path / "cache"))

    def prior(_model: Model, prompt: str, _count: int, **_: Any) -> Loop[Prior]:
        yield from ()
        return Prior(Latents(*CLASS), (prompt,) * 3)

    for method in LEARNERS:
        monkeypatch.setattr(method, "drawn_prior", prior)


@pytest.mark.parametrize("method", LEARNERS, ids=lambda m: m.METHOD)
def test_the_two_terms_have_means_noise_and_times_of_their_own(
    model: Model, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    """The batch's loss is mean(subject) + weight * mean(class), each from its own draws: values, gradients,
    and central differences.
    """
    config = LEARNERS[method]
    found = caught(monkeypatch, method, model, SUBJECT, config)
    start, word = (
        ("a photo of a", "cat") if method is dreambooth else ("photo of a", found.parameters["<rex>.0"])
    )
    kind = "a dog" if method is dreambooth else "photo of a dog"
    pictures = latents(model, [shot.image for shot in SUBJECT.shots], mirrored=True)
    own = [drawn(pictures, 5, "example", row) for row in range(2)]
    of_class = [drawn(CLASS, 5, "class", row) for row in range(2)]
    assert all(a.t != b.t and not torch.equal(a.eps, b.eps) for a, b in zip(own, of_class, strict=True))

    def terms() -> tuple[Tensor, Tensor]:
        named, unnamed = told(model, start, word, "dog"), told(model, kind)
        first = torch.stack([error(found.denoiser, example, named) for example in own])
        return first, torch.stack([error(found.denoiser, example, unnamed) for example in of_class])

    def total() -> Tensor:
        first, second = terms()
        return first.mean() + WEIGHT * second.mean()

    first, second = terms()
    assert (
        abs(float(first.detach().mean() / second.detach().mean()) - 1) > 0.02
    )  # or a weight in the wrong place would not show
    agree(found.losses, first + WEIGHT * second)
    agree(found.losses.mean(), total())
    copies = found.parameters | {f"unet.{name}": p for name, p in found.denoiser.named_parameters()}
    learning = [copies[name] for name in found.gradients]
    assert len(learning) == {dreambooth: 20, custom_diffusion: 9}[method]
    gradients = torch.autograd.grad(total(), learning)
    for (name, given), gradient in zip(found.gradients.items(), gradients, strict=True):
        agree(given, gradient)
        [place] = gradient.flatten().abs().topk(1).indices.tolist()
        [difference] = slopes(total, copies[name], [place])
        assert float(given.flatten()[place]) == pytest.approx(difference, rel=1e-3), name


@pytest.mark.parametrize("method", LEARNERS, ids=lambda m: m.METHOD)
def test_what_is_lowered_is_what_is_reported(
    model: Model, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    """And it is linear in the weight, the subject's loss being what is left at weight 0. Gradients are
    compared where the class takes part in the pass: alone, the subject's are rounded otherwise.
    """
    found = {
        weight: caught(monkeypatch, method, model, SUBJECT, LEARNERS[method].replace(prior_weight=weight))
        for weight in (0.0, 1.0, 2.0, 4.0)
    }
    plain, once, _, more = (found[weight].losses for weight in (0.0, 1.0, 2.0, 4.0))
    torch.testing.assert_close(more - plain, 4 * (once - plain), rtol=1e-4, atol=1e-5)
    for name, gradient in found[1.0].gradients.items():
        agree(
            found[4.0].gradients[name] - gradient,
            3 * (found[2.0].gradients[name] - gradient).double(),
        )
    _, done = finish(method.learn(model, [SUBJECT], LEARNERS[method]))
    expected = float((plain + WEIGHT * (once - plain)).mean())
    assert done.losses == pytest.approx([expected], rel=1e-5)


def test_terms_of_one_size_share_a_pass_and_are_what_they_are_alone(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a mask or without, of any length of prompt; of another size, a pass of its own."""
    small = Latents(*CLASS)
    masked = Latents(small.mean, small.std, torch.ones(3, 1, 1, 8, 8).triu())
    large = Latents(noise(2, 1, 4, 8, 16, seed=3), noise(2, 1, 4, 8, 16, seed=4).abs())
    parts: list[Part] = []
    for i, (of, texts, rows) in enumerate(
        ((small, ["a dog", "a cat"], [0, 2]), (masked, ["a dog " * 90], [1]), (large, ["a bird"], [2]))
    ):
        found = draw(model, of, 7, 0, rows, f"term {i}")
        size = (of.mean.shape[-2] * 8, of.mean.shape[-1] * 8)
        parts.append(Part(found, model.prompt(texts, size=size), rows, "min_snr", 0.5 + i))
    passes: list[int] = []
    plain = Model.predict

    def counted(self: Model, x: Tensor, *given: Any) -> Tensor:
        passes.append(len(x))
        return plain(self, x, *given)

    monkeypatch.setattr(Model, "predict", counted)
    with torch.no_grad():
        total = total_loss(model, parts, 3)
        assert passes == [3, 1]
        expected = torch.zeros(3)
        for part in parts:
            alone = objective(model, part.drawn, part.condition, weighting="min_snr")
            expected[part.rows] += part.weight * alone
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-5)
