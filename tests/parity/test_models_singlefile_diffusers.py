"""Where each tensor of a published checkpoint goes, against diffusers' own converters."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from torch import Tensor

from scumble.models.components import build, canonical_text_state
from scumble.models.configs import PUBLISHED, Published
from scumble.models.layout import from_original
from scumble.models.singlefile import prefixes, tables

KEYS = Path(__file__).parent.parent / "data" / "keys"


def marked(table: str) -> dict[str, Tensor]:
    """The published names and shapes, every row of every tensor with a number of its own."""
    state: dict[str, Tensor] = {}
    lines = gzip.decompress((KEYS / f"{table}.tsv.gz").read_bytes()).decode().splitlines()
    for number, line in enumerate(lines):
        name, text = line.split("\t")
        shape = [int(side) for side in text.split("x")] if text else []
        rows = torch.arange(shape[0] if shape else 1) + 1_000_000 * number
        state[name] = rows.reshape([-1] + [1] * (len(shape) - 1)).expand(shape) if shape else rows[0]
    return state


@pytest.mark.parametrize(("table", "kind"), [("sd15", "sd1"), ("sd21", "sd2"), ("sdxl", "sdxl")])
def test_every_tensor_goes_where_diffusers_puts_it(table: str, kind: Published) -> None:
    state, configs = marked(table), PUBLISHED[kind]
    theirs = {
        "unet": convert_ldm_unet_checkpoint(dict(state), configs["unet"]),
        "vae": convert_ldm_vae_checkpoint(dict(state), configs["vae"]),
    }
    for part in ("text_encoder", "text_encoder_2"):
        if part not in configs:
            continue
        prefix = prefixes(kind)[part]
        if prefix.endswith("transformer."):
            found = convert_ldm_clip_checkpoint(dict(state), remove_prefix=prefix)
        else:
            found = convert_open_clip_checkpoint(build(configs[part], part), dict(state), prefix=prefix)
        theirs[part] = canonical_text_state(found, wrapped=part == "text_encoder_2")
    compared = 0
    for part, renames in tables(kind).items():
        prefix = prefixes(kind)[part]
        ours = from_original({r.original: state[prefix + r.original] for r in renames}, renames)
        if kind == "sd2" and part == "text_encoder":  # diffusers drops the projection by name, ours has none
            theirs[part] = {name: tensor for name, tensor in theirs[part].items() if name in ours}
        assert ours.keys() == theirs[part].keys()
        for name, tensor in ours.items():
            assert tensor.equal(theirs[part][name]), name
            compared += 1
    assert compared == {"sd1": 1130, "sd2": 1306, "sdxl": 2641}[kind]
