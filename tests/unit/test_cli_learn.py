"""`scumble learn`, `merge`, `convert`, `inspect`: from folders to files, or a sentence that says why not."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from socket import socket
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cli import Outcome, scumble
from scumble.adapters.formats import a1111, diffusers, kohya
from scumble.adapters.weights import Weights, Word
from scumble.core import rng
from scumble.core.errors import InputError
from scumble.core.events import Loop
from scumble.models.model import Model
from scumble.sampling.text_to_image import Task
from scumble.verbs import learn as verb
from scumble.verbs import learn_inputs
from scumble.verbs.load import ModelConfig
from tiny import shared
from upscalers import shared_latent_upscaler


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCUMBLE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(2):
        pixels = torch.randint(0, 256, (64, 64, 3), generator=rng.generator(seed), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{seed}.png")
    (folder.parent / "quick.toml").write_text("prior_weight = 0.0\naugment = false\n")
    return folder


def learn(method: str, photos: Path, out: Path, *more: str) -> Outcome:
    common = (
        "--steps",
        "2",
        "--batch",
        "1",
        "--model",
        str(shared("sd1")),
        "--device",
        "cpu",
        "-o",
        str(out),
    )
    return scumble("learn", method, str(photos), *common, *more)


QUICK = ("--prior-weight", "0")


def test_custom_diffusion_from_folders_to_one_picture_of_two(photos: Path, tmp_path: Path) -> None:
    for word, noun in (("<rex>", "dog"), ("<tom>", "cat")):
        out = tmp_path / f"{noun}.safetensors"
        done = learn("custom-diffusion", photos, out, "--word", word, "--noun", noun, "--json", *QUICK)
        assert done.status == 0, done.err
        assert done.json["words"] == [word]
        assert Weights.load(out).method == "custom-diffusion"
    files = [str(tmp_path / f"{noun}.safetensors") for noun in ("dog", "cat")]
    model = ("--model", str(shared("sd1")))
    merged = scumble("merge", *files, "-o", str(tmp_path / "both.safetensors"), "--json", *model)
    assert merged.status == 0, merged.err
    assert merged.json["how"] == "closed-form"
    facts = scumble("inspect", str(tmp_path / "both.safetensors"), "--json").json
    assert set(facts["words"]) == {"<rex>", "<tom>"}
    assert facts["changes"]["dense"] == 8
    prompt = "a <rex> dog and a <tom> cat"
    drawn = scumble("generate", prompt, "--with", str(tmp_path / "both.safetensors"), *model, "--steps", "2",
                    "--width", "64", "--height", "64", "-o", str(tmp_path / "x.png"))  # fmt: skip
    assert drawn.status == 0, drawn.err


def test_captions_alone_need_no_word(photos: Path, tmp_path: Path) -> None:
    without = learn("custom-diffusion", photos, tmp_path / "x.safetensors", *QUICK)
    assert without.status == 2
    assert "needs a caption" in without.sentence
    for seed in range(2):
        (photos / f"{seed}.txt").write_text("a moongate")
    done = learn("custom-diffusion", photos, tmp_path / "x.safetensors", *QUICK)
    assert done.status == 0, done.err
    assert "generate 'a moongate'" in done.out
    assert learn("dreambooth", photos, tmp_path / "y.safetensors").sentence.startswith("DreamBooth binds")
    assert learn("textual-inversion", photos, tmp_path / "z.safetensors").sentence.startswith(
        "Textual Inversion"
    )


def test_captions_can_be_left_unread(photos: Path, tmp_path: Path) -> None:
    def word(name: str, *more: str) -> torch.Tensor:
        out = tmp_path / f"{name}.safetensors"
        done = learn("textual-inversion", photos, out, "--word", "<s>", "--noun", "style", *more)
        assert done.status == 0, done.err
        return Weights.load(out).words["<s>"].vectors[0]

    bare = word("bare")
    for seed in range(2):
        (photos / f"{seed}.txt").write_text("a watercolour of a moongate")
    assert not torch.equal(word("told"), bare)
    assert torch.equal(word("unread", "--no-captions"), bare)
    nothing = learn("custom-diffusion", photos, tmp_path / "n.safetensors", "--no-captions", *QUICK)
    assert nothing.status == 2
    assert "needs a caption" in nothing.sentence


def test_an_analysis_is_a_folder(photos: Path, tmp_path: Path) -> None:
    config = ("--config", str(tmp_path / "quick.toml"))
    done = learn("custom-diffusion", photos, tmp_path / "rates", "--analyse", "--json", *config)
    assert done.status == 0, done.err
    assert set(done.json["groups"]) == {"cross-attention", "self-attention", "rest"}
    assert {p.name for p in (tmp_path / "rates").iterdir()} == {"rates.json", "rates.png", "rates.txt"}


def test_converting_there_and_back(photos: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "rex.safetensors", ("--model", str(shared("sd1")))
    assert learn("textual-inversion", photos, out, "--word", "../<rex>", "--noun", "dog").status == 0
    there = scumble("convert", str(out), "--to", "a1111", "-o", str(tmp_path / "there"), "--json", *model)
    assert there.status == 0, there.err
    [row] = there.json["files"]
    assert Path(row["path"]).parent == tmp_path / "there"  # the word is no path
    assert Path(row["path"]).name == "rex.safetensors"
    assert set(load_file(row["path"])) == {"emb_params"}
    assert scumble("inspect", row["path"], "--json").json["kind"] == "weights in the format of a1111"
    back = tmp_path / "back.safetensors"
    named = ("--word", "<rex>", "--noun", "dog")
    assert scumble("convert", row["path"], "--to", "scumble", "-o", str(back), *named, *model).status == 0
    [(before)], [(after)] = (w.words.values() for w in (Weights.load(out), Weights.load(back)))
    assert torch.equal(before.vectors[0], after.vectors[0])
    assert after.noun == "dog"


def test_what_a_format_cannot_hold_is_a_sentence(photos: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "rex.safetensors", ("--model", str(shared("sd1")))
    assert learn("custom-diffusion", photos, out, "--word", "<rex>", "--noun", "dog", *QUICK).status == 0

    def refused(*argv: str) -> str:
        done = scumble("convert", str(out), *argv, *model)
        assert done.status == 2
        assert not (tmp_path / "no").exists()
        return done.sentence

    assert "words only" in refused("--to", "a1111", "-o", str(tmp_path / "no"))
    assert "--compress" in refused("--to", "kohya", "-o", str(tmp_path / "no"))
    assert "would be a pickle" in refused("--to", "adobe", "-o", str(tmp_path / "delta.bin"))
    assert "Give a folder" in refused("--to", "diffusers", "-o", str(tmp_path / "one.safetensors"))
    assert "no format" in refused("--to", "psd", "-o", str(tmp_path / "no"))
    assert "exists already" in refused("--to", "adobe", "-o", str(out))
    kohya = scumble(
        "convert", str(out), "--to", "kohya", "--compress", "0.5", "-o", str(tmp_path / "k"), *model
    )
    assert kohya.status == 0, kohya.err
    assert {p.name for p in (tmp_path / "k").iterdir()} == {"lora.safetensors", "rex.safetensors"}
    save_file({"nonsense": torch.zeros(2, 2, 2)}, tmp_path / "bad.safetensors")
    assert "no learnt weights" in scumble("inspect", str(tmp_path / "bad.safetensors")).sentence
    assert scumble("inspect", str(shared("sd1")), "--json").json["kind"] == "a model"
    save_file({"<x>": torch.zeros(1, 32)}, tmp_path / "rude.safetensors", {"note": "\x1b[31mred\n"})
    shown = scumble("inspect", str(tmp_path / "rude.safetensors"))
    assert (shown.status, "note: ?[31mred?" in shown.out, "\x1b" in shown.out) == (0, True, False)


@pytest.mark.parametrize(
    "tensors",
    [
        {"lora_unet_conv_in.lora_down.weight": (3,), "lora_unet_conv_in.lora_up.weight": (16, 3)},
        {"lora_unet_conv_in.lora_down.weight": (3, 4, 3, 3)},
        {"lora_unet_conv_in.diff": (5,)},
        {"lora_unet_conv_in.hada_w1_a": (5, 2)},
        {"lora_unet_nowhere.alpha": ()},
        {"unet.conv_in.lora.down.weight": (2, 4), "unet.conv_in.lora.up.weight": (16, 2)},
        {"unet.nowhere.lora_A.weight": (2, 4), "unet.nowhere.lora_B.weight": (2, 4)},
        {"state_dict.embed": ()},
        {"modifier_token.<a>": (2, 3, 4)},
        {"mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k_custom_diffusion.weight": (3, 3)},
        {"emb_params": (2, 3, 4)},
        {"emb_params": (2, 31)},
        {"clip_l": (2, 32)},
        {"<word>": (31,)},
    ],
)
def test_files_of_others_that_are_not_sound_are_a_sentence(
    tmp_path: Path, tensors: dict[str, tuple[int, ...]]
) -> None:
    save_file({name: torch.ones(shape) for name, shape in tensors.items()}, tmp_path / "x.safetensors")
    model = ("--model", str(shared("sd1")))
    out = tmp_path / "out.safetensors"
    done = scumble("convert", str(tmp_path / "x.safetensors"), "--to", "scumble", "-o", str(out), *model)
    assert (done.status, bool(done.sentence)) == (2, True), done.err
    assert not out.exists()


def test_words_of_one_file_name_have_files_of_their_own(tmp_path: Path) -> None:
    words = {text: Word((torch.ones(1, 32),)) for text in ("<rex>", "rex", "../rex")}
    weights = Weights(method="x", family="sd1", base_hash="", words=words)
    for module in (a1111, kohya, diffusers):
        names = module.write(weights, ModelConfig(model=str(shared("sd1")), device="cpu").load())
        assert len(names) == 3
        assert all(Path(name).name == name and not name.startswith(".") for name in names)


def test_a_first_prompt_speaks_of_the_subject_as_it_was_told(photos: Path, tmp_path: Path) -> None:
    """A word of Textual Inversion stands for its noun, and one of a style is no thing."""
    named = ("--word", "<rex>", "--noun", "dog")
    out = [tmp_path / f"{i}.safetensors" for i in range(3)]
    assert "'a photo of a <rex>'" in learn("textual-inversion", photos, out[0], *named).out
    style = learn("textual-inversion", photos, out[1], *named, "--preset", "style")
    assert "'a painting in the style of <rex>'" in style.out
    assert "'a photo of a <rex> dog'" in learn("custom-diffusion", photos, out[2], *named, *QUICK).out


@pytest.mark.parametrize(
    ("noun", "caption", "person"),
    [("man", "", True), ("old Women", "", True), ("", "a girl", True), ("dog", "a girl", False)],
)
def test_people_and_pictures_are_spoken_of_before_the_work(
    photos: Path, noun: str, caption: str, person: bool
) -> None:
    (photos / "2.png").write_bytes((photos / "0.png").read_bytes())
    if caption:
        for seed in range(3):
            (photos / f"{seed}.txt").write_text(caption)
    config = verb.config_for("custom-diffusion", "x", None, None, steps=1, prior_weight=0.0)
    on, word = ModelConfig(model=str(shared("sd1")), device="cpu"), "<bob>" if noun else ""
    loop = verb.learn_to("custom-diffusion", [(photos, word, noun)], config, on, photos / "b.safetensors")
    first = next(loop)
    loop.close()
    assert "2.png is the same picture as 0.png" in first.note
    assert ("consent" in first.note) is person
    assert not (photos / "b.run").exists()  # nothing has begun


@pytest.mark.parametrize("method", ["textual-inversion", "dreambooth", "custom-diffusion"])
def test_previews_show_what_is_learnt_and_change_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    asked: list[str] = []
    plain = verb.text_to_image

    def drawn(model: Model, task: Task) -> Loop[list[torch.Tensor]]:
        asked.append(task.prompt)
        assert "<rex>" in model.words
        return plain(model, task)

    monkeypatch.setattr(verb, "text_to_image", drawn)
    monkeypatch.setattr("scumble.cli.learn.PREVIEW_EVERY", 1)
    own = () if method == "textual-inversion" else (*QUICK, "--lr", "0.05")
    more = ("--word", "<rex>", "--noun", "dog", *own)
    seen = tmp_path / "seen.png"
    outs = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    assert learn(method, photos, outs[0], *more).status == 0
    shown = learn(method, photos, outs[1], *more, "--preview", str(seen))
    assert shown.status == 0, shown.err
    assert outs[0].read_bytes() == outs[1].read_bytes()
    pictures = sorted((tmp_path / "b.run" / "previews").iterdir())
    assert [p.name for p in pictures] == ["000001.png", "000002.png"]
    assert pictures[0].read_bytes() != pictures[1].read_bytes()
    assert seen.is_file()
    assert len(asked) == 2


def test_interrupted_it_says_how_to_go_on_and_does(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "often.toml").write_text("checkpoint_every = 1\n")
    named = ("--word", "<rex>", "--noun", "dog", "--config", str(tmp_path / "often.toml"))
    whole, out = tmp_path / "whole.safetensors", tmp_path / "rex.safetensors"
    assert learn("textual-inversion", photos, whole, *named).status == 0
    plain, calls = Model.predict, iter(range(100))

    def stopped(*given: Any, **more: Any) -> torch.Tensor:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return plain(*given, **more)

    monkeypatch.setattr(Model, "predict", stopped)
    config = verb.config_for("textual-inversion", "x", None, Path(named[-1]), steps=2, batch=1)
    on = ModelConfig(model=str(shared("sd1")), device="cpu")
    loop = verb.learn_to("textual-inversion", [(photos, "<rex>", "dog")], config, on, out)
    with pytest.raises(KeyboardInterrupt) as stop:
        list(loop)
    assert "keeps the state after step 1: the same command goes on" in stop.value.__notes__[0]
    again = learn("textual-inversion", photos, out, *named)
    assert "Going on from" in again.err
    assert out.read_bytes() == whole.read_bytes()
    refused = learn("textual-inversion", photos, out, *named)
    assert (refused.status, "Going on" in refused.err) == (2, False)


# Bad input


def test_a_word_without_its_folder_is_refused(photos: Path, tmp_path: Path) -> None:
    subject, out = ("--subject", f"{photos}:<tom>:cat"), str(tmp_path / "x.safetensors")
    done = scumble("learn", "textual-inversion", *subject, "--word", "<rex>", "-o", out)
    assert (done.status, "there is none" in done.sentence) == (2, True)


def test_a_dry_run_counts_the_super_resolution_stage(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In time by its steps, in memory by its weights; a method without one refuses it as the run would."""

    monkeypatch.setattr(verb.estimate, "flops_per_second", lambda *_: 1e9)

    def needs(*more: str) -> Outcome:
        named = ("--word", "<rex>", "--noun", "dog")
        return learn("dreambooth", photos, tmp_path / "rex.safetensors", "--dry-run", "--json", *named, *more)

    upscaler = ("--upscaler", str(shared_latent_upscaler()))
    alone, none = needs().json, needs(*upscaler, "--upscaler-steps", "0").json
    few, many = (needs(*upscaler, "--upscaler-steps", steps).json for steps in ("100", "200"))
    assert none["seconds"] == alone["seconds"]
    first, second = few["seconds"] - alone["seconds"], many["seconds"] - few["seconds"]
    assert first > 0
    assert second == pytest.approx(first)
    assert few["memory_bytes"] > alone["memory_bytes"]
    config, on = verb.config_for("textual-inversion", "model", None, None), ModelConfig()
    with pytest.raises(InputError, match="no super-resolution stage"):
        verb.estimate_learn(config, on, method="textual-inversion", upscaler=upscaler[1])
    assert not (tmp_path / "rex.safetensors").exists()


def test_no_pictures_and_one_picture(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    named = ("--word", "<rex>", "--noun", "dog")
    none = learn("textual-inversion", tmp_path / "empty", tmp_path / "x.safetensors", *named)
    assert (none.status, "no usable picture" in none.sentence) == (2, True)
    (photos / "1.png").unlink()
    one = learn("textual-inversion", photos, tmp_path / "x.safetensors", *named)
    assert one.status == 0
    assert "one picture only" in one.err


def test_a_known_word_is_refused_before_the_work(photos: Path, tmp_path: Path) -> None:
    done = learn("dreambooth", photos, tmp_path / "x.safetensors", "--word", "dog", "--noun", "dog")
    assert (done.status, "knows already" in done.sentence) == (2, True)
    assert not (tmp_path / "x.safetensors").exists()


def test_a_loss_that_is_no_number_stops_and_says_what_to_change(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Model.predict
    monkeypatch.setattr(Model, "predict", lambda *a, **k: plain(*a, **k) * torch.nan)
    done = learn("textual-inversion", photos, tmp_path / "x.safetensors", "--word", "<rex>", "--noun", "dog")
    assert done.status == 1
    assert "smaller learning rate" in done.sentence
    assert not (tmp_path / "x.safetensors").exists()


def test_a_full_disk_leaves_nothing_half_written(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("scumble.core.files._flush", full)
    done = learn("textual-inversion", photos, tmp_path / "x.safetensors", "--word", "<rex>", "--noun", "dog")
    assert done.status == 1
    assert "disk is full" in done.sentence
    assert not list(tmp_path.rglob("*.safetensors"))


def test_other_pictures_do_not_go_on_with_an_old_run(photos: Path, tmp_path: Path) -> None:
    out, named = tmp_path / "x.safetensors", ("--word", "<rex>", "--noun", "dog")
    assert learn("textual-inversion", photos, out, *named).status == 0
    assert learn("textual-inversion", photos, out, *named, "--overwrite").status == 0
    (photos / "1.png").unlink()
    first = out.read_bytes()
    out.unlink()  # and the run is gone on with
    done = learn("textual-inversion", photos, out, *named)
    assert (done.status, "learns something else" in done.sentence) == (2, True)
    assert learn("textual-inversion", photos, out, *named, "--overwrite").status == 0  # anew
    assert out.read_bytes() != first


def test_a_finished_run_is_begun_anew_where_it_is_overwritten(photos: Path, tmp_path: Path) -> None:
    """Fewer steps are no older result, and a run that was stopped goes on all the same."""
    out, fresh = tmp_path / "x.safetensors", tmp_path / "fresh.safetensors"
    (tmp_path / "often.toml").write_text("checkpoint_every = 1\n")
    named = ("--word", "<rex>", "--noun", "dog", "--config", str(tmp_path / "often.toml"), "--json")
    assert learn("textual-inversion", photos, out, *named, "--steps", "5").json["steps"] == 5
    again = learn("textual-inversion", photos, out, *named, "--steps", "2", "--overwrite")
    assert (again.json["steps"], "Going on" in again.err) == (2, False)
    assert learn("textual-inversion", photos, fresh, *named, "--steps", "2").status == 0
    assert out.read_bytes() == fresh.read_bytes()
    assert len((tmp_path / "x.run" / "steps.jsonl").read_text().splitlines()) == 2
    out.unlink()
    shorter = learn("textual-inversion", photos, out, *named, "--steps", "1")
    assert (shorter.status, "2 steps long, more than 1" in shorter.sentence) == (2, True)
    (tmp_path / "x.run" / "README.txt").unlink()  # as a run is that was stopped
    out.write_bytes(b"an older result")
    longer = learn("textual-inversion", photos, out, *named, "--steps", "3", "--overwrite")
    assert (longer.json["steps"], "Going on from" in longer.err) == (3, True)


def test_a_rehearsal_says_what_the_run_would_refuse(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    assert learn("dreambooth", photos, out, "--dry-run", "--word", "sks", "--noun", "dog").status == 0
    assert learn("dreambooth", tmp_path / "none", out, "--dry-run", "--word", "sks").status == 2
    assert learn("dreambooth", photos, tmp_path / "x.bin", "--dry-run", "--word", "sks").status == 2
    out.write_bytes(b"mine")
    assert learn("dreambooth", photos, out, "--dry-run", "--word", "sks", "--noun", "dog").status == 2
    assert out.read_bytes() == b"mine"


def test_other_regularization_is_told_apart_by_names_and_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "cats"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "1.txt").write_text("a cat")
    first = learn_inputs.listing(folder)
    assert learn_inputs.listing(folder) == first
    (folder / "deep" / "1.txt").write_text("a black cat")
    second = learn_inputs.listing(folder)
    (folder / "2.txt").write_text("a dog")
    assert len({first, second, learn_inputs.listing(folder), learn_inputs.listing(folder / "2.txt")}) == 4


def test_where_float16_is_the_default_learning_takes_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verb.for_learning(ModelConfig(device="cpu")).dtype == "float32"
    assert verb.for_learning(ModelConfig(device="cuda")).dtype == "bfloat16"
    assert verb.for_learning(ModelConfig(device="cuda", dtype="float16")).dtype == "float16"
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert verb.for_learning(ModelConfig()).dtype == "bfloat16"


def together(*command: str) -> list[tuple[str, str]]:
    """`scumble learn` in two processes that learn together: what each put out and said."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "CUDA_VISIBLE_DEVICES": ""}
    run = "from scumble.cli.main import main; main()"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", run, "learn", *command, "--model", str(shared("sd1"))],
            env=os.environ | common | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return said


def test_two_processes_draw_a_share_of_the_class_each_and_one_speaks(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One JSON document, one bar; the class pictures are those of one process, to rounding."""
    (tmp_path / "few.toml").write_text(
        'prior_count = 3\nprior_steps = 2\ntrain = "cross-attention"\nidentifier = "cat"\n'
    )
    named = ("--word", "<rex>", "--noun", "dog", "--config", str(tmp_path / "few.toml"), "--json")
    named = (*named, "--steps", "2", "--batch", "2", "--device", "auto")
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    assert learn("dreambooth", photos, one, *named).status == 0
    monkeypatch.setenv("SCUMBLE_CACHE", str(tmp_path / "another"))
    (first, said), (second, silence) = together("dreambooth", str(photos), *named, "-o", str(two))
    assert json.loads(first)["steps"] == 2
    assert second == ""
    assert ("class pictures" in said, "2/2" in said) == (True, True)
    assert ("class pictures" in silence, "learning" in silence) == (False, False)
    [alone], [shares] = (list((tmp_path / cache / "priors").iterdir()) for cache in ("cache", "another"))
    assert alone.name == shares.name
    torch.testing.assert_close(
        load_file(shares)["latents"], load_file(alone)["latents"], rtol=1e-4, atol=1e-4
    )
    for name, change in Weights.load(one).changes.items():
        other = Weights.load(two).changes[name].tensors()
        for kind, tensor in change.tensors().items():
            torch.testing.assert_close(other[kind], tensor, rtol=1e-2, atol=1e-4)


def test_two_processes_learn_what_one_does(photos: Path, tmp_path: Path) -> None:
    """Each has its half of every batch: the same global batch, and the same word to rounding."""
    named = ("--word", "<rex>", "--noun", "dog", "--steps", "3", "--batch", "4", "--device", "auto")
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    assert learn("textual-inversion", photos, one, *named).status == 0
    together("textual-inversion", str(photos), *named, "-o", str(two))
    [[alone]], [[shared_out]] = ([w.vectors for w in Weights.load(f).words.values()] for f in (one, two))
    torch.testing.assert_close(shared_out, alone, rtol=1e-4, atol=1e-5)
    assert len((tmp_path / "two.run" / "steps.jsonl").read_text().splitlines()) == 1  # one of them writes
