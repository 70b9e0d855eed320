"""What learning begins from: the subjects' folders, what a person should know of them, and a run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from scumble.core.errors import InputError
from scumble.core.files import atomic_write
from scumble.core.runs import RunFolder
from scumble.data.subjects import Shot, Subject, read_subject
from scumble.models.model import Model
from scumble.training.checkpoints import free_settings
from scumble.training.fit import FitConfig
from scumble.training.processes import is_main_process, processes
from scumble.verbs.outputs import check_free, check_new

__all__ = [
    "begun_anew",
    "differences",
    "finished",
    "kept",
    "listing",
    "note_finished",
    "open_run",
    "read_inputs",
    "read_to_analyse",
    "run_folder",
    "same_inputs",
    "same_settings",
    "warnings",
]

PEOPLE = {
    "person", "persons", "people", "human", "man", "men", "woman", "women", "boy", "boys", "girl", "girls",
    "child", "children", "kid", "kids", "baby", "babies", "face", "faces", "portrait", "portraits", "selfie",
}  # fmt: skip
CONSENT = "You are learning a person: do so with their consent, and say that pictures made of them are made."
PARTS = ("pivotal", "upscaler")
"""Runs of their own within a run's folder."""
FINISHED = "README.txt"

Folders = Sequence[tuple[Path, str, str]]
"""Of each subject the folder, the word and the class noun."""


def read_inputs(subjects: Folders, out: Path, *, overwrite: bool = False) -> list[Subject]:
    """The subjects, where they can be learnt into `out`. Raises InputError and ImageError where not."""
    if out.suffix != ".safetensors":
        raise InputError(f"{out} is no name of a .safetensors file.", "Give one like rex.safetensors.")
    check_free([out], overwrite=overwrite)
    return _read(subjects)


def read_to_analyse(subjects: Folders, out: Path) -> list[Subject]:
    """The subjects, where what learning changes can be measured into the folder `out`. Raises InputError and
    ImageError where not.
    """
    check_new(out)
    return _read(subjects)


def _read(subjects: Folders) -> list[Subject]:
    if not subjects:
        raise InputError("There is nothing to learn.", "Give a folder of pictures.")
    return [read_subject(*subject) for subject in subjects]


def warnings(subjects: Sequence[Subject]) -> list[str]:
    """What a person should know before the work: of the pictures, and of people in them."""
    notes = [note for subject in subjects for note in subject.notes]
    told = [[s.noun] if s.noun else [shot.caption or "" for shot in s.shots] for s in subjects]
    people = any(PEOPLE & set(text.lower().split()) for texts in told for text in texts)
    return list(dict.fromkeys(notes)) + ([CONSENT] if people else [])


# The run


def run_folder(out: Path) -> Path:
    """Where the run that makes `out` keeps its settings, losses and checkpoints."""
    return out.with_suffix(".run")


def begun_anew(out: Path, *, overwrite: bool = False) -> bool:
    """Whether learning into `out` begins at the first step: nothing is kept of it, or it was finished and is
    to be overwritten. One that was stopped goes on.
    """
    folder = run_folder(out)
    return (overwrite and finished(folder)) or not kept(folder)


def kept(run: Path) -> bool:
    """Whether something is kept of an earlier try to go on from."""
    return any(run.glob("checkpoints/*.safetensors"))


def finished(run: Path) -> bool:
    """Whether the run in that folder has given its result."""
    return (run / FINISHED).is_file()


def note_finished(run: RunFolder, out: Path) -> None:
    """Write down that the run has given its result, `out`."""
    atomic_write(run.path / FINISHED, f"The learning of {out.name}: safe to remove.\n".encode())


def open_run(out: Path, *, overwrite: bool, keep: int) -> RunFolder:
    """The run's folder, without what a finished run left in it where that is to be overwritten; `keep` is how
    many checkpoints it holds.
    """
    run = RunFolder(run_folder(out), keep=keep)
    if is_main_process() and overwrite and finished(run.path):
        for path in (run.path, *(run.path / part for part in PARTS)):
            if path.is_dir():
                RunFolder(path).clear()
        (run.path / FINISHED).unlink()  # last, so that what is cut short here is done again
    processes().wait_for_everyone()
    return run


def same_inputs(
    run: RunFolder, method: str, subjects: Sequence[Subject], model: Model, config: FitConfig
) -> dict[str, Any]:
    """Note what a run learns, and on what. Raises InputError if it has begun with something else."""
    about: dict[str, Any] = {
        "method": method,
        "model": model.hash,
        "subjects": [
            [s.word, s.noun, [[shot.name, shot.caption, _digest(shot)] for shot in s.shots]] for s in subjects
        ],
    }
    if beside := getattr(config, "regularization", ""):
        about["regularization"] = listing(Path(beside))
    if run.begun_with() not in (None, about):
        raise InputError(
            f"{run.path} holds a run that learns something else.",
            "Give another output, or remove that folder.",
        )
    processes().wait_for_everyone()  # nobody reads what the first one writes
    if is_main_process():
        run.write_inputs(about)
    return about


def same_settings(run: RunFolder, config: FitConfig) -> None:
    """Note what a run is told. Raises InputError, and tells the differences, if it has begun with other
    settings than what may differ; `fit` itself makes sure of the rest.
    """
    if run.config.is_file() and run.latest_checkpoint()[0]:
        try:
            before = type(config).from_toml(run.config)
        except InputError:  # not written by this version: the checkpoint says whether it fits
            before = config
        if told := differences(before, config):
            raise InputError(
                f"{run.path} holds a run with other settings: {', '.join(told)}.",
                "Take the same again, give another output, or remove that folder.",
            )
    processes().wait_for_everyone()
    if is_main_process():
        run.write_config(config.to_toml())


def differences(before: FitConfig, after: FitConfig) -> list[str]:
    """What differs of the settings that a run goes on with, like "lr was 0.005 and is 0.002"."""
    free = free_settings(after)
    old, new = (config.model_dump(mode="json", exclude=free) for config in (before, after))
    other = [name for name in new if old[name] != new[name]]
    return [f"{name} was {_told(old[name])} and is {_told(new[name])}" for name in other]


def _told(value: Any) -> str:
    return "not set" if value is None else str(value)


def listing(place: Path) -> str:
    """A digest of the names and sizes of all files of a folder, or of the file."""
    files = sorted(file for file in place.rglob("*") if file.is_file()) or [place]
    told = [f"{file.relative_to(place)} {file.stat().st_size}" for file in files if file.is_file()]
    return sha256("\n".join(told).encode()).hexdigest()


def _digest(shot: Shot) -> str:
    mask = b"" if shot.mask is None else shot.mask.numpy().tobytes()
    return sha256(shot.image.tobytes() + mask).hexdigest()
