"""What pages of results share: one HTML file that needs no other and no network; light, dark and narrow."""

from __future__ import annotations

import base64
from html import escape
from io import BytesIO
from pathlib import Path

from scumble.core.images import read_image

__all__ = ["data_url", "document", "picture_url"]

LARGEST = 1024
"""Longest side of a picture in a page, in pixels."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

STYLE = """
:root{--paper:#f7f4ef;--card:#fffdfa;--ink:#26221d;--soft:#6f675d;--line:#e2dbd0;--accent:#8a3b12;
--bar:#c9793f;--good:#2f6f4f;color-scheme:light}
:root[data-theme=dark]{--paper:#171513;--card:#211e1b;--ink:#efe9e1;--soft:#a59b8e;--line:#38332d;
--accent:#f0a56e;--bar:#b9683a;--good:#7fc8a0;color-scheme:dark}
@media(prefers-color-scheme:dark){:root:not([data-theme=light]){--paper:#171513;--card:#211e1b;--ink:#efe9e1;
--soft:#a59b8e;--line:#38332d;--accent:#f0a56e;--bar:#b9683a;--good:#7fc8a0;color-scheme:dark}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
.wrap{max-width:76rem;margin:0 auto;padding:2.2rem 1.2rem 4rem}
header{display:flex;gap:1rem;align-items:flex-start;justify-content:space-between}
h1{font-size:clamp(1.5rem,4.5vw,2.3rem);line-height:1.2;margin:.2rem 0 .6rem;letter-spacing:-.015em;
overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.6rem 0 .9rem}h3{font-size:1.1rem;margin:0}
.brand{color:var(--accent);font-weight:600;letter-spacing:.04em}.soft{color:var(--soft)}
button.theme{font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);
border-radius:2rem;padding:.35rem .9rem;cursor:pointer;white-space:nowrap}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
img{display:block;border-radius:.5rem;image-rendering:auto;background:var(--line)}
figcaption{font-size:.85rem;color:var(--soft);padding-top:.3rem;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,17rem),1fr));gap:1.1rem;
align-items:start}
.card{background:var(--card);border:1px solid var(--line);border-radius:.9rem;padding:1rem;min-width:0}
.tag{font-size:.75rem;border:1px solid var(--line);border-radius:2rem;padding:.05rem .55rem;
color:var(--soft);white-space:nowrap}
dl{display:grid;grid-template-columns:auto 1fr;gap:.15rem .9rem;margin:.8rem 0 0;font-size:.92rem}
dt{color:var(--soft)}dd{margin:0;text-align:right;font-variant-numeric:tabular-nums}
details{margin-top:.8rem;font-size:.88rem}summary{cursor:pointer;color:var(--soft)}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--paper);border-radius:.5rem;padding:.7rem;
margin:.5rem 0 0;font-size:.82rem}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:.9rem;background:var(--card)}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{padding:.55rem .8rem;text-align:right;border-bottom:1px solid var(--line);vertical-align:top;
font-variant-numeric:tabular-nums}
tr:last-child td,tr:last-child th{border-bottom:0}
th:first-child{text-align:left;font-weight:500;min-width:11rem}thead th{font-weight:600}
th small{display:block;color:var(--soft);font-weight:400}
.wrong{border-left:.25rem solid #c0392b;padding-left:.7rem}
ul{padding-left:1.1rem}li{margin:.35rem 0}
"""
SCRIPT = """
const root=document.documentElement,key="scumble-theme";
try{const kept=localStorage.getItem(key);if(kept)root.dataset.theme=kept}catch{}
document.querySelector(".theme").onclick=()=>{
 const dark=root.dataset.theme?root.dataset.theme==="dark":matchMedia("(prefers-color-scheme:dark)").matches;
 root.dataset.theme=dark?"light":"dark";try{localStorage.setItem(key,root.dataset.theme)}catch{}};
"""


def document(title: str, brand: str, below: str, body: str, *, style: str = "", script: str = "") -> str:
    """A whole page: `title` and the line `below` it are plain text, `body` is HTML with everything that a
    person or a file said escaped.
    """
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)} · {escape(brand)}</title><style>{STYLE}{style}</style></head>
<body><div class="wrap">
<header><div><div class="brand">{escape(brand)}</div><h1>{escape(title)}</h1>
<div class="soft">{escape(below)}</div></div>
<button class="theme" type="button" aria-label="Light or dark">◐ theme</button></header>
{body}
</div><script>{SCRIPT}{script}</script></body></html>
"""


def picture_url(place: Path) -> str:
    """The picture in the file `place`, without what else the file says, as a URL that holds it."""
    image = read_image(place).image
    image.thumbnail((LARGEST, LARGEST))
    data = BytesIO()
    image.save(data, "PNG")
    return data_url("image/png", data.getvalue())


def data_url(kind: str, content: bytes) -> str:
    """A URL that holds `content`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
