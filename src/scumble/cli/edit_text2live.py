"""`scumble edit text2live`: change a picture or a video by a layer laid over it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scumble.cli import options
from scumble.cli.console import follow, give, give_needs, give_saved, say

__all__ = ["text2live"]

VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".apng")
"""Those of `scumble.data.video`, which is too heavy to load for a --help."""

Prompt = Annotated[
    list[str] | None,
    typer.Option(help="What the result shows; several are learnt one after another."),
]
Clip = Annotated[str | None, typer.Option(help="toybox, a folder with a CLIP, or a hub id.  [toybox]")]


def text2live(
    image: Annotated[Path, typer.Argument(help="A picture, a folder of pictures, or a video.")],
    output: options.Output,
    prompt: Prompt = None,
    screen: Annotated[str | None, typer.Option(help="What the layer alone shows.  [from the prompt]")] = None,
    region: Annotated[
        str | None, typer.Option(help="What is edited, as it is now.  [from the prompt]")
    ] = None,
    mask: options.Mask = None,
    atlas: Annotated[Path | None, typer.Option(help="Of a video, made by: scumble atlas.")] = None,
    layer: Annotated[
        str | None, typer.Option(help="Of the atlas: background, foreground, foreground-2.  [foreground]")
    ] = None,
    painted: Annotated[
        Path | None, typer.Option(help="The atlas's picture, painted by hand or by any edit, for a prompt.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="fast, paper, toybox.  [by the CLIP]")] = None,
    clip: Clip = None,
    steps: Annotated[int | None, typer.Option(help="Steps at most.  [300]")] = None,
    seed: options.Seed = None,
    previews: Annotated[
        Path | None, typer.Option(help="A picture to write again and again while the layer is learnt.")
    ] = None,
    device: options.Device = None,
    config: options.ConfigFile = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
    no_recipe: options.NoRecipe = False,
) -> None:
    """Edit by a layer of colour and opacity (Text2LIVE), learnt on this one picture or video."""
    given = dict(locals())
    if image.suffix.lower() in VIDEOS:
        _video(given)
        return
    from scumble.core.errors import InputError
    from scumble.verbs.edit_text2live import Job, Text2liveConfig, edit_to, estimate_edit

    if atlas or layer or painted:
        raise InputError(
            f"{image} is a picture, and atlases are of videos.", "Leave --atlas and its kin out."
        )
    settings = _settings(Text2liveConfig, given)
    job = Job.of(settings, image, output, then=(prompt or [])[1:], mask=mask, overwrite=overwrite)
    if dry_run:
        # The last prompt has those before it as its `earlier`; a seed that was drawn here is drawn anew then.
        give_needs(estimate_edit(job.configs[-1].replace(seed=settings.seed), image), as_json=as_json)
        return
    for note in job.notes:
        say(note)
    loop = edit_to(job, with_recipe=not no_recipe, preview_every=25 if previews else 0)
    give_saved(follow(loop, preview=previews), as_json=as_json)


def _video(given: dict[str, Any]) -> None:
    from scumble.core.errors import InputError
    from scumble.verbs.edit_video import VideoEditConfig, VideoJob, edit_video_to

    if len(given["prompt"] or []) > 1:
        raise InputError("A video takes one prompt at a time.", "Give one --prompt, then the next.")
    files = {name: given[name] for name in ("atlas", "mask", "painted")}
    settings = _settings(VideoEditConfig, given)
    job = VideoJob.of(settings, given["image"], given["output"], **files, overwrite=given["overwrite"])
    for note in job.notes:
        say(note)
    if given["dry_run"]:
        needs = settings.model_dump(mode="json", exclude_none=True)
        give({"settings": needs}, as_json=given["as_json"], text=f"nothing stands in its way\n{needs}")
        return
    previews = given["previews"]
    loop = edit_video_to(job, with_recipe=not given["no_recipe"], preview_every=25 if previews else 0)
    give_saved(follow(loop, preview=previews), as_json=given["as_json"], what="videos")


def _settings(kind: Any, given: dict[str, Any]) -> Any:
    """What was given of the settings of `kind`, over the TOML file; of several prompts the first."""
    return options.from_command(kind, given, prompt=(given["prompt"] or [None])[0])
