"""All tables in one document, beside what the paper claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unierase.experiment.record import RunRecord
from unierase.tables.render import markdown
from unierase.tables.table import (
    EDITS,
    PAPER_BASELINES,
    Comparison,
    ResultTable,
    comparable_runs,
    comparison,
    describe,
    result_tables,
)

START = "<!-- Below: written by scripts/make_results.py from the records. -->"
"""What stands above this line in the document is somebody's words, and stays."""

PAPER_ABILITY, PAPER_EFFICACY, PAPER_SHARE = 4.01, 0.3596, 3.66
"""arXiv 2505.15674, abstract: ability times, and FE percent above, the baselines'; share of
parameters changed, in %."""


def report(records: Sequence[RunRecord], figures: Mapping[str, Sequence[str]]) -> str:
    """Markdown: the paper's claims beside what was found, then every table with its figures.

    figures: paths of images, from the document's folder, by the name of the group of runs.
    """
    groups = comparable_runs(records)
    parts = [START, "", "## The paper's claims", "", *_claims(groups), ""]
    tables = result_tables(records)
    for name in groups:
        parts += [f"## {describe(groups[name][0])}", ""]
        parts += [f"![{name}]({path})\n" for path in figures.get(name, ())]
        own = [table for table in tables if _belongs(table, name, groups)]
        parts += [markdown(t) if t.name == name else _folded(t) for t in own]
    return "\n".join(parts)


def merged(document: str, generated: str) -> str:
    """``document`` with its generated part replaced."""
    return document.split(START)[0].rstrip() + "\n\n" + generated


def _claims(groups: Mapping[str, Sequence[RunRecord]]) -> list[str]:
    lines = [
        "| runs | the edit | baselines | its Balance is the best | its ability, times that of the "
        "baseline with the best FE | its FE, above that of the baseline with the best MU | "
        "parameters changed |",
        "| --- | --- | --- | --- | ---: | ---: | ---: |",
        f"| the paper | unierase | the paper's: {len(PAPER_BASELINES)} | yes | {PAPER_ABILITY} | "
        f"{100 * PAPER_EFFICACY:.1f} % | {PAPER_SHARE} % |",
    ]
    for name, group in groups.items():
        for edit in EDITS:
            for of, baselines in (("the paper's", PAPER_BASELINES), ("all", None)):
                found = comparison(group, edit, baselines)
                if found is not None:
                    lines.append(_line(name, of, found, group))
    return lines


def _line(name: str, of: str, found: Comparison, group: Sequence[RunRecord]) -> str:
    best = "yes" if found.best == found.method else f"no: {found.best}"
    ability = "–" if found.ability is None else f"{found.ability:.2f} ({found.forgets})"
    shares = [r.changed_share for r in group if r.label == found.method and r.changed_share]
    share = f"{100 * sum(shares) / len(shares):.2f} %" if shares else "–"
    efficacy = "–"
    if found.efficacy is not None:
        efficacy = f"{100 * found.efficacy:+.1f} % ({found.retains})"
    who = f"| {name} | {found.method} | {of}: {found.baselines}"
    if found.settings > found.baselines:
        who += f" ({found.settings} settings)"
    return f"{who} | {best} | {ability} | {efficacy} | {share} |"


def _belongs(table: ResultTable, name: str, groups: Mapping[str, object]) -> bool:
    """Whether a table is of the group ``name``: called like it, and like no longer one."""
    owners = [g for g in groups if table.name == g or table.name.startswith(f"{g}-")]
    return max(owners, key=len, default=None) == name


def _folded(table: ResultTable) -> str:
    return f"<details><summary>{table.name}</summary>\n\n{markdown(table)}\n</details>\n"
