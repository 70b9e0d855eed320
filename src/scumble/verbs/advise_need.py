"""What a person has and wants, from which `advise` finds a method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from scumble.core.config import Config

__all__ = ["LEARN", "LONG", "WISHES", "Need"]

WISHES = {
    "subject": "a particular subject in new pictures",
    "style": "a style",
    "local": "a change to a part of a picture",
    "whole": "a change to the whole picture",
    "strokes": "a natural picture from rough paint",
}
"""What a person may want."""
Want = Literal["subject", "style", "local", "whole", "strokes"]
LONG = 5.0
"""Minutes that learning a subject takes at least on a GPU, by the papers."""
HOUR = 60.0
"""Minutes under which nothing is learnt at full size without a GPU."""
LEARN = ("textual-inversion", "dreambooth", "custom-diffusion")
"""Methods that learn once; Text2LIVE learns for each picture, and the rest are ready."""


class Need(Config):
    """What a person has and wants."""

    want: Want | None = None
    """subject: it elsewhere; style; local: a part; whole: everything; strokes: paint made natural."""
    images: Annotated[int, Field(ge=0)] = 0
    """Photos of the subject, or pictures in the style."""
    subjects: Annotated[int, Field(ge=1, le=16)] = 1
    """How many subjects, in one picture."""
    told: Literal["words", "paint"] = "words"
    """How the change is told."""
    mask: bool = False
    """Whether there is a mask of what may change."""
    video: bool = False
    """Whether it is a video."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Time there is; none is any."""
    gpu: bool = False
    """Whether there is an accelerator."""
    toybox: bool = False
    """Whether it is for the toybox, which learns in minutes on a CPU."""
    picture: str = ""
    """The picture, or the video; empty for a name that says which."""
    photos: str = "photos"
    """The folder with the photos."""
    word: str = "<rex>"
    """The subject's word."""
    noun: str = "dog"
    """What it is a kind of."""
    prompt: str = ""
    """A caption of the result."""
    instruction: str = ""
    """What to do to the picture, as a command."""

    @property
    def is_film(self) -> bool:
        """Whether it is a video, said or by the picture's suffix."""
        from scumble.data.video import VIDEO_SUFFIXES  # which brings torch with it

        return self.video or Path(self.picture).suffix.lower() in VIDEO_SUFFIXES

    @property
    def file(self) -> str:
        """The picture, the video, or the paint that everything starts from."""
        painted = self.want == "strokes" or (self.want == "whole" and self.told == "paint")
        return self.picture or ("clip.mp4" if self.video else "painted.png" if painted else "photo.png")

    @property
    def is_hurried(self) -> bool:
        """Whether there is less time than learning anything takes: a minute on the toybox."""
        least = 1.0 if self.toybox else LONG if self.gpu else HOUR
        return self.minutes is not None and self.minutes < least

    @property
    def is_short(self) -> bool:
        """Whether there is no time for what learns slowly."""
        return self.minutes is not None and self.minutes <= 2 * LONG
