"""The parts of a static page without outside resources: text is escaped, and the page's policy forbids scripts."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="generator" content="tamiz">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #59636e; --back: #ffffff; --line: #d1d9e0;
  --panel: #f6f8fa; --accent: #0969da; --warning: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9198a1; --back: #0d1117; --line: #3d444d;
  --panel: #151b23; --accent: #4493f8;
  --warning: #d29922; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 64rem;
  margin: 0 auto; padding: 1.5rem; overflow-wrap: anywhere; }
h1 { font-size: 1.8rem; } h2 { font-size: 1.25rem; border-bottom: 1px solid var(--line); margin-top: 2.2rem; }
h3 { font-size: 1rem; }
.note { color: var(--soft); font-size: .875rem; }
.warning { color: var(--warning); }
/* A shadow on the right says that a table goes on there; at its end the first layer covers it. */
.wide { overflow-x: auto; overflow-wrap: normal; background:
  linear-gradient(to left, var(--back) 1.5rem, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--line), transparent) right / 1rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .875rem; }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid var(--line); max-width: 24rem; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; } td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--back);
  padding-left: 0; }
.reason { display: inline-block; min-width: 16rem; white-space: normal; overflow-wrap: anywhere; text-align: left; }
td.shaded { background: color-mix(in srgb, var(--accent) calc(var(--share) * .6), transparent); }
dl { display: grid; gap: .2rem 2rem; margin: 0; } dl div { display: flex; gap: 1rem; }
dl.short { grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
dt { color: var(--soft); flex: 0 0 auto; min-width: 5.5rem; } dl.short dt { min-width: 9.5rem; } dd { margin: 0; }
pre { background: var(--panel); border: 1px solid var(--line); padding: .6rem .8rem; overflow-x: auto; }
svg { width: 100%; max-width: 46rem; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 13px; } svg .grid { stroke: var(--line); stroke-width: 1; }
svg .best { stroke: var(--accent); stroke-width: 2; fill: none; } svg .trial { fill: var(--soft); opacity: .6; }
@media (max-width: 40rem) { body { padding: 1rem; } th, td { padding: .3rem .45rem; } ul { padding-left: 1.2rem; }
  td .note { display: block; font-size: .75rem; } svg text { font-size: 21px; } }
@media print { .wide { overflow: visible; background: none; } body { max-width: none; } }
"""


def render_page(title: str, body: str) -> str:
    """Return a whole page.

    Args:
        title: plain text.
        body: HTML.
    """
    return _PAGE.format(title=escape(title), style=_STYLE, body=body)


def escape(text: object) -> str:
    """Return text for HTML bodies and attributes; control characters, which no page may hold, become a replacement."""
    visible = "".join(
        character if _is_visible(character) else "\N{REPLACEMENT CHARACTER}" for character in str(text)
    )
    return html.escape(visible, quote=True)


def _is_visible(character: str) -> bool:
    return character.isprintable() or character in "\n\t" or unicodedata.category(character) == "Zs"


def section(title: str, body: str) -> str:
    """Return a section; `title` is plain text, `body` HTML."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; `heads` are plain text, `rows` HTML."""
    head = "".join(f"<th>{escape(title)}</th>" for title in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def definitions(facts: Mapping[str, str], *, kind: str = "long") -> str:
    """Return names and texts; `kind` is long (one fact a line) or short (as many beside each other as fit)."""
    pairs = (f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items())
    return f"<dl class={kind}>{''.join(pairs)}</dl>"


def items_list(items: Iterable[str]) -> str:
    """Return a list of HTML items, "" for none."""
    body = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{body}</ul>" if body else ""
