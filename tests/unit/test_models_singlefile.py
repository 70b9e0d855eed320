"""Original single-file checkpoints, against the committed tables of what the published ones hold."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from scumble.core.errors import ModelError
from scumble.models import singlefile
from scumble.models.assemble import family_of
from scumble.models.conditioning import Condition
from scumble.models.configs import PUBLISHED, Published, random_checkpoint, random_model
from scumble.models.layout import from_original, to_original
from scumble.models.load import load
from scumble.models.model import Model
from scumble.models.save import save_single_file
from scumble.models.singlefile import detect, original_shapes, part_table, prefixes, read_single_file, tables

TABLES: dict[str, Published] = {"sd15": "sd1", "sd21": "sd2", "sdxl": "sdxl"}
COUNTS = {"sd15": (1143, 1130), "sd21": (1240, 1214), "sdxl": (2516, 2513)}
KEYS = Path(__file__).parent.parent / "data" / "keys"

Shapes = dict[str, tuple[int, ...]]


@cache
def published(table: str) -> Shapes:
    """Name and shape of every tensor of a published checkpoint."""
    shapes: Shapes = {}
    for line in gzip.decompress((KEYS / f"{table}.tsv.gz").read_bytes()).decode().splitlines():
        name, shape = line.split("\t")
        shapes[name] = tuple(int(side) for side in shape.split("x")) if shape else ()
    return shapes


def hollow(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    """A sound .safetensors file of float16 zeros that takes no room: its tensors are a hole in the file."""
    header, position = {}, 0
    for name, shape in shapes.items():
        end = position + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + position)
    return path


@pytest.mark.parametrize("table", TABLES)
def test_every_name_and_shape_is_the_published_one(table: str) -> None:
    there, wanted = published(table), original_shapes(TABLES[table])
    assert (len(there), len(wanted)) == COUNTS[table]
    assert {name: there.get(name) for name in wanted} == wanted
    assert detect(there, table) == TABLES[table]


@pytest.mark.parametrize("table", TABLES)
def test_each_of_our_tensors_comes_from_exactly_one(table: str) -> None:
    for part, renames in tables(TABLES[table]).items():
        ours = [name for rename in renames for name in rename.ours]
        assert len(set(ours)) == len(ours), part
        assert len({rename.original for rename in renames}) == len(renames), part


@pytest.mark.parametrize("table", TABLES)
def test_a_file_of_full_size_is_read(table: str, tmp_path: Path) -> None:
    checkpoint = read_single_file(hollow(tmp_path / "model.safetensors", published(table)))
    assert checkpoint.parts == tuple(part for part in PUBLISHED[TABLES[table]] if part != "scheduler")
    assert len(checkpoint.tokenizers) == (2 if table == "sdxl" else 1)
    assert family_of(checkpoint) == TABLES[table]


def test_a_file_of_full_size_loads_strictly(tmp_path: Path) -> None:
    model = load(hollow(tmp_path / "model.safetensors", published("sd15")), dtype="float16")
    sizes = {part: sum(p.numel() for p in module.parameters()) for part, module in model.parts().items()}
    assert sizes == {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
    assert model.default_size == 512


def test_missing_and_unexpected_names_are_told(tmp_path: Path) -> None:
    shapes = dict(published("sd15"))
    name = "model.diffusion_model.middle_block.1.proj_in.weight"
    without = {key: shape for key, shape in shapes.items() if key != name}
    for changed, said in [
        (without, f"lacks 1 tensor: {name}"),
        ({**shapes, "stray.weight": (3,)}, "has no place for 1 tensor: stray.weight"),
        ({**shapes, name: (1280, 1280, 3, 3)}, r"proj_in.weight of shape \(1280, 1280, 1, 1\)"),
        ({**shapes, **dict.fromkeys(map(str, range(9)), (1,))}, "9 tensors: 0, 1, 2 and 6 more"),
    ]:
        with pytest.raises(ModelError, match=said):
            load(hollow(tmp_path / "model.safetensors", changed))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model.diffusion_model.input_blocks.0.0.weight": (320, 9, 3, 3)}, "9-channel inpainting"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (320, 5, 3, 3)}, "depth-conditioned"),
        ({"model.diffusion_model.joint_blocks.0.x": (1,)}, "Stable Diffusion 3"),
        ({"double_blocks.0.img_attn.qkv.weight": (1,)}, "FLUX"),
        ({"model.diffusion_model.double_blocks.0.x": (1,)}, "FLUX"),
        ({"adaln_single.linear.weight": (1,)}, "PixArt"),
        ({"conditioner.embedders.0.model.transformer.resblocks.0.x": (1,)}, "SDXL refiner"),
    ],
)
def test_other_families_are_refused_by_name(changes: Shapes, named: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"{named}.*not supported"):
        load(hollow(tmp_path / "model.safetensors", {**published("sd15"), **changes}))


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_down_blocks_0.lora_down.weight",
        "unet.down_blocks.0.attentions.0.attn1.to_q.lora_A.weight",
        "unet.mid_block.attn1.processor.to_q_lora.down.weight",
        "word.0.0",
        "change.unet.conv_in.weight.delta",
    ],
)
def test_learnt_weights_are_no_model_and_the_sentence_says_what_to_do(name: str, tmp_path: Path) -> None:
    save_file({name: torch.zeros(1)}, tmp_path / "rex.safetensors")
    with pytest.raises(ModelError, match=r"rex.safetensors holds learnt weights, not a model\. .*--with"):
        read_single_file(tmp_path / "rex.safetensors")


def test_an_instruct_pix2pix_file_is_recognised_by_its_eight_channels(tmp_path: Path) -> None:
    shapes = {**published("sd15"), "model.diffusion_model.input_blocks.0.0.weight": (320, 8, 3, 3)}
    checkpoint = read_single_file(hollow(tmp_path / "ip2p.safetensors", shapes))
    assert checkpoint.configs["unet"]["in_channels"] == 8
    assert checkpoint.pipeline == "StableDiffusionInstructPix2PixPipeline"


Small = Callable[[Published], None]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[Small]:
    """Inside the test, single files of the kind given have the sizes of the tiny `random_model`."""

    def clear() -> None:
        tables.cache_clear()
        original_shapes.cache_clear()

    def pretend(kind: Published) -> None:
        scheduler = PUBLISHED[kind]["scheduler"]
        monkeypatch.setitem(
            cast(Any, PUBLISHED), kind, {**random_checkpoint(kind).configs, "scheduler": scheduler}
        )
        monkeypatch.setattr(singlefile, "detect", lambda shapes, name: kind)
        clear()

    yield pretend
    clear()


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "ip2p"])
def test_saved_and_loaded_is_the_same_model(kind: Published, small: Small, tmp_path: Path) -> None:
    model = random_model(kind)
    path = save_single_file(model, tmp_path / "model.safetensors")
    small(kind)
    back = load(path)
    assert back.hash == model.hash
    assert (back.family, back.prediction, back.condition_channels, back.default_size) == (
        model.family,
        model.prediction,
        model.condition_channels,
        model.default_size,
    )
    for part, module in model.parts().items():
        state = back.parts()[part].state_dict()
        assert all(tensor.equal(state[name]) for name, tensor in module.state_dict().items())
    assert back.prompt(["a red cat"]).embeddings.equal(model.prompt(["a red cat"]).embeddings)
    assert back.empty().embeddings.equal(model.empty().embeddings)
    assert not list(tmp_path.glob(".*"))


def test_averaged_weights_are_taken_if_there_unless_declined(small: Small, tmp_path: Path) -> None:
    path = save_single_file(random_model("ip2p"), tmp_path / "plain.safetensors")
    small("ip2p")
    state = load_file(path)
    averaged = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): tensor + 1
        for name, tensor in state.items()
        if name.startswith("model.")
    }
    assert "model_ema.diffusion_modelinput_blocks00weight" in averaged
    both = tmp_path / "both.safetensors"
    save_file({**state, **averaged, "model_ema.decay": torch.tensor(0.5)}, both)
    plain = load(path).denoiser.state_dict()
    for choice, shift in ((None, 1), (True, 1), (False, 0)):
        found = load(both, ema=choice).denoiser.state_dict()
        assert all(tensor.equal(plain[name] + shift) for name, tensor in found.items())
    with pytest.raises(ModelError, match="holds no averaged weights"):
        load(path, ema=True)
    del averaged["model_ema.diffusion_modelout2bias"]
    save_file({**state, **averaged}, both)
    with pytest.raises(ModelError, match=r"lacks 1 tensor: model_ema\.diffusion_modelout2bias"):
        load(both)
    assert load(both, ema=False).condition_channels == 4


@pytest.mark.parametrize(("share", "prediction", "size"), [(0.95, "eps", 512), (0.1, "v", 64)])
def test_sd2_models_that_echo_pure_noise_predict_eps(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, prediction: str, size: int
) -> None:
    silent = random_model("sd2")
    silent.prediction = "eps"  # of which a file says nothing, as the published ones of either kind
    path = save_single_file(silent, tmp_path / "model.safetensors")
    small("sd2")

    def predict(self: Model, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        assert float(timestep) == 999
        return share * x + (1 - share) * torch.flip(x, (0, 1, 2, 3))

    monkeypatch.setattr(Model, "predict", predict)
    model = load(path)
    assert (model.prediction, model.default_size) == (prediction, size)
    assert load(path, prediction="x0").prediction == "x0"


def test_sdxl_files_tell_v_prediction_and_zero_snr_by_empty_tensors(tmp_path: Path) -> None:
    plain = read_single_file(hollow(tmp_path / "a.safetensors", published("sdxl"))).scheduler
    assert plain["prediction_type"] == "epsilon"
    told = {**published("sdxl"), "v_pred": (0,), "ztsnr": (0,)}
    scheduler = read_single_file(hollow(tmp_path / "b.safetensors", told)).scheduler
    assert scheduler["prediction_type"] == "v_prediction"
    assert scheduler["rescale_betas_zero_snr"] is True


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "ip2p"])
def test_original_and_back_is_every_tensor_bit_for_bit(kind: Published) -> None:
    checkpoint = random_checkpoint(kind)
    for part in checkpoint.parts:
        state = checkpoint.state(part)
        table = part_table(kind, part, checkpoint.configs[part])
        original = to_original(state, table)
        assert len(original) < len(state) or not prefixes(kind)[part].endswith(".model.")
        back = from_original(original, table)
        assert back.keys() == state.keys()
        assert all(tensor.equal(state[name]) for name, tensor in back.items())


def test_attention_stored_as_matrices_is_read_too() -> None:
    checkpoint = random_checkpoint("sd1")
    table = part_table("sd1", "vae", checkpoint.configs["vae"])
    original = to_original(checkpoint.state("vae"), table)
    name = "encoder.mid.attn_1.q.weight"
    assert original[name].shape == (32, 32, 1, 1)
    flat: dict[str, Tensor] = {**original, name: original[name][:, :, 0, 0]}
    ours = "encoder.mid_block.attentions.0.to_q.weight"
    assert from_original(flat, table)[ours].equal(from_original(original, table)[ours])


def test_a_damaged_single_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(4)}, path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ModelError, match="not a sound"):
        load(path)
