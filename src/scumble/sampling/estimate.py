"""How long a run will take and how much memory it needs, without running it.

One call of the network is traced on fake tensors, which have shapes and no values: that gives its
multiply-adds and the most bytes alive at once. The machine's own speed is measured on one matrix product.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from scumble.core.config import Config
from scumble.models.model import Model

__all__ = [
    "Cost",
    "Estimate",
    "flops_per_second",
    "model_bytes",
    "needs",
    "parameter_bytes",
    "seconds",
    "trace",
]

EFFICIENCY = 0.5
"""Share of the matrix-product speed that a whole network reaches; convolutions lose the rest."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call needs."""

    flops: int
    peak_bytes: int
    """Most bytes of activations alive at once."""


class Estimate(Config):
    """What a run will need."""

    seconds: float
    """Time of the work itself, without loading."""
    memory_bytes: int
    """Parameters and the most activations alive at once."""
    settings: dict[str, Any]
    """The settings, defaults filled in."""


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages made and not yet freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_iter(out):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def trace(call: Callable[[], Any]) -> Cost:
    """The cost of `call()`, run on fake tensors; real parameters it uses are only looked at."""
    counter, bytes_alive = FlopCounterMode(display=False), _LiveBytes()
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), bytes_alive, counter:
        call()
    return Cost(flops=counter.get_total_flops(), peak_bytes=bytes_alive.peak)


def parameter_bytes(*modules: nn.Module | None) -> int:
    """Bytes that the parameters and buffers of `modules` take."""
    tensors = (t for m in modules if m is not None for t in (*m.parameters(), *m.buffers()))
    return sum(t.numel() * t.element_size() for t in tensors)


def model_bytes(*models: Model) -> int:
    """Bytes that the networks of `models` take."""
    return sum(parameter_bytes(m.denoiser, m.autoencoder, *m.text_encoders) for m in models)


def needs(models: Sequence[Model], costs: Sequence[Cost], settings: dict[str, Any]) -> Estimate:
    """What `costs`, one after the other, come to while all of `models` stay loaded, on the device of the
    first.
    """
    return Estimate(
        seconds=seconds(sum(cost.flops for cost in costs), models[0].device, models[0].dtype),
        memory_bytes=model_bytes(*models) + max(cost.peak_bytes for cost in costs),
        settings=settings,
    )


def seconds(flops: float, device: torch.device, dtype: torch.dtype) -> float:
    """How long networks take for so many floating-point operations on `device`."""
    return flops / (flops_per_second(device, dtype) * EFFICIENCY)


def flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a matrix product on `device`, measured in some 50 ms."""
    n = 512 if device.type == "cpu" else 4096
    a = torch.ones(n, n, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        products = [a @ a for _ in range(4)]
        products[-1][0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 4 * 2 * n**3 / best
