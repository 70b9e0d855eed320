"""What a denoiser is told beside the noisy picture: the encoded prompt and, for SDXL, sizes.

Letters: B prompts, L tokens (77 for each chunk of a long prompt), D width, P width of the pooled embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from scumble.core.errors import InputError

__all__ = ["Condition", "time_ids"]


@dataclass(frozen=True, slots=True)
class Condition:
    """Encoded prompts.

    `embeddings` (B, L, D); `pooled` (B, P) and `added` (B, 6), see `time_ids`, only for SDXL; `mask` (B, L)
    is True where a token may be attended to, or None when all may, which is so unless prompts of different
    length were joined.
    """

    embeddings: Tensor
    pooled: Tensor | None = None
    added: Tensor | None = None
    mask: Tensor | None = None

    def __len__(self) -> int:
        return self.embeddings.shape[0]

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        """One condition with the rows of all, in order.

        Shorter ones are padded with tokens that nothing attends to, so a row has the same effect on the
        denoiser alone and in company. Raises InputError when some have sizes or a pooled embedding and some
        have not.
        """
        length = max(condition.embeddings.shape[1] for condition in conditions)
        if any(c.mask is not None or c.embeddings.shape[1] != length for c in conditions):
            conditions = [condition._padded(length) for condition in conditions]
        return Condition(
            torch.cat([condition.embeddings for condition in conditions]),
            _joined([condition.pooled for condition in conditions], "a pooled embedding"),
            _joined([condition.added for condition in conditions], "sizes"),
            _joined([condition.mask for condition in conditions], "a mask"),
        )

    def select(self, rows: Sequence[int] | slice | Tensor) -> Condition:
        """The condition of some of the rows; an index may occur more than once."""
        return self._mapped(lambda tensor: tensor[rows])

    def expand(self, count: int) -> Condition:
        """`count` rows: itself if it has as many, its one row repeated otherwise. Raises InputError."""
        if len(self) == count:
            return self
        if len(self) != 1:
            raise InputError(
                f"{len(self)} prompts cannot be spread over {count} pictures.", "Give one, or one for each."
            )
        return self._mapped(lambda tensor: tensor.expand(count, *tensor.shape[1:]))

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> Condition:
        """The same on another device; `dtype` recasts the embeddings, never sizes or the mask."""
        moved = self._mapped(lambda tensor: tensor.to(device))
        pooled = None if moved.pooled is None else moved.pooled.to(dtype)
        return replace(moved, embeddings=moved.embeddings.to(dtype), pooled=pooled)

    def sized(self, ids: Tensor) -> Condition:
        """The same with the sizes `ids` (B, 6) or (1, 6), of `time_ids`; unchanged if it has none."""
        if self.added is None:
            return self
        return replace(self, added=ids.to(self.added).expand_as(self.added))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Condition:
        optional = (
            None if tensor is None else change(tensor) for tensor in (self.pooled, self.added, self.mask)
        )
        return Condition(change(self.embeddings), *optional)

    def _padded(self, length: int) -> Condition:
        missing = length - self.embeddings.shape[1]
        mask = self.mask
        if mask is None:
            mask = torch.ones(self.embeddings.shape[:2], dtype=torch.bool, device=self.embeddings.device)
        return replace(
            self,
            embeddings=pad(self.embeddings, (0, 0, 0, missing)),
            mask=pad(mask, (0, missing), value=False),
        )


def time_ids(
    original: tuple[int, int], crop: tuple[int, int] = (0, 0), target: tuple[int, int] | None = None
) -> Tensor:
    """SDXL's size conditioning (Podell et al. 2023, section 2.2): a (1, 6) float32 row.

    In pixels: (height, width) of the picture before any cropping, (top, left) of the crop, and (height,
    width) of the picture to be made (`target`, the same as `original` if not given).
    """
    return torch.tensor([[*original, *crop, *(target or original)]], dtype=torch.float32)


def _joined(tensors: Sequence[Tensor | None], what: str) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    if not present:
        return None
    if len(present) != len(tensors):
        raise InputError(
            f"Prompts encoded with and without {what} cannot be joined.", "Encode them with the same model."
        )
    return torch.cat(present)
