"""Random numbers: a seed belongs to an image, not to a run.

Each image has a generator of its own, always on the CPU, so that image 17 gets the same noise whatever the
batch it is drawn in, the number of processes or the device the model runs on. Nothing here reads or sets the
global generators.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from scumble.core.errors import InputError

__all__ = ["MAX_SEED", "derive", "generator", "generators", "randn"]

MAX_SEED = 2**63 - 1
"""Seeds are integers from 0 to this, both included."""


def derive(seed: int, *purpose: str | int) -> int:
    """A seed in [0, MAX_SEED] that depends on `seed` and on every part of `purpose`, and on nothing else.

    `derive(7, "timesteps", 12)` is stable across machines, processes and Python versions. Parts are written
    with their type and length before hashing, so that `("a", "b")`, `("ab",)` and `("a", 1)`, `("a1",)`
    differ.
    """
    digest = blake2b(digest_size=8, person=b"scumble rng")
    for part in (_checked(seed), *purpose):
        text = str(part).encode(errors="surrogatepass")
        digest.update(b"%c%d:" % (b"i" if isinstance(part, int) else b"s", len(text)))
        digest.update(text)
    return int.from_bytes(digest.digest(), "big") >> 1


def generator(seed: int) -> torch.Generator:
    """A CPU generator started at `seed`. Raises InputError for a seed outside [0, MAX_SEED]."""
    return torch.Generator("cpu").manual_seed(_checked(seed))


def generators(seeds: Iterable[int]) -> list[torch.Generator]:
    """One CPU generator a seed, in order."""
    return [generator(seed) for seed in seeds]


def randn(
    shape: Sequence[int],
    generators: Sequence[torch.Generator],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal noise (B, *shape), row i drawn from `generators[i]`; B is the number of generators.

    Drawn on the CPU in float32 and only then moved and cast, so the values do not depend on device and dtype
    beyond the rounding of the cast.
    """
    if not generators:
        raise InputError(
            "Noise was asked for with no generator at all.", "Give one generator for each image."
        )
    noise = torch.stack([torch.randn(tuple(shape), generator=g) for g in generators])  # (B, *shape)
    if torch.device(device).type == "cuda":
        noise = noise.pin_memory().to(device, non_blocking=True)  # a copy that nobody waits for
    return noise.to(device=device, dtype=dtype)


def _checked(seed: int) -> int:
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"The seed {seed} is out of range.", f"Seeds go from 0 to {MAX_SEED}.")
    return seed
