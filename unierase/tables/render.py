"""A results table as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io

from unierase.tables.table import Cell, Column, ResultTable

_LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
_LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
_LATEX |= {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "†": r"$\dagger$", "±": r"$\pm$", "–": "--"}


def text(cell: Cell, column: Column) -> str:
    """Such as "0.912 ± 0.004†", or "–" for what was not computed."""
    if cell.mean is None:
        return "–"
    number = column.shown(cell.mean)
    if cell.deviation is not None:
        number += f" ± {cell.deviation * column.scale:.{column.digits}f}"
    if cell.interval is not None:
        low, high = (column.shown(end) for end in cell.interval)
        number += f" [{low}, {high}]"
    return number + ("†" if cell.partial else "")


def markdown(table: ResultTable) -> str:
    """GitHub Markdown; the best of a column bold, the second underlined."""
    lines = [f"### {table.name}", "", table.caption + ".", "", grid(table), "", *table.notes]
    return "\n".join(lines).rstrip() + "\n"


def grid(table: ResultTable) -> str:
    """The table alone, in Markdown."""

    def shown(cell: Cell, column: Column) -> str:
        plain = text(cell, column)
        return {1: f"**{plain}**", 2: f"<u>{plain}</u>"}.get(cell.rank or 0, plain)

    lines = [
        "| method | " + " | ".join(column.heading for column in table.columns) + " |",
        "| --- |" + " ---: |" * len(table.columns),
    ]
    for label, cells in table.rows.items():
        row = (shown(c, column) for c, column in zip(cells, table.columns, strict=True))
        lines.append(f"| {label} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def latex_escape(plain: str) -> str:
    """``plain`` as LaTeX text."""
    return "".join(_LATEX.get(character, character) for character in plain)


def latex(table: ResultTable) -> str:
    """A table environment; needs booktabs and graphicx."""

    def shown(cell: Cell, column: Column) -> str:
        plain = latex_escape(text(cell, column))
        return {1: rf"\textbf{{{plain}}}", 2: rf"\underline{{{plain}}}"}.get(cell.rank or 0, plain)

    headings = " & ".join(latex_escape(column.heading) for column in table.columns)
    caption = latex_escape(". ".join([table.caption, *table.notes]))
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{caption}.}}",
        rf"\label{{tab:{table.name}}}",
        r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        rf"Method & {headings} \\",
        r"\midrule",
    ]
    for label, cells in table.rows.items():
        row = " & ".join(shown(c, column) for c, column in zip(cells, table.columns, strict=True))
        lines.append(rf"{latex_escape(label)} & {row} \\")
    lines += [r"\bottomrule", r"\end{tabular}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def comma_separated(table: ResultTable) -> str:
    """Full precision: mean and standard deviation of every column, empty where absent."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [name for c in table.columns for name in (c.name, f"{c.name} std")]
    writer.writerow(["method", *names])
    for label, cells in table.rows.items():
        values = [v for cell in cells for v in (cell.mean, cell.deviation)]
        writer.writerow([label, *("" if v is None else repr(v) for v in values)])
    return out.getvalue()
