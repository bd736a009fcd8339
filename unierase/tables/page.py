"""All tables and figures on one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from unierase.tables.render import text
from unierase.tables.table import Cell, Column, ResultTable

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
nav ul { columns: 22rem; }
section { margin: 3rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; border-block: 2px solid; margin: 1rem 0; }
th, td { padding: .25rem .7rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; }
thead th { border-bottom: 1px solid; vertical-align: bottom; white-space: normal; }
figure { margin: 0; }
figcaption { color: #555; max-width: 60rem; }
.second { text-decoration: underline; }
svg { max-width: 100%; height: auto; }
@media (prefers-color-scheme: dark) {
  body { color: #e6e6e6; background: #16181c; } figcaption { color: #aaa; }
  svg { background: #fff; }
}
"""


def page(
    title: str,
    tables: Sequence[ResultTable],
    figures: Mapping[str, str],
    left_out: Sequence[str] = (),
) -> str:
    """The page. figures: SVG by the name of the table they belong to. left_out: runs that are in
    no table, and why."""
    names = [table.name for table in tables]
    links = "".join(f'<li><a href="#{escape(name)}">{escape(name)}</a></li>' for name in names)
    sections = "".join(_section(table, figures.get(table.name, "")) for table in tables)
    missing = "".join(f"<li>{escape(line)}</li>" for line in left_out)
    footer = f"<section><h2>Left out</h2><ul>{missing}</ul></section>" if left_out else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><nav><ul>{links}</ul></nav>{sections}{footer}</body></html>\n"
    )


def _section(table: ResultTable, figure: str) -> str:
    head = "".join(f'<th scope="col">{escape(column.heading)}</th>' for column in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th>'
        + "".join(_cell(c, column) for c, column in zip(cells, table.columns, strict=True))
        + "</tr>"
        for label, cells in table.rows.items()
    )
    said = escape(". ".join([table.caption, *table.notes]) + ".")
    name = escape(table.name)
    return (
        f'<section id="{name}"><h2>{name}</h2><figure><div class="wide">'
        f'<table><thead><tr><th scope="col">method</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div><figcaption>{said}</figcaption></figure>"
        f"{figure}</section>"
    )


def _cell(cell: Cell, column: Column) -> str:
    plain = escape(text(cell, column))
    marked = {1: f"<strong>{plain}</strong>", 2: f'<span class="second">{plain}</span>'}
    return f"<td>{marked.get(cell.rank or 0, plain)}</td>"
