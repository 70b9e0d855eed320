"""Custom Diffusion: its loss, what learns and what does not, views that say their size, retrieval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from learnt import digests, tiny_model
from scumble.adapters.attention import first_token_stopped
from scumble.adapters.dense import dense
from scumble.adapters.rates import Rate, by_group, rates
from scumble.adapters.tokens import new_word, rare_word
from scumble.core import rng
from scumble.core.errors import ConfigError, InputError, MissingExtraError, PromptError
from scumble.core.events import finish
from scumble.core.images import to_model, to_unit
from scumble.core.runs import RunFolder
from scumble.data.augment import FAR, NEAR, prefixed, scaled_views
from scumble.data.subjects import Shot, Subject, worded
from scumble.datagen import faiss_index, retrieval
from scumble.datagen.priors import Prior, prior_parts
from scumble.methods import custom_diffusion, dreambooth
from scumble.models.model import Model
from scumble.training.examples import encoded, prompt_caches, total_loss
from scumble.training.subjects import gallery
from scumble.verbs.analyse import analyse_to, plot, table
from scumble.verbs.load import ModelConfig
from tiny import shared

CD = custom_diffusion.Config(
    steps=2, batch=2, size=64, views=3, prior_count=2, prior_steps=2, initial="cat", lr=1e-3, seed=5
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCUMBLE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


def picture(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    pixels = torch.randint(0, 256, (height, width, 3), generator=rng.generator(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def subject(word: str = "<rex>", noun: str = "dog", *, caption: str | None = None, seed: int = 0) -> Subject:
    return Subject(word, noun, tuple(Shot(f"{i}.png", picture(seed + i), caption) for i in range(2)))


def learnt(model: Model, config: custom_diffusion.Config, *subjects: Subject) -> dict[str, Tensor]:
    weights, _ = finish(custom_diffusion.learn(model, list(subjects) or [subject()], config))
    words = {f"{t}/{e}": v for t, word in weights.words.items() for e, v in enumerate(word.vectors)}
    return words | {f"{n}/{k}": t for n, c in weights.changes.items() for k, t in c.tensors().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].shape == b[n].shape and torch.equal(a[n], b[n]) for n in a)


# What learns


@pytest.mark.parametrize(("train", "places"), [("key-value", 8), ("cross-attention", 20)])
def test_only_cross_attention_and_the_words_learn(model: Model, train: Any, places: int) -> None:
    before = digests(model)
    config = CD.replace(train=train, prior_weight=0.0, weight_decay=0.0)
    weights, done = finish(custom_diffusion.learn(model, [subject()], config))
    assert done.moved > 0
    assert digests(model) == before
    assert model.words == {}
    assert len(weights.changes) == places
    assert all(".attn2." in name for name in weights.changes)
    if train == "key-value":
        assert all(name.endswith(("to_k.weight", "to_v.weight")) for name in weights.changes)
    assert weights.training["told"] == ["<rex> dog"]


def test_every_word_of_a_joint_run_learns_from_a_start_of_its_own(model: Model) -> None:
    two = [subject(), subject("<tom>", "cat", seed=7)]
    config = CD.replace(initial="", steps=6, prior_weight=0.0, weight_decay=0.0)
    weights, _ = finish(custom_diffusion.learn(model, two, config))
    for index, word in enumerate(("<rex>", "<tom>")):
        [start] = new_word(model, rare_word(model, index))
        [found] = weights.words[word].vectors
        assert found.shape == start.shape
        assert bool((found != start.detach()).all()), word
    assert not torch.equal(weights.words["<rex>"].vectors[0], weights.words["<tom>"].vectors[0])


def test_captions_alone_teach_without_a_word(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    plain = Model.prompt
    monkeypatch.setattr(Model, "prompt", lambda self, t, **o: asked.extend(t) or plain(self, t, **o))
    concept = subject("", "", caption="a glass toy")
    weights, done = finish(custom_diffusion.learn(model, [concept], CD.replace(augment=False, steps=4)))
    assert weights.words == {}
    assert len(weights.changes) == 8
    assert weights.training["told"] == ["a glass toy"]
    assert asked.count("a glass toy") == 1  # encoded once for all steps
    assert "class noun" in done.notes[0]
    with pytest.raises(PromptError, match="needs a caption"):
        finish(custom_diffusion.learn(model, [subject("", "")], CD))


def test_words_move_in_every_number_in_bfloat16() -> None:
    """A copy in half precision loses small steps; ours is float32 whatever the networks are."""
    model = tiny_model(dtype="bfloat16")
    config = CD.replace(steps=3, lr=1e-4, weight_decay=0.0, prior_weight=0.0)
    weights, _ = finish(custom_diffusion.learn(model, [subject()], config))
    [start], [found] = new_word(model, "cat"), weights.words["<rex>"].vectors
    assert found.dtype == torch.float32
    assert bool((found != start.detach()).all())


def test_a_subject_has_its_share_however_many_pictures_it_has(model: Model) -> None:
    one = Subject("<tom>", "cat", (Shot("9.png", picture(9)),))
    many = Subject("<rex>", "dog", tuple(Shot(f"{i}.png", picture(i)) for i in range(4)))
    pictures = gallery(model, [many, one], size=64, cell=16, mirrored=False)
    bucket, drawn = pictures.draw(model, 3, 0, range(400))
    owners = [bucket.origins[i][0] for i in drawn.pictures]
    assert owners.count(0) == pytest.approx(200, abs=30)
    assert {bucket.origins[i] for i in drawn.pictures} == set(bucket.origins)
    _, part = pictures.draw(model, 3, 0, [17])
    assert torch.equal(part.x0, drawn.x0[17:18])


# The loss


def test_the_loss_is_the_mean_over_what_the_view_shows(model: Model) -> None:
    """Derived again from pixels: the view, its own mask, its own words."""
    far = Subject("", "", (Shot("0.png", picture(3), "a photo of a toy"),))
    views = scaled_views(far.shots[0], (64, 64), 8, 3, 11, mirrored=False)
    assert views[0].said in FAR
    pictures = gallery(model, [far], size=64, cell=16, mirrored=False, views=lambda *_: views[:1])
    bucket, drawn = pictures.draw(model, CD.seed, 0, range(1))
    with torch.no_grad():
        found = custom_diffusion.loss(model, pictures, [far], [], CD, 0, range(1), (None, None))
        posterior = model.encode(to_model(views[0].picture[None]))
        noise = torch.Generator().manual_seed(drawn.seeds[0])
        for limit in (1, 1, 1000):
            torch.randint(limit, (), generator=noise)
        draws = [torch.randn(4, 8, 8, generator=noise)[None] for _ in range(2)]
        x0 = model.scale(posterior.mean + posterior.std * draws[0])
        alpha, sigma = (float(t[drawn.t[0]]) for t in (model.schedule.alpha, model.schedule.sigma))
        told = model.prompt([views[0].said.replace("{}", "photo of a toy")], size=(64, 64))
        output = model.predict(alpha * x0 + sigma * draws[1], drawn.t, told)
    cells = views[0].mask.reshape(8, 8, 8, 8).amax((1, 3))  # (rows, columns)
    error = ((output - draws[1]) ** 2)[0][:, cells > 0]
    assert 0 < len(error[0]) < 64
    torch.testing.assert_close(found[0], error.mean(), rtol=1e-4, atol=1e-5)
    assert bucket.said == [[views[0].said]]


def test_no_gradient_comes_from_the_first_token(model: Model) -> None:
    """The gradient of a matrix is the sum over tokens of output gradient times feature; the first is left
    out, and outputs stay the same to the bit.
    """
    told = model.prompt(["a red dog on grass"])
    x, t = rng.randn((4, 8, 8), rng.generators([1])), torch.tensor(300)
    name = "mid_block.attentions.0.transformer_blocks.0.attn2"
    layer = model.denoiser.get_submodule(name).to_v
    seen: list[Tensor] = []

    def run(stopped: bool) -> tuple[Tensor, Tensor]:
        with dense(model, (f"unet.{name}.to_v.weight",)) as layers:
            if stopped:
                with first_token_stopped(model):
                    output = model.predict(x, t, told)
                    output.square().sum().backward()
            else:
                handle = layer.register_forward_hook(lambda _m, _i, o: o.register_hook(seen.append) and None)
                output = model.predict(x, t, told)
                output.square().sum().backward()
                handle.remove()
            [parameter] = layers.named_parameters().values()
            assert parameter.grad is not None
            return output.detach(), parameter.grad.clone()

    (plain, full), (other, stopped) = run(False), run(True)
    assert torch.equal(plain, other)
    features = told.embeddings
    torch.testing.assert_close(full, torch.einsum("blo,bld->od", seen[0], features), rtol=1e-3, atol=1e-5)
    expected = torch.einsum("blo,bld->od", seen[0][:, 1:], features[:, 1:])
    torch.testing.assert_close(stopped, expected, rtol=1e-3, atol=1e-5)
    assert (full - stopped).abs().max() > 1e-4


def test_prior_weight_zero_is_no_prior(model: Model, tmp_path: Path) -> None:
    without = learnt(model, CD.replace(prior_weight=0.0))
    assert not (tmp_path / "cache").exists()  # nothing was drawn
    assert same(without, learnt(model, CD.replace(prior_weight=0.0, prior_count=3)))
    assert not same(without, learnt(model, CD))


def test_classes_take_turns_and_keep_their_captions(model: Model) -> None:
    """Each example is what it is alone, whichever others are in its batch."""
    pixels = [torch.rand(3, 64, 64, generator=rng.generator(i)) for i in range(3)]
    dogs = Prior(encoded(model, pixels[:2]), ("a red dog", "a blue dog"))
    cats = Prior(encoded(model, pixels[2:]), ("a cat",))
    prompts = prompt_caches(model, [(64, 64)])
    given: dict[str, Any] = {"seed": 4, "batch": 4, "step": 3, "prompts": prompts}
    with torch.no_grad():
        both = total_loss(model, prior_parts(model, [dogs, cats], rows=range(4), **given), 4)
        for own, rows in (([dogs], [0, 2]), ([cats], [1, 3])):
            alone = total_loss(model, prior_parts(model, own, rows=rows, **given), 2)
            torch.testing.assert_close(both[rows], alone, rtol=1e-4, atol=1e-6)
        meant = Prior(dogs.latents, ("a cat",) * 2)
        other = total_loss(model, prior_parts(model, [meant], rows=[0, 2], **given), 2)
    assert not torch.allclose(other, both[[0, 2]])


@pytest.mark.parametrize(
    "change",
    [
        {"word_lr": 0.1}, {"initial": "ball"}, {"templates": ("my {}",)}, {"augment": False}, {"views": 5},
        {"mirror": False}, {"stop_first": False}, {"prior_weight": 3.0}, {"prior_count": 3},
        {"prior_steps": 3}, {"weighting": "debiased"}, {"prior_weighting": "debiased"},
        {"train": "cross-attention"}, {"size": 96}, {"lr": 2e-3}, {"steps": 3}, {"batch": 1}, {"clip": 0.01},
    ],
)  # fmt: skip
def test_every_setting_has_an_effect(model: Model, plain: dict[str, Tensor], change: dict[str, Any]) -> None:
    assert not same(plain, learnt(model, CD.replace(**change)))


@pytest.fixture(scope="module")
def plain(model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCUMBLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return learnt(model, CD)


def test_captions_have_an_effect_and_can_be_left_out(model: Model, plain: dict[str, Tensor]) -> None:
    told = subject(caption="a red dog")
    assert not same(plain, learnt(model, CD, told))
    assert same(plain, learnt(model, CD.replace(captions=False), told))


def test_killed_and_resumed_gives_the_same(model: Model, tmp_path: Path) -> None:
    config = CD.replace(steps=4, checkpoint_every=2)
    whole = learnt(model, config)
    loop = custom_diffusion.learn(model, [subject()], config, run=RunFolder(tmp_path / "run"))
    for event in loop:
        if event.stage == "learning" and event.step == 3:
            loop.close()
            break
    weights, _ = finish(custom_diffusion.learn(model, [subject()], config, run=RunFolder(tmp_path / "run")))
    for name, change in weights.changes.items():
        assert torch.equal(change.tensors()["delta"], whole[f"{name}/delta"])
    assert torch.equal(weights.words["<rex>"].vectors[0], whole["<rex>/0"])


# Views


def test_views_have_the_shares_of_the_paper_and_say_what_they_are() -> None:
    shot = Shot("0.png", picture(1))
    views = scaled_views(shot, (64, 64), 8, 60, 3, mirrored=False)
    far, near = [v for v in views if v.said in FAR], [v for v in views if v.said in NEAR]
    assert len(far) == pytest.approx(60 * 4 / 15, abs=1)  # (0.6 - 1/3) / (2/3) of two thirds
    assert len(near) == pytest.approx(60 / 3, abs=1)
    whole = to_unit(picture(1))[0]
    for view in views:
        assert view.picture.shape == (3, 64, 64)
        assert view.mask.shape == (1, 64, 64)
        if not view.said:
            assert torch.equal(view.picture, whole)
        if view.said in FAR:
            seen = view.mask[0] > 0
            assert 0 < int(seen.sum()) < 64 * 64 * 0.36
            assert not bool((view.picture[:, seen] == 0.5).all())
            outside = view.picture[:, ~(view.picture != 0.5).any(0)]
            assert bool((outside == 0.5).all())
            assert outside.numel() > 3 * 64 * 64 * 0.6
        else:
            assert bool((view.mask == 1).all())
    again = scaled_views(shot, (64, 64), 8, 60, 3, mirrored=False)
    assert all(torch.equal(a.picture, b.picture) for a, b in zip(views, again, strict=True))
    assert {v.said for v in views} == {*FAR, *NEAR, ""}


def test_the_seam_of_a_smaller_picture_is_not_looked_at() -> None:
    """No latent cell of the mask touches the grey, and one more cell on each side is left out."""
    shot = Shot("0.png", Image.new("RGB", (128, 128), (255, 0, 0)))
    for view in scaled_views(shot, (128, 128), 8, 30, 1, mirrored=True):
        if view.said in FAR:
            grey = (view.picture[0] == 0.5).reshape(16, 8, 16, 8).any(3).any(1).float()
            near = torch.nn.functional.max_pool2d(grey[None, None], 3, 1, 1)[0, 0]
            cells = view.mask[0].reshape(16, 8, 16, 8).amax((1, 3))
            assert float((cells * near).sum()) == 0
            assert set(view.mask.unique().tolist()) == {0.0, 1.0}


def test_words_go_before_sentences_and_into_captions() -> None:
    assert prefixed("a very small {}", "a photo of a <rex> dog") == "a very small photo of a <rex> dog"
    assert prefixed("", "photo of a dog") == "photo of a dog"
    assert worded("my dog at sea", "<rex> dog", "<rex>", "dog") == "my <rex> dog at sea"
    assert worded("a catalogue", "<tom> cat", "<tom>", "cat") == "<tom> cat, a catalogue"
    assert worded("a {} asleep", "<rex> dog", "<rex>", "dog") == "a <rex> dog asleep"
    assert worded("<rex> runs", "<rex> dog", "<rex>", "dog") == "<rex> runs"
    assert worded("a moongate", "", "", "") == "a moongate"
    # A word inside another is none to a prompt, and would never be learnt.
    assert worded("a t-rexes toy dog", "rex dog", "rex", "dog") == "a t-rexes toy rex dog"
    assert worded("a t-rex toy", "rex dog", "rex", "dog") == "a t-rex toy"


@pytest.mark.parametrize("method", [dreambooth, custom_diffusion])
def test_sentences_without_a_place_for_the_word_are_refused(method: Any) -> None:
    for templates in ((), ("a photo",), ("a photo of a {}", "my dog")):
        with pytest.raises(ConfigError, match="templates cannot be"):
            method.Config(templates=templates)
    assert method.Config(templates=("my {}",)).templates == ("my {}",)


# Retrieval


class Letters:
    """A stand-in for CLIP: a text is how often it has each letter."""

    def text_features(self, texts: list[str]) -> Tensor:
        counts = [[float(text.count(chr(97 + i))) for i in range(26)] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(counts) + 1e-3, dim=-1)


@pytest.fixture
def captioned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(custom_diffusion, "clip_for", lambda *_, **__: Letters())
    folder = tmp_path / "captioned"
    folder.mkdir()
    told = ["photo of a dog", "photo of the dog", "zzz", "photo of a hog", "xyxyxy"]
    for i, text in enumerate(told):
        picture(20 + i).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(text)
    picture(30).save(folder / "uncaptioned.png")
    return folder


def test_the_nearest_captions_are_found_and_none_under_the_least() -> None:
    known = torch.nn.functional.normalize(rng.randn((50, 6), [rng.generator(1)])[0], dim=-1)
    wanted = torch.nn.functional.normalize(rng.randn((3, 6), [rng.generator(2)])[0], dim=-1)
    cosines = [max(float(row @ w) for w in wanted) for row in known]
    expected = sorted((i for i in range(50) if cosines[i] >= 0.4), key=lambda i: -cosines[i])[:7]
    found = retrieval.nearest(known, wanted, 7, 0.4)
    assert [i for i, _ in found] == expected
    indexed = faiss_index.build(known)
    assert [i for i, _ in retrieval.nearest(indexed, wanted, 7, 0.4)] == expected
    assert [c for _, c in found] == pytest.approx([cosines[i] for i in expected], abs=1e-5)
    assert retrieval.nearest(known, wanted, 7, 1.1) == []


def test_many_captions_are_searched_in_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all that is near need be found then, but what is found is as near as it says."""
    monkeypatch.setattr(faiss_index, "LISTS", 100)
    known = torch.nn.functional.normalize(rng.randn((1000, 6), [rng.generator(1)])[0], dim=-1)
    wanted = torch.nn.functional.normalize(rng.randn((2, 6), [rng.generator(2)])[0], dim=-1)
    found = retrieval.nearest(faiss_index.build(known), wanted, 20, 0.5)
    exact = dict(retrieval.nearest(known, wanted, 1000, 0.5))
    assert 5 < len(found) <= 20
    for row, cosine in found:
        assert cosine == pytest.approx(exact[row], abs=1e-5)


def test_pictures_are_taken_from_a_folder_or_its_index(
    model: Model, captioned: Path, plain: dict[str, Tensor]
) -> None:
    clip: Any = Letters()
    config = CD.replace(regularization=str(captioned), similarity=0.9, prior_count=3)
    known = finish(retrieval.captions_in(captioned, clip))
    prior, note = retrieval.retrieved_prior(
        model, clip, known, ["photo of a dog"], 10, 0.85, side=64, mirrored=True
    )
    assert sorted(prior.captions) == ["photo of a dog", "photo of a hog", "photo of the dog"]
    assert prior.latents.mean.shape == (3, 2, 4, 8, 8)
    assert "Only 3" in note
    found = learnt(model, config)
    assert not same(found, plain)
    index = captioned.parent / "index.safetensors"
    retrieval.write_index(known, index)
    assert same(found, learnt(model, config.replace(regularization=str(index))))
    assert same(found, learnt(model, config.replace(faiss=True)))
    assert not same(found, learnt(model, config.replace(similarity=0.999)))


def test_an_index_of_faiss_is_made_once_and_searched(
    model: Model, captioned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip: Any = Letters()
    config = CD.replace(regularization=str(captioned), similarity=0.9, prior_count=3)
    found = learnt(model, config)
    index = captioned.parent / "index.safetensors"
    retrieval.write_index(finish(retrieval.captions_in(captioned, clip)).indexed(), index)
    assert set(load_file(index)) == {"faiss"}
    monkeypatch.setattr(faiss_index, "build", lambda _: pytest.fail("it is there"))
    for asked in (False, True):
        assert same(found, learnt(model, config.replace(regularization=str(index), faiss=asked)))


def test_a_damaged_index_of_faiss_is_refused(captioned: Path) -> None:
    clip: Any = Letters()
    index = captioned.parent / "index.safetensors"
    retrieval.write_index(finish(retrieval.captions_in(captioned, clip)).indexed(), index)
    index.write_bytes(index.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"no index of captions: it is damaged\. Make it anew"):
        finish(retrieval.read_captions(index, clip))
    with pytest.raises(InputError, match="no index of FAISS"):
        faiss_index.from_bytes(torch.zeros(64, dtype=torch.uint8))


def test_each_kind_of_subject_has_pictures_of_its_own(model: Model, captioned: Path) -> None:
    config = CD.replace(regularization=str(captioned), similarity=0.8, prior_count=1, templates=("{}",))
    three = [subject("<a>", "zzz"), subject("<b>", "xyxyxy"), subject("<c>", "zzz")]
    notes, priors = finish(custom_diffusion._priors(model, three, config, 64))
    assert [prior.captions for prior in priors] == [("zzz",), ("xyxyxy",)]
    assert notes == []


@pytest.mark.parametrize("faiss", [False, True])
def test_for_a_picture_that_cannot_be_read_the_next_nearest_is_taken(
    model: Model, captioned: Path, faiss: bool
) -> None:
    clip: Any = Letters()
    (captioned / "0.png").write_bytes(b"no picture")
    (captioned / "2.txt").write_bytes("a café".encode("cp1252"))
    known = finish(retrieval.read_captions(captioned, clip, faiss=faiss))
    assert (len(known.texts), known.without) == (4, 2)
    assert known.notes == ("Passed over: 2.txt (neither UTF-8 nor UTF-16).",)
    asked: Any = (model, clip, known, ["photo of a dog"])
    prior, note = retrieval.retrieved_prior(*asked, 2, 0.85, side=64, mirrored=False)
    assert sorted(prior.captions) == ["photo of a hog", "photo of the dog"]
    assert note == f"Passed over: 0.png (in {captioned}, but cannot be read)."
    with pytest.raises(InputError, match="near enough can be read"):
        retrieval.retrieved_prior(*asked, 2, 0.9999, side=64, mirrored=False)


def test_an_index_finds_its_folder_beside_it(model: Model, captioned: Path, tmp_path: Path) -> None:
    clip: Any = Letters()
    index = tmp_path / "index.safetensors"
    retrieval.write_index(finish(retrieval.captions_in(captioned, clip)), index)
    before = finish(retrieval.read_captions(index, clip)).files
    (tmp_path / "moved").mkdir()
    captioned.rename(tmp_path / "moved" / captioned.name)
    with pytest.raises(
        InputError, match=r"captioned, whose pictures .*index.* is not there\. If the folder was m"
    ):
        finish(retrieval.read_captions(index, clip))
    index.rename(tmp_path / "moved" / index.name)
    after = finish(retrieval.read_captions(tmp_path / "moved" / index.name, clip)).files
    assert [file.name for file in after] == [file.name for file in before]
    assert all(file.is_file() for file in after)


def test_another_safetensors_file_is_no_index(tmp_path: Path) -> None:
    clip: Any = Letters()
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"a\.safetensors was not made by scumble data regularization\."):
        finish(retrieval.read_captions(tmp_path / "a.safetensors", clip))


def test_what_cannot_be_retrieved_is_a_sentence(
    model: Model, captioned: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clip: Any = Letters()
    (tmp_path / "empty").mkdir()
    config = CD.replace(regularization=str(captioned))
    with pytest.raises(InputError, match=r"is [0-9.]+ like .* Lower `similarity` in a sett.*--config"):
        learnt(model, config, subject("<q>", "qqqq"))
    with pytest.raises(PromptError, match="nothing to compare"):
        learnt(model, config, subject("<q>", ""))
    monkeypatch.setattr(custom_diffusion, "clip_for", lambda *_, **__: pytest.fail("CLIP came first"))
    with pytest.raises(InputError, match="nowhere"):
        learnt(model, CD.replace(regularization=str(tmp_path / "nowhere")))
    monkeypatch.setattr(custom_diffusion, "clip_for", lambda *_, **__: Letters())
    with pytest.raises(InputError, match=r"There is no folder .*nowhere\."):
        finish(retrieval.captions_in(tmp_path / "nowhere", clip))
    with pytest.raises(InputError, match="no captioned picture"):
        learnt(model, CD.replace(regularization=str(tmp_path / "empty")))
    monkeypatch.setattr(faiss_index, "import_module", lambda _name: (_ for _ in ()).throw(ImportError()))
    with pytest.raises(MissingExtraError, match="FAISS"):
        learnt(model, config.replace(faiss=True))


def test_the_clip_that_compares_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(retrieval, "load_clip", lambda name, **_: asked.append(str(name)))
    monkeypatch.setattr(retrieval.toybox, "clip", lambda: "the toybox's own")
    for name, given in (("x", "my/clip"), ("x", ""), ("toybox", "")):
        retrieval.clip_for(name, given)
    assert asked == ["my/clip", retrieval.CLIP, "the toybox's own"]


# Which layers change


def test_rates_are_relative_changes_by_layer_and_group(model: Model) -> None:
    names = ("unet.conv_in.weight", "unet.conv_in.bias", "unet.mid_block.*.attn[12].to_q.weight")
    with dense(model, names) as layers:
        for parameter in layers.named_parameters().values():
            parameter.data.mul_(1.25)
        next(p for n, p in layers.named_parameters().items() if "attn2" in n).data.mul_(2)
        found = {rate.layer: rate for rate in rates(layers)}
    assert len(found) == 3
    assert found["unet.conv_in"].change == pytest.approx(0.25, rel=1e-5)
    assert found["unet.conv_in"].group == "rest"
    means = by_group(list(found.values()))
    assert means["self-attention"] == pytest.approx(0.25, rel=1e-5)
    assert means["cross-attention"] == pytest.approx(1.5, rel=1e-5)


def test_an_analysis_is_a_table_and_a_plot_and_leaves_the_model(model: Model, tmp_path: Path) -> None:
    before = digests(model)
    found = finish(custom_diffusion.analyse(model, [subject()], CD))
    assert digests(model) == before
    assert len({rate.layer for rate in found}) == len(found) > 50
    assert all(rate.change > 0 for rate in found)
    assert {rate.group for rate in found} == {"cross-attention", "self-attention", "rest"}
    folder = tmp_path / "photos"
    folder.mkdir()
    picture(1).save(folder / "a.png")
    done = finish(
        analyse_to(
            [(folder, "<rex>", "dog")],
            CD,
            ModelConfig(model=str(shared("sd1")), device="cpu"),
            tmp_path / "out",
        )
    )
    facts = json.loads((tmp_path / "out" / "rates.json").read_text())
    assert set(facts["groups"]) == {"cross-attention", "self-attention", "rest"}
    assert len(facts["layers"]) == len(found)
    with Image.open(tmp_path / "out" / "rates.png") as image:
        assert image.size[0] == 960
    assert "mean relative change" in done.text
    assert (tmp_path / "out" / "rates.txt").read_text().count("unet.") == len(found)


def test_a_plot_of_few_layers_and_of_none_is_drawn() -> None:
    one = [Rate("unet.conv_in", "rest", 10, 0.1)]
    assert plot(one).getcolors(1000000) != plot([]).getcolors(1000000)
    assert "nan" in table(one)
