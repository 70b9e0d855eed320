"""CLIP's tokenizer without a download, for single files, which hold no vocabulary.

Byte-level byte-pair encoding (Radford et al. 2021): the vocabulary is the 256 bytes, the 256 bytes that end a
word, one entry a merge, and the two markers. So the list of merges, which ships with the package, is all
there is to keep.
"""

from __future__ import annotations

import lzma
from importlib.resources import files
from typing import Any

from transformers import CLIPTokenizer

__all__ = ["byte_letters", "clip_tokenizer"]

_END = "</w>"


def clip_tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """The tokenizer of SD 1.x and SDXL's first text encoder; SD 2.x and SDXL's second pad with `!`."""
    packed = files("scumble.models").joinpath("clip_merges.txt.xz").read_bytes()
    merges: Any = [tuple(line.split()) for line in lzma.decompress(packed).decode().splitlines()]
    letters = byte_letters()
    tokens = [
        *letters,
        *(letter + _END for letter in letters),
        *("".join(merge) for merge in merges),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad, model_max_length=77)


def byte_letters() -> list[str]:
    """The printable character that stands for each byte, in the order of the vocabulary.

    Bytes that print in Latin-1 stand for themselves and come first; the others take the characters from 256
    up.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + index) for index in range(others)]
