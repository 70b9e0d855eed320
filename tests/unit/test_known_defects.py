"""Defects that the usual scripts and loaders for these methods have, each of which must not be here.

`SHOWN` says what each is and which tests show it absent; those with its number in their names are below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import pairs
from cli import scumble
from learnt import noise, tiny_model
from scumble.adapters.changes import LowRank, parameters_of
from scumble.adapters.tokens import new_word, words_attached
from scumble.core import rng
from scumble.core.errors import ImageError
from scumble.core.events import finish
from scumble.data.subjects import Shot, Subject, cropped, read_subject
from scumble.datagen.priors import Prior, prior_parts
from scumble.diffusion.parameterisation import loss_weight
from scumble.methods import custom_diffusion, dreambooth, textual_inversion
from scumble.methods.instruct_pix2pix import Learning
from scumble.models.model import Model
from scumble.training.examples import PromptCache, draw, encoded, objective, total_loss
from scumble.verbs.convert import read_any
from tiny import shared

TESTS = Path(__file__).parents[1]
HERE, CUSTOM = "unit/test_known_defects.py", "law/test_custom_diffusion.py"
FORMATS, INSTRUCT = "parity/test_formats_others.py", "law/test_instruct_pix2pix_learning.py"
SHOWN: dict[str, tuple[str, ...]] = {
    "B1": (
        "Custom Diffusion's changes are never used by who loads them as documented",
        f"{FORMATS}::test_diffusers_reads_our_custom_diffusion",
    ),
    "B2": (
        "its safetensors file cannot be loaded at all",
        f"{FORMATS}::test_diffusers_reads_our_custom_diffusion",
    ),
    "B3": (
        "without a word it trains and then crashes",
        f"{HERE}::test_b3_no_word_is_no_crash_at_the_end",
        f"{CUSTOM}::test_captions_alone_teach_without_a_word",
    ),
    "B4": (
        "in bfloat16 most numbers of a word never move",
        f"{HERE}::test_b4_a_word_learns_in_float32_on_a_model_in_bfloat16",
        f"{CUSTOM}::test_words_move_in_every_number_in_bfloat16",
    ),
    "B5": (
        "its test is skipped with a current transformers",
        f"{HERE}::test_b5_no_test_that_is_named_here_is_skipped",
        f"{CUSTOM}::test_only_cross_attention_and_the_words_learn",
    ),
    "B6": (
        "an initial word of several tokens is not noticed",
        f"{HERE}::test_b6_an_initial_word_of_several_tokens_gives_a_vector_for_each",
        f"{HERE}::test_b6_a_noun_that_the_tokenizer_splits_is_as_good_as_another",
    ),
    "B7": (
        "weights of times and prior preservation do not go together",
        f"{HERE}::test_b7_each_half_has_the_weights_of_its_own_times",
        "law/test_prior_weight.py::test_the_two_terms_have_means_noise_and_times_of_their_own",
    ),
    "B8": (
        "InstructPix2Pix begins with a bias by chance in its first layer",
        f"{INSTRUCT}::test_it_starts_as_the_model_that_sees_no_picture_and_keeps_the_bias",
    ),
    "B9": (
        "without a seed it crashes",
        f"{HERE}::test_b9_instruct_pix2pix_trains_without_a_seed",
    ),
    "B10": (
        "it hands on another scheduler, and looks only at pictures from the net",
        f"{INSTRUCT}::test_plain_diffusers_edits_with_what_is_saved",
        f"{INSTRUCT}::test_looks_are_written_and_change_nothing",
        "unit/test_cli_train_instruct.py::test_pairs_give_a_folder_that_edits",
    ),
    "B11": (
        "stray files crash it, pictures are squashed and always mirrored",
        f"{HERE}::test_b11_stray_files_are_passed_over_and_pictures_not_squashed",
        f"{HERE}::test_b11_pictures_need_not_be_mirrored",
    ),
    "B12": (
        "a new word is taken for the end of the prompt",
        f"{HERE}::test_b12_the_pooled_embedding_is_that_of_the_end_marker",
    ),
    "B13": (
        "a word for both encoders of SDXL cannot be read at once",
        f"{HERE}::test_b13_both_encoders_of_sdxl_are_read_from_one_file",
    ),
    "B14": (
        "a word is seen inside other words",
        "law/test_adapters_tokens.py::test_inside_other_words_a_word_is_not_seen",
    ),
    "B15": (
        "a text encoder's changes are refused where one layer is missing",
        f"{HERE}::test_b15_a_text_encoder_s_changes_need_not_be_complete",
    ),
    "B16": (
        "a resumed run begins its data anew",
        "law/test_learning.py::test_killed_at_any_step_and_resumed_gives_the_same",
        f"{CUSTOM}::test_killed_and_resumed_gives_the_same",
        f"{INSTRUCT}::test_killed_and_resumed_gives_the_same_to_the_bit",
    ),
}
"""Of each: what it is, and the tests that show it absent."""


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


def picture(seed: int = 0, width: int = 64, height: int = 64) -> Image.Image:
    pixels = torch.randint(0, 256, (height, width, 3), generator=rng.generator(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def subject(**changed: Any) -> Subject:
    given: dict[str, Any] = {"word": "<rex>", "noun": "dog", "shots": (Shot("0.png", picture()),)}
    return Subject(**(given | changed))


QUICK: dict[str, Any] = {"steps": 2, "batch": 2, "size": 64, "seed": 3}


def test_all_sixteen_are_shown_absent_by_tests_that_are_there() -> None:
    assert list(SHOWN) == [f"B{i}" for i in range(1, 17)]
    for defect, (_, *tests) in SHOWN.items():
        assert tests, defect
        for place, test in (name.split("::") for name in tests):
            assert f"\ndef {test}(" in (TESTS / place).read_text(), (defect, place, test)


def test_b3_no_word_is_no_crash_at_the_end(model: Model) -> None:
    config = custom_diffusion.Config(**QUICK, augment=False, prior_weight=0.0)
    told = subject(word="", noun="", shots=(Shot("0.png", picture(), "a toy ball"),))
    weights, done = finish(custom_diffusion.learn(model, [told], config))
    assert done.steps == 2
    assert (len(weights.words), len(weights.changes)) == (0, 8)


def test_b4_a_word_learns_in_float32_on_a_model_in_bfloat16() -> None:
    model = tiny_model(dtype="bfloat16")
    config = textual_inversion.Config(**QUICK | {"steps": 4}, lr=1e-4, weight_decay=0.0, vectors=1)
    weights, _ = finish(textual_inversion.learn(model, [subject()], config))
    [start], [found] = new_word(model, "dog", vectors=1), weights.words["<rex>"].vectors
    assert found.dtype == torch.float32
    assert bool((found != start.detach()).all())


def test_b6_an_initial_word_of_several_tokens_gives_a_vector_for_each(model: Model) -> None:
    config = custom_diffusion.Config(**QUICK, augment=False, prior_weight=0.0, initial="red wooden toy")
    weights, _ = finish(custom_diffusion.learn(model, [subject()], config))
    assert weights.words["<rex>"].vectors[0].shape == (3, 32)


def test_b6_a_noun_that_the_tokenizer_splits_is_as_good_as_another(model: Model) -> None:
    weights, _ = finish(
        textual_inversion.learn(model, [subject(noun="axolotl")], textual_inversion.Config(**QUICK))
    )
    assert len(weights.words["<rex>"].vectors[0]) > 1
    config = dreambooth.Config(**QUICK, rank=2, prior_weight=0.0, identifier="cat")
    assert finish(dreambooth.learn(model, [subject(noun="axolotl")], config))[1].moved > 0


def test_b5_no_test_that_is_named_here_is_skipped() -> None:
    places = {name.split("::")[0] for _, *tests in SHOWN.values() for name in tests} - {HERE}
    assert len(places) >= 7
    for place in places:
        text = (TESTS / place).read_text()
        assert not any(
            f"pytest.{mark}" in text for mark in ("mark.skip", "skip", "importorskip", "mark.xfail")
        )


@pytest.mark.parametrize("batch", [1, 2])
def test_b7_each_half_has_the_weights_of_its_own_times(model: Model, batch: int) -> None:
    config = dreambooth.Config(**QUICK | {"batch": batch}, weighting="min_snr", prior_weighting="min_snr")
    latents = encoded(model, [torch.rand(3, 64, 64, generator=rng.generator(i)) for i in range(2)])
    told = {(64, 64): PromptCache(model, (64, 64))}
    rows = range(batch)
    with torch.no_grad():
        given = {"seed": config.seed, "batch": batch, "step": 1, "rows": rows, "prompts": told}
        dogs = [Prior(latents, ("a dog",) * 2)]
        parts = prior_parts(model, dogs, **given, weighting=config.prior_weighting)
        found = total_loss(model, parts, batch)
        drawn = draw(model, latents, config.seed, 1, rows, "class")
        plain = objective(model, drawn, model.prompt(["a dog"] * batch, size=(64, 64)))
        level = model.schedule.levels(drawn.t)
    snr = (level.alpha.float() / level.sigma.float()).square().flatten()
    expected = plain * snr.clamp_max(5) / snr  # min-SNR-5 for a model that predicts eps
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss_weight(level, "eps", "min_snr").flatten().float(), snr.clamp_max(5) / snr)
    assert found.shape == (batch,)


def test_b9_instruct_pix2pix_trains_without_a_seed(tmp_path: Path) -> None:
    """The seed is then 0, is kept with the run, and is as good as given."""
    data = pairs.folder(tmp_path / "data")
    made: dict[str, bytes] = {}
    for name, options in {"none": (), "zero": ("--seed", "0"), "one": ("--seed", "1")}.items():
        on = ("--model", str(shared("sd1")), "--steps", "1", "--batch", "1", *options)
        out = tmp_path / name
        outcome = scumble("train", "instruct-pix2pix", str(data), *on, "-o", str(out))
        assert outcome.status == 0, outcome.err
        kept = Learning.from_toml(tmp_path / f"{name}.run" / "config.toml")
        assert kept.seed == (1 if name == "one" else 0)
        made[name] = (out / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert made["none"] == made["zero"] != made["one"]


def test_b11_stray_files_are_passed_over_and_pictures_not_squashed(tmp_path: Path) -> None:
    wide = Image.new("RGB", (128, 64), (255, 255, 255))
    wide.paste((0, 0, 0), (32, 0, 96, 64))  # a black square in the middle
    wide.save(tmp_path / "a.png")
    (tmp_path / "notes.md").write_text("not a picture")
    (tmp_path / ".DS_Store").write_bytes(b"\0\1")
    (tmp_path / "broken.png").write_bytes(b"no picture either")
    read = read_subject(tmp_path, "<rex>", "dog")
    assert [shot.name for shot in read.shots] == ["a.png"]
    assert any("broken.png" in note for note in read.notes)
    middle, _ = cropped(read.shots[0], (64, 64))
    assert float(middle.mean()) < 0.05  # the square, whole and as wide as high


def test_a_mask_without_white_is_a_sentence(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    (tmp_path / "masks").mkdir()
    Image.new("L", (64, 64), 0).save(tmp_path / "masks" / "a.png")
    with pytest.raises(ImageError, match="black all over"):
        read_subject(tmp_path, "<rex>", "dog")


def test_b11_pictures_need_not_be_mirrored(model: Model) -> None:
    seen = [
        textual_inversion.gallery(model, [subject()], size=64, cell=16, mirrored=flag).buckets[0].latents
        for flag in (False, True)
    ]
    assert [latents.mean.shape[1] for latents in seen] == [1, 2]


def test_b12_the_pooled_embedding_is_that_of_the_end_marker() -> None:
    model = tiny_model("sdxl")
    plain = model.prompt(["a red dog on grass"])
    with words_attached(model, {"<rex>": [v.detach() for v in new_word(model, "red dog")]}):
        learnt = model.prompt(["a <rex> on grass"])
    assert plain.pooled is not None
    assert learnt.pooled is not None
    torch.testing.assert_close(learnt.pooled, plain.pooled)


def test_b13_both_encoders_of_sdxl_are_read_from_one_file(tmp_path: Path) -> None:
    model = tiny_model("sdxl")
    save_file({"clip_l": noise(2, 32), "clip_g": noise(2, 48)}, tmp_path / "rex.safetensors")
    word = read_any(tmp_path / "rex.safetensors", model, word="<rex>").words["<rex>"]
    assert [tuple(v.shape) for v in word.vectors] == [(2, 32), (2, 48)]


def test_b15_a_text_encoder_s_changes_need_not_be_complete(model: Model, tmp_path: Path) -> None:
    layer = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    tensors = {f"{layer}.lora_down.weight": noise(2, 32), f"{layer}.lora_up.weight": noise(32, 2)}
    save_file(tensors | {f"{layer}.alpha": torch.tensor(1.0)}, tmp_path / "x.safetensors")
    [(name, change)] = read_any(tmp_path / "x.safetensors", model).changes.items()
    assert name in parameters_of(model)
    assert isinstance(change, LowRank)
    assert change.alpha == 1.0


@pytest.mark.parametrize("method", [textual_inversion, dreambooth, custom_diffusion])
def test_a_word_that_is_in_the_vocabulary_is_refused(model: Model, method: Any) -> None:
    with pytest.raises(Exception, match="knows already"):
        finish(method.learn(model, [subject(word="dog")], method.Config(**QUICK)))


@pytest.mark.parametrize("method", [textual_inversion, dreambooth, custom_diffusion])
def test_half_precision_that_overflows_is_refused(method: Any) -> None:
    model = tiny_model(dtype="float16")
    with pytest.raises(Exception, match="float16 overflows"):
        finish(method.learn(model, [subject()], method.Config(**QUICK)))


def test_two_subjects_need_two_words(model: Model) -> None:
    with pytest.raises(Exception, match="two subjects"):
        finish(textual_inversion.learn(model, [subject(), subject()], textual_inversion.Config(**QUICK)))


def test_no_row_of_the_vocabulary_learns_with_the_text_encoder(model: Model) -> None:
    config = dreambooth.Config(**QUICK, train="up", text_lr=1e-3, prior_weight=0.0, identifier="cat")
    weights, _ = finish(dreambooth.learn(model, [subject()], config))
    text = [name for name in weights.changes if name.startswith("text_encoder")]
    assert len(text) > 10
    assert not any("embedding" in name for name in text)
