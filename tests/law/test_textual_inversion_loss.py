"""What Textual Inversion lowers: equation 2 and the pull towards the start, and a word for each picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from by_hand import agree, caught, drawn, error, latents, slopes, told
from scumble.core import rng
from scumble.core.events import Loop, finish
from scumble.data.subjects import Shot, Subject
from scumble.data.templates import TEMPLATES
from scumble.methods import textual_inversion
from scumble.methods.textual_inversion import Config
from scumble.models.load import load
from scumble.models.model import Model
from scumble.training.fit import Fitted, Group, Loss, fit
from scumble.training.subjects import gallery
from tiny import shared

TI = Config(steps=1, batch=3, size=64, vectors=2, initial="red dog", templates="plain", seed=5)


@pytest.fixture(scope="module")
def model() -> Model:
    return load(shared("sd1"))


def picture(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    pixels = torch.randint(0, 256, (height, width, 3), generator=rng.generator(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def subject(*images: Image.Image) -> Subject:
    return Subject("<rex>", "dog", tuple(Shot(f"{i}.png", image) for i, image in enumerate(images)))


# The loss


@pytest.mark.parametrize("weight", [0.0, 0.7])
@pytest.mark.parametrize("image_words", [0.0, 1.0])
def test_the_loss_is_the_error_and_the_weighted_square_of_the_way_from_the_start(
    model: Model, monkeypatch: pytest.MonkeyPatch, image_words: float, weight: float
) -> None:
    """Values, gradients, and central differences: mean ||eps - eps_theta||^2 + weight * mean |v - v0|^2, the
    second mean over all vectors, those of the pictures' words too.
    """
    images = [picture(0), picture(1)]
    config = TI.replace(image_words=image_words, regularisation=weight)
    found = caught(monkeypatch, textual_inversion, model, subject(*images), config, moved=0.05)
    words = found.parameters
    of_images = [f"<rex>~{i}~.0" for i in range(2)] if image_words else []
    assert list(words) == ["<rex>.0", *of_images]
    examples = [drawn(latents(model, images, mirrored=True), 5, "example", row) for row in range(3)]
    table, tokenizer = model.text_encoders[0].get_input_embeddings().weight.double(), model.tokenizers[0]
    start = table[tokenizer("red dog", add_special_tokens=False).input_ids]
    assert start.shape == (2, 32)
    starts = [start, *(start.mean(0, keepdim=True) for _ in of_images)]

    def losses() -> Tensor:
        errors = []
        for example in examples:
            own = [words[f"<rex>~{example.picture}~.0"]] if image_words else []
            errors.append(error(found.denoiser, example, told(model, words["<rex>.0"], *own)))
        ways = torch.cat([v - v0 for v, v0 in zip(words.values(), starts, strict=True)])
        return torch.stack(errors) + weight * (ways**2).sum(1).mean()

    agree(found.losses, losses())
    gradients = torch.autograd.grad(losses().mean(), list(words.values()))
    for (name, parameter), gradient in zip(words.items(), gradients, strict=True):
        agree(found.gradients[name], gradient)
        places = gradient.flatten().abs().topk(3).indices.tolist()
        differences = slopes(lambda: losses().mean(), parameter, places)
        assert found.gradients[name].flatten()[places].tolist() == pytest.approx(differences, rel=1e-3)


def test_what_is_lowered_is_what_is_reported(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step's loss is at the start, where nothing pulls."""
    shown, config = subject(picture(0), picture(1)), TI.replace(regularisation=0.7)
    _, done = finish(textual_inversion.learn(model, [shown], config))
    found = caught(monkeypatch, textual_inversion, model, shown, config.replace(regularisation=0.0))
    assert done.losses == pytest.approx([float(found.losses.mean())], rel=1e-5)


# Words of the pictures

SHOWN = (picture(0), picture(1, 128), picture(2), picture(3, 128))
"""Of two sizes: a picture's number among those of its size is not its number."""


def test_an_example_is_told_with_its_own_picture_s_word(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(Model, "prompt", lambda _self, texts, **_: asked.extend(texts))
    monkeypatch.setattr(textual_inversion, "objective", lambda _model, drawn, _condition: drawn.t.float())
    config, shown = TI.replace(image_words=0.5, templates="object", mirror=False), subject(*SHOWN)
    words = textual_inversion._words(model, [shown], config)
    pictures = gallery(model, [shown], size=64, cell=16, mirrored=False)
    square, wide = pictures.sizes
    numbers = {square: (0, 2), wide: (1, 3)}
    assert square == (64, 64)
    own: list[int] = []
    for step in range(10):
        asked.clear()
        textual_inversion.loss(model, pictures, words, config, step, range(8), 75)
        bucket, examples = pictures.draw(model, config.seed, step, range(8))
        for text, which in zip(asked, examples.pictures, strict=True):
            number = numbers[bucket.size][which]
            alone, both = (
                [t.replace("{}", named) for t in TEMPLATES["object"]]
                for named in ("<rex>", f"<rex> <rex>~{number}~")
            )
            assert text in alone or text in both
            own += [number] if text in both else []
    assert set(own) == {0, 1, 2, 3}
    assert len(own) == pytest.approx(40, abs=18)  # four deviations of 80 draws


def test_every_picture_s_word_moves_by_the_gradient_of_its_own_examples(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdamW's first step is the learning rate against the sign of the gradient, which is derived by hand."""
    images, rate = [picture(i) for i in range(3)], 0.01
    config = TI.replace(batch=6, image_words=1.0, mirror=False, lr=rate, weight_decay=0.0)
    found = caught(monkeypatch, textual_inversion, model, subject(*images), config)
    examples = [drawn(latents(model, images), 5, "example", row) for row in range(6)]
    assert {example.picture for example in examples} == {0, 1, 2}
    moves: dict[str, Tensor] = {}

    def fitted(groups: Sequence[Group], loss: Loss, *more: Any, **named: Any) -> Loop[Fitted]:
        before = {name: p.detach().clone() for name, p in groups[0].parameters.items()}
        done = yield from fit(groups, loss, *more, **named)
        moves.update({name: p.detach() - before[name] for name, p in groups[0].parameters.items()})
        return done

    monkeypatch.setattr(textual_inversion, "fit", fitted)
    finish(textual_inversion.learn(model, [subject(*images)], config))
    assert len(moves) == 4
    for i in range(3):
        word = found.parameters[f"<rex>~{i}~.0"]
        condition = told(model, found.parameters["<rex>.0"], word)
        mine = [error(found.denoiser, example, condition) for example in examples if example.picture == i]
        [gradient] = torch.autograd.grad(torch.stack(mine).sum() / 6, [word])
        agree(found.gradients[f"<rex>~{i}~.0"], gradient)
        large = gradient.abs() > 1e-2 * gradient.abs().max()
        assert large.sum() > 16
        step = moves[f"<rex>~{i}~.0"][large].double()
        torch.testing.assert_close(step, -rate * gradient[large].sign(), rtol=2e-3, atol=0)
