"""The toybox's tokenizer: CLIP's layout, one token a word of the world, and any other word spelled."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes.toybox import tokenizer
from transformers import CLIPTokenizer

from scumble.world.words import vocabulary


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.build(tokenizer.texts(0, count=300), 1500).save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def test_every_word_of_the_world_is_one_token(words: CLIPTokenizer) -> None:
    plain = [word for word in vocabulary() if word.isalpha()]
    assert len(plain) > 120
    assert {word: words.tokenize(word) for word in plain} == {word: [f"{word}</w>"] for word in plain}


@pytest.mark.parametrize("word", ["zwx", "xylophone", "naïve", "日本", "<rex>", "qqq"])
def test_any_word_is_spelled_without_an_unknown_token(words: CLIPTokenizer, word: str) -> None:
    ids = words(word, add_special_tokens=False).input_ids
    assert len(ids) >= 2
    assert words.unk_token_id not in ids
    assert words.decode(ids).replace(" ", "") == word


def test_layout_is_clips(words: CLIPTokenizer) -> None:
    assert words.model_max_length == 77
    assert len(words) <= 1500
    # Start and end are the last two entries, as in CLIP, whose text tower finds the end as the largest id.
    assert words.bos_token_id == len(words) - 2
    assert words.eos_token_id == words.pad_token_id == len(words) - 1
    ids = words("A  Cat", padding="max_length", truncation=True).input_ids
    assert ids[0] == words.bos_token_id
    assert ids[1:3] == words("a cat", add_special_tokens=False).input_ids
    assert ids[3:] == [words.eos_token_id] * 74


def test_the_same_seed_gives_the_same_entries(words: CLIPTokenizer, tmp_path: Path) -> None:
    again = tokenizer.build(tokenizer.texts(0, count=300), 1500)
    assert again.get_vocab() == words.get_vocab()
