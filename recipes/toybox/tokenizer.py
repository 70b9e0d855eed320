"""Stage `tokenizer`: a small byte-pair vocabulary in CLIP's layout, trained on what is said about the toy
world.

Like CLIP's it is lower case and works on bytes, the last one of a word marked `</w>`, so it can spell any
word. Sennrich et al. 2016 (byte-pair encoding), Radford et al. 2019 (on bytes).
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from recipes.toybox.loop import Run
from recipes.toybox.scales import MAX_TOKENS
from scumble.core.rng import derive
from scumble.world.instructions import instruct
from scumble.world.sampling import sample_scene
from scumble.world.words import caption, vocabulary

START, END = "<|startoftext|>", "<|endoftext|>"
SENTENCES = 4000
END_OF_WORD = "</w>"


def stage(run: Run) -> None:
    """Write the tokenizer's folder."""
    build(texts(run.seed), run.scale.vocabulary).save_pretrained(folder(run.out))


def folder(out: Path) -> Path:
    return out / "tokenizer"


def load(out: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder(out))


def texts(seed: int, count: int = SENTENCES) -> list[str]:
    """Captions of the whole world and instructions, every word of it at least often enough to become one
    token.
    """
    seeds = [derive(seed, "tokenizer", i) for i in range(count)]
    scenes = [sample_scene(s) for s in seeds]
    sentences = [caption(scene, s, spelled=0.0) for s, scene in zip(seeds, scenes, strict=True)]
    instructions = [instruct(scene, s).text for s, scene in zip(seeds, scenes, strict=True)]
    return sentences + instructions + [" ".join(vocabulary())] * 20


def build(sentences: list[str], size: int) -> CLIPTokenizer:
    """A CLIP tokenizer of at most `size` entries: bytes, bytes that end a word, merges, start and end of
    text.
    """
    bpe = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(letters) - 2,
        initial_alphabet=letters,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
        min_frequency=2,
    )
    bpe.train_from_iterator(sentences, trainer)
    return _in_clip_layout(bpe, letters)


def _in_clip_layout(bpe: Tokenizer, letters: list[str]) -> CLIPTokenizer:
    """Bytes first, then bytes at a word's end, then merges in their order, then the two marks, as CLIP
    counts them.
    """
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    names = [
        *letters,
        *(letter + END_OF_WORD for letter in letters),
        *("".join(pair) for pair in merges),
        START,
        END,
    ]
    vocab = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)
