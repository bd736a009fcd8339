"""The model card of an unlearned model: what was unlearned, how, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unierase.experiment.record import RunRecord
from unierase.experiment.report import AGGREGATES, SET_SCORES, difference, number


def model_card(record: RunRecord, config: str) -> str:
    """Markdown with the front matter the hub reads.

    config: the run's resolved config as YAML; it goes in whole, for others to repeat the run.
    """
    forgotten = sum(done["forget_rows"] for done in record.rounds)
    lines = [
        "---",
        "library_name: transformers",
        "tags: [unlearning]",
        "---",
        "",
        f"# {record.model} after unlearning by {record.method}",
        "",
        f"Unlearned: {forgotten} rows of {record.data}/{record.split}, scenario {record.scenario}, "
        f"in {len(record.rounds)} request(s), seed {record.seed}.",
        f"{100 * (record.changed_share or 0):.2f} % of {record.parameters:,} parameters changed.",
        "",
        "It loads in plain transformers (`AutoModelForCausalLM.from_pretrained`). Ask in the chat",
        "format of its tokenizer, the one it was taught and unlearned in.",
        "",
        "| score | before | after | change |",
        "| --- | ---: | ---: | ---: |",
        *_score_rows(record.before or {}, record.after or {}),
        "",
        *[f"- {note}" for note in record.notes],
        *[f"- {name}: {why}" for name, why in (record.after or {}).get("absent", {}).items()],
        "",
        "Unlearning by editing or training suppresses answers; it proves no removal. Whoever bans "
        "the token `[UNL]` or trains the model again may get some of the knowledge back.",
        "",
        "## Config",
        "",
        "```yaml",
        config.strip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _score_rows(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, scores in after.get("sets", {}).items():
        old = before.get("sets", {}).get(name, {})
        for key, label in SET_SCORES:
            rows.append(
                _row(f"{name} ({scores['rows']:g} rows): {label}", old.get(key), scores[key])
            )
    rows += [_row(label, before.get(key), after[key]) for key, label in AGGREGATES if key in after]
    return rows


def _row(label: str, before: Any, after: Any) -> str:
    return f"| {label} | {number(before)} | {number(after)} | {difference(before, after)} |"
