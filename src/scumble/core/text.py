"""Text that somebody else wrote, made harmless."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str, length: int) -> str:
    """At most `length` characters of a stranger's text on one line, without what could steer a terminal."""
    shown = "".join(c if c.isprintable() else " " for c in text[: length + 1])
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"
