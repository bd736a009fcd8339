"""What a run says on the console: its plan, and its result as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from unierase.experiment.record import RunRecord

SET_SCORES = (
    ("rouge", "ROUGE-L"),
    ("probability", "probability"),
    ("truth_ratio", "truth ratio"),
    ("emits_unl", "says [UNL]"),
    ("flagged", "flagged"),
    ("refusal", "refuses"),
)
AGGREGATES = (
    ("FE", "forget efficacy FE ↑"),
    ("FE_earlier", "FE, earlier tasks ↑"),
    ("RE", "retain efficacy RE ↑"),
    ("MU", "retained utility MU ↑"),
    ("balance", "Balance ↑"),
    ("model_utility", "TOFU model utility ↑"),
    ("forget_truth_ratio", "TOFU forget truth ratio"),
    ("forget_quality", "TOFU forget quality ↑"),
)
ABILITY = (
    ("accuracy", "accuracy ↑"),
    ("idk", "Idk ↓"),
    ("length", "Len"),
    ("empty", "empty answers ↓"),
    ("repeated", "repeated phrases ↓"),
)
RWKU = (
    ("forget_fb", "forget FB ↓"),
    ("forget_qa", "forget QA ↓"),
    ("forget_aa", "forget AA ↓"),
    ("forget_all", "forget All ↓"),
    ("earlier_all", "earlier All ↓"),
    ("neighbor_fb", "neighbour FB ↑"),
    ("neighbor_qa", "neighbour QA ↑"),
    ("neighbor_all", "neighbour All ↑"),
    ("gen", "Gen ↑"),
    ("rea", "Rea ↑"),
    ("tru", "Tru ↑"),
    ("fac", "Fac ↑"),
    ("flu", "Flu ↑"),
)


def print_plan(lines: Mapping[str, str], console: Console | None = None) -> None:
    """What the run will do and what it costs, one line a fact."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column()
    for name, text in lines.items():
        table.add_row(name, text)
    (console or Console(stderr=True)).print(table)


def number(value: Any) -> str:
    """A score as text; a dash for one that is absent."""
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def difference(before: Any, after: Any) -> str:
    """The signed change as text; empty where one side is absent."""
    if before is None or after is None:
        return ""
    text = f"{after - before:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text


def result_table(record: RunRecord) -> Table:
    """Scores before and after unlearning, and the change."""
    before, after = record.before or {}, record.after or {}
    table = Table(title=f"{record.label} · {record.data}/{record.split} · {record.scenario}")
    table.add_column("score")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    for name, scores in after.get("sets", {}).items():
        old = before.get("sets", {}).get(name, {})
        rows = scores["rows"]
        table.add_row(f"[bold]{name}[/bold] ({rows:g} row{'' if rows == 1 else 's'})")
        # Texts and tasks have measures of their own.
        shown = SET_SCORES if "rouge" in scores else [(k, k) for k in scores if k != "rows"]
        for key, label in shown:
            b, a = old.get(key), scores.get(key)
            # Only methods that guard the prompt flag any; refusals are looked for on request.
            if key in ("flagged", "refusal") and a is None:
                continue
            table.add_row(f"  {label}", number(b), number(a), difference(b, a))
    table.add_section()
    for key, label in AGGREGATES:
        if key not in after:
            continue
        entered, full = after.get(f"{key}_scores"), after.get(f"{key}_scores_full")
        mark = f" ({entered:g} of {full:g} scores)" if full and entered != full else ""
        b, a = before.get(key), after[key]
        table.add_row(label + mark, number(b), number(a), difference(b, a))
    if after.get("attacks"):
        table.add_section()
        old = before.get("attacks", {})
        for name, values in after["attacks"].items():
            b, a = old.get(name, {}).get("forget_rouge"), values["forget_rouge"]
            table.add_row(f"forget ROUGE-L, {name} ↓", number(b), number(a), difference(b, a))
    if "ability" in after:
        table.add_section()
        for label, b, a in ability_lines(before.get("ability", {}), after["ability"]):
            table.add_row(label, number(b), number(a), difference(b, a))
    if "rwku" in after:
        table.add_section()
        old = before.get("rwku", {})
        for key, label in RWKU:
            if after["rwku"][key] is not None:
                b, a = old.get(key), after["rwku"][key]
                table.add_row(label, number(b), number(a), difference(b, a))
        for name, values in after["rwku"]["membership"].items():
            b, a = old.get("membership", {}).get(name, {}).get("auc"), values["auc"]
            table.add_row(f"AUC of {name}", number(b), number(a), difference(b, a))
    return table


def ability_lines(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Of every measure of ability: its name, its value before and after unlearning."""
    for name, result in after["tasks"].items():
        old = before.get("tasks", {}).get(name, {})
        for key, label in ABILITY:
            if result[key] is not None:
                yield f"{name}, {label}", old.get(key), result[key]
    yield "ability, mean accuracy ↑", before.get("accuracy"), after["accuracy"]


def print_result(record: RunRecord, folder: str, console: Console | None = None) -> None:
    """The result table, what is absent and why, and where everything lies."""
    console = console or Console()
    console.print(result_table(record))
    for name, reason in (record.after or {}).get("absent", {}).items():
        console.print(f"[dim]{name}: {reason}[/dim]")
    for note in record.notes:
        console.print(f"[dim]note: {note}[/dim]")
    if record.changed_share is not None:
        console.print(f"[dim]{100 * record.changed_share:.2f} % of the parameters changed[/dim]")
    spent = ", ".join(f"{phase} {s:.0f} s" for phase, s in record.seconds.items())
    console.print(f"[dim]{spent}[/dim]")
    console.print(f"[dim]{folder}[/dim]", soft_wrap=True)
