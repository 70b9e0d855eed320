"""Text2LIVE beside the original code: both sides take the steps that they are told to, and what stands in for
the libraries of that code does what their documentation says.

The checkout is one of the tests' own, with the names of the original and none of its text.
"""

from __future__ import annotations

import copy
import math
import random
from pathlib import Path

import pytest
import torch
from PIL import Image

from cli import scumble
from scumble.bench import text2live_speed
from scumble.bench.text2live_speed import Settings, arrivals, measure, table
from scumble.bench.text2live_standins import MADGRAD, GridOfSeven, Named
from scumble.bench.text2live_torchvision import TRANSFORMS
from scumble.core.errors import InputError
from scumble.core.events import finish
from scumble.models.clip import load_clip
from tiny_clip import shared_clip

TRAIN = """
import imageio
import torch
from CLIP import clip, clip_explainability
from madgrad import MADGRAD
from PIL import Image
from torchvision import transforms
from util import losses


class ClipExtractor:
    def __init__(self, config):
        self.clip_input_size = 224
        first, second = transforms.Resize(224), transforms.Normalize([0.5], [0.5])
        self.basic_transform = transforms.Compose([first, second])
        self.model = clip.load("ViT-B/32", device=config["device"])[0]
        words = [each.format(config["comp_text"]) for each in losses.get_augmentations_template()]
        self.words = self.model.encode_text(clip.tokenize(words)).detach()


class Model(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.netG = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Sigmoid())


def get_optimizer(config, parameters):
    return MADGRAD(parameters, lr=config["lr"])


def train_model(config):
    picture = transforms.ToTensor()(Image.open(config["image_path"]).convert("RGB"))[None]
    assert picture.shape[-1] == config["resize_input"]
    model, look = Model(config), ClipExtractor(config)
    clip_explainability.load("ViT-B/32", device=config["device"], jit=False)
    optimizer = get_optimizer(config, model.parameters())
    print("into the log")
    for _ in range(config["n_epochs"]):
        optimizer.zero_grad()
        made = model.netG(picture)
        seen = look.model.encode_image(look.basic_transform(picture + made[:, 3:] * (made[:, :3] - picture)))
        (1 - torch.cosine_similarity(seen, look.words).mean()).backward()
        optimizer.step()
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    files = {
        "train_image.py": TRAIN,
        "util/losses.py": "def get_augmentations_template():\n    return ['original {}']\n",
        "models/clip_extractor.py": "",
        "configs/image_config.yaml": "lr: 0.1\nn_epochs: 1000\n",
    }
    for name, text in files.items():
        (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "checkout" / name).write_text(text)
    return tmp_path / "checkout"


def test_both_races_are_run(tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text2live_speed, "LOOK", 1)
    settings = Settings(model=str(shared_clip(3)), repeats=2, warmup=1, steps=3, size=64, channels=4, views=1)
    out = tmp_path / "out"
    scores = finish(measure(out, checkout, settings))
    step, loss = scores["races"]["a step"], scores["races"]["the same loss"]
    assert 0 < step["least"] <= step["ratio"] <= step["most"]
    assert [number for number, _ in loss["losses"]["theirs"]] == [1, 2, 3]
    assert loss["target"] == pytest.approx(min(value for _, value in loss["losses"]["theirs"]), abs=5e-5)
    assert "into the log" in (out / "theirs by steps.log").read_text()
    assert (out / "table.md").read_text() == table(scores) + "\n"
    assert "| a step, identical settings |" in table(scores)
    assert "| to their lowest loss |" in table(scores)


def test_a_side_that_fails_says_why(tmp_path: Path, checkout: Path) -> None:
    (checkout / "train_image.py").write_text("raise RuntimeError('the reason')\n")
    with pytest.raises(InputError, match="theirs by steps failed: RuntimeError: the reason"):
        finish(measure(tmp_path / "out", checkout, Settings(model=str(shared_clip(3)), channels=4, size=64)))


def test_another_folder_is_refused(tmp_path: Path) -> None:
    outcome = scumble("bench", "speed", "--text2live", str(tmp_path), "-o", str(tmp_path / "out"))
    assert outcome.status == 2
    assert "train_image.py" in outcome.err
    assert not (tmp_path / "out").exists()


def test_the_first_layer_as_good_as_their_best_counts() -> None:
    losses = {"theirs": {1: 3.0, 2: 1.0, 3: 2.0}, "ours": {1: 2.0, 2: 1.0, 3: 0.5}}
    times = {"theirs": ([1.0, 2.0, 4.0], [8.0, 8.0, 8.0]), "ours": ([0.5, 0.5, 0.5], [1.0, 1.0, 1.0])}
    found = arrivals(losses, times)
    assert (found["their steps"], found["our steps"], found["theirs"], found["ours"]) == (2, 2, 3.0, 1.0)
    assert (found["ratio"], found["cpu ratio"], found["our lowest"]) == (3.0, 8.0, 0.5)
    never = arrivals(losses | {"ours": {1: 2.0}}, times)
    assert (never["ours"], never["ratio"], never["our steps"]) == (None, None, None)
    with pytest.raises(InputError, match="no layer"):
        arrivals(losses | {"ours": {}}, times)


def test_madgrad_takes_the_steps_of_its_paper() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    optimiser = MADGRAD([x], lr=0.1, momentum=0.9, weight_decay=0.5)
    start, at, total, squares = [1.0, -2.0], [1.0, -2.0], [0.0, 0.0], [0.0, 0.0]
    for k in range(3):
        optimiser.zero_grad()
        (3 * x).square().sum().backward()
        optimiser.step()
        for i in range(2):
            gradient, rate = 18 * at[i] + 0.5 * at[i], 0.1 * math.sqrt(k + 1)
            total[i] += rate * gradient
            squares[i] += rate * gradient**2
            z = start[i] - total[i] / (squares[i] ** (1 / 3) + 1e-6)
            at[i] = 0.9 * at[i] + 0.1 * z
    assert x.tolist() == pytest.approx(at, rel=1e-5)


def test_clip_under_other_names_sees_the_same() -> None:
    clip = load_clip(shared_clip(3))
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    theirs = (
        torch.tensor([0.48145466, 0.4578275, 0.40821073]),
        torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )
    normalised = (pixels - theirs[0].view(-1, 1, 1)) / theirs[1].view(-1, 1, 1)
    named = Named(clip)
    found = torch.nn.functional.normalize(named.encode_image(normalised), dim=-1)
    torch.testing.assert_close(found, clip.image_features(pixels * 2 - 1), atol=1e-5, rtol=1e-4)
    alike = named.calculate_self_sim(normalised)
    assert alike.shape == (2, 17, 17)
    torch.testing.assert_close(alike.diagonal(dim1=1, dim2=2), torch.ones(2, 17))


def test_attention_that_was_kept_has_a_gradient() -> None:
    clip = load_clip(shared_clip(3))
    kept = GridOfSeven(clip)
    tokens = clip.tokenizer(["a cat"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    logits, _ = kept(torch.rand(1, 3, 224, 224), tokens)
    blocks = list(kept.visual.transformer.resblocks.children())
    assert len(blocks) == 3
    [gradient] = torch.autograd.grad(logits.sum(), [blocks[-1].attn_probs])
    assert gradient.shape == (1, 2, 50, 50)  # heads; 7 x 7 patches and the picture's own token
    assert float(gradient.abs().max()) > 0


PICTURE = torch.rand(1, 3, 12, 20, generator=torch.Generator().manual_seed(1))


def test_moves_of_size_zero_move_nothing() -> None:
    still = {
        "RandomAffine": {"degrees": 0, "translate": (0, 0), "fill": 1},
        "RandomPerspective": {"distortion_scale": 0.0, "p": 1.0, "fill": 1},
        "ColorJitter": dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0),
    }
    for name, given in still.items():
        torch.testing.assert_close(TRANSFORMS[name](**given)(PICTURE), PICTURE, atol=1e-5, rtol=0)


def test_moves_fill_what_they_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    moved = TRANSFORMS["RandomAffine"](degrees=0, translate=(0.5, 0.0), fill=1)(PICTURE)
    shifts = [x for x in range(-10, 11) if torch.allclose(moved, _shifted(x), atol=1e-5)]
    assert len(shifts) == 1
    tilted = TRANSFORMS["RandomPerspective"](distortion_scale=0.9, p=1.0, fill=1)(torch.zeros(1, 3, 40, 40))
    assert 0.05 < float(tilted.mean()) < 0.95
    with pytest.raises(AssertionError):
        torch.testing.assert_close(TRANSFORMS["RandomAffine"](90, (0, 0))(PICTURE), PICTURE)


def _shifted(x: int) -> torch.Tensor:
    whole = torch.ones(1, 3, 12, 40 + 20)
    whole[..., 20 + x : 40 + x] = PICTURE
    return whole[..., 20:40]


def test_colours_are_jittered_as_said() -> None:
    hue = copy.copy(TRANSFORMS["ColorJitter"])
    none = dict.fromkeys(("brightness", "contrast", "saturation"), 0.0)
    torch.manual_seed(3)
    turned = hue(**none, hue=0.4)(PICTURE)
    torch.testing.assert_close(turned.amax(1), PICTURE.amax(1), atol=1e-5, rtol=0)  # V of HSV stays
    torch.testing.assert_close(turned.amin(1), PICTURE.amin(1), atol=1e-5, rtol=0)
    assert float((turned - PICTURE).abs().max()) > 0.1
    lighter = TRANSFORMS["ColorJitter"](**dict.fromkeys(none, 0.0) | {"brightness": 0.5}, hue=0.0)(PICTURE)
    middle = (PICTURE - 0.5).abs().argmin()
    share = float(lighter.flatten()[middle] / PICTURE.flatten()[middle])
    torch.testing.assert_close(lighter, (share * PICTURE).clamp(0, 1), atol=1e-5, rtol=0)
    grey = TRANSFORMS["RandomGrayscale"](p=1.0)(PICTURE)
    assert float((grey[:, 0] - grey[:, 2]).abs().max()) == 0


def test_tensors_and_images_are_cut_and_resized_alike() -> None:
    image = Image.new("RGB", (20, 12), (255, 0, 0))
    for picture, size in ((PICTURE, lambda p: tuple(p.shape[-2:])), (image, lambda p: (p.height, p.width))):
        assert size(TRANSFORMS["Resize"](24)(picture)) == (24, 40)
        assert size(TRANSFORMS["Resize"](24, max_size=30)(picture)) == (18, 30)
        assert size(TRANSFORMS["Resize"]((5, 7))(picture)) == (5, 7)
        assert size(TRANSFORMS["CenterCrop"]((6, 10))(picture)) == (6, 10)
        assert size(TRANSFORMS["RandomCrop"](size=(6, 10))(picture)) == (6, 10)
        assert size(TRANSFORMS["RandomHorizontalFlip"](p=1.0)(picture)) == (12, 20)
    jittered = TRANSFORMS["ColorJitter"](brightness=0.1, contrast=0.1, saturation=0.1, hue=0.1)(image)
    assert jittered.size == image.size
    never = TRANSFORMS["RandomApply"]([lambda _: random.random()], p=0.0)
    assert never(PICTURE) is PICTURE
    assert torch.equal(TRANSFORMS["CenterCrop"]((6, 10))(PICTURE), PICTURE[..., 3:9, 5:15])
