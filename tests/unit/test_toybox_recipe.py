"""The whole recipe at its smallest: every stage runs, and plain diffusers draws with what it packs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, StableDiffusionPipeline
from recipes.toybox import card, edits, instruct, latents, pack, pictures, run, tokenizer
from recipes.toybox.loop import Run
from recipes.toybox.scales import SCALES
from safetensors.torch import load_file
from transformers import CLIPModel

from scumble.core.errors import InputError, ModelError
from scumble.core.places import cache_folder
from scumble.models import toybox
from scumble.models.judge import Judge
from scumble.models.load import load
from scumble.sampling.guided import default_guidance
from scumble.world.instructions import every_edit
from scumble.world.sampling import PROFILES, sample_scene
from scumble.world.splits import is_held_out
from scumble.world.words import caption


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toybox")
    assert run.main(["--stage", "all", "--scale", "tiny", "--out", str(out), "--threads", "1"]) == 0
    return out


@pytest.fixture
def expanded(trained: Path, tmp_path: Path) -> Path:
    return toybox.folder(tmp_path / "cache", source=pack.folder(trained))


def test_every_stage_left_its_part(trained: Path) -> None:
    parts = {path.name for path in trained.iterdir()}
    assert {
        "tokenizer",
        "pictures",
        "clip",
        "vae",
        "unet",
        "unet_instruct",
        "edits",
        "judge",
        "upscaler",
        "packed",
        "sheet.png",
    } <= parts
    halves = [
        path
        for name in ("clip", "vae", "unet", "unet_instruct", "judge", "upscaler")
        for path in (trained / name).glob("*.safetensors")
    ]
    assert len(halves) == 6
    for path in halves:
        assert {t.dtype for t in load_file(path).values() if t.is_floating_point()} == {torch.float16}


def test_plain_diffusers_draws_with_the_folder(expanded: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(expanded)
    assert pipeline.unet.dtype == pipeline.vae.dtype == pipeline.text_encoder.dtype == torch.float32
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline("a red cat", num_inference_steps=2, output_type="np").images
    assert images.shape == (1, 128, 128, 3)
    assert np.isfinite(images).all()
    assert images.std() > 0


def test_plain_diffusers_edits_with_the_editing_folder(expanded: Path) -> None:
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(expanded / toybox.EDITING)
    assert (pipeline.unet.config.in_channels, pipeline.scheduler.config.beta_end) == (8, 0.012)
    pipeline.set_progress_bar_config(disable=True)
    shown = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    [image] = pipeline("make it night", image=shown, num_inference_steps=2, output_type="np").images
    assert image.shape == (128, 128, 3)
    assert np.isfinite(image).all()


def test_the_editing_folder_shares_its_other_parts(expanded: Path) -> None:
    for part in ("vae", "tokenizer"):
        for path in (expanded / part).iterdir():
            assert path.read_bytes() == (expanded / toybox.EDITING / part / path.name).read_bytes()
    weights = "vae/diffusion_pytorch_model.safetensors"
    assert (expanded / weights).samefile(expanded / toybox.EDITING / weights)
    plain, editing = (
        load_file(place / "unet" / "diffusion_pytorch_model.safetensors")
        for place in (expanded, expanded / toybox.EDITING)
    )
    assert plain["conv_in.weight"].shape[1] == 4
    assert editing["conv_in.weight"].shape[1] == 8


def test_toybox_upscaler_is_a_model(expanded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toybox, "folder", lambda: expanded)
    model = load("toybox-upscaler")
    assert (model.family, model.default_size, model.text_encoders) == ("upscaler", 128, ())
    assert model.upscaling is not None
    assert (model.upscaling.factor, model.upscaling.highest) == (2, 99)
    weights = "vae/diffusion_pytorch_model.safetensors"
    assert (expanded / weights).samefile(expanded / toybox.UPSCALING / weights)
    monkeypatch.setattr(toybox, "folder", lambda: expanded / "vae")
    with pytest.raises(ModelError, match="no weights for toybox-upscaler yet"):
        load("toybox-upscaler")


def test_toybox_instruct_is_a_model(expanded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toybox, "folder", lambda: expanded)
    model = load("toybox-instruct")
    assert (model.name, model.condition_channels, model.default_size) == ("toybox-instruct", 4, 128)
    assert default_guidance(model) == toybox.EDITING_GUIDANCE
    monkeypatch.setattr(toybox, "folder", lambda: expanded / "vae")
    with pytest.raises(ModelError, match="no weights for toybox-instruct yet"):
        load("toybox-instruct")


def test_the_decoder_alone_is_trained_further(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    for part in ("vae", "pictures"):
        shutil.copytree(trained / part, out / part)
    shutil.copy(trained / "latents.safetensors", out)
    assert run.main(["--stage", "decoder", "--scale", "tiny", "--out", str(out), "--threads", "1"]) == 0
    weights = "vae/diffusion_pytorch_model.safetensors"
    before, after = load_file(trained / weights), load_file(out / weights)
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {name for name in before if name.startswith(("decoder.", "post_quant_conv."))}
    assert json.loads((out / "facts" / "decoder.json").read_text())["samples"] == 8


def test_edits_start_from_the_denoiser_that_sees_no_picture(trained: Path) -> None:
    tiny = Run(out=trained, scale=SCALES["tiny"])
    wide, plain = instruct.widened(tiny), load_file(trained / "unet" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(wide.conv_in.weight[:, :4], plain["conv_in.weight"].float())
    assert torch.equal(wide.conv_in.bias, plain["conv_in.bias"].float())
    assert not wide.conv_in.weight[:, 4:].any()
    learnt = instruct.load(trained)
    assert learnt.conv_in.weight[:, 4:].any()


def test_pairs_are_of_one_scene_and_its_edit(trained: Path) -> None:
    tiny = Run(out=trained, scale=SCALES["tiny"])
    drawn = edits.edits(tiny, 0, 12)
    assert [edit.before for edit in drawn] == pictures.scenes(tiny, range(12))
    assert not any(is_held_out(edit.after) for edit in drawn)
    after = torch.cat([edits.load(path, "cpu") for path in edits.shards(tiny)])
    alone = pictures.drawn([drawn[9].after], "cpu")  # in a batch of its own, so equal to rounding
    assert (after[9:10].int() - alone.int()).abs().max() <= 1
    mean, _ = instruct.encoded(tiny)
    before, _ = latents.load(tiny)
    assert mean.shape == before[:12].shape
    words, ids = tokenizer.load(trained), edits.instructions(tiny, 12)
    told = words(drawn[5].text).input_ids
    assert ids[5, 0, : len(told)].tolist() == told
    for edit in drawn:
        for text in edits.wordings(edit, 4):
            same = [e.after for e in every_edit(edit.before, kinds=[edit.kind]) if e.text == text]
            assert edit.after in same


def test_edits_are_of_what_the_denoiser_saw() -> None:
    scale = SCALES["tiny"]
    assert edits.sources(scale) == tuple(range(12))
    simple = replace(scale, simple_edits=True, edits=40)
    scenes = [sample_scene(seed, profile=PROFILES[scale.profile]) for seed in edits.sources(simple)]
    assert 2 <= len(scenes) < 40
    assert all(scene.style == "photo" and len(scene.things) == 1 for scene in scenes)


def test_text_encoders_learn_beyond_clips_but_for_their_words(expanded: Path) -> None:
    clip = CLIPModel.from_pretrained(expanded / "clip").text_model
    first = StableDiffusionPipeline.from_pretrained(expanded).text_encoder
    second = StableDiffusionInstructPix2PixPipeline.from_pretrained(expanded / "instruct").text_encoder
    for before, after in ((clip, first), (first, second)):
        assert torch.equal(before.embeddings.token_embedding.weight, after.embeddings.token_embedding.weight)
        layers = zip(before.encoder.parameters(), after.encoder.parameters(), strict=True)
        assert not any(torch.equal(old, new) for old, new in layers)


def test_judge_reads_its_folder(expanded: Path) -> None:
    with torch.no_grad():
        verdict = Judge.load(expanded / "judge")(torch.zeros(1, 3, 128, 128))
    assert verdict.identity.norm() == pytest.approx(1.0, abs=1e-5)


def test_expanding_happens_once(trained: Path, expanded: Path) -> None:
    before = (expanded / "model_index.json").stat().st_mtime_ns
    assert toybox.folder(expanded.parent, source=pack.folder(trained)) == expanded
    assert (expanded / "model_index.json").stat().st_mtime_ns == before
    assert [path.name for path in expanded.parent.iterdir()] == [expanded.name]


def test_damaged_or_missing_weights_are_named(trained: Path, tmp_path: Path) -> None:
    source = tmp_path / "packed"
    pack.pack(trained, source)
    (source / "unet" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"config\.json is missing or damaged"):
        toybox.folder(tmp_path / "cache", source=source)
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(ModelError, match="holds no toybox weights"):
        toybox.folder(tmp_path / "cache", source=tmp_path / "nothing")


def test_other_weights_get_another_folder(trained: Path, expanded: Path, tmp_path: Path) -> None:
    source = tmp_path / "packed"
    pack.pack(trained, source)
    manifest = source / toybox.MANIFEST
    manifest.write_text(manifest.read_text().replace('"version": "', '"version": "next '))
    assert toybox.folder(expanded.parent, source=source) != expanded


def test_too_large_is_refused(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "LARGEST_FILE", 10_000)
    with pytest.raises(InputError, match="may ship"):
        pack.pack(trained, tmp_path / "packed")


def test_card_tells_what_was_reached(trained: Path) -> None:
    text = (pack.folder(trained) / "README.md").read_text()
    facts = json.loads((trained / "facts" / "clip.json").read_text())
    assert f"| retrieval among 100 | {facts['retrieval among 100']} |" in text
    assert card.written(trained).count("\n## ") == 7


def test_captions_are_the_tokens_of_the_wordings(trained: Path) -> None:
    tiny = Run(out=trained, scale=SCALES["tiny"])
    table = pictures.captions(tiny, 6)
    words = tokenizer.load(trained)
    for seed, scene in enumerate(pictures.scenes(tiny, range(6))):
        for k in range(2):
            wanted = words(caption(scene, seed * 2 + k)).input_ids
            assert table.ids[seed, k, : len(wanted)].tolist() == wanted
            assert set(table.ids[seed, k, len(wanted) :].tolist()) <= {words.pad_token_id}


def test_pictures_stop_at_the_first_gap(trained: Path, tmp_path: Path) -> None:
    tiny = Run(out=trained, scale=SCALES["tiny"])
    assert len(pictures.load(tiny)) == 16
    with pytest.raises(InputError, match="no rendered pictures"):
        pictures.load(Run(out=tmp_path, scale=SCALES["tiny"]))


def test_a_stage_without_what_it_needs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.main(["--stage", "tokenizer", "--scale", "tiny", "--out", str(tmp_path)])
    assert run.main(["--stage", "clip", "--scale", "tiny", "--out", str(tmp_path)]) == 2
    assert "Run the stage `render` first" in capsys.readouterr().err


def test_packing_what_landed_gives_the_same_weights(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toybox, "packed", lambda: pack.folder(trained))
    out = tmp_path / "out"
    assert run.main(["--stage", "landed", "--scale", "tiny", "--out", str(out)]) == 0
    pack.pack(out, tmp_path / "again")
    for part in ("clip", "vae", "unet", "unet_instruct", "judge", "upscaler"):
        (path,) = (pack.folder(trained) / part).glob("*.safetensors")
        once, twice = load_file(path), load_file(tmp_path / "again" / part / path.name)
        assert set(once) == set(twice)
        for name, value in once.items():
            if value.dtype == torch.int8:
                assert torch.equal(value, twice[name]), name


def test_a_stage_starts_from_other_weights(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(trained, out, ignore=shutil.ignore_patterns("checkpoints", "judge"))
    arguments = ["--stage", "judge", "--scale", "tiny", "--out", str(out), "--steps", "0"]
    assert run.main([*arguments, "--start", str(trained)]) == 0
    before, after = (Judge.load(folder / "judge").state_dict() for folder in (trained, out))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("variable", "value"), [("SCUMBLE_CACHE", "named"), ("XDG_CACHE_HOME", "base")])
def test_cache_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str
) -> None:
    monkeypatch.delenv("SCUMBLE_CACHE", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv(variable, str(tmp_path / value))
    wanted = tmp_path / value if variable == "SCUMBLE_CACHE" else tmp_path / value / "scumble"
    assert cache_folder() == wanted
