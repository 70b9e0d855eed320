"""`scumble history`: what was made, from what."""

from __future__ import annotations

from typing import Annotated

import typer

from scumble.cli import options
from scumble.cli.console import follow, give, say, size
from scumble.cli.redo import Inputs, Settings, reference

__all__ = ["app", "branch", "history", "prune", "show", "thumbnails"]

Reference = Annotated[str, typer.Argument(help="A picture made by scumble, or its number in the history.")]
Count = Annotated[int, typer.Option(min=1, help="How many of the newest.")]

app = typer.Typer(name="history", help="What was made, and from what.", invoke_without_command=True)


@app.callback()
def history(context: typer.Context, count: Count = 20, as_json: options.Json = False) -> None:
    """List what was made, newest first."""
    if context.invoked_subcommand is not None:
        return
    from scumble.verbs.history import facts, line, newest

    entries = newest(count)
    text = "\n".join(map(line, entries)) or "The history is empty."
    give({"entries": [facts(entry) for entry in entries]}, as_json=as_json, text=text)


@app.command()
def show(picture: Reference, as_json: options.Json = False) -> None:
    """Show how a picture was made, what it came from, and what came from it."""
    from scumble.verbs.history import described, told

    about = described(reference(picture))
    give(about, as_json=as_json, text=told(about))


@app.command()
def prune(
    keep: Annotated[int | None, typer.Option(min=0, help="Forget all but so many of the newest.")] = None,
    days: Annotated[float | None, typer.Option(min=0, help="Forget what is older.")] = None,
    gone: Annotated[bool, typer.Option("--gone", help="Forget what lies no longer where it was.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many it would be, and stop.")] = False,
    as_json: options.Json = False,
) -> None:
    """Forget entries of the history. The pictures stay, but `redo` then has to be given what went in."""
    from scumble.verbs.history import forget

    done = forget(keep=keep, days=days, gone=gone, only_count=dry_run)
    would = "would be " if dry_run else ""
    text = f"{done.forgotten} {would}forgotten, {done.left} left in {size(done.bytes)}"
    give(done.facts(), as_json=as_json, text=text)


@app.command()
def thumbnails(
    output: options.Output,
    count: Count = 100,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw a sheet of the newest pictures, each over its number."""
    from scumble.verbs.history import thumbnails_to

    path = thumbnails_to(output, count=count, overwrite=overwrite)
    give({"picture": str(path)}, as_json=as_json, text=str(path))


@app.command()
def branch(
    picture: Reference,
    output: options.Output,
    at: Annotated[int, typer.Option(help="Number of the ancestor to change; itself, if not an ancestor's.")],
    changes: Settings = None,
    inputs: Inputs = None,
    device: options.Device = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    as_json: options.Json = False,
) -> None:
    """Change an ancestor of a picture, and do again all that came after it, into a folder."""
    from scumble.verbs.branch import branch_to, plan_branch

    given = {"changes": changes or (), "inputs": inputs or (), "device": device}
    if dry_run:
        plans = plan_branch(reference(picture), at, output, **given)
        steps_to_come = [f"{output / name}: {planned.recipe.command}" for name, planned in plans.items()]
        give({"steps": steps_to_come}, as_json=as_json, text="\n".join(steps_to_come))
        return
    steps = follow(branch_to(reference(picture), at, output, **given))
    for step in steps:
        if step.note:
            say(step.note)
    files = [step.file for step in steps]
    give({"pictures": files}, as_json=as_json, text="\n".join(str(file["path"]) for file in files))
