"""Text that somebody else wrote, made harmless."""

from __future__ import annotations

import codecs

__all__ = ["decoded", "printable"]

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""What a file may begin with to say its encoding; UTF-8 needs no mark."""


def decoded(content: bytes) -> str | None:
    """The text in a file, by the mark that it begins with; None for neither UTF-8 nor UTF-16 with one."""
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text  # of UTF-16 without its mark every other byte is 0


def printable(text: str, length: int) -> str:
    """At most `length` characters of a stranger's text on one line, without what could steer a terminal."""
    shown = "".join(c if c.isprintable() else " " for c in text[: length + 1])
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"
