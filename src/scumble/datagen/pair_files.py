"""Finished shards as a data set: a folder of pairs, WebDataset tars, or parquet that `datasets` reads.

The order is that of the shards, whoever did them and when, and nothing depends on the clock or the machine,
so the same shards give the same bytes. (Parquet files also depend on the version of pyarrow.)

| form | files | a pair |
|---|---|---|
| folder | `metadata.jsonl`, pictures | a line; `input`, `edited` and perhaps `mask` name pictures |
| webdataset | `pairs-000000.tar`, ... | `KEY.json`, `KEY.input.png`, `KEY.edited.png`, ... |
| parquet | `train-00000-of-00001.parquet`, ... | a row; pictures as `Image` columns |

Beside them stands `summary.json`: how many went in and how many each stage let through.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from scumble.core.errors import InputError, MissingExtraError
from scumble.core.events import Loop, Progress
from scumble.core.files import atomic_folder, explained
from scumble.datagen.shards import ROWS, Shard

__all__ = ["FORMS", "PICTURES", "Form", "require", "write_pairs"]

Form = Literal["folder", "webdataset", "parquet"]
PICTURES = ("input", "edited", "mask")
"""Keys of a row that name picture files."""
PER_FILE = 500
"""Pairs in a tar or parquet file."""

Row = tuple[Path, dict[str, Any]]
"""The folder of its pictures, and what is said of a pair."""


def require(form: Form) -> None:
    """Raises MissingExtraError where a library that `form` needs is not installed."""
    if form == "parquet":
        try:
            import_module("pyarrow.parquet")
        except ImportError:
            raise MissingExtraError(
                "Parquet files need pyarrow.", "Install it: pip install 'scumble[scale]'."
            ) from None


def write_pairs(
    shards: Sequence[Shard], folder: Path, out: Path, form: Form, summary: Mapping[str, Any]
) -> Loop[int]:
    """Write the pairs of finished `shards` in `folder` as the new folder `out`, whole or not at all; how
    many.

    Raises InputError where `out` is there and not empty, or no pair was kept.
    """
    require(form)
    total = sum(1 for _ in _rows(shards, folder))
    if not total:
        raise InputError(
            "Not one pair was kept.",
            "Lower the thresholds, draw more samples, or look at the summary of the run.",
        )
    with atomic_folder(out) as place:
        yield from FORMS[form](_rows(shards, folder), place, total)
        (place / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return total


def _rows(shards: Sequence[Shard], folder: Path) -> Iterator[Row]:
    for shard in shards:
        path = folder / shard.name / ROWS
        with explained(path, "read"), path.open(encoding="utf-8") as lines:
            for line in lines:
                yield path.parent, json.loads(line)


def _folder(rows: Iterator[Row], place: Path, total: int) -> Loop[None]:
    with (place / "metadata.jsonl").open("w", encoding="utf-8") as metadata:
        for done, (home, row) in enumerate(rows, 1):
            for key in PICTURES:
                if key in row:
                    _link(home / row[key], place / row[key])
            metadata.write(json.dumps(row, ensure_ascii=False) + "\n")
            yield Progress(stage="packing", step=done, total=total)


def _link(source: Path, target: Path) -> None:
    """A second name for the same file where the disk allows, which costs no space; else a copy."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def _webdataset(rows: Iterator[Row], place: Path, total: int) -> Loop[None]:
    done = 0
    for number in range(-(-total // PER_FILE)):
        with tarfile.open(place / f"pairs-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for home, row in islice(rows, PER_FILE):
                key = row["input"].removesuffix("-input.png")
                for name in PICTURES:
                    if name in row:
                        _add(tar, f"{key}.{name}.png", (home / row[name]).read_bytes())
                said = {name: value for name, value in row.items() if name not in PICTURES}
                _add(tar, f"{key}.json", json.dumps(said, ensure_ascii=False).encode())
                done += 1
                yield Progress(stage="packing", step=done, total=total)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    about = tarfile.TarInfo(name)  # no owner, and the beginning of time
    about.size = len(content)
    tar.addfile(about, BytesIO(content))


def _parquet(rows: Iterator[Row], place: Path, total: int) -> Loop[None]:
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    count = -(-total // PER_FILE)
    schema: Any = None
    for number in range(count):
        columns = [_with_bytes(home, row) for home, row in islice(rows, PER_FILE)]
        table = arrow.Table.from_pylist(columns, schema=schema)
        if schema is None:
            features = {field.name: _feature(field.name, field.type) for field in table.schema}
            about = json.dumps({"info": {"features": features}})
            schema = table.schema.with_metadata({"huggingface": about})
            table = table.replace_schema_metadata(schema.metadata)
        parquet.write_table(table, place / f"train-{number:05d}-of-{count:05d}.parquet")
        yield Progress(stage="packing", step=min(total, (number + 1) * PER_FILE), total=total)


def _with_bytes(home: Path, row: dict[str, Any]) -> dict[str, Any]:
    pictures = {
        key: {"bytes": (home / row[key]).read_bytes(), "path": row[key]} for key in PICTURES if key in row
    }
    return row | pictures


def _feature(name: str, kind: object) -> dict[str, str]:
    """What `datasets` is to make of a column."""
    if name in PICTURES:
        return {"_type": "Image"}
    return {"_type": "Value", "dtype": {"double": "float64"}.get(str(kind), str(kind))}


FORMS: dict[Form, Callable[[Iterator[Row], Path, int], Loop[None]]] = {
    "folder": _folder,
    "webdataset": _webdataset,
    "parquet": _parquet,
}
"""How a form is written, by its name."""
