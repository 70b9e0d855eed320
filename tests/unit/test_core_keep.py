"""What is slow to make is kept where somebody said so, and nowhere else."""

from __future__ import annotations

import threading

import pytest

from scumble.core.keep import keeping, kept


def test_outside_everything_is_made_anew() -> None:
    assert kept("a", object) is not kept("a", object)


def test_inside_it_is_made_once_and_the_one_not_asked_for_longest_makes_room() -> None:
    with keeping(2):
        a, b = kept("a", object), kept("b", object)
        assert kept("a", object) is a
        kept("c", object)
        assert kept("a", object) is a
        assert kept("b", object) is not b
    assert kept("a", object) is not a


def test_room_is_made_before() -> None:
    """So that two large models are never there where one may be."""
    alive: set[int] = set()

    class Large:
        def __init__(self) -> None:
            alive.add(id(self))
            assert len(alive) == 1

        def __del__(self) -> None:
            alive.discard(id(self))

    with keeping(1):
        for key in range(3):
            kept(key, Large)


def test_what_could_not_be_made_is_not_kept() -> None:
    with keeping(1):
        with pytest.raises(ZeroDivisionError):
            kept("a", lambda: 1 / 0)
        assert kept("a", lambda: 1) == 1


def test_clearing_lets_go_of_all() -> None:
    with keeping(2) as shelf:
        a = kept("a", object)
        shelf.clear()
        assert kept("a", object) is not a


def test_other_threads_keep_nothing() -> None:
    found: list[object] = []
    with keeping(1):
        a = kept("a", object)
        thread = threading.Thread(target=lambda: found.append(kept("a", object)))
        thread.start()
        thread.join()
    assert found[0] is not a
