"""Files for other programs, each proved by the other loader: diffusers, peft, published key tables."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from learnt import noise, tiny_model
from scumble.adapters.attach import attach
from scumble.adapters.changes import Change, Dense, LowRank, norms, parameters_of
from scumble.adapters.formats.adobe import _original
from scumble.adapters.formats.kohya import layer_names
from scumble.adapters.tokens import words_attached
from scumble.adapters.weights import Weights, Word
from scumble.models.components import build
from scumble.models.configs import PUBLISHED
from scumble.models.model import Model
from scumble.verbs.convert import convert_to, read_any
from scumble.verbs.load import ModelConfig
from tiny import shared

KEYS = Path(__file__).parents[1] / "data" / "keys"


def pipeline(family: str) -> Any:
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    return kind.from_pretrained(shared(family), dtype=torch.float32)


def made(model: Model, changes: dict[str, Change], *, vectors: int = 1, word: str = "<rex>") -> Weights:
    widths = [encoder.get_input_embeddings().weight.shape[1] for encoder in model.text_encoders]
    words = {word: Word(tuple(noise(vectors, width, seed=5) for width in widths), "dog")}
    return Weights(
        method="test",
        family=model.family,
        base_hash=model.hash,
        words=words if vectors else {},
        changes=changes,
    )


def low(model: Model, *, dora: bool = False, text: bool = True) -> dict[str, Change]:
    """Changes of rank 2 of every attention projection and a convolution."""
    found: dict[str, Change] = {}
    named = parameters_of(model)
    wanted = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "resnets.0.conv1.weight")
    text_too = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "out_proj.weight") if text else ()
    for i, (name, p) in enumerate(named.items()):
        if name.endswith((*wanted, *text_too)):
            a, b = noise(2, *p.shape[1:], seed=2 * i), noise(len(p), 2, seed=2 * i + 1)
            magnitude = norms(p.detach().float()) * 1.3 if dora else None
            found[name] = LowRank(a, 0.3 * b, 3.0, magnitude)
    return found


def key_value(model: Model, *, everything: bool = False) -> dict[str, Change]:
    kinds = ("",) if everything else ("to_k.weight", "to_v.weight")
    named = {n: p for n, p in parameters_of(model).items() if ".attn2." in n and n.endswith(kinds)}
    return {n: Dense(0.3 * noise(*p.shape, seed=i)) for i, (n, p) in enumerate(named.items())}


def written(weights: Weights, to: str, out: Path, family: str, *, trust: bool = False, **more: Any) -> Path:
    ours = out.parent / "ours.safetensors"
    weights.save(ours)
    convert_to(
        ours, to, ModelConfig(model=str(shared(family)), device="cpu", trust_pickle=trust), out, **more
    )
    return out


def ours(model: Model, weights: Weights, prompt: str) -> tuple[Tensor, Tensor]:
    """The prompt's embeddings and what the denoiser makes of them."""
    with torch.no_grad(), attach(model, weights):
        condition = model.prompt([prompt], size=(64, 64))
        return condition.embeddings, model.predict(latent(), torch.tensor(300.0), condition)


def latent() -> Tensor:
    return noise(1, 4, 8, 8, seed=9)


def theirs(pipe: Any, prompt: str) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        told = pipe.encode_prompt(
            prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        added = None
        if isinstance(pipe, StableDiffusionXLPipeline):
            added = {"text_embeds": told[2], "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
        sample = pipe.unet(latent(), 300, told[0], added_cond_kwargs=added).sample
        return told[0], sample


def agree(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], plain: Tensor) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert (expected[1] - plain).abs().max() > 1e-3


# Words


@pytest.mark.parametrize("vectors", [1, 3])
def test_diffusers_reads_our_words(tmp_path: Path, vectors: int) -> None:
    model, pipe = tiny_model(), pipeline("sd1")
    _, plain = theirs(pipe, "a dog on grass")
    weights = made(model, {}, vectors=vectors)
    file = written(weights, "diffusers", tmp_path / "learned_embeds.safetensors", "sd1")
    pipe.load_textual_inversion(str(file))
    agree(theirs(pipe, "a <rex> on grass"), ours(model, weights, "a <rex> on grass"), plain)


def test_diffusers_reads_both_halves_of_our_words(tmp_path: Path) -> None:
    model, pipe = tiny_model("sdxl"), pipeline("sdxl")
    _, plain = theirs(pipe, "a dog")
    weights = made(model, {}, vectors=2)
    folder = written(weights, "diffusers", tmp_path / "out", "sdxl")
    for number, part in (("", ""), ("_2", "_2")):
        tensors = load_file(folder / f"learned_embeds{number}.safetensors")
        encoder, tokenizer = getattr(pipe, f"text_encoder{part}"), getattr(pipe, f"tokenizer{part}")
        pipe.load_textual_inversion(tensors, token="<rex>", text_encoder=encoder, tokenizer=tokenizer)
    agree(theirs(pipe, "a <rex>"), ours(model, weights, "a <rex>"), plain)
    again = read_any(folder, model, noun="dog")
    for one, other in zip(again.words["<rex>"].vectors, weights.words["<rex>"].vectors, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_web_ui_s_embeddings_have_its_keys_and_come_back(tmp_path: Path, family: str) -> None:
    model = tiny_model(family)
    weights = made(model, {}, vectors=2)
    file = written(weights, "a1111", tmp_path / "rex.safetensors", family)
    assert set(load_file(file)) == ({"emb_params"} if family == "sd1" else {"clip_l", "clip_g"})
    again = read_any(file, model)
    assert list(again.words) == ["rex"]
    assert list(read_any(file, model, word="<rex>").words) == ["<rex>"]
    for one, other in zip(again.words["rex"].vectors, weights.words["<rex>"].vectors, strict=True):
        assert torch.equal(one, other)


def test_pickled_embeddings_are_read_when_trusted_only(tmp_path: Path) -> None:
    model, vectors = tiny_model(), noise(2, 32)
    named = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": torch.nn.Parameter(vectors)},
        "name": "rex",
    }
    torch.save({**named, "step": 7, "sd_checkpoint": None}, tmp_path / "a.pt")
    torch.save({"string_to_param": torch.nn.ParameterDict({"*": vectors})}, tmp_path / "b.pt")
    save_file({"emp_params": vectors}, tmp_path / "c.safetensors")
    with pytest.raises(Exception, match="--trust-pickle"):
        read_any(tmp_path / "a.pt", model)
    for name, word in (("a.pt", "rex"), ("b.pt", "b"), ("c.safetensors", "c")):
        again = read_any(tmp_path / name, model, trust_pickle=True)
        assert torch.equal(again.words[word].vectors[0], vectors)


# Low rank


@pytest.mark.parametrize("to", ["diffusers", "kohya"])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_diffusers_reads_our_low_rank_changes(tmp_path: Path, family: str, to: str) -> None:
    model, pipe = tiny_model(family), pipeline(family)
    _, plain = theirs(pipe, "a dog")
    weights = made(model, low(model), vectors=0)
    file = written(weights, to, tmp_path / "lora.safetensors", family)
    pipe.load_lora_weights(str(file.parent), weight_name=file.name)
    agree(theirs(pipe, "a dog"), ours(model, weights, "a dog"), plain)
    again = read_any(file, model)
    assert again.changes.keys() == weights.changes.keys()
    agree(ours(model, again, "a dog"), ours(model, weights, "a dog"), plain)


def test_dora_goes_to_diffusers_and_comes_back(tmp_path: Path) -> None:
    model, pipe = tiny_model(), pipeline("sd1")
    _, plain = theirs(pipe, "a dog")
    changes = {n: c for n, c in low(model, dora=True, text=False).items() if "conv" not in n}
    weights = made(model, changes, vectors=0)
    file = written(weights, "diffusers", tmp_path / "lora.safetensors", "sd1")
    pipe.load_lora_weights(str(file.parent), weight_name=file.name)
    agree(theirs(pipe, "a dog"), ours(model, weights, "a dog"), plain)
    agree(ours(model, read_any(file, model), "a dog"), ours(model, weights, "a dog"), plain)


def test_dora_has_kohya_s_keys_and_comes_back(tmp_path: Path) -> None:
    """diffusers drops these keys from such files, so the web interfaces' shape stands here by itself."""
    model = tiny_model()
    weights = made(model, low(model, dora=True), vectors=0)
    file = written(weights, "kohya", tmp_path / "lora.safetensors", "sd1")
    tensors = load_file(file)
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    assert {n.partition(".")[2] for n in tensors if n.startswith(f"{layer}.")} == {
        "lora_down.weight", "lora_up.weight", "alpha", "dora_scale",
    }  # fmt: skip
    assert tensors[f"{layer}.dora_scale"].shape == (32, 1)
    assert tensors["lora_unet_down_blocks_0_resnets_0_conv1.dora_scale"].shape == (16, 1, 1, 1)
    with torch.no_grad():
        plain = model.predict(latent(), torch.tensor(300.0), model.prompt(["a dog"], size=(64, 64)))
    agree(ours(model, read_any(file, model), "a dog"), ours(model, weights, "a dog"), plain)


def test_peft_reads_our_low_rank_changes_and_we_its_own(tmp_path: Path) -> None:
    model, pipe = tiny_model(), pipeline("sd1")
    weights = made(model, {n: c for n, c in low(model, text=False).items() if "conv" not in n}, vectors=0)
    expected, plain = ours(model, weights, "a dog"), theirs(pipe, "a dog")[1]
    config = LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    wrapped = get_peft_model(pipe.unet, config)
    tensors = load_file(written(weights, "diffusers", tmp_path / "lora.safetensors", "sd1"))
    spelt = {
        n.replace("unet.", "base_model.model.").replace("lora.down", "lora_A").replace("lora.up", "lora_B"): t
        for n, t in tensors.items()
    }
    found = set_peft_model_state_dict(wrapped, spelt)
    assert not found.unexpected_keys
    agree(theirs(pipe, "a dog"), expected, plain)
    wrapped.save_pretrained(tmp_path / "adapter")
    again = read_any(tmp_path / "adapter" / "adapter_model.safetensors", model)
    agree(ours(model, again, "a dog"), expected, plain)


@pytest.mark.parametrize("spelling", ["lora", "processor", "peft"])
def test_old_spellings_of_low_rank_are_read(tmp_path: Path, spelling: str) -> None:
    model = tiny_model()
    name = next(n for n in parameters_of(model) if n.endswith("attn1.to_out.0.weight"))
    shape = parameters_of(model)[name].shape
    a, b = noise(2, shape[1]), noise(shape[0], 2)
    layer = name.removesuffix(".weight")
    down, up = {
        "lora": (f"{layer}.lora.down.weight", f"{layer}.lora.up.weight"),
        "peft": (f"{layer}.lora_A.default.weight", f"{layer}.lora_B.default.weight"),
        "processor": tuple(
            f"{layer.removeprefix('unet.').removesuffix('.to_out.0')}.processor.to_out_lora.{half}.weight"
            for half in ("down", "up")
        ),
    }[spelling]
    save_file({down: a, up: b}, tmp_path / "x.safetensors")
    [(found, change)] = read_any(tmp_path / "x.safetensors", model).changes.items()
    assert found == name
    torch.testing.assert_close(change.against(torch.zeros(shape)), b @ a)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_kohya_s_names_are_those_of_the_published_models(family: str) -> None:
    """Independent of our renaming: SDXL's from the table of the original code, SD 1's from diffusers'."""
    kind: Any = "sdxl" if family == "sdxl" else "sd1"
    parts = {part: build(config, part) for part, config in PUBLISHED[kind].items() if part != "scheduler"}
    model: Any = SimpleNamespace(family=family, parts=lambda: parts, denoiser=parts["unet"], name="x")
    written_first = {spellings[0] for spellings in layer_names(model).values()}
    read_too = {spelling for spellings in layer_names(model).values() for spelling in spellings}
    lines = gzip.decompress((KEYS / f"{'sdxl' if family == 'sdxl' else 'sd15'}.tsv.gz").read_bytes()).decode()
    table = [line.split("\t")[0] for line in lines.splitlines()]
    prefix = "model.diffusion_model."
    layers = [n for n in table if n.startswith(prefix) and ".attn" in n and n.endswith(".weight")]
    original = {
        "lora_unet_" + n.removeprefix(prefix).removesuffix(".weight").replace(".", "_") for n in layers
    }
    assert len(original) == (560 if family == "sdxl" else 128)
    assert original <= (written_first if family == "sdxl" else read_too)
    known = {
        "sd1": (
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k",
            "lora_unet_mid_block_attentions_0_proj_in",
            "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_ff_net_0_proj",
            "lora_te_text_model_encoder_layers_11_self_attn_out_proj",
            "lora_te_text_model_encoder_layers_0_mlp_fc1",
        ),
        "sdxl": (
            "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
            "lora_unet_middle_block_1_transformer_blocks_9_attn2_to_out_0",
            "lora_unet_output_blocks_5_1_proj_out",
            "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
            "lora_te2_text_model_encoder_layers_31_mlp_fc2",
        ),
    }
    assert set(known[family]) <= written_first


# Custom Diffusion


@pytest.mark.parametrize("everything", [False, True])
def test_diffusers_reads_our_custom_diffusion(tmp_path: Path, everything: bool) -> None:
    """As safetensors, which its own script writes and cannot load again."""
    model, pipe = tiny_model(), pipeline("sd1")
    _, plain = theirs(pipe, "a dog")
    weights = made(model, key_value(model, everything=everything))
    folder = written(weights, "diffusers", tmp_path / "out", "sd1")
    pipe.unet.load_attn_procs(
        str(folder), weight_name="pytorch_custom_diffusion_weights.safetensors", _pipeline=pipe
    )
    pipe.load_textual_inversion(str(folder), weight_name="learned_embeds.safetensors")
    agree(theirs(pipe, "a <rex> dog"), ours(model, weights, "a <rex> dog"), plain)
    again = read_any(folder, model)
    agree(ours(model, again, "a <rex> dog"), ours(model, weights, "a <rex> dog"), plain)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["delta.safetensors", "delta.bin"])
def test_deltas_have_the_authors_keys_and_come_back(tmp_path: Path, name: str, compressed: bool) -> None:
    model = tiny_model()
    weights = made(model, key_value(model))
    more = {"share": 0.5} if compressed else {}
    file = written(weights, "adobe", tmp_path / name, "sd1", trust=True, **more)
    key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    base = parameters_of(model)[f"unet.{key}"].detach()
    if name.endswith(".bin"):
        content = torch.load(file, weights_only=True)
        assert set(content) == {"unet", "modifier_token"}
        assert content["modifier_token"]["<rex>"].shape == (32,)
        entry = content["unet"][key]
        if compressed:
            assert set(entry) == {"u", "v"}
            rebuilt = base + entry["u"] @ entry["v"]
        else:
            rebuilt = entry
        again = read_any(file, model, trust_pickle=True)
        torch.testing.assert_close(rebuilt, base + again.changes[f"unet.{key}"].against(base))
    again = read_any(file, model, trust_pickle=True)
    assert torch.equal(again.words["<rex>"].vectors[0], weights.words["<rex>"].vectors[0])
    assert again.changes.keys() == weights.changes.keys()
    if not compressed:
        torch.testing.assert_close(
            again.changes[f"unet.{key}"].against(base), weights.changes[f"unet.{key}"].against(base)
        )


def test_deltas_of_the_original_code_are_read(tmp_path: Path) -> None:
    model = tiny_model()
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"
    base = parameters_of(model)[name].detach()
    state = {
        "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v.weight": base + 1,
        "embed": noise(2, 32),
    }
    torch.save({"state_dict": state}, tmp_path / "delta_epoch=000004.ckpt")
    again = read_any(tmp_path / "delta_epoch=000004.ckpt", model, word="<new>", trust_pickle=True)
    assert list(again.words) == ["<new1>", "<new2>"]
    torch.testing.assert_close(again.changes[name].against(base), torch.ones_like(base))


def test_the_original_names_of_deltas_are_those_of_the_published_model() -> None:
    config = PUBLISHED["sd1"]["unet"]
    model: Any = SimpleNamespace(family="sd1", denoiser=SimpleNamespace(config=config))
    found = {theirs for theirs, ours in _original(model).items() if ".attn2.to_" in ours}
    table = gzip.decompress((KEYS / "sd15.tsv.gz").read_bytes()).decode().splitlines()
    expected = {line.split("\t")[0] for line in table if ".attn2.to_" in line}
    assert found == expected
    assert len(expected) == 16 * 5


# Whole models


def test_a_whole_model_goes_to_diffusers_with_its_word(tmp_path: Path) -> None:
    model = tiny_model()
    named = parameters_of(model)
    changes: dict[str, Change] = {
        n: Dense(0.1 * noise(*p.shape, seed=i)) for i, (n, p) in enumerate(named.items()) if "up_blocks" in n
    }
    weights = made(model, changes)
    folder = written(weights, "diffusers-model", tmp_path / "whole", "sd1")
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.load_textual_inversion(str(folder), weight_name="learned_embeds.safetensors")
    agree(
        theirs(pipe, "a <rex> dog"), ours(model, weights, "a <rex> dog"), theirs(pipeline("sd1"), "a dog")[1]
    )
    with words_attached(model, {}):
        assert model.words == {}
