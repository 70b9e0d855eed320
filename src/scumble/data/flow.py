"""Optical flow between neighbouring frames: found by OpenCV's DIS, or read from files that RAFT wrote.

DIS: Kroeger, Timofte, Dai, Van Gool 2016, "Fast Optical Flow using Dense Inverse Search" (1603.03590).
Offsets are in pixels, x to the right and y down: what is at p in one frame is at p + offset in the other.
F is the number of frames, H x W their size.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from scumble.core.errors import InputError, MissingExtraError
from scumble.core.events import Loop, Progress
from scumble.core.files import read_bytes

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "TOLERANCE",
    "Flow",
    "agreeing",
    "carried",
    "find_flow",
    "opencv",
    "read_flow",
    "resized",
    "sampled",
]

TOLERANCE = 1.0
"""Pixels by which flow there and back may miss its start before it is not trusted; the paper's."""

MAX_BYTES = 2**30
_FLO = np.float32(202021.25)
"""First number of a Middlebury .flo file."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Flow between each frame and the next, both ways."""

    forward: Tensor
    """(F - 1, 2, H, W) from frame t to t + 1."""
    backward: Tensor
    """(F - 1, 2, H, W) from frame t + 1 to t."""

    @property
    def trusted(self) -> tuple[Tensor, Tensor]:
        """(F - 1, H, W) bool each, forward and backward: where there and back again ends where it began."""
        return agreeing(self.forward, self.backward), agreeing(self.backward, self.forward)


def opencv() -> Any:
    """OpenCV. Raises MissingExtraError where it is not installed."""
    try:
        import cv2
    except ImportError as problem:
        raise MissingExtraError("OpenCV is not installed.", "pip install 'scumble[video]'") from problem
    module: ModuleType = cv2
    return module


def find_flow(frames: Tensor) -> Loop[Flow]:
    """Flow of a video (F, 3, H, W) uint8 by DIS on grey frames, one thread, so that equal input gives equal
    flow.
    """
    cv2 = opencv()
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        finder.setFinestScale(0)
        grey = [cv2.cvtColor(_picture(frame), cv2.COLOR_RGB2GRAY) for frame in frames]
        scale = _enlargement(*grey[0].shape)
        forward: list[Tensor] = []
        backward: list[Tensor] = []
        for t in range(len(grey) - 1):
            forward.append(_between(cv2, finder, grey[t], grey[t + 1], scale))
            backward.append(_between(cv2, finder, grey[t + 1], grey[t], scale))
            yield Progress(stage="finding flow", step=t + 1, total=len(grey) - 1)
    finally:
        cv2.setNumThreads(threads)
    return Flow(torch.stack(forward), torch.stack(backward))


def agreeing(there: Tensor, back: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """Where p + there(p) lies inside the picture and `back` leads from it to within `tolerance` of p.

    Flows (P, 2, H, W); bool (P, H, W).
    """
    height, width = there.shape[-2:]
    returned = sampled(back, there)
    miss = (there + returned).square().sum(1).sqrt()
    y, x = _pixels(height, width, there.device)
    x, y = x + there[:, 0], y + there[:, 1]
    inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    return inside & (miss < tolerance)


def sampled(pictures: Tensor, offset: Tensor) -> Tensor:
    """Pictures (P, C, H, W) looked up at p + offset(p), bilinearly, the edge going on: (P, C, H, W)."""
    height, width = offset.shape[-2:]
    y, x = _pixels(height, width, offset.device)
    at = torch.stack([(x + offset[:, 0]) * (2 / width) - 1, (y + offset[:, 1]) * (2 / height) - 1], dim=-1)
    return grid_sample(pictures, at, padding_mode="border", align_corners=False)


def carried(mask: Tensor, flow: Flow) -> Tensor:
    """The first frame's mask (1, H, W) in [0, 1] in every frame (F, 1, H, W): each is the one before it,
    looked up along the flow back."""
    masks = [mask[None].float()]
    for back in flow.backward:
        masks.append(sampled(masks[-1], back[None]))
    return torch.cat(masks)


def resized(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Flow (P, 2, H, W) for frames of another `size` (H', W'): x grows by W' / W, y by H' / H."""
    height, width = flow.shape[-2:]
    if (height, width) == size:
        return flow
    scaled = interpolate(flow, size=size, mode="bilinear", align_corners=False)
    return scaled * flow.new_tensor([size[1] / width, size[0] / height])[:, None, None]


def read_flow(folder: Path | str, frames: int, size: tuple[int, int]) -> Flow:
    """Flow that another program found: `folder/forward` and `folder/backward`, F - 1 files each, by name.

    Files are Middlebury `.flo`, as RAFT's own code writes them, or `.npy` of shape (H, W, 2) or (2, H, W), of
    one size; they are resized to the frames' `size` (H, W). Raises InputError with one sentence.
    """
    both = [_read_way(Path(folder) / way, frames - 1, size) for way in ("forward", "backward")]
    return Flow(*both)


def _read_way(folder: Path, count: int, size: tuple[int, int]) -> Tensor:
    suffixes = (".flo", ".npy")
    files = sorted(p for p in folder.glob("*") if p.suffix in suffixes) if folder.is_dir() else []
    if len(files) != count:
        raise InputError(
            f"{folder} holds {len(files)} files of flow, and the video needs {count}.",
            "There has to be one .flo or .npy file for each pair of neighbouring frames.",
        )
    flows = [_read_file(file) for file in files]
    if len(sizes := {flow.shape for flow in flows}) > 1:
        raise InputError(f"The flow in {folder} has {len(sizes)} different sizes.")
    return resized(torch.stack(flows), size)


def _read_file(path: Path) -> Tensor:
    """(2, H, W) from one file."""
    content = read_bytes(path, max_bytes=MAX_BYTES)
    try:
        array = _flo(content) if path.suffix == ".flo" else np.load(BytesIO(content), allow_pickle=False)
        flow = torch.as_tensor(np.array(array, dtype=np.float32))  # a copy, which may be written to
    except (ValueError, TypeError, EOFError) as problem:
        raise InputError(f"{path} is not a sound file of flow: {problem}.") from problem
    if flow.ndim == 3 and flow.shape[-1] == 2:
        flow = flow.permute(2, 0, 1)
    if flow.ndim != 3 or flow.shape[0] != 2 or not bool(flow.isfinite().all()):
        shape = " x ".join(map(str, flow.shape))
        raise InputError(f"{path} holds no flow: its numbers are {shape}.", "It has to be (H, W, 2), finite.")
    return flow.contiguous()


def _flo(content: bytes) -> NDArray[np.float32]:
    """Middlebury's format: a check number, width, height, then (u, v) row by row, little-endian."""
    if len(content) < 12 or np.frombuffer(content, "<f4", 1)[0] != _FLO:
        raise ValueError("it does not begin like one")
    width, height = (int(n) for n in np.frombuffer(content, "<i4", 2, 4))
    if width < 1 or height < 1 or len(content) != 12 + 8 * width * height:
        raise ValueError(f"it announces {width} x {height} pixels and has {len(content)} bytes")
    return np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2)


SHORT_SIDE = 256
"""Smaller frames are enlarged for DIS, whose patches of 8 pixels would blur what is small."""


def _enlargement(height: int, width: int) -> int:
    return max(1, round(SHORT_SIDE / min(height, width)))


def _between(cv2: Any, finder: Any, one: Any, other: Any, scale: int) -> Tensor:
    """(2, H, W), found at `scale` times the size."""
    height, width = one.shape
    if scale > 1:
        size = (width * scale, height * scale)
        one, other = (cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC) for picture in (one, other))
    found = torch.as_tensor(finder.calc(one, other, None)).permute(2, 0, 1)
    return resized(found[None], (height, width))[0].contiguous()


def _picture(frame: Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy())


def _pixels(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    y = torch.arange(height, device=device)[:, None] + 0.5
    x = torch.arange(width, device=device)[None] + 0.5
    return y, x
