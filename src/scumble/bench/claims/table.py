"""The claims as data, and when a figure means that one holds."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from scumble.core.config import Config

__all__ = ["Claim", "Holds", "claims"]


class Holds(Config):
    """When a figure says that a claim holds: one of three."""

    at_least: float | None = None
    """From which on it does."""
    at_most: float | None = None
    """Up to which it does."""
    between: tuple[float, float] | None = None
    """From the first to the second."""

    @model_validator(mode="after")
    def _one(self) -> Holds:
        if sum(value is not None for value in (self.at_least, self.at_most, self.between)) != 1:
            raise ValueError("it has to be one of at_least, at_most, between")
        return self

    def __call__(self, figure: float) -> bool:
        """Whether the claim holds; rounding in the last digit that is shown does not count against it."""
        if self.at_least is not None:
            return figure >= self.at_least - ROUNDING
        if self.at_most is not None:
            return figure <= self.at_most + ROUNDING
        assert self.between is not None
        return self.between[0] - ROUNDING <= figure <= self.between[1] + ROUNDING

    def __str__(self) -> str:
        if self.between is not None:
            return f"{self.between[0]:g} to {self.between[1]:g}"
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"


ROUNDING = 1e-6


class Claim(Config):
    """One claim of a paper."""

    name: str
    """METHOD/what, fit for a file's name but for the stroke."""
    claim: str
    """What is claimed, in our words."""
    where: str
    """The paper and the place in it."""
    published: str
    """What the paper shows for it."""
    how: str
    """What is measured here."""
    holds: Holds
    """When it holds, written before it was measured."""
    untold: str = ""
    """In a sentence, why nothing can be told where the figure is no number; empty where it always is one."""
    not_here: str = ""
    """In a sentence, why there is no experiment for it here; empty where there is one."""

    @property
    def method(
        self,
    ) -> Literal[
        "textual-inversion", "dreambooth", "custom-diffusion", "instruct-pix2pix", "sdedit", "text2live"
    ]:
        """Whose it is."""
        return self.name.partition("/")[0]  # pyright: ignore[reportReturnType]


@cache
def claims() -> tuple[Claim, ...]:
    """All claims, in the order of the papers."""
    text = (Path(__file__).parent / "claims.toml").read_text(encoding="utf-8")
    return tuple(Claim.of(row) for row in tomllib.loads(text)["claim"])
