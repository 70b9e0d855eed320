"""The page of the demo: one HTML file that needs no other and no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from scumble.data.video import ANIMATION
from scumble.verbs.compare_page import NAMES
from scumble.verbs.demo_chapter import Chapter, Check, Row, Score, Shown
from scumble.verbs.page import data_url, document, picture_url

__all__ = ["page"]

STYLE = """
section{border-top:1px solid var(--line);margin-top:2.6rem}
section>.top{display:flex;flex-wrap:wrap;gap:.3rem .8rem;align-items:baseline;margin:1.6rem 0 .4rem}
section h2{margin:0;font-size:1.45rem;letter-spacing:-.01em}
.text{max-width:46rem;margin:.2rem 0 1.1rem}
.rows{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,24rem),1fr));gap:1.2rem 1.6rem}
.row{min-width:0}.row.wide{grid-column:1/-1}
.row p{margin:0 0 .4rem;font-weight:600;font-size:.95rem}
.shown{display:grid;grid-template-columns:repeat(auto-fill,minmax(7.4rem,1fr));gap:.7rem}
.row:not(.wide) .shown{grid-template-columns:repeat(var(--count),minmax(0,1fr))}
figure{margin:0;min-width:0}figure img{width:100%;aspect-ratio:1;object-fit:contain}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));gap:1rem 2rem;
margin-top:1.2rem;align-items:start}
.facts table{font-size:.9rem}.facts td{white-space:nowrap;vertical-align:top}
.facts th{min-width:0;padding-left:0}
.facts td{padding-right:0}.checks{list-style:none;padding:0;margin:.3rem 0;font-size:.92rem}
.checks li{display:grid;grid-template-columns:1.4rem 1fr;margin:.45rem 0}
.checks small{color:var(--soft);display:block}
.yes{color:var(--good);font-weight:700}.no{color:#c0392b;font-weight:700}
:root[data-theme=dark] .no{color:#ff8f80}
.verdict{display:flex;gap:.7rem;align-items:baseline;border:1px solid var(--line);background:var(--card);
border-radius:.9rem;padding:.9rem 1.1rem;margin:1.4rem 0}
nav{margin-top:1.2rem}nav table td,nav table th{padding:.42rem .8rem}nav a{color:inherit}
nav tr td:last-child{width:2.4rem;text-align:center}
.bars i{display:block;height:.4rem;border-radius:1rem;background:var(--bar)}.bars{width:35%}
@media(max-width:34rem){.bars{display:none}.shown{grid-template-columns:repeat(auto-fill,minmax(5.4rem,1fr))}}
"""
WIDE = 4
"""More pictures than this in a row take the page's whole width."""


def page(facts: dict[str, Any], chapters: Sequence[Chapter], out: Path) -> str:
    """The whole page. Everything that a person or a file said is escaped."""
    spent, problems = facts["seconds"], facts["problems"]
    checks = sum(len(chapter.checks) for chapter in chapters)
    verdict = (
        f'<span class="yes">✓</span><div>It checked itself: all of its {checks} checks hold.</div>'
        if not problems
        else '<span class="no">✗</span><div>It is not right.<ul>'
        + "".join(f"<li>{escape(problem)}</li>" for problem in problems)
        + "</ul></div>"
    )
    quick = (
        '<p class="soft">A quick demo: learning a subject, a layer and a clip is left out. '
        "Without --quick they are there.</p>"
        if facts["quick"]
        else ""
    )
    parts = "\n".join(_chapter(chapter, out) for chapter in chapters)
    body = f"""<div class="verdict">{verdict}</div>{quick}
{_contents(chapters)}
{parts}
<section><div class="top"><h2>How it was measured</h2></div>
{_how(facts)}</section>"""
    below = f"Made in {_time(spent)} on this machine by the toybox, the small model that ships with scumble."
    return document("Six ways to edit pictures", "scumble demo", below, body, style=STYLE)


def _contents(chapters: Sequence[Chapter]) -> str:
    longest = max((chapter.seconds.get("in all", 0.0) for chapter in chapters), default=0.0) or 1.0
    lines = ""
    for chapter in chapters:
        spent = chapter.seconds.get("in all", 0.0)
        bar = f'<i style="width:{100 * spent / longest:.0f}%"></i>'
        mark = "" if not chapter.checks else _mark(not chapter.problems)
        about = f"<small>{escape(NAMES[chapter.method][0])}</small>" if chapter.method else ""
        took = "left out" if chapter.left_out else _time(spent)
        lines += (
            f'<tr><th><a href="#{chapter.name}">{escape(chapter.title)}</a>{about}</th>'
            f'<td class="bars">{bar}</td><td>{took}</td><td>{mark}</td></tr>'
        )
    return f'<nav class="scroll" aria-label="Chapters"><table><tbody>{lines}</tbody></table></nav>'


def _chapter(chapter: Chapter, out: Path) -> str:
    paper = ""
    if chapter.method:
        name, who, number = NAMES[chapter.method]
        paper = f'<span class="tag">{escape(name)}</span><span class="soft">{who}, arXiv:{number}</span>'
    top = f'<div class="top"><h2>{escape(chapter.title)}</h2>{paper}</div>'
    text = f'<p class="text">{escape(chapter.text)}</p>'
    if chapter.left_out:
        text += f'<p class="wrong">{escape(chapter.left_out)} This chapter is left out.</p>'
        return f'<section id="{chapter.name}">{top}{text}</section>'
    rows = "".join(_row(row, out) for row in chapter.rows)
    commands = escape("\n".join(chapter.commands))
    return f"""<section id="{chapter.name}">{top}{text}
<div class="rows">{rows}</div>
<div class="facts"><div>{_scores(chapter)}</div><div>{_checks(chapter.checks)}
<details><summary>Commands that do the same</summary><pre>{commands}</pre></details></div></div></section>"""


def _row(row: Row, out: Path) -> str:
    wide = " wide" if len(row.pictures) > WIDE else ""
    text = f"<p>{escape(row.text)}</p>" if row.text else ""
    figures = "".join(_figure(one, row, out) for one in row.pictures)
    shown = f'<div class="shown" style="--count:{len(row.pictures)}">{figures}</div>'
    return f'<div class="row{wide}">{text}{shown}</div>'


def _figure(shown: Shown, row: Row, out: Path) -> str:
    alt = escape(shown.text or row.text, quote=True)
    caption = f"<figcaption>{escape(shown.text)}</figcaption>" if shown.text else ""
    place = out / shown.file
    url = data_url("image/apng", place.read_bytes()) if place.suffix == ANIMATION else picture_url(place)
    return f'<figure><img alt="{alt}" src="{url}">{caption}</figure>'


def _scores(chapter: Chapter) -> str:
    lines = "".join(_score(score) for score in chapter.scores)
    lines += "".join(
        f"<tr><th>{escape(part)}</th><td>{_time(spent)}</td></tr>" for part, spent in chapter.seconds.items()
    )
    return f"<table><tbody>{lines}</tbody></table>"


def _score(score: Score) -> str:
    name = f"{escape(score.name)}<small>{escape(score.what)}</small>"
    return f"<tr><th>{name}</th><td>{score.value:.3g}</td></tr>"


def _checks(checks: Sequence[Check]) -> str:
    items = "".join(
        f"<li>{_mark(one.holds)}<div>{escape(one.claim)}<small>{escape(one.found)}</small></div></li>"
        for one in checks
    )
    return f'<ul class="checks">{items}</ul>' if items else ""


def _mark(holds: bool) -> str:
    return (
        '<span class="yes" title="holds">✓</span>' if holds else '<span class="no" title="does not">✗</span>'
    )


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _how(facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{escape(name)} {escape(value)}" for name, value in facts["machine"].items())
    return f"""<p class="text">Scores are the toybox's own judge's, a network that was trained on renders of
the toy world and shares nothing with the model, and its CLIP's. The limits of the checks are constants of
the package. Every picture is the first and only attempt with its seed: none was chosen.</p>
<p class="soft">Model {escape(facts["model"][:12])}, scumble {escape(facts["scumble"])}; {versions}.</p>"""
