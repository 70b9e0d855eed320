"""The page of a comparison: one HTML file that needs no other and no network, light, dark and narrow."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from scumble.verbs.compare_scores import AXES
from scumble.verbs.compare_task import LEARNERS, Task
from scumble.verbs.inputs import picture_files
from scumble.verbs.page import document, picture_url

__all__ = ["NAMES", "page"]

PHOTOS = 5
"""Photos of a subject that are shown."""
NAMES = {
    "textual-inversion": ("Textual Inversion", "Gal et al. 2022", "2208.01618"),
    "dreambooth": ("DreamBooth", "Ruiz et al. 2022", "2208.12242"),
    "custom-diffusion": ("Custom Diffusion", "Kumari et al. 2022", "2212.04488"),
    "instruct": ("InstructPix2Pix", "Brooks et al. 2022", "2211.09800"),
    "sdedit": ("SDEdit", "Meng et al. 2021", "2108.01073"),
    "text2live": ("Text2LIVE", "Bar-Tal et al. 2022", "2204.02491"),
}
"""The six as people call them, who wrote of them, and where on arXiv."""

STYLE = """
.given{display:flex;flex-wrap:wrap;gap:.9rem;margin-top:1rem}
.given figure{margin:0;width:7.5rem}.given img{width:100%}
.card .top{display:flex;justify-content:space-between;gap:.6rem;align-items:baseline;margin-bottom:.7rem}
.see{position:relative}.see img{width:100%}
.see .was{position:absolute;inset:0;height:100%;object-fit:cover;
clip-path:inset(0 calc(100% - var(--at,0%)) 0 0)}
.see input{width:100%;margin:.5rem 0 0;accent-color:var(--accent)}
.time{height:.4rem;border-radius:1rem;background:var(--line);overflow:hidden;margin-top:.8rem}
.time i{display:block;height:100%;background:var(--bar)}
.best{color:var(--good);font-weight:700}.best::after{content:" \\2022"}
.group th{color:var(--accent);text-align:left;background:var(--paper);font-weight:600}
"""
SCRIPT = """
for(const range of document.querySelectorAll(".see input"))
 range.oninput=()=>range.parentElement.style.setProperty("--at",range.value+"%");
"""


def page(facts: dict[str, Any], task: Task, out: Path) -> str:
    """The whole page. Everything that a person or a file said is escaped."""
    rows = facts["rows"]
    longest = max((sum(row["seconds"].values()) for row in rows), default=0.0)
    cards = "\n".join(_card(row, task, out, longest) for row in rows)
    body = f"""<section class="given" aria-label="What was given">{_given(task)}</section>
<h2>What each method made of it</h2>
<div class="cards">
{cards}
</div>
<h2>Scores</h2>
<p class="soft">A dot marks the best of a row. One picture each, none chosen: small differences are hints.</p>
<div class="scroll">{_table(rows)}</div>
{_others(facts["left out"])}
<h2>How it was measured</h2>
{_how(facts)}"""
    return document(_title(task), "scumble compare", _asked(task), body, style=STYLE, script=SCRIPT)


def _title(task: Task) -> str:
    config = task.config
    return config.instruction or config.prompt or "From strokes"


def _asked(task: Task) -> str:
    config = task.config
    parts = [f"Result: {config.prompt}" if config.instruction and config.prompt else ""]
    parts += [f"Before: {config.before}" if config.before else ""]
    parts += [f"{config.word} is a {config.noun}" if config.word else ""]
    return " · ".join(part for part in [*parts, f"model {config.model}", f"seed {config.seed}"] if part)


def _given(task: Task) -> str:
    named = (("picture", task.image), ("strokes", task.guide), ("mask: white may change", task.mask))
    shown = [(name, place) for name, place in named if place is not None]
    if task.subject is not None:
        shown += [("photo of the subject", photo) for photo in picture_files(task.subject)[:PHOTOS]]
    return "".join(
        f'<figure><img alt="" src="{picture_url(place)}"><figcaption>{escape(name)}</figcaption></figure>'
        for name, place in shown
    )


def _card(row: dict[str, Any], task: Task, out: Path, longest: float) -> str:
    name, who, number = NAMES[row["method"]]
    kind = "learns first" if row["method"] in (*LEARNERS, "text2live") else "ready at once"
    top = f'<div class="top"><h3>{name}</h3><span class="tag">{kind}</span></div>'
    if row["failed"]:
        return f'<article class="card">{top}<p class="wrong">{escape(row["failed"])}</p></article>'
    spent = sum(row["seconds"].values())
    share = 100 * spent / longest if longest else 0
    parts = [(part, f"{seconds:.1f} s") for part, seconds in row["seconds"].items()]
    if row["peak_memory_bytes"] is not None:
        parts.append(("peak memory", f"{row['peak_memory_bytes'] / 2**30:.2f} GiB"))
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in parts)
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in row["notes"])
    commands = escape("\n".join(row["commands"]))
    return f"""<article class="card">{top}
{_seen(out / row["picture"], task.image, name)}
<div class="time" title="{spent:.1f} s of at most {longest:.1f} s"><i style="width:{share:.0f}%"></i></div>
<dl>{facts}</dl>{notes}
<details><summary>How to make it again</summary><pre>{commands}</pre></details>
<div class="soft" style="font-size:.85rem;margin-top:.6rem">{who}, arXiv:{number}</div></article>"""


def _seen(picture: Path, image: Path | None, name: str) -> str:
    result = f'<img alt="Result of {name}" src="{picture_url(picture)}">'
    if image is None:
        return f'<div class="see">{result}</div>'
    was = f'<img class="was" alt="" src="{picture_url(image)}">'
    slider = f'<input type="range" value="0" aria-label="Show the picture before {name}">'
    return f'<div class="see"><div style="position:relative">{result}{was}</div>{slider}</div>'


def _table(rows: Sequence[dict[str, Any]]) -> str:
    made = [row for row in rows if row["picture"]]
    head = "".join(f"<th>{NAMES[row['method']][0]}</th>" for row in made)
    body: list[str] = []
    for axis in AXES:
        found = {s["name"]: s for row in made for s in row["scores"] if s["axis"] == axis}
        if not found:
            continue
        title = "judge and truth" if axis == "judge" else axis
        body.append(f'<tr class="group"><th colspan="{len(made) + 1}">{title}</th></tr>')
        body += [_line(axis, score, made) for score in found.values()]
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _line(axis: str, about: dict[str, Any], made: Sequence[dict[str, Any]]) -> str:
    values = [
        next((s["value"] for s in row["scores"] if (s["axis"], s["name"]) == (axis, about["name"])), None)
        for row in made
    ]
    real = [value for value in values if value is not None]
    best = (max if about["better"] == "higher" else min)(real, default=None)
    is_contest = len(set(real)) > 1
    arrow = "↑" if about["better"] == "higher" else "↓"
    cells = "".join(
        f'<td class="{"best" if is_contest and value == best else ""}">'
        f"{'' if value is None else f'{value:.3f}'}</td>"
        for value in values
    )
    name = f"{escape(about['name'])} {arrow}<small>{escape(about['on'])}</small>"
    return f'<tr><th title="{escape(about["what"])}">{name}</th>{cells}</tr>'


def _others(left_out: dict[str, str]) -> str:
    if not left_out:
        return ""
    items = "".join(f"<li><b>{NAMES[name][0]}</b>: {escape(why)}</li>" for name, why in left_out.items())
    return f"<h2>Not in this comparison</h2><ul>{items}</ul>"


def _how(facts: dict[str, Any]) -> str:
    scores = {(s["axis"], s["name"]): s for row in facts["rows"] for s in row["scores"]}
    items = "".join(
        f"<li><b>{escape(s['name'])}</b>, {'more' if s['better'] == 'higher' else 'less'} is better, "
        f"on {escape(s['on'])}: {escape(s['what'])}.</li>"
        for s in scores.values()
    )
    truth = f"<p>{escape(facts['truth'])}</p>" if facts["truth"] else ""
    versions = ", ".join(f"{escape(k)} {escape(v)}" for k, v in facts["machine"].items())
    memory = next((row["peak_memory_of"] for row in facts["rows"] if row["peak_memory_of"]), "")
    model = f"{escape(facts['model']['name'])}, {facts['model']['hash'][:12]}"
    return f"""<ul>{items}</ul>{truth}
<p class="soft">Seconds are of this machine and this run, loading apart; the first method also pays for what
loads once. Peak memory is that of {escape(memory)}. Figures on different features do not compare.
Model {model}; {versions}.</p>"""
