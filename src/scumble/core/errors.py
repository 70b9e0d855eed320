"""The error tree. Every error a person can cause carries one sentence and, where there is one, the remedy.

ScumbleError                 exit status 1
├── InputError               exit status 2: what was asked for cannot be done as asked
│   ├── ConfigError          a setting is unknown, of the wrong type or out of range
│   ├── ImageError           an image file or array cannot be used
│   ├── PromptError          a prompt cannot be used
│   ├── ModelError           a model cannot be found, read or is of a family not supported
│   └── WeightsError         learnt weights cannot be read, or cannot be used together
├── ResourceError            the machine ran out of something
│   ├── OutOfMemoryError
│   └── DiskFullError
├── NumericError             a computation gave NaN or infinity
└── MissingExtraError        an optional dependency is not installed
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DiskFullError",
    "ImageError",
    "InputError",
    "MissingExtraError",
    "ModelError",
    "NumericError",
    "OutOfMemoryError",
    "PromptError",
    "ResourceError",
    "ScumbleError",
    "WeightsError",
]


class ScumbleError(Exception):
    """Base of every error raised on purpose.

    `message` is one sentence with the offending value in it; `remedy`, when there is one, is one sentence
    that says what to do instead. `exit_status` is what the command line exits with.
    """

    exit_status = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()


class InputError(ScumbleError):
    """What was asked for cannot be done as asked."""

    exit_status = 2


class ConfigError(InputError):
    """A setting is unknown, of the wrong type or out of range."""


class ImageError(InputError):
    """An image file or array cannot be used."""


class PromptError(InputError):
    """A prompt cannot be used."""


class ModelError(InputError):
    """A model cannot be found or read, or is of a family that is not supported."""


class WeightsError(InputError):
    """Learnt weights cannot be read, or cannot be used together."""


class ResourceError(ScumbleError):
    """The machine ran out of something."""


class OutOfMemoryError(ResourceError):
    """Memory, of the accelerator or of the machine, ran out."""


class DiskFullError(ResourceError):
    """The disk is full; nothing was left half-written."""


class NumericError(ScumbleError):
    """A computation gave NaN or infinity."""


class MissingExtraError(ScumbleError):
    """An optional dependency is not installed; `remedy` names the extra to install."""
