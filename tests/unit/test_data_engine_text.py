"""Edits in words: what is let through, what is dropped and counted, and asking until all have answered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from scumble.core.errors import InputError
from scumble.core.events import finish
from scumble.datagen.completions import Answer, answer, ask_all, parse, question
from scumble.datagen.triples import MAX_LINE, MAX_TEXT, Sieve, Triple, grammar, read_triples, write_triples

GOOD = Triple("a red cat", "make it blue", "a blue cat")


def row(**changed: object) -> dict[str, object]:
    return {
        "input_caption": "a red cat",
        "instruction": "make it blue",
        "edited_caption": "a blue cat",
    } | changed


def test_the_papers_form_there_and_back() -> None:
    assert question("a red cat") == "a red cat\n##\n"
    assert answer(GOOD) == "make it blue\n%%\na blue cat\nEND"
    assert parse(answer(GOOD)) == ("make it blue", "a blue cat")
    assert parse(" make it blue \n%%\n a blue cat ") == ("make it blue", "a blue cat")


@pytest.mark.parametrize(
    "text",
    ["", "make it blue", "\n%%\na blue cat", "make it blue\n%%\n", "a\n%%\nb\n%%\nc", "a\n%%\nb\nand more",
     "make it blue %%" + "x" * 20_000],
)  # fmt: skip
def test_other_answers_are_none(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (row(instruction=None), "malformed"),
        (row(instruction=7), "malformed"),
        (row(instruction="  "), "malformed"),
        (row(edited_caption="a \x1b[31mblue cat"), "malformed"),
        (row(edited_caption="a blue \ud800 cat"), "malformed"),
        (row(edited_caption="x" * (MAX_TEXT + 1)), "malformed"),
        (row(edited_caption="A red, cat!"), "unchanged"),
        (row(instruction="Make it BLUE."), "duplicate"),
    ],
)
def test_what_is_dropped_is_counted_by_reason(given: dict[str, object], reason: str) -> None:
    sieve = Sieve()
    assert sieve.take("a red cat", " make it\nblue", "a blue  cat") == GOOD
    assert sieve.take(*given.values()) is None
    assert sieve.counts == {"taken": 2, "kept": 1, reason: 1}


def test_an_id_depends_on_the_words_alone() -> None:
    assert GOOD.id == Triple("a red cat", "make it blue", "a blue cat", "colour").id
    assert GOOD.id != Triple("a red", "cat make it blue", "a blue cat").id
    assert len(GOOD.id) == 16


def test_a_file_with_broken_lines_gives_the_good_ones(tmp_path: Path) -> None:
    lines = [
        json.dumps(row()),
        "not json",
        "[1, 2]",
        "",
        json.dumps(row(instruction="turn it blue", kind="colour")),
        json.dumps({"caption": "a dog", "edit": "add a hat", "output": "a dog in a hat"}),
        json.dumps({"input": "a mug", "edit": "make it metal", "output": "a metal mug"}),
        json.dumps(row(edited_caption="x" * MAX_LINE)),
        "[" * 20_000,
        json.dumps(row()),
        '{"input_caption": "cut',
    ]
    path = tmp_path / "edits.jsonl"
    path.write_bytes("\n".join(lines).encode() + b"\xff")
    sieve = Sieve()
    found = read_triples(path, sieve)
    assert [t.instruction for t in found] == ["make it blue", "turn it blue", "add a hat", "make it metal"]
    assert found[1].kind == "colour"
    assert sieve.counts == {"taken": 10, "kept": 4, "malformed": 5, "duplicate": 1}
    assert len(read_triples(path, Sieve(), most=2)) == 2
    write_triples(tmp_path / "again.jsonl", found)
    assert read_triples(tmp_path / "again.jsonl", Sieve()) == found


def test_a_file_without_a_good_line_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "edits.jsonl"
    path.write_text("nothing\nhere\n")
    with pytest.raises(InputError, match="no usable triple: 2 lines"):
        read_triples(path, Sieve())
    with pytest.raises(InputError, match="does not exist"):
        read_triples(tmp_path / "missing.jsonl", Sieve())


def test_the_grammar_gives_new_triples_of_scenes_that_training_may_see() -> None:
    sieve = Sieve()
    found = finish(grammar(sieve, 40, seed=3, profile="core"))
    assert len({t.id for t in found}) == 40 == sieve.counts["kept"]
    assert len({t.kind for t in found}) > 5
    assert found[:10] == finish(grammar(Sieve(), 10, seed=3, profile="core"))
    assert found[:10] != finish(grammar(Sieve(), 10, seed=4, profile="core"))
    with pytest.raises(InputError, match="no profile"):
        finish(grammar(Sieve(), 1, profile="none"))


class Model:
    """Answers from a list for each caption, one an attempt, and remembers what it was asked."""

    def __init__(self, answers: dict[str, list[Answer]], *, dies_after: int | None = None) -> None:
        self.answers, self.asked, self.dies_after = answers, list[tuple[tuple[str, ...], int]](), dies_after

    def __call__(self, captions: Sequence[str], attempt: int) -> list[Answer]:
        if self.dies_after == len(self.asked):
            raise KeyboardInterrupt
        self.asked.append((tuple(captions), attempt))
        return [self.answers[caption][attempt] for caption in captions]


def said(caption: str) -> Answer:
    return Answer(f"change {caption}\n%%\nnew {caption}")


BAD, REFUSED = Answer("no form at all"), Answer(None, "refused")
ANSWERS = {
    "a": [said("a")],
    "b": [BAD, said("b")],
    "c": [BAD, REFUSED, said("c")],
    "d": [BAD, BAD, BAD],
    "e": [REFUSED, REFUSED, REFUSED],
    "f": [Answer("leave it\n%%\nF.")],
}


def asked(model: Model, journal: Path) -> tuple[list[Triple], Sieve]:
    sieve = Sieve()
    captions = [*ANSWERS, "a"]  # one of them twice
    return finish(ask_all(captions, model, sieve, journal=journal, tries=3, at_once=2)), sieve


def test_what_has_no_good_answer_is_asked_again_and_counted(tmp_path: Path) -> None:
    model = Model(ANSWERS)
    triples, sieve = asked(model, tmp_path / "journal.jsonl")
    assert [t.input_caption for t in triples] == ["a", "b", "c"]
    assert model.asked == [
        (("a", "b"), 0), (("c", "d"), 0), (("e", "f"), 0),
        (("b", "c"), 1), (("d", "e"), 1),
        (("c", "d"), 2), (("e",), 2),
    ]  # fmt: skip
    assert sieve.counts == {
        "asked again": 7, "taken": 6, "kept": 3, "malformed": 1, "refused": 1, "unchanged": 1,
    }  # fmt: skip


@pytest.mark.parametrize("group", [0, 1, 4])
def test_a_stopped_run_goes_on_with_the_group_it_was_stopped_in(tmp_path: Path, group: int) -> None:
    whole, counts = asked(Model(ANSWERS), tmp_path / "whole.jsonl")
    journal = tmp_path / "journal.jsonl"
    with pytest.raises(KeyboardInterrupt):
        asked(Model(ANSWERS, dies_after=group), journal)
    if journal.exists():
        with journal.open("ab") as file:
            file.write(b'{"attempt": 0, "caption": "c", "te')  # cut short by the kill
    second = Model(ANSWERS)
    triples, again = asked(second, journal)
    assert triples == whole
    assert again.counts == counts.counts
    assert len(second.asked) == 7 - group
    assert asked(Model(ANSWERS, dies_after=0), journal)[0] == whole  # nothing is left to ask
