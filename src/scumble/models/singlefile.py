"""An original single-file checkpoint: which family it is by names and shapes, and where each tensor goes.

Such a file holds no config and no tokenizer: both are the published ones of its family. It holds more than
the networks, and what may be there beside them is listed in `_BESIDE`; a tensor that is neither wanted nor
listed is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from scumble.core.errors import ModelError
from scumble.models.checkpoint import Checkpoint, State
from scumble.models.components import expected, listed
from scumble.models.configs import (
    PUBLISHED,
    Published,
    network_configs,
    pipeline_name,
    published_tokenizers,
)
from scumble.models.layout import (
    Rename,
    from_original,
    open_clip_renames,
    text_renames,
    unet_renames,
    vae_renames,
)
from scumble.models.tensors import read_keys, read_tensors

__all__ = [
    "PREFIXES",
    "UNET",
    "detect",
    "original_shapes",
    "part_table",
    "prefixes",
    "read_single_file",
    "tables",
]

UNET, VAE = "model.diffusion_model.", "first_stage_model."

PREFIXES: Mapping[str, Mapping[str, str]] = {
    "sd1": {"unet": UNET, "vae": VAE, "text_encoder": "cond_stage_model.transformer."},
    "sd2": {"unet": UNET, "vae": VAE, "text_encoder": "cond_stage_model.model."},
    "sdxl": {
        "unet": UNET,
        "vae": VAE,
        "text_encoder": "conditioner.embedders.0.transformer.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
}
"""What stands before the names of each part."""

_BESIDE = re.compile(
    r"(model_ema\..*"
    r"|betas|alphas_cumprod(_prev)?|sqrt_\w+|log_one_minus_alphas_cumprod|posterior_\w+|lvlb_weights|logvar|scale_factor"
    r"|denoiser\.sigmas|first_stage_model\.loss\..*"
    r"|(cond_stage_model|conditioner\.embedders\.\d)\.transformer\.text_model\.embeddings\.position_ids"
    r"|(cond_stage_model|conditioner\.embedders\.\d)\.(model\.)?(logit_scale|attn_mask)"
    r"|cond_stage_model\.transformer\.(vision_model\..*|visual_projection\.weight|text_projection\.weight|logit_scale)"
    # SD 2.x uses the last layer but one, so its last and the projection after it do nothing
    r"|cond_stage_model\.model\.(text_projection|transformer\.resblocks\.23\..*)"
    r"|low_scale_model\..*"  # the tables of the small picture's noise
    r"|v_pred|ztsnr)"
)
"""What may be in a checkpoint beside its networks: averaged weights, the schedule's tables, buffers, unused
layers.
"""

_REFUSED = {
    "joint_blocks.": "Stable Diffusion 3",
    "double_blocks.": "FLUX",
    "adaln_single.": "PixArt",
    "conditioner.embedders.0.model.transformer.": "the SDXL refiner",
    "control_model.": "a ControlNet",
    "model.depth_model.": "a depth-conditioned model",
    "depth_model.": "a depth-conditioned model",
    "edm_mean": "an EDM-trained SDXL variant",
    "edm_vpred": "an EDM-trained SDXL variant",
}
_LEARNT = ("lora_", "word.", "change.")
"""How tensors of learnt weights are called, kohya's and ours."""
_CONV_IN = UNET + "input_blocks.0.0.weight"
_CROSS = re.compile(re.escape(UNET) + r"input_blocks\.\d+\.1\.transformer_blocks\.0\.attn2\.to_k\.weight")
_SUPPORTED = (
    "Single files of Stable Diffusion 1.x, 2.x and XL, InstructPix2Pix's and the x4-upscaler's are supported."
)


def read_single_file(path: Path, *, ema: bool | None = None, trust_pickle: bool = False) -> Checkpoint:
    """The checkpoint in one file; names and shapes are checked at once, tensors read when asked for.

    `ema` chooses the averaged denoiser weights of a training checkpoint; None takes them if they are there.
    Raises ModelError naming the family if it is not supported and the first tensors missing or unexpected.
    """
    shapes = read_keys(path, trust_pickle=trust_pickle)
    kind = detect(shapes, path.name)
    averaged = any(key.startswith("model_ema.diffusion_model") for key in shapes)
    if ema and not averaged:
        raise ModelError(f"{path.name} holds no averaged weights.", "Leave the option `ema` out.")
    use_ema = averaged if ema is None else ema
    _check(shapes, kind, use_ema, path.name)

    def state(part: str) -> State:
        table = tables(kind)[part]
        full = {rename.original: prefixes(kind)[part] + rename.original for rename in table}
        stored = {key: (use_ema and _ema_name(name)) or name for key, name in full.items()}
        tensors = read_tensors(path, stored.values(), trust_pickle=trust_pickle)
        return from_original({key: tensors[name] for key, name in stored.items()}, table)

    return Checkpoint(
        name=path.stem,
        configs=network_configs(kind),
        state=state,
        scheduler=_scheduler(kind, shapes),
        low_res_scheduler=PUBLISHED[kind].get("low_res_scheduler"),
        tokenizers=published_tokenizers(kind),
        pipeline=pipeline_name(kind),
        zeros_for_empty=kind.startswith("sdxl"),
        path=path,
        prediction_is_a_guess=kind == "sd2" and "v_pred" not in shapes,
    )


def detect(shapes: Mapping[str, tuple[int, ...]], name: str) -> Published:
    """Which published model a file is like, by names and shapes alone. Raises ModelError.

    SD 2.x is `sd2`: nothing in the file tells the v-prediction models from the `base` ones.
    """
    if any(key.startswith(_LEARNT) or "lora" in key for key in shapes):
        raise ModelError(
            f"{name} holds learnt weights, not a model.",
            "Give it with --with beside a model; `scumble convert` reads what other programs wrote.",
        )
    for sign, family in _REFUSED.items():
        if any(key.startswith(sign) or key.startswith(UNET + sign) for key in shapes):
            raise ModelError(f"{name} is {family}, which is not supported.", _SUPPORTED)
    cross = next((shape for key, shape in shapes.items() if _CROSS.fullmatch(key)), None)
    if _CONV_IN not in shapes or len(shapes[_CONV_IN]) != 4 or cross is None or len(cross) != 2:
        raise ModelError(f"{name} is not a Stable Diffusion checkpoint: it has no {_CONV_IN}.", _SUPPORTED)
    channels, width = shapes[_CONV_IN][1], cross[1]
    other = {9: "a 9-channel inpainting model", 5: "a depth-conditioned model", 7: "another upscaler"}
    kinds: dict[tuple[int, int], Published] = {
        (768, 4): "sd1",
        (768, 8): "ip2p",
        (1024, 4): "sd2",
        (2048, 4): "sdxl",
        (2048, 8): "sdxl-edit",
        (1024, 7): "upscaler",
    }
    if (width, channels) not in kinds:
        family = other.get(channels, f"a model with {channels} input channels and text {width} wide")
        raise ModelError(f"{name} is {family}, which is not supported.", _SUPPORTED)
    return kinds[width, channels]


@cache
def tables(kind: Published) -> dict[str, list[Rename]]:
    """For each part of a published model, original names (prefix removed) and ours."""
    return {part: part_table(kind, part, config) for part, config in network_configs(kind).items()}


def part_table(kind: Published, part: str, config: Mapping[str, Any]) -> list[Rename]:
    """The table of one part of any config, in the layout in which models like `kind` are published."""
    names = list(expected(config, part))
    if part == "unet":
        return unet_renames(config, names)
    if part == "vae":
        return vae_renames(config, names)
    if prefixes(kind)[part].endswith("transformer."):
        return text_renames(names)
    return open_clip_renames(names)


@cache
def original_shapes(kind: Published) -> dict[str, tuple[int, ...]]:
    """The full name and shape of every tensor that a single file of this kind must hold."""
    result: dict[str, tuple[int, ...]] = {}
    for part, table in tables(kind).items():
        ours = expected(PUBLISHED[kind][part], part)
        for rename in table:
            shape = ours[rename.ours[0]]
            changed = {
                "same": shape,
                "conv": (*shape, 1, 1),
                "transposed": shape[::-1],
                "stacked": (3 * shape[0], *shape[1:]),
            }[rename.kind]
            result[prefixes(kind)[part] + rename.original] = changed
    return result


def prefixes(kind: Published) -> Mapping[str, str]:
    """What stands before the names of each part, for a model like `kind`."""
    if kind in ("sd2", "sd2-base", "upscaler"):
        return PREFIXES["sd2"]
    return PREFIXES["sdxl" if kind.startswith("sdxl") else "sd1"]


def _check(shapes: Mapping[str, tuple[int, ...]], kind: Published, ema: bool, name: str) -> None:
    """Names and shapes against what is wanted; 1 x 1 convolutions may also be stored as matrices."""
    wanted = original_shapes(kind)
    remedy = f"By its shapes the file is like {kind}; it is incomplete or of another kind."
    missing = [key for key in wanted if key not in shapes]
    if ema:
        missing += [key for key in map(_ema_name, wanted) if key is not None and key not in shapes]
    if missing:
        raise ModelError(f"{name} lacks {listed(missing)}.", remedy)
    unexpected = [key for key in shapes if key not in wanted and not _BESIDE.fullmatch(key)]
    if unexpected:
        raise ModelError(f"{name} has no place for {listed(unexpected)}.", remedy)
    for key, shape in wanted.items():
        if shapes[key] != shape and (*shapes[key], 1, 1) != shape:
            raise ModelError(f"{name} needs {key} of shape {shape} and the file's is {shapes[key]}.", remedy)


def _ema_name(key: str) -> str | None:
    """The name of a denoiser tensor's average (LDM's `LitEma`): no leading `model.`, no dots."""
    if not key.startswith(UNET):
        return None
    return "model_ema." + key.removeprefix("model.").replace(".", "")


def _scheduler(kind: Published, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The published scheduler, with what files tell by empty tensors named `v_pred` and `ztsnr`."""
    told: dict[str, Any] = {}
    if "v_pred" in shapes:
        told["prediction_type"] = "v_prediction"
    if "ztsnr" in shapes:
        told["rescale_betas_zero_snr"] = True
    return {**PUBLISHED[kind]["scheduler"], **told}
