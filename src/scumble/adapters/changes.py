"""What learning does to one parameter: a dense change, or one of low rank. Each is a value, made against a
base.

Letters: W0 the base parameter (out, *in), W the changed one, s the scale a person asks for.

- Dense: W = W0 + s D.
- Low rank (Hu et al. 2021, section 4.1): W = W0 + s (alpha / r) B A, with A (r, *in), B (out, r). For a
convolution A
  is one with the same window and B one of 1 x 1.
- Low rank with magnitude, DoRA (Liu et al. 2024, equation 5): W1 = m V / |V| with V = W0 + (alpha / r) B A,
where
  |V| and m are one number for each output; then W = W0 + s (W1 - W0). The paper has no s; ours moves on the
  straight line from the base (0) to what was learnt (1).

As all of them are W0 plus something, several add up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scumble.core.errors import WeightsError
from scumble.models.model import Model

__all__ = ["Change", "Dense", "LowRank", "norms", "parameters_of", "refuse_unknown", "to_dense"]


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A change of the parameter's own shape."""

    delta: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by the names they have in a file."""
        return {"delta": self.delta}

    def fits(self, shape: torch.Size) -> bool:
        """Whether it can be applied to a parameter of this shape."""
        return self.delta.shape == shape

    def against(self, base: Tensor) -> Tensor:
        """W - W0 at scale 1, float32 on the device of `base`."""
        return self.delta.to(base.device, torch.float32)


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """A change of rank r: `a` (r, *in), `b` (out, r), and for DoRA `magnitude` (out,)."""

    a: Tensor
    b: Tensor
    alpha: float
    magnitude: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by the names they have in a file."""
        named = {"a": self.a, "b": self.b}
        return named if self.magnitude is None else named | {"magnitude": self.magnitude}

    def fits(self, shape: torch.Size) -> bool:
        """Whether it can be applied to a parameter of this shape, and its own tensors to one another."""
        return (
            len(shape) >= 2
            and self.b.shape == (shape[0], self.a.shape[0])
            and self.a.shape[1:] == shape[1:]
            and (self.magnitude is None or self.magnitude.shape == shape[:1])
        )

    def against(self, base: Tensor) -> Tensor:
        """W - W0 at scale 1, float32 on the device of `base`."""
        a, b = (tensor.to(base.device, torch.float32) for tensor in (self.a, self.b))
        delta = (self.alpha / len(a)) * (b @ a.flatten(1)).reshape(base.shape)
        if self.magnitude is None:
            return delta
        moved = base.float() + delta
        ratio = self.magnitude.to(moved) / norms(moved)  # (out,)
        return moved * ratio.reshape(-1, *[1] * (base.ndim - 1)) - base.float()


Change = Dense | LowRank


def to_dense(change: Change, base: Tensor) -> Dense:
    """The same change of `base` in the parameter's own shape."""
    return Dense(change.against(base))


def norms(weight: Tensor) -> Tensor:
    """The Euclidean norm of each output's weights: (out, *in) -> (out,), never quite 0: it can divide."""
    return weight.flatten(1).norm(dim=1).clamp_min(1e-12)


def parameters_of(model: Model) -> dict[str, torch.nn.Parameter]:
    """Every parameter that learnt weights may change, by the name it has in weights files.

    The part, as in a diffusers folder, then the module's own name for it; the autoencoder is left out.
    Releases of transformers differ in whether a text encoder's names begin with `text_model.`; here they
    never do.
    """
    found: dict[str, torch.nn.Parameter] = {}
    for part, module in model.parts().items():
        if part != "vae":
            for name, parameter in module.named_parameters():
                found[f"{part}.{name.removeprefix('text_model.')}"] = parameter
    return found


def refuse_unknown(names: set[str], known: set[str], what: str) -> None:
    """Raise WeightsError that names the first of `names` not in `known`."""
    unknown = sorted(names - known)
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise WeightsError(
            f"{what} has no parameter {unknown[0][:120]!r}{more}.", "It was learnt on another model."
        )
