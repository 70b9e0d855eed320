"""Optical flow and the masks that it carries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scumble.core.errors import ImageError, InputError
from scumble.core.events import finish
from scumble.data.flow import Flow, agreeing, carried, find_flow, read_flow, resized, sampled
from scumble.data.foreground import carried_masks, check_box, fitted, grabcut, read_masks
from videos import SQUARE, STEP, moving_square, square_masks

FRAMES = moving_square(5, 48, 64)
MASKS = square_masks(5, 48, 64)


def iou(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(((one > 0.5) & (other > 0.5)).sum() / ((one > 0.5) | (other > 0.5)).sum())


def test_dis_finds_what_moves_and_is_the_same_again() -> None:
    flow = finish(find_flow(FRAMES))
    assert flow.forward.shape == flow.backward.shape == (4, 2, 48, 64)
    inside = MASKS[:4, 0] > 0.5
    assert flow.forward[:, 0][inside].median() == pytest.approx(STEP, abs=0.3)
    assert flow.forward[:, 0][~inside].median().abs() < 0.2
    assert flow.backward[:, 0][MASKS[1:, 0] > 0.5].median() == pytest.approx(-STEP, abs=0.3)
    assert torch.equal(finish(find_flow(FRAMES)).forward, flow.forward)
    there, back = flow.trusted
    assert there.float().mean() > 0.8
    assert back.dtype == torch.bool


def test_flow_there_and_back() -> None:
    there, back = torch.zeros(1, 2, 8, 10), torch.zeros(1, 2, 8, 10)
    there[:, 0], back[:, 0] = 3.0, -3.0
    agrees = agreeing(there, back)
    assert agrees[..., :7].all()
    assert not agrees[..., 7:].any()  # ends outside of the picture
    back[:, 1] = 0.9
    assert agreeing(there, back)[..., :7].all()
    back[:, 1] = 1.1
    assert not agreeing(there, back).any()


def test_sampled_looks_up_where_the_flow_leads() -> None:
    pictures = torch.arange(12.0).view(1, 1, 3, 4)
    offset = torch.zeros(1, 2, 3, 4)
    offset[:, 0] = 1.0
    assert torch.allclose(sampled(pictures, offset)[0, 0, :, :3], pictures[0, 0, :, 1:], atol=1e-5)
    offset[:, 0], offset[:, 1] = 0.5, 1.0
    assert sampled(pictures, offset)[0, 0, 0, 0] == pytest.approx(4.5, abs=1e-5)


def test_resized_flow_scales_each_axis_by_its_own_factor() -> None:
    """x by the ratio of widths, y by the ratio of heights: they differ where the aspect changes."""
    flow = torch.ones(1, 2, 4, 6)
    larger = resized(flow, (8, 18))
    assert larger.shape == (1, 2, 8, 18)
    assert torch.allclose(larger[:, 0], torch.tensor(3.0))
    assert torch.allclose(larger[:, 1], torch.tensor(2.0))
    assert resized(flow, (4, 6)) is flow


def flo(path: Path, flow: np.ndarray) -> None:
    height, width = flow.shape[:2]
    head = np.float32(202021.25).tobytes() + np.array([width, height], "<i4").tobytes()
    path.write_bytes(head + flow.astype("<f4").tobytes())


def test_flow_from_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = rng.normal(size=(2, 6, 8, 2)).astype(np.float32)
    for way in ("forward", "backward"):
        (tmp_path / way).mkdir()
        for t in range(2):
            flo(tmp_path / way / f"{t:03d}.flo", found[t]) if way == "forward" else np.save(
                tmp_path / way / f"{t:03d}.npy", found[t].transpose(2, 0, 1) if t else found[t]
            )
    flow = read_flow(tmp_path, 3, (6, 8))
    wanted = torch.as_tensor(found).permute(0, 3, 1, 2)
    assert torch.equal(flow.forward, wanted)
    assert torch.equal(flow.backward, wanted)
    assert read_flow(tmp_path, 3, (12, 8)).forward.shape == (2, 2, 12, 8)
    with pytest.raises(InputError, match="holds 2 files of flow, and the video needs 4"):
        read_flow(tmp_path, 5, (6, 8))
    (tmp_path / "forward" / "001.flo").write_bytes(b"PIEH")
    with pytest.raises(InputError, match=r"001\.flo is not a sound file of flow"):
        read_flow(tmp_path, 3, (6, 8))
    np.save(tmp_path / "backward" / "001.npy", np.zeros((4, 4)))
    (tmp_path / "forward" / "001.flo").unlink()
    flo(tmp_path / "forward" / "001.flo", found[1])
    with pytest.raises(InputError, match=r"001\.npy holds no flow: its numbers are 4 x 4"):
        read_flow(tmp_path, 3, (6, 8))


@pytest.mark.parametrize("refine", [True, False])
def test_the_first_mask_is_carried_along(refine: bool) -> None:
    flow = finish(find_flow(FRAMES))
    found = carried_masks(FRAMES, MASKS[:1], flow, refine=refine)
    assert found.shape == MASKS.shape
    assert torch.equal(found[0], MASKS[0])
    assert iou(found, MASKS) > (0.95 if refine else 0.85)


def test_exact_flow_carries_exactly() -> None:
    back = torch.zeros(4, 2, 48, 64)
    back[:, 0] = -STEP
    assert torch.allclose(carried(MASKS[0], Flow(back, back)), MASKS, atol=1e-4)


def test_grabcut_finds_what_stands_out() -> None:
    found = grabcut(FRAMES[0], (3, 7, 22, 26))
    assert found.shape == (1, 1, 48, 64)
    assert iou(found, MASKS[:1]) > 0.9
    assert found.sum() == pytest.approx(SQUARE**2, rel=0.1)
    for box, sentence in {
        (0, 0, 64, 48): "whole frame",
        (5, 5, 5, 9): "does not lie in a frame of 64 x 48",
        (5, 5, 70, 9): "does not lie",
    }.items():
        with pytest.raises(InputError, match=sentence):
            grabcut(FRAMES[0], box)
        with pytest.raises(InputError, match=sentence):
            check_box(box, (48, 64))
    check_box((0, 0, 64, 47), (48, 64))


def test_masks_of_a_person(tmp_path: Path) -> None:
    for t in range(2):
        Image.fromarray((MASKS[t, 0].numpy() * 255).astype(np.uint8)).save(tmp_path / f"{t}.png")
    assert torch.equal(read_masks(tmp_path, 2, (48, 64)), MASKS[:2])
    assert torch.equal(read_masks(tmp_path / "0.png", 5, (48, 64)), MASKS[:1])
    with pytest.raises(InputError, match="holds 2 masks, and the video has 5 frames"):
        read_masks(tmp_path, 5, (48, 64))
    with pytest.raises(ImageError, match="has 64 x 48 pixels, and the video 32 x 32"):
        read_masks(tmp_path, 2, (32, 32))
    Image.new("L", (64, 48)).save(tmp_path / "black.png")
    with pytest.raises(ImageError, match="black everywhere"):
        read_masks(tmp_path / "black.png", 2, (48, 64))
    Image.new("L", (64, 48), 255).save(tmp_path / "white.png")
    with pytest.raises(ImageError, match="white everywhere"):
        read_masks(tmp_path / "white.png", 2, (48, 64))
    assert fitted(MASKS, (24, 32)).shape == (5, 1, 24, 32)
