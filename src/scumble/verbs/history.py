"""What was made, and from what; another way from any point of it is in `scumble.verbs.branch`.

The history is looked at in passing, so torch is loaded for a sheet of pictures only.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from scumble.core.errors import InputError
from scumble.history.recipe import Recipe, printable
from scumble.history.store import SIDE, Entry, Store

__all__ = [
    "Pruned",
    "ancestors",
    "described",
    "entry_of",
    "facts",
    "forget",
    "line",
    "newest",
    "thumbnails_to",
    "told",
]

LABEL = 14
"""Height of the line under a thumbnail, in pixels."""


def newest(count: int = 20) -> list[Entry]:
    """The newest entries of the history, newest first. Raises InputError where it cannot be used."""
    with Store.opened() as store:
        return store.newest(count)


def facts(entry: Entry) -> dict[str, Any]:
    """An entry for programs, without its recipe and thumbnail."""
    return {
        "number": entry.number,
        "made": datetime.fromtimestamp(entry.made).astimezone().isoformat(timespec="seconds"),
        "path": str(entry.place),
        "there": entry.is_there,
        "sha256": entry.hash,
        "command": entry.recipe.command,
        "prompt": str(entry.recipe.settings.get("prompt", "")),
    }


def line(entry: Entry) -> str:
    """An entry on one line, safe to print."""
    about = facts(entry)
    gone = "" if about["there"] else "  (gone)"
    when, prompt = about["made"][:16].replace("T", " "), printable(about["prompt"], 40)
    path = printable(about["path"], 200)
    return (
        f"{entry.number:>6}  {when}  {printable(about['command'], 20):<12}  {path}{gone}  {prompt}".rstrip()
    )


def described(what: Path | int) -> dict[str, Any]:
    """How a picture was made, its ancestors and what came from it; of a file that the history does not know,
    its recipe alone. Raises InputError for what is neither in the history nor has a recipe.
    """
    with Store.opened() as store:
        entry = entry_of(store, what)
        if entry is None:
            from scumble.history.embed import read_recipe

            assert isinstance(what, Path)
            return {"recipe": _plain(read_recipe(what)), "ancestors": [], "children": []}
        return {
            **facts(entry),
            "recipe": _plain(entry.recipe),
            "ancestors": [facts(ancestor) | {"depth": depth} for depth, ancestor in ancestors(store, entry)],
            "children": [facts(child) for child in store.children(entry)],
        }


def told(about: dict[str, Any]) -> str:
    """What `described` gives, for people."""
    recipe = about["recipe"]
    rows = [(name, about[name]) for name in ("number", "made", "path") if name in about]
    rows += [("command", recipe["command"]), ("seed", recipe["seed"]), *recipe["settings"].items()]
    model = [recipe["model"]] if "model" in recipe else []
    rows += [(i["role"], f"{i['name']} ({i['hash'][:12]})") for i in [*model, *recipe["ingredients"]]]
    text = [f"{printable(str(name), 40)}: {printable(str(value), 400)}" for name, value in rows]
    for title, members in (("made from", about["ancestors"]), ("used in", about["children"])):
        for member in members:
            indent = "  " * member.get("depth", 1)
            text.append(f"{title}: {indent}{member['number']}  {printable(member['path'], 200)}")
    return "\n".join(text)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `forget` left."""

    forgotten: int
    left: int
    bytes: int

    def facts(self) -> dict[str, int]:
        return asdict(self)


def forget(
    *, keep: int | None = None, days: float | None = None, gone: bool = False, only_count: bool = False
) -> Pruned:
    """Forget entries: all but the newest `keep`, those older than `days`, those whose file is `gone`; or with
    `only_count` only say how many that would be.

    Files are not touched. Raises InputError where none of them is given.
    """
    if keep is None and days is None and not gone:
        raise InputError("Nothing was said to forget.", "Say --keep 1000, --days 90 or --gone.")
    with Store.opened() as store:
        before = None if days is None else time.time() - days * 86400
        forgotten = store.prune(keep=keep, older_than=before, gone=gone, only_count=only_count)
        left = store.count - forgotten if only_count else store.count
        return Pruned(forgotten, left, store.size)


def thumbnails_to(out: Path, *, count: int = 100, overwrite: bool = False) -> Path:
    """A sheet of the newest `count` pictures, each over its number, in the file `out`.

    Raises InputError for more than one sheet holds, and where there are none.
    """
    from scumble.core.images import SHEET_PIXELS, grid, save_image
    from scumble.verbs.outputs import is_folder, planned_paths

    if count > (most := SHEET_PIXELS // (SIDE * (SIDE + LABEL))):
        raise InputError(f"{count:,} thumbnails do not go onto one sheet.", f"Ask for {most:,} at most.")
    [path] = planned_paths(out / "history.png" if is_folder(out) else out, [0], overwrite=overwrite)
    entries = [entry for entry in newest(count) if entry.thumbnail]
    if not entries:
        raise InputError("The history is empty.", "It fills as pictures are made.")
    save_image(grid([_cell(entry) for entry in entries], background=(255, 255, 255)), path)
    return path


def entry_of(store: Store, what: Path | int) -> Entry | None:
    """The entry of that number, which has to be there, or of that file, which has one or none."""
    return store.entry(what) if isinstance(what, int) else store.of_file(what)


def ancestors(store: Store, entry: Entry) -> list[tuple[int, Entry]]:
    """(depth, entry) of all that it came from, each once, nearest first."""
    seen, found, level, depth = {entry.number}, list[tuple[int, Entry]](), [entry], 0
    while level:
        depth += 1
        above = {parent.number: parent for member in level for parent in store.parents(member)}
        level = [parent for number, parent in above.items() if number not in seen]
        seen |= above.keys()
        found += [(depth, parent) for parent in level]
    return found


# Details


def _plain(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude_none=True)


def _cell(entry: Entry) -> Image.Image:
    cell = Image.new("RGB", (SIDE, SIDE + LABEL), "white")
    with Image.open(BytesIO(entry.thumbnail), formats=("WEBP",)) as small:
        cell.paste(small, ((SIDE - small.width) // 2, (SIDE - small.height) // 2))
    font = ImageFont.load_default(11)
    where = (SIDE / 2, SIDE + LABEL / 2)
    ImageDraw.Draw(cell).text(where, str(entry.number), fill=(60, 60, 60), font=font, anchor="mm")
    return cell
