"""Another way from any point of the history: one step made anew, and all that came of it after that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path

from scumble.core.errors import InputError
from scumble.core.events import Loop
from scumble.core.files import atomic_folder, sha256
from scumble.history.recipe import Ingredient
from scumble.history.store import Entry, Made, Store, remember
from scumble.verbs.find import role_and_file, stranger
from scumble.verbs.history import ancestors, entry_of
from scumble.verbs.outputs import check_free, check_new
from scumble.verbs.redo import Redone, carried_out
from scumble.verbs.redo_plan import Plan, plan

__all__ = ["branch_to", "plan_branch"]


def branch_to(
    what: Path | int,
    at: int,
    out: Path,
    *,
    changes: Sequence[str] = (),
    inputs: Sequence[str] = (),
    device: str | None = None,
) -> Loop[list[Redone]]:
    """Make entry `at`, an ancestor of the picture `what` or it itself, again with `changes` and `inputs`, and
    then every step from there to `what` from the new results, into the new folder `out`.

    Every step keeps its own seed and settings. `inputs` go by their content to the steps that they went into;
    a `ROLE=FILE` that is another file goes to the first step that has the role. Everything is found before
    the work, and the folder is written whole or not at all. Raises InputError where `at` is no ancestor.
    """
    plans = plan_branch(what, at, out, changes=changes, inputs=inputs, device=device)
    done: list[Redone] = []
    made: list[Made] = []
    with atomic_folder(out) as folder:
        for name, planned in plans.items():
            step, written = yield from carried_out(_moved(planned, out, folder), folder / name)
            note = f"{name}: {step.note}" if step.note else ""
            done.append(replace(step, file={**step.file, "path": str(out / name)}, note=note))
            made += written
    remember(_settled(one, folder, out) for one in made)
    return done


def plan_branch(
    what: Path | int,
    at: int,
    out: Path,
    *,
    changes: Sequence[str] = (),
    inputs: Sequence[str] = (),
    device: str | None = None,
) -> dict[str, Plan]:
    """What `branch_to` would do: the names of files in the folder `out`, and how each is made, in order.
    Raises what it raises.
    """
    check_new(out)
    with Store.opened() as store:
        end, start = entry_of(store, what), store.entry(at)
        if end is None:
            raise InputError(f"{what} is not in the history.", "Only what is there can be branched.")
        steps = _steps(store, start, end)
    names = [f"{number}-{step.place.name}" for number, step in enumerate(steps, 1)]
    check_free([out / name for name in names], overwrite=False)
    plans = _planned(steps, [out / name for name in names], changes, inputs, device)
    return dict(zip(names, plans, strict=True))


# Details


def _steps(store: Store, start: Entry, end: Entry) -> list[Entry]:
    """What has to be made anew, each after all that it is made from: `start` and what else came of that run,
    and everything between it and `end`, on whatever ways. Raises InputError where there is none.
    """
    above = {entry.hash: entry for _, entry in reversed(ancestors(store, end))} | {end.hash: end}
    if start.hash not in above:
        raise InputError(
            f"Number {start.number} is no ancestor of number {end.number}.",
            "`scumble history show` lists them.",
        )
    above |= {start.hash: start}
    origins = {
        digest: list(dict.fromkeys(i.hash for i in entry.recipe.ingredients if i.hash in above))
        for digest, entry in above.items()
    }
    anew: dict[str, Entry] = {}
    for digest in TopologicalSorter(origins).static_order():
        if _of_one_run(above[digest], start) or not anew.keys().isdisjoint(origins[digest]):
            anew[digest] = above[digest]
    return sorted(anew.values(), key=lambda entry: entry.hash != start.hash)


def _of_one_run(one: Entry, other: Entry) -> bool:
    """Whether both came of the same, such as a picture and the mask that goes with it."""
    same = ("command", "settings", "seed", "batch", "model", "ingredients")
    return all(getattr(one.recipe, name) == getattr(other.recipe, name) for name in same)


def _planned(
    steps: Sequence[Entry],
    places: Sequence[Path],
    changes: Sequence[str],
    inputs: Sequence[str],
    device: str | None,
) -> list[Plan]:
    """A plan for each of the `steps`, whose results go to `places`. Raises InputError for what is missing."""
    coming = {step.hash: place for step, place in zip(steps, places, strict=True)}
    plans: list[Plan] = []
    for step, given in zip(steps, _shares(steps, inputs), strict=True):
        first = _of_one_run(step, steps[0])
        planned = plan(
            step.number,
            inputs=given,
            changes=changes if first else (),
            device=device,
            coming=coming,
        )
        # What goes in is another than it was, so there is nothing to compare with.
        plans.append(planned if first else replace(planned, original=None))
    return plans


def _shares(steps: Sequence[Entry], given: Sequence[str]) -> list[list[str]]:
    """For each of the `steps`, the files among `given` that are meant for it. Raises InputError for a file
    that is meant for none.
    """
    anew = {step.hash for step in steps}
    free = [[i for i in step.recipe.ingredients if i.hash not in anew] for step in steps]
    shares: list[list[str]] = [[] for _ in steps]
    for text in given:
        role, file = role_and_file(text)
        fitting = _having(free, role, sha256(file))
        if not fitting and role is not None and (first := _having(free, role)):
            fitting = [n for n, step in enumerate(steps) if _of_one_run(step, steps[first[0]])]
        if not fitting:
            raise _useless(role, file, list(dict.fromkeys(i for each in free for i in each)))
        for number in fitting:
            shares[number].append(text)
    return shares


def _useless(role: str | None, file: Path, free: Sequence[Ingredient]) -> InputError:
    """The error for a file that no step has a use for."""
    if role is None:
        return stranger(file, free)
    roles = ", ".join(dict.fromkeys(i.role for i in free)) or "nothing"
    return InputError(f"No step is given a file with the role {role!r}.", f"There is: {roles}.")


def _having(free: Sequence[Sequence[Ingredient]], role: str | None, digest: str | None = None) -> list[int]:
    """Numbers of the steps with an ingredient of that role and content, where these are given."""
    return [
        number
        for number, ingredients in enumerate(free)
        if any(role in (None, i.role) and digest in (None, i.hash) for i in ingredients)
    ]


def _moved(planned: Plan, out: Path, folder: Path) -> Plan:
    """The same plan, with what comes from earlier steps in `folder`, where it is until all are done."""
    files = {r: folder / f.name if f.parent == out else f for r, f in planned.found.files.items()}
    return replace(planned, found=replace(planned.found, files=files))


def _settled(made: Made, folder: Path, out: Path) -> Made:
    """What was made in `folder`, which has become `out`: it and what it was made from lie there."""
    ingredients = tuple(
        Ingredient.of(i.role, out / i.name, i.hash, i.scale)
        if Path(i.place).parent == folder.absolute()
        else i
        for i in made.recipe.ingredients
    )
    recipe = made.recipe.model_copy(update={"ingredients": ingredients})
    return made._replace(path=out / made.path.name, recipe=recipe)
