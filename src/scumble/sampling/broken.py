"""What is said where a model gives no picture."""

from __future__ import annotations

import torch

from scumble.core.errors import NumericError
from scumble.models.model import Model

__all__ = ["no_picture"]


def no_picture(model: Model) -> NumericError:
    """The error that `model` gave NaN; the remedy fits what it computes in."""
    if model.dtype == torch.float16:
        remedy = "Half precision overflows in some models: use --dtype float32."
    else:
        remedy = "Lower the scale of learnt weights (--with) and the weights in the prompt, if there are any."
    return NumericError("The model gave NaN instead of a picture.", remedy)
