"""Saved folders are what every release of diffusers reads, and what we read back bit for bit."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from torch.testing import assert_close

import tiny
from scumble.core import files
from scumble.core.errors import DiskFullError, InputError, ModelError
from scumble.models import singlefile
from scumble.models.configs import PUBLISHED, random_checkpoint, random_model
from scumble.models.load import load
from scumble.models.model import Model
from scumble.models.save import save_folder, save_single_file
from scumble.models.tensors import read_keys


def states(model: Model) -> dict[str, Mapping[str, torch.Tensor]]:
    return {part: module.state_dict() for part, module in model.parts().items()}


def assert_same(one: Model, other: Model) -> None:
    assert states(one).keys() == states(other).keys()
    for part, state in states(one).items():
        assert state.keys() == states(other)[part].keys()
        assert all(tensor.equal(states(other)[part][name]) for name, tensor in state.items())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_saved_folder_is_the_same_model(family: str, tmp_path: Path) -> None:
    model = load(tiny.shared(family))
    saved = save_folder(model, tmp_path / "saved")
    back = load(saved)
    assert_same(model, back)
    assert back.hash == model.hash
    for name in ("family", "prediction", "default_size", "condition_channels", "downsample", "takes_sigma"):
        assert getattr(back, name) == getattr(model, name)
    assert back.schedule.alpha.equal(model.schedule.alpha)
    if model.text_encoders:
        for text in ("a red cat zq 17!", ""):
            assert back.prompt([text]).embeddings.equal(model.prompt([text]).embeddings)
        assert back.empty().embeddings.equal(model.empty().embeddings)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_diffusers_makes_the_same_picture_from_a_saved_folder(family: str, tmp_path: Path) -> None:
    saved = save_folder(load(tiny.shared(family)), tmp_path / "saved")
    pictures = []
    for folder in (tiny.shared(family), saved):
        pipe = DiffusionPipeline.from_pretrained(folder)
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        pictures.append(
            pipe("a red cat", num_inference_steps=2, generator=generator, output_type="pt").images
        )
    assert_close(pictures[1], pictures[0], rtol=0, atol=1e-6)


def test_what_the_model_predicts_and_its_size_are_saved(tmp_path: Path) -> None:
    model = load(tiny.shared("sd2"), prediction="eps")
    model.default_size = 128
    model.checkpoint = replace(model.checkpoint, guidance=2.5)
    back = load(save_folder(model, tmp_path / "saved"))
    assert (back.prediction, back.default_size, back.checkpoint.guidance) == ("eps", 128, 2.5)
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "saved")  # which warns of nothing
    assert pipe.scheduler.config["prediction_type"] == "epsilon"
    assert pipe.unet.config["sample_size"] == 16


def test_a_single_file_tells_v_prediction_and_zero_snr(tmp_path: Path) -> None:
    model = load(tiny.shared("sdxl"))
    assert not {"v_pred", "ztsnr"} & read_keys(save_single_file(model, tmp_path / "a.safetensors")).keys()
    scheduler = {**model.checkpoint.scheduler, "rescale_betas_zero_snr": True}
    model.prediction, model.checkpoint = "v", replace(model.checkpoint, scheduler=scheduler)
    keys = read_keys(save_single_file(model, tmp_path / "b.safetensors"))
    assert (keys["v_pred"], keys["ztsnr"]) == ((0,), (0,))
    told = singlefile._scheduler("sdxl", keys)
    assert (told["prediction_type"], told["rescale_betas_zero_snr"]) == ("v_prediction", True)
    model.prediction = "x0"
    with pytest.raises(ModelError, match="cannot say"):
        save_single_file(model, tmp_path / "c.safetensors")


def test_names_and_files_are_the_classic_ones(tmp_path: Path) -> None:
    saved = save_folder(load(tiny.shared("sdxl")), tmp_path / "saved")
    for part in ("text_encoder", "text_encoder_2"):
        names = load_file(saved / part / "model.safetensors")
        assert all(name.startswith(("text_model.", "text_projection.")) for name in names)
    assert {path.name for path in (saved / "tokenizer").iterdir()} == {
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer_config.json",
        "vocab.json",
    }
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionXLPipeline"
    assert index["force_zeros_for_empty_prompt"] is True


def test_a_trained_model_is_saved_as_trained(tmp_path: Path) -> None:
    model = load(tiny.shared("sd1"))
    before = model.hash
    with torch.no_grad():
        model.denoiser.conv_in.weight.add_(1)
    back = load(save_folder(model, tmp_path / "saved"))
    assert_same(model, back)
    assert back.hash != before


def test_bfloat16_is_saved_as_bfloat16(tmp_path: Path) -> None:
    saved = save_folder(load(tiny.shared("sd1"), dtype="bfloat16"), tmp_path / "saved")
    tensors = load_file(saved / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_nothing_is_written_over(tmp_path: Path) -> None:
    model = load(tiny.shared("sd1"))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(InputError, match="already exists"):
        save_folder(model, tmp_path / "there")


@pytest.mark.parametrize("single", [True, False])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, single: bool) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_flush", full)
    model = random_model("sd1")
    with pytest.raises(DiskFullError):
        (save_single_file if single else save_folder)(model, tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())


def test_pixel_models_have_no_single_file_layout(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no single-file layout"):
        save_single_file(load(tiny.shared("ddpm")), tmp_path / "x.safetensors")


@pytest.mark.parametrize("kind", [kind for kind in PUBLISHED if kind != "upscaler"])
def test_random_models_of_every_published_kind(kind: Any) -> None:
    model = random_model(kind)
    assert model.is_random
    assert model.family == {"sd2-base": "sd2", "ip2p": "sd1", "sdxl-edit": "sdxl"}.get(kind, kind)
    assert model.default_size == 64
    assert model.condition_channels == (4 if kind in ("ip2p", "sdxl-edit") else 0)
    x = torch.randn(1, 4 + model.condition_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    time = torch.tensor(500.0)
    with torch.inference_mode():
        one, two = (model.predict(x, time, model.prompt([text])) for text in ("a cat", "at night"))
    assert (one - two).std() > 0.05 * one.std()


def test_a_random_model_is_its_seed() -> None:
    one, same, other = (random_checkpoint("sd1", seed=seed).state("unet") for seed in (4, 4, 5))
    assert all(tensor.equal(same[name]) for name, tensor in one.items())
    assert not any(tensor.equal(other[name]) for name, tensor in one.items() if tensor.ndim > 1)


def safety_folder(folder: Path) -> Path:
    """A tiny model folder with a safety checker in the layout of releases of transformers before 5.6."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from safetensors.torch import save_file
    from transformers import CLIPConfig

    shutil.copytree(tiny.shared("sd1"), folder)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    torch.manual_seed(0)
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
    checker.concept_embeds.data.normal_()
    checker.concept_embeds_weights.data.fill_(0.4)
    state = {
        name.replace("vision_model.", "vision_model.vision_model."): t
        for name, t in checker.state_dict().items()
    }
    state["vision_model.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    place = folder / "safety_checker"
    place.mkdir()
    save_file(state, place / "model.safetensors")
    (place / "config.json").write_text(checker.config.to_json_string())
    (folder / "feature_extractor").mkdir()
    preparation = {"crop_size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(preparation))
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_the_safety_checker_is_kept_if_the_folder_has_one(tmp_path: Path) -> None:
    folder = safety_folder(tmp_path / "model")
    model = load(folder)
    assert model.safety_checker is not None
    assert load(folder, safety_checker=False).safety_checker is None
    assert load(tiny.shared("sd1")).safety_checker is None
    pixels = torch.rand(6, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    pixels[::2] = pixels[::2].round()
    flags = model.safety_checker.flagged(pixels)
    assert flags == model.safety_checker.flagged(pixels)
    assert set(flags) == {True, False}
    network = model.safety_checker._network
    prepared = model.safety_checker._preparation(pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, expected = network(prepared, [torch.zeros(1) for _ in pixels])
    assert flags == expected
    saved = save_folder(model, tmp_path / "saved")
    kept = load(saved).safety_checker
    assert kept is not None
    assert kept.flagged(pixels) == flags


def test_a_pickled_safety_checker_is_read_when_trusted_and_saved_as_a_safe_file(tmp_path: Path) -> None:
    folder = safety_folder(tmp_path / "model")
    before = load(folder).safety_checker
    file = folder / "safety_checker" / "model.safetensors"
    torch.save(load_file(file), file.with_name("pytorch_model.bin"))
    file.unlink()
    with pytest.raises(ModelError, match="--trust-pickle"):
        load(folder)
    model = load(folder, trust_pickle=True)
    pixels = torch.rand(4, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert model.safety_checker is not None
    assert before is not None
    assert model.safety_checker.flagged(pixels) == before.flagged(pixels)
    kept = load(save_folder(model, tmp_path / "saved")).safety_checker
    assert kept is not None
    assert kept.flagged(pixels) == before.flagged(pixels)
    declined = save_folder(load(folder, safety_checker=False), tmp_path / "declined")
    assert load(declined).safety_checker is None
