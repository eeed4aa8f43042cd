"""Sections as one HTML page that needs nothing else: contents, words explained at first use, a glossary.

What is not shown at once is folded, and unfolds by itself for print.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from html import escape
from pathlib import Path

from matplotlib.text import Text

from slmlab.study.tables import WORDS, Section

STYLE = """
body { font: 17px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1.2rem;
  color: #1d2733; overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.2; font-weight: 600; } h1 { margin: 0 0 .8rem; }
h2 { margin: 2.5rem 0 .5rem; padding-bottom: .3rem; border-bottom: 2px solid #1d2733; }
h3 { margin: 1.6rem 0 .4rem; } p { margin: .4rem 0 .8rem; }
summary { cursor: pointer; padding: .35rem 0; } summary h3 { display: inline; font-size: 1rem; }
[id] { scroll-margin-top: 3rem; } a { color: #0b5394; }
.first { background: #eef4fa; padding: 1rem 1.4rem; margin: 1.2rem 0; } .first p { font-size: 1.1rem; }
.note, .words { color: #4d5963; font-size: 15px; } .words b { color: #1d2733; }
nav ul { columns: 2 20rem; padding-left: 1.2rem; margin: .2rem 0; font-size: 15px; }
nav p { margin: .5rem 0 0; }
table { border-collapse: collapse; width: 100%; font-size: 15px; margin: .6rem 0 1rem; }
th, td { padding: .3rem .7rem .3rem 0; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #1d2733; } td { border-bottom: 1px solid #dde3ea; }
td { font-variant-numeric: tabular-nums; } img { width: 100%; display: block; margin: .6rem 0; }
.sounds { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: .6rem 1.4rem;
  align-items: end; }
figure { margin: 0 0 .4rem; } figcaption { font-size: 15px; white-space: pre-line; }
audio { width: 100%; height: 40px; } dl { columns: 3 17rem; font-size: 15px; } dt { font-weight: 600; }
dd { margin: 0 0 .5rem; break-before: avoid; }
@media (max-width: 700px) {
  body { font-size: 16px; margin: 1rem auto; } .first { margin: 1rem -.6rem; padding: .8rem; }
  thead { display: none; } tr { display: block; padding: .4rem 0; border-bottom: 1px solid #8a97a3; }
  td { display: flex; gap: .8rem; border: 0; padding: .1rem 0; }
  td::before { content: attr(data-head); flex: 0 0 42%; color: #4d5963; }
}
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  body { font-size: 11pt; max-width: none; margin: 0; padding: 0; } audio { display: none; }
  table, dl, nav ul, .words, .note, figcaption { font-size: 9pt; }
  h2, h3, summary { break-after: avoid; } tr, img, figure, .first { break-inside: avoid; }
  img { max-height: 120mm; object-fit: contain; } details::details-content { content-visibility: visible; }
}
"""
UNFOLD = """
const folded = document.getElementsByTagName("details");
addEventListener("beforeprint", () => { for (const one of folded) one.open = true; });
addEventListener("hashchange", () => {
  document.querySelector(location.hash)?.closest("details")?.setAttribute("open", "");
});
"""


def page(title: str, first: str, groups: Mapping[str, Sequence[Section]]) -> str:
    """The page of some groups of sections; `first` is HTML that stands above the contents."""
    known, body, contents = set[str](), list[str](), list[str]()
    top = explained(re.sub("<[^>]*>", " ", first), known)
    for i, (heading, parts) in enumerate(groups.items()):
        body.append(f"<h2 id='g{i}'>{escape(heading)}</h2>")
        links = [f"<li><a href='#s{i}-{j}'>{escape(part.title)}</a></li>" for j, part in enumerate(parts)]
        contents.append(f"<p><a href='#g{i}'>{escape(heading)}</a></p><ul>{''.join(links)}</ul>")
        body += [_section(part, f"s{i}-{j}", known) for j, part in enumerate(parts)]
    meanings = sorted((name, WORDS["words"][name]) for name in known)
    words = "".join(f"<dt>{escape(name)}</dt><dd>{escape(meaning)}</dd>" for name, meaning in meanings)
    glossary = f"<h2 id='words'>Words</h2><dl>{words}</dl>" if words else ""
    contents += ["<p><a href='#words'>Words</a></p>"] if words else []
    head = (
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' "
        f"content='width=device-width, initial-scale=1'><title>{escape(title)}</title><style>{STYLE}</style>"
        f"<h1>{escape(title)}</h1>"
    )
    nav = f"<nav><b>Contents</b>{''.join(contents)}</nav>"
    return "\n".join([head, first, top, nav, *body, glossary, f"<script>{UNFOLD}</script></html>"])


def explained(text: str, known: set[str]) -> str:
    """A line that explains the words of a text that are not `known` yet, and makes them known."""
    new = list[str]()
    waiting = [text]
    while waiting:
        said = waiting.pop(0)
        found = [name for name in WORDS["words"] if name not in known and _pattern(name).search(said)]
        known.update(found)
        new += found
        waiting += [WORDS["words"][name] for name in found]
    lines = "; ".join(f"<b>{escape(name)}</b>: {escape(WORDS['words'][name])}" for name in new)
    return f"<p class='words'>{lines}.</p>" if new else ""


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """Finds an entry, `a, b` in any of its forms: long words also as a plural or with a capital."""
    forms = [
        f"(?i:{re.escape(form)})s?" if form.islower() and len(form) > 2 else re.escape(form)
        for form in name.split(", ")
    ]
    return re.compile(rf"(?<![\w/])(?:{'|'.join(forms)})(?![\w*])")


def text_of(part: Section) -> str:
    """All that a section says, its picture included."""
    drawn = [text.get_text() for text in part.picture.figure.findobj(Text)] if part.picture else []
    alt = [part.picture.alt] if part.picture else []
    cells = [cell for line in part.lines for cell in line]
    return "\n".join([part.title, part.text, *part.head, *cells, *alt, *drawn, *(n for n, _ in part.sounds)])


def _section(part: Section, place: str, known: set[str]) -> str:
    text = re.sub("`([^`]+)`", r"<code>\1</code>", escape(part.text))
    inner = [f"<p>{text}</p>" if text else "", explained(text_of(part), known)]
    if part.picture:
        inner.append(f"<img alt='{escape(part.picture.alt)}' src='{data('image/png', part.picture.png())}'>")
    if part.lines:
        top = "".join(f"<th>{escape(cell)}</th>" for cell in part.head)
        cells = ("".join(map(partial(_cell, part.links), part.head, line)) for line in part.lines)
        rows = "".join(f"<tr>{line}</tr>" for line in cells)
        inner.append(f"<table><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table>")
    if part.sounds:
        inner.append(f"<div class='sounds'>{''.join(_player(*sound) for sound in part.sounds)}</div>")
    title, body = f"<h3>{escape(part.title)}</h3>", "\n".join(filter(None, inner))
    if part.shown:
        return f"<section id='{place}'>{title}\n{body}</section>"
    return f"<details><summary>{title}</summary><div id='{place}'>{body}</div></details>"


def _cell(links: Mapping[str, str], head: str, cell: str) -> str:
    text = f"<a href='{escape(links[cell])}'>{escape(cell)}</a>" if cell in links else escape(cell)
    return f"<td data-head='{escape(head)}'><span>{text}</span></td>"


def _player(name: str, path: Path) -> str:
    kind = "audio/flac" if path.suffix == ".flac" else "audio/wav"
    player = f"<audio controls preload='metadata' src='{data(kind, path.read_bytes())}'></audio>"
    return f"<figure><figcaption>{escape(name)}</figcaption>{player}</figure>"


def data(kind: str, content: bytes) -> str:
    """Content inside the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
