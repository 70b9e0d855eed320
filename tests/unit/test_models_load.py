"""Loading is strict, refuses by name what it does not support, and says one sentence when it fails."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import tiny
from scumble.core.errors import InputError, ModelError
from scumble.models import load as loading
from scumble.models.components import CLASSES, build
from scumble.models.load import DTYPES, load
from scumble.models.tensors import file_kind, read_tensors

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.shared("sd1"), tmp_path / "model"))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(state)
    save_file(state, path, metadata={"format": "pt"})


FAMILIES = {
    "sd1": ("sd1", "eps", 64, 4, 8, 0),
    "sd2": ("sd2", "v", 64, 4, 8, 0),
    "sdxl": ("sdxl", "eps", 64, 4, 8, 0),
    "ip2p": ("sd1", "eps", 64, 4, 8, 4),
    "ddpm": ("pixel", "eps", 16, 3, 1, 0),
    "ve": ("pixel", "eps", 16, 3, 1, 0),
}


@pytest.mark.parametrize("kind", tiny.FAMILIES)
def test_every_family_is_recognised(kind: str) -> None:
    model = load(tiny.shared(kind))
    described = (
        model.family,
        model.prediction,
        model.default_size,
        model.latent_channels,
        model.downsample,
        model.condition_channels,
    )
    assert described == FAMILIES[kind]
    assert not model.is_random
    parameters = [p for part in model.parts().values() for p in part.parameters()]
    assert parameters
    assert not any(p.requires_grad or p.is_meta for p in parameters)
    assert not any(part.training for part in model.parts().values())


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype: Any) -> None:
    model = load(tiny.shared("sd1"), dtype=dtype)
    assert {p.dtype for part in model.parts().values() for p in part.parameters()} == {DTYPES[dtype]}
    condition = model.prompt(["a cat"])
    assert condition.embeddings.dtype == DTYPES[dtype]
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert model.predict(x, torch.tensor(3.0), condition).dtype == torch.float32
    pixels = model.decode(x)
    assert pixels.dtype == torch.float32
    assert pixels.isfinite().all()


def test_an_autoencoder_that_overflows_in_half_precision_stays_in_float32(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.shared("sdxl"), tmp_path / "model"))
    edit_json(folder / "vae" / "config.json", force_upcast=True)
    model = load(folder, dtype="float16")
    assert model.denoiser.dtype == torch.float16
    assert model.autoencoder is not None
    assert model.autoencoder.dtype == torch.float32
    assert model.decode(torch.zeros(1, 4, 8, 8)).isfinite().all()


def test_a_missing_tensor_is_named(folder: Path) -> None:
    edit_tensors(folder / "unet" / WEIGHTS, lambda state: state.pop("conv_in.weight"))
    with pytest.raises(ModelError, match=r"unet lacks 1 tensor: conv_in\.weight\."):
        load(folder)


def test_an_unexpected_tensor_is_named(folder: Path) -> None:
    edit_tensors(
        folder / "text_encoder" / "model.safetensors", lambda state: state.update(stray=torch.zeros(1))
    )
    with pytest.raises(ModelError, match=r"text_encoder has no place for 1 tensor: stray\."):
        load(folder)


def test_only_the_first_few_of_many_are_named(folder: Path) -> None:
    edit_tensors(
        folder / "vae" / WEIGHTS, lambda s: [s.pop(name) for name in list(s) if "decoder.mid" in name]
    )
    with pytest.raises(ModelError, match=r"lacks \d+ tensors: [^,]+, [^,]+, [^,]+ and \d+ more"):
        load(folder)


def test_a_misshapen_tensor_is_named_with_both_shapes(folder: Path) -> None:
    edit_tensors(folder / "unet" / WEIGHTS, lambda s: s.update({"conv_in.bias": torch.zeros(5)}))
    with pytest.raises(ModelError, match=r"needs conv_in\.bias of shape \(16,\) and the file's is \(5,\)"):
        load(folder)


@pytest.mark.parametrize(
    ("pipeline", "named"),
    [
        ("StableDiffusion3Pipeline", "Stable Diffusion 3"),
        ("FluxPipeline", "FLUX"),
        ("PixArtSigmaPipeline", "PixArt"),
        ("StableDiffusionInpaintPipeline", "9-channel inpainting"),
        ("StableDiffusionXLInpaintPipeline", "9-channel inpainting"),
        ("StableDiffusionLatentUpscalePipeline", "the k-diffusion latent upscaler"),
        ("StableDiffusionDepth2ImgPipeline", "depth"),
        ("os.system", r"a os\.system"),
    ],
)
def test_other_families_are_refused_by_name(folder: Path, pipeline: str, named: str) -> None:
    edit_json(folder / "model_index.json", _class_name=pipeline)
    with pytest.raises(ModelError, match=f"{named}.*not supported"):
        load(folder)


@pytest.mark.parametrize(
    ("channels", "named"),
    [(9, "9-channel inpainting"), (5, "depth"), (7, "upscaler"), (6, "6 input channels")],
)
def test_other_channel_counts_are_refused_by_name(folder: Path, channels: int, named: str) -> None:
    edit_json(folder / "unet" / "config.json", in_channels=channels)
    with pytest.raises(ModelError, match=named):
        load(folder)


def test_only_known_classes_are_built(folder: Path) -> None:
    edit_json(folder / "model_index.json", unet=["subprocess", "Popen"])
    with pytest.raises(ModelError, match="unet is a Popen, which is not supported"):
        load(folder)
    with pytest.raises(ModelError, match="not supported"):
        build({"_class_name": "Popen"}, "unet")
    assert len(CLASSES) == 5


@pytest.mark.parametrize(
    ("file", "setting", "value"),
    [
        ("scheduler/scheduler_config", "beta_start", None),
        ("scheduler/scheduler_config", "beta_end", "x"),
        ("scheduler/scheduler_config", "beta_end", 2.0),
        ("scheduler/scheduler_config", "num_train_timesteps", -5),
        ("scheduler/scheduler_config", "num_train_timesteps", 10**15),
        ("scheduler/scheduler_config", "trained_betas", "many"),
        ("vae/config", "scaling_factor", "x"),
        ("vae/config", "scaling_factor", None),
        ("vae/config", "scaling_factor", 0),
        ("vae/config", "latents_mean", [1.0]),
        ("unet/config", "sample_size", "x"),
        ("unet/config", "sample_size", []),
        ("unet/config", "sample_size", 0),
        ("unet/config", "block_out_channels", [10**12, 10**12]),
        ("unet/config", "block_out_channels", [16, -32]),
        ("unet/config", "norm_num_groups", 0),
        ("text_encoder/config", "max_position_embeddings", 10**13),
        ("text_encoder/config", "hidden_size", -32),
    ],
)
def test_a_damaged_config_is_one_sentence(folder: Path, file: str, setting: str, value: Any) -> None:
    if setting == "latents_mean":
        edit_json(folder / f"{file}.json", latents_std=[1.0])
    edit_json(folder / f"{file}.json", **{setting: value})
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_names_out_of_files_do_not_steer_a_terminal(folder: Path) -> None:
    name = "\x1b[2J" + "x" * 5000
    edit_tensors(folder / "unet" / WEIGHTS, lambda state: state.update({name: torch.zeros(1)}))
    edit_json(folder / "scheduler" / "scheduler_config.json", _class_name=name)
    with pytest.raises(ModelError, match="no place for 1 tensor") as caught:
        load(folder)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    edit_json(folder / "model_index.json", _class_name=name)
    with pytest.raises(ModelError, match="not supported") as caught:
        load(folder)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_the_prediction_is_tried_where_the_networks_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """With offloading they wait in main memory, whatever the device is."""
    seen: list[str] = []
    checkpoint = replace(loading.find(tiny.shared("sd2")), prediction_is_a_guess=True)
    monkeypatch.setattr(loading, "find", lambda *_, **__: checkpoint)
    monkeypatch.setattr(loading, "_device", lambda _: torch.device("meta"))
    monkeypatch.setattr(loading, "apply", lambda model, **_: model)
    monkeypatch.setattr(loading, "_settle_prediction", lambda model: seen.append(model.device.type))
    assert load("any", device="cuda", offload="model").device.type == "meta"
    assert seen == ["cpu"]


def test_an_unknown_setting_is_refused_with_the_nearest(folder: Path) -> None:
    edit_json(folder / "unet" / "config.json", norm_num_grups=8)
    with pytest.raises(ModelError, match=r"'norm_num_grups'.*Did you mean 'norm_num_groups'"):
        load(folder)
    edit_json(folder / "unet" / "config.json", norm_num_grups=None)
    assert load(folder).family == "sd1"


@pytest.mark.parametrize(
    "broken", [{"block_out_channels": "x"}, {"down_block_types": ["Nope"]}, {"norm_num_groups": 0}]
)
def test_a_config_that_describes_no_network_is_one_sentence(folder: Path, broken: dict[str, Any]) -> None:
    edit_json(folder / "unet" / "config.json", **broken)
    with pytest.raises(ModelError, match="describes no UNet2DConditionModel"):
        load(folder)


DAMAGED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("sd1", "text_encoder/config.json", {"intermediate_size": None}),
    ("sdxl", "text_encoder_2/config.json", {"hidden_size": -1}),
    ("sd1", "vae/config.json", {"latent_channels": []}),
    ("sd1", "unet/config.json", {"in_channels": [4]}),
    ("ddpm", "unet/config.json", {"time_embedding_type": [1]}),
    ("upscaler", "vae/config.json", {"latent_channels": "four"}),
    ("upscaler", "low_res_scheduler/scheduler_config.json", {"trained_betas": -1}),
    ("sd1", "scheduler/scheduler_config.json", {"trained_betas": [[0.1, 0.2]]}),
    ("sd1", "tokenizer/tokenizer.json", {"version": 7}),
    ("sd1", "tokenizer/tokenizer.json", {"model": "words"}),
    ("sd1", "tokenizer/tokenizer.json", {"added_tokens": ["<s>"]}),
)
"""What the libraries answer with errors of their own: bare exceptions, names without a value."""


@pytest.mark.parametrize(("family", "file", "values"), DAMAGED, ids=lambda value: str(value)[:40])
def test_a_damaged_value_in_any_config_is_one_sentence(
    family: str, file: str, values: dict[str, Any], tmp_path: Path
) -> None:
    place = tiny.make(family, tmp_path / "model")
    edit_json(place / file, **values)
    with pytest.raises(ModelError) as caught:
        load(place)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600 + len(str(tmp_path))


def test_schedulers_of_another_kind_of_noise_are_refused(folder: Path) -> None:
    for name in ("FlowMatchEulerDiscreteScheduler", "EDMDPMSolverMultistepScheduler", "Popen"):
        edit_json(folder / "scheduler" / "scheduler_config.json", _class_name=name)
        with pytest.raises(ModelError, match=f"has a {name}, which is not supported"):
            load(folder)
    edit_json(folder / "scheduler" / "scheduler_config.json", _class_name="ScoreSdeVeScheduler")
    with pytest.raises(ModelError, match="scheduler of another kind"):
        load(folder)
    edit_json(
        folder / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler", prediction_type="flow"
    )
    with pytest.raises(ModelError, match="prediction type 'flow' is not supported"):
        load(folder)


def test_a_missing_part_is_named(folder: Path) -> None:
    edit_json(folder / "model_index.json", vae=[None, None])
    with pytest.raises(ModelError, match="lacks vae"):
        load(folder)


def test_what_is_not_there(tmp_path: Path) -> None:
    for name in ("no-such-model", str(tmp_path / "absent"), "a/b/c", "../x/y"):
        with pytest.raises(ModelError, match="There is no model"):
            load(name)
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"hello, world", "is not a model"),
        (b"\x89PNG\r\n\x1a\n" + b"0" * 40, "is not a model"),
        (struct.pack("<Q", 2**40) + b"{" + b" " * 40, "announces a header"),
        (struct.pack("<Q", 8) + b'{"a": 1}', "not a sound"),
        (struct.pack("<Q", 2) + b"{}", "not a Stable Diffusion checkpoint"),
        (pickle.dumps({"state_dict": {}}), "is a pickle"),
        (b"PK\x03\x04" + b"0" * 40, "is a pickle"),
    ],
)
def test_files_that_are_no_model(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=said) as caught:
        load(path)
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)


def test_a_cut_off_file_in_a_folder_is_one_sentence(folder: Path) -> None:
    weights = folder / "unet" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a sound"):
        load(folder)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.binary(max_size=200), length=st.integers(0, 300), data=st.binary(max_size=50))
def test_any_header_is_a_model_error_or_nothing(
    tmp_path: Path, header: bytes, length: int, data: bytes
) -> None:
    path = tmp_path / "any.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{" + header + data)
    with pytest.raises(ModelError):
        load(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before PyTorch 1.6"])
def test_a_pickle_is_read_only_when_trusted(folder: Path, zipped: bool) -> None:
    state = load_file(folder / "unet" / WEIGHTS)
    (folder / "unet" / WEIGHTS).unlink()
    place = folder / "unet" / "diffusion_pytorch_model.bin"
    torch.save(state, place, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="--trust-pickle"):
        load(folder)
    loaded = load(folder, trust_pickle=True).denoiser.state_dict()
    assert all(tensor.equal(state[name]) for name, tensor in loaded.items())


class Malicious:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("touched"),))


def test_even_a_trusted_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Malicious()}, tmp_path / "model.ckpt")
    assert file_kind(tmp_path / "model.ckpt") == "pickle"
    with pytest.raises(ModelError, match="cannot be read even as a trusted pickle"):
        load(tmp_path / "model.ckpt", trust_pickle=True)
    assert not Path("touched").exists()


def test_shards_are_read_together_and_only_from_their_folder(folder: Path) -> None:
    state = load_file(folder / "unet" / WEIGHTS)
    (folder / "unet" / WEIGHTS).unlink()
    names = sorted(state)
    for shard, part in (("one.safetensors", names[::2]), ("two.safetensors", names[1::2])):
        save_file({name: state[name] for name in part}, folder / "unet" / shard)
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    placed = {name: ("one" if i % 2 == 0 else "two") + ".safetensors" for i, name in enumerate(names)}
    index.write_text(json.dumps({"weight_map": placed}))
    assert load(folder).denoiser.conv_in.weight.equal(state["conv_in.weight"])
    index.write_text(json.dumps({"weight_map": {**placed, names[0]: "../elsewhere.safetensors"}}))
    with pytest.raises(ModelError, match="outside its folder"):
        load(folder)


def test_names_of_older_releases_are_read(folder: Path) -> None:
    def classic_text(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            state["text_model." + name] = state.pop(name)
        state["text_model.embeddings.position_ids"] = torch.arange(77)[None]

    def classic_vae(state: dict[str, torch.Tensor]) -> None:
        old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for name in list(state):
            for new, before in old.items():
                if f"attentions.0.{new}." in name:
                    state[name.replace(new, before)] = state.pop(name)

    before = load(folder)
    edit_tensors(folder / "text_encoder" / "model.safetensors", classic_text)
    edit_tensors(folder / "vae" / WEIGHTS, classic_vae)
    assert "decoder.mid_block.attentions.0.query.weight" in load_file(folder / "vae" / WEIGHTS)
    after = load(folder)
    assert after.hash == before.hash


def test_a_pixel_model_with_its_files_at_the_root(tmp_path: Path) -> None:
    source = tiny.shared("ddpm")
    for file in (*(source / "unet").iterdir(), *(source / "scheduler").iterdir()):
        shutil.copy(file, tmp_path / file.name)
    model = load(tmp_path)
    assert model.family == "pixel"
    assert model.hash == load(source).hash


def test_a_pixel_model_takes_no_words_and_a_text_model_no_picture() -> None:
    with pytest.raises(InputError, match="without words"):
        load(tiny.shared("ddpm")).prompt(["a cat"])
    model = load(tiny.shared("sd1"))
    with pytest.raises(InputError, match="no editing model"):
        model.branches([model.empty()], torch.zeros(1, 4, 8, 8))
    with pytest.raises(InputError, match="an editing model"):
        load(tiny.shared("ip2p")).branches([model.empty()])


def test_latent_shape() -> None:
    model = load(tiny.shared("sd1"))
    assert model.latent_shape(64, 128) == (4, 8, 16)
    with pytest.raises(InputError, match=r"60 x 64.*multiples of 8"):
        model.latent_shape(64, 60)


def test_unknown_dtype_and_device() -> None:
    with pytest.raises(InputError, match="no dtype 'int8'"):
        load(tiny.shared("sd1"), dtype=cast(Any, "int8"))
    for device in ("abacus", "meta"):
        with pytest.raises(InputError, match=f"no device '{device}'"):
            load(tiny.shared("sd1"), device=device)


def test_the_hash_follows_the_tensors_only(folder: Path) -> None:
    before = load(folder).hash
    assert len(before) == 64
    edit_tensors(folder / "unet" / WEIGHTS, lambda _: None)
    edit_json(folder / "scheduler" / "scheduler_config.json", steps_offset=0)
    assert load(folder).hash == before == load(folder, dtype="bfloat16").hash
    edit_tensors(folder / "vae" / WEIGHTS, lambda s: s["decoder.conv_out.bias"].view(-1)[0].add_(1))
    assert load(folder).hash != before


def test_reading_named_tensors_only() -> None:
    path = tiny.shared("sd1") / "unet" / WEIGHTS
    assert list(read_tensors(path, ["conv_in.bias"])) == ["conv_in.bias"]
    with pytest.raises(ModelError, match="not a sound"):
        read_tensors(path, ["absent"])


def test_without_the_toybox_a_random_model_says_that_it_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    model = load("toybox")
    assert model.is_random
    assert model.family == "sd1"
    same = load("toybox")
    assert model.denoiser.conv_in.weight.equal(same.denoiser.conv_in.weight)
    assert model.hash == same.hash
