"""What can be refused of a learning is refused before its work; no folder's place goes into a shared file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cli import Outcome, scumble
from scumble.adapters.changes import Dense
from scumble.adapters.weights import Weights, Word
from scumble.core import rng
from scumble.core.errors import InputError, WeightsError
from scumble.core.events import Loop, finish
from scumble.data.subjects import Shot, Subject
from scumble.datagen import retrieval
from scumble.methods import custom_diffusion, dreambooth, textual_inversion
from scumble.models.load import load
from scumble.verbs.learn import called
from tiny import shared
from upscalers import shared_latent_upscaler

NAMED = ("--word", "<rex>", "--noun", "dog")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCUMBLE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "private photos"
    folder.mkdir()
    for seed in range(2):
        pixels = torch.randint(0, 256, (64, 64, 3), generator=rng.generator(seed), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{seed}.png")
        (folder / f"{seed}.txt").write_text("a dog")
    return folder


def learn(method: str, photos: Path, *more: str, model: str = "sd1", out: str = "x.safetensors") -> Outcome:
    common = ("--model", str(shared(model)), "--device", "cpu", "-o", str(photos.parent / out))
    return scumble("learn", method, str(photos), "--steps", "1", "--batch", "1", *common, *more)


def refused(photos: Path, done: Outcome) -> str:
    """The sentence; nothing was drawn, learnt or written."""
    assert done.status == 2, done.err
    assert not list(photos.parent.rglob("*.safetensors"))
    assert not list(photos.parent.rglob("steps.jsonl"))
    return done.sentence


def test_settings_that_would_do_nothing(photos: Path) -> None:
    settings = photos.parent / "settings.toml"
    settings.write_text("targets = []\n")
    done = learn("dreambooth", photos, *NAMED, "--train", "low-rank", "--config", str(settings))
    assert "targets" in refused(photos, done)
    beside = ("--regularization", str(photos), "--prior-weight", "0")
    assert "weight 0 do nothing" in refused(photos, learn("custom-diffusion", photos, *NAMED, *beside))


def test_as_many_checkpoints_are_kept_as_asked_for(photos: Path) -> None:
    settings = photos.parent / "settings.toml"
    settings.write_text("checkpoint_every = 1\nkeep = 3\n")
    more = ("--steps", "5", "--config", str(settings))
    assert learn("textual-inversion", photos, *NAMED, *more).status == 0
    kept = sorted(path.stem for path in photos.parent.rglob("checkpoints/*.safetensors"))
    assert [int(stem) for stem in kept] == [3, 4, 5]


@pytest.mark.parametrize("rehearsal", [(), ("--dry-run",)])
def test_a_rank_that_does_not_fit(photos: Path, rehearsal: tuple[str, ...]) -> None:
    done = learn("dreambooth", photos, *NAMED, "--train", "low-rank", "--rank", "500", *rehearsal)
    assert "rank cannot be 500" in refused(photos, done)
    (photos.parent / "deep.toml").write_text("pivotal = 2\nrank = 900\n")
    config = ("--config", str(photos.parent / "deep.toml"))
    done = learn("textual-inversion", photos, *NAMED, *config, *rehearsal)
    assert "rank cannot be 900" in refused(photos, done)


def test_layers_that_no_model_has_and_what_the_upscaler_does_not_know(photos: Path) -> None:
    (photos.parent / "odd.toml").write_text('targets = ["unet.*.to_z"]\n')
    done = learn("dreambooth", photos, *NAMED, "--config", str(photos.parent / "odd.toml"))
    assert "'unet.*.to_z'" in refused(photos, done)
    (photos.parent / "loud.toml").write_text("upscaler_noise = 999\nprior_weight = 0.0\n")
    config = ("--config", str(photos.parent / "loud.toml"))
    done = learn("dreambooth", photos, *NAMED, *config, "--upscaler", str(shared_latent_upscaler()))
    assert "knows no noise level 999" in refused(photos, done)


@pytest.mark.parametrize("method", ["textual-inversion", "dreambooth", "custom-diffusion"])
def test_a_noun_that_no_file_can_hold(photos: Path, method: str) -> None:
    done = learn(method, photos, "--word", "<rex>", "--noun", "dog " * 26)
    assert "cannot be a class noun" in refused(photos, done)


@pytest.mark.parametrize("method", ["textual-inversion", "dreambooth", "custom-diffusion"])
def test_a_model_that_edits(photos: Path, method: str) -> None:
    said = refused(photos, learn(method, photos, *NAMED, model="ip2p"))
    assert "reads 8 channels and draws 4" in said
    assert "Learn on a model that draws" in said


def test_an_analysis_of_what_is_not_there_or_into_what_is(photos: Path) -> None:
    asked = ("--analyse", "--dry-run")
    done = learn("custom-diffusion", photos.parent / "none", *asked, out="rates")
    assert "There is no folder" in refused(photos, done)
    assert learn("custom-diffusion", photos, *asked, out="rates").status == 0
    (photos.parent / "rates").mkdir()
    (photos.parent / "rates" / "mine.txt").touch()
    assert "exists already" in refused(photos, learn("custom-diffusion", photos, *asked, out="rates"))
    done = scumble("learn", "custom-diffusion", *asked, "-o", str(photos.parent / "new"))
    assert "nothing to learn" in refused(photos, done)


def test_weights_that_are_no_numbers_or_have_no_room_are_not_written(tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    about: dict[str, Any] = {"method": "x", "family": "sd1", "base_hash": ""}
    bad = [torch.tensor([[torch.nan]]), torch.tensor([[torch.inf]]), torch.ones(1, 1, dtype=torch.int64)]
    unsound = [Weights(**about, words={"<a>": Word((tensor,))}) for tensor in bad]
    unsound += [Weights(**about, changes={"b": Dense(tensor)}) for tensor in bad]
    for weights in (*unsound, *(Weights(**about, upscaler=weights) for weights in unsound)):
        with pytest.raises(WeightsError, match=r"was not written: the tensor '.*' holds NaN"):
            weights.save(out)
    with pytest.raises(WeightsError, match=r"was not written: noun: .* 100 characters"):
        Weights(**about, words={"<a>": Word((torch.ones(1, 1),), "x" * 101)}).save(out)
    assert not out.exists()


def test_no_place_on_this_machine_goes_into_the_weights(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where the pictures are, nor where CLIP is; a model of the hub keeps its name."""
    monkeypatch.setattr(custom_diffusion, "clip_for", lambda *_, **__: None)
    none = retrieval.Captions(torch.zeros(0, 1), (), ())

    def read(*_: object, **__: object) -> Loop[retrieval.Captions]:
        yield from ()
        return none

    monkeypatch.setattr(custom_diffusion, "read_captions", read)

    def nothing(*_: object, **__: object) -> Any:
        latents = custom_diffusion.gallery(
            load(shared("sd1")), [Subject("<a>", "dog", (Shot("0", Image.new("RGB", (64, 64))),))],
            size=64, cell=16, mirrored=False,
        ).buckets[0].latents  # fmt: skip
        return custom_diffusion.Prior(latents, ("a dog",)), ""

    monkeypatch.setattr(custom_diffusion, "retrieved_prior", nothing)
    (photos.parent / "clip").mkdir()
    (photos.parent / "own.toml").write_text(f'clip_model = "{photos.parent / "clip"}"\naugment = false\n')
    monkeypatch.chdir(photos.parent)
    more = ("--config", "own.toml", "--regularization", str(photos))
    assert learn("custom-diffusion", photos, *NAMED, *more).status == 0
    content = (photos.parent / "x.safetensors").read_bytes()
    assert str(photos.parent).encode() not in content
    weights = Weights.load(photos.parent / "x.safetensors")
    assert (weights.config["regularization"], weights.config["clip_model"]) == ("private photos", "clip")
    assert len(weights.training["regularization"]) == 64
    plain = custom_diffusion.Config(clip_model="openai/clip-vit-large-patch14")
    assert custom_diffusion._shared(plain) == plain


def test_how_a_prompt_calls_what_was_learnt() -> None:
    assert called("textual-inversion", "<rex>", "dog") == "<rex>"
    assert called("dreambooth", "<rex>", "dog") == "<rex> dog"
    assert called("custom-diffusion", "<rex>", "") == "<rex>"


# What the held-out loss looks at


def shots(*sizes: tuple[int, int]) -> tuple[Shot, ...]:
    found: list[Shot] = []
    for i, (width, height) in enumerate(sizes):
        pixels = torch.randint(0, 256, (height, width, 3), generator=rng.generator(i), dtype=torch.uint8)
        found.append(Shot(f"{i}.png", Image.fromarray(pixels.numpy())))
    return tuple(found)


def test_the_held_out_loss_looks_at_every_size_and_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(shared("sd1"))
    rex = Subject("<rex>", "dog", shots((64, 64), (64, 64), (128, 64)))
    tom = Subject("<tom>", "cat", shots((64, 64), (64, 128)))
    config = textual_inversion.Config(size=64, vectors=1, stop_after=1, stop_every=1, steps=2, seed=3)
    seen: list[tuple[tuple[int, int], list[tuple[int, int]], list[int]]] = []
    plain = textual_inversion._denoised

    def noted(model: Any, bucket: Any, drawn: Any, *rest: Any) -> torch.Tensor:
        seen.append((bucket.size, [bucket.origins[p] for p in drawn.pictures], drawn.t.tolist()))
        return plain(model, bucket, drawn, *rest)

    words = textual_inversion._words(model, [rex, tom], config)
    pictures = textual_inversion.gallery(model, [rex, tom], size=64, cell=16, mirrored=True)
    assert len(pictures.buckets) == 3
    monkeypatch.setattr(textual_inversion, "_denoised", noted)
    first, again = (textual_inversion._held_out(model, pictures, words, config, 1) for _ in range(2))
    assert torch.equal(first, again)
    seen = seen[: len(seen) // 2]
    assert {size for size, _, _ in seen} == {bucket.size for bucket in pictures.buckets}
    origins = [origin for _, of, _ in seen for origin in of]
    assert set(origins) == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}
    assert sum(owner for owner, _ in origins) == len(origins) / 2 == textual_inversion.HELD_OUT / 2
    times = sorted(t for _, _, of in seen for t in of)
    assert times == [int((i + 0.5) * 1000 / 16) for i in range(16)]
    seen.clear()
    finish(textual_inversion.learn(model, [rex, tom], config.replace(steps=1)))
    assert len(seen) == 1 + 3  # a step, and one look


def test_more_subjects_than_the_held_out_loss_has_examples_are_all_seen() -> None:
    model = load(shared("sd1"))
    many = [Subject(f"<{i}>", "dog", shots((64, 64), (128, 64))) for i in range(3)]
    pictures = textual_inversion.gallery(model, many, size=64, cell=16, mirrored=False)
    found = pictures.spread(model, 1, 4)
    origins = [bucket.origins[p] for bucket, drawn in found for p in drawn.pictures]
    assert sorted(origins) == [(owner, shot) for owner in range(3) for shot in range(2)]


@pytest.mark.parametrize("method", [textual_inversion, dreambooth, custom_diffusion])
def test_every_method_checks_before_it_works(method: Any) -> None:
    model = load(shared("ip2p"))
    given = {"steps": 1, "batch": 1, "size": 64}
    with pytest.raises(InputError, match="it edits pictures"):
        method.check(model, [Subject("<rex>", "dog", shots((64, 64)))], method.Config(**given))
