"""Which prompts a method's classifier takes for ones to be forgotten.

python scripts/flagged.py run RUN_DIR [--prompts 500]
python scripts/flagged.py rwku [--people 10] [--prompts 500] [OVERRIDE ...]

run: the classifier of a finished run (method=eco or guardrail, run.save_model=true) on the run's
own sets, on paraphrased questions and on MMLU's questions.
rwku: a classifier that learns questions about some of RWKU's 200 people against questions about
the others, on the benchmark's probes: plain ones, adversarial ones by type, and those of
neighbours. Any override of run.py is taken: model=smollm2-135m method/flagging=minilm.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarking.measure import composed
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from benchmarks.local import local_rows
from benchmarks.rwku import attack
from unierase.errors import UserError

PER_PERSON = 20
"""RWKU has 300 generated questions a person; a classifier is as good with these."""


def run_prompts(config: DictConfig) -> dict[str, list[str]]:
    """Prompts by set: those that the run's last step scored, and paraphrased questions."""
    data = instantiate(config.data).load()
    last = instantiate(config.scenario).steps(data, config.seed)[-1]
    sets = {name: [row.question for row in rows] for name, rows in last.sets.items()}
    asked = [row.paraphrased_question for row in last.request.forget]
    sets["forget, paraphrased"] = [question for question in asked if question is not None]
    return sets


def mmlu_questions(folder: str) -> list[str]:
    """The questions of MMLU's test split."""
    return [
        str(row["question"])
        for row in local_rows(folder, "ability", "mmlu/test.jsonl", ["question"])
    ]


def rwku_prompts(folder: str, people: Sequence[str]) -> dict[str, list[str]]:
    """RWKU's probes about ``people`` and their neighbours, by kind."""
    sets: dict[str, list[str]] = {}
    for file, kind in (
        ("forget_level1", "fill in the blank"),
        ("forget_level2", "question"),
        ("forget_level3", ""),
        ("neighbor_level1", "neighbour, blank"),
        ("neighbor_level2", "neighbour, question"),
    ):
        for row in local_rows(folder, "rwku", f"{file}.jsonl", ["query", "subject"]):
            if row["subject"] in people:
                name = kind or attack(str(row["type"]))
                sets.setdefault(name, []).append(str(row["query"]))
    return sets


def sampled(prompts: Sequence[str], most: int) -> list[str]:
    """At most ``most`` of the prompts, the same in every run."""
    if len(prompts) <= most:
        return list(prompts)
    return random.Random(f"flagged:{len(prompts)}").sample(list(prompts), most)


def report(sets: Mapping[str, Sequence[str]], flagged: Callable[[str], bool | None]) -> None:
    """Print the flagged share of every set."""
    from rich.console import Console
    from rich.table import Table
    from tqdm.auto import tqdm

    table = Table()
    for heading in ("prompts", "number", "flagged %"):
        table.add_column(heading, justify="left" if heading == "prompts" else "right")
    with tqdm(total=sum(map(len, sets.values())), leave=False) as bar:
        for name, prompts in sets.items():
            count = 0
            for prompt in prompts:
                count += bool(flagged(prompt))
                bar.update()
            table.add_row(name, str(len(prompts)), f"{100 * count / len(prompts):.1f}")
    Console().print(table)


def of_run(run: Path, most: int) -> None:
    """Report on a finished run."""
    from unierase.experiment.saved import load_unlearned

    lm = load_unlearned(run)
    if lm.guard is None or lm.read(["Who?"])[0].flagged is None:
        raise UserError(f"{run}: its method flags no prompts; take one of method=eco,guardrail")
    config = OmegaConf.load(run / "config.yaml")
    assert isinstance(config, DictConfig)
    sets = {name: sampled(prompts, most) for name, prompts in run_prompts(config).items()}
    if config.paths.data is not None:
        sets["MMLU"] = sampled(mmlu_questions(config.paths.data), most)
    report({k: v for k, v in sets.items() if v}, lambda prompt: lm.read([prompt])[0].flagged)


def of_rwku(people: int, most: int, overrides: Sequence[str]) -> None:
    """Report on a classifier that learns RWKU's people."""
    from unierase.request import UnlearningRequest
    from unierase.rows import Row

    cfg = composed("method=guardrail", *overrides)
    if cfg.paths.data is None:
        raise UserError("paths.data=null: set paths.data=FOLDER or UNLEARN_DATA to RWKU's files")
    everybody = [
        str(row["target"])
        for row in local_rows(cfg.paths.data, "rwku", "forget_target.jsonl", ["target"])
    ]
    if not 0 < people < len(everybody):
        raise UserError(f"--people={people}: choose 1 to {len(everybody) - 1}")
    chosen = everybody[:people]
    of_person: dict[str, list[Row]] = {name: [] for name in everybody}
    for row in local_rows(cfg.paths.data, "rwku", "train_refusal_llama3.jsonl", ["subject"]):
        name, question = str(row["subject"]), str(row.get("instruction") or "")
        rows = of_person[name]
        # A few of the generated questions are empty or there twice.
        if question and len(rows) < PER_PERSON and question not in {r.question for r in rows}:
            rows.append(Row(f"rwku/{name}/{len(rows)}", question, "", name, name))
    forget = [row for name in chosen for row in of_person[name]]
    others = [row for name in everybody[people:] for row in of_person[name][:5]]
    lm = instantiate(cfg.model.source).base([row.question for row in (*forget, *others)], "auto")
    flagging = instantiate(cfg.method).flagging
    request = UnlearningRequest(tuple(forget), tuple(others), (), 1, cfg.seed)
    with TemporaryDirectory() as work:
        state, facts = flagging.learn(lm, request, {}, Path(work))
    print({name: value for name, value in facts.items() if value is not None})
    sets = rwku_prompts(cfg.paths.data, chosen)
    others_probes = rwku_prompts(cfg.paths.data, everybody[people:])
    sets["other people's questions"] = others_probes["question"]
    sets["MMLU"] = mmlu_questions(cfg.paths.data)
    flags = flagging.flags(lm, state)
    report({name: sampled(prompts, most) for name, prompts in sets.items()}, flags)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="the classifier of a finished run")
    run.add_argument("run", type=Path, help="directory of the run, with its model")
    rwku = commands.add_parser("rwku", help="a classifier that learns RWKU's people")
    rwku.add_argument("--people", type=int, default=10)
    rwku.add_argument("overrides", nargs="*")
    for command in (run, rwku):
        command.add_argument("--prompts", type=int, default=500, help="of each set, at most")
    arguments = parser.parse_args()
    try:
        if arguments.command == "run":
            of_run(arguments.run, arguments.prompts)
        else:
            of_rwku(arguments.people, arguments.prompts, arguments.overrides)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
