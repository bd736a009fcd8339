"""Speed as a ratio against the plain way, measured in the same run.

python scripts/bench.py edit [--model tiny] [--data fictional] [--facts 1 10 40] [--plain 4]
python scripts/bench.py evaluate [--model tiny] [--data fictional] [--limit 40]
python scripts/bench.py inference [--model tiny] [--prompts 20] [--tokens 32] [OVERRIDE ...]
python scripts/bench.py ability [--model tiny] [--questions 100]
python scripts/bench.py train [--model tiny] [--batch-size 8] [--steps 6] [--methods npo_gd ...]
python scripts/bench.py bfloat16 [--model tiny] [--rows 4] [--tokens 64]

edit: target values, keys and update of UniErase's stage 2, against one fact at a time.
evaluate: all metrics of a split, against each in a loop of its own.
inference: methods that leave the weights alone against the bare model, prompt by prompt.
ability: MMLU with five examples, against lm-eval's own model at its best batch size.
train: steps of loss-based methods against plain finetuning, and memory against a second model.
bfloat16: a pass forward and back on the CPU, against torch's own products (no difference where the
    processor has instructions for bfloat16).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarking.ability import bench_ability
from benchmarking.edit import bench_edit
from benchmarking.evaluate import bench_evaluate
from benchmarking.halves import bench_halves
from benchmarking.inference import bench_inference
from benchmarking.train import METHODS, bench_train

from unierase.errors import UserError


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    edit = commands.add_parser("edit", help="UniErase's edit against one fact at a time")
    edit.add_argument("--facts", type=int, nargs="+", default=[1, 10, 40])
    edit.add_argument(
        "--plain", type=int, default=4, help="facts the plain way is timed on; its time is linear"
    )
    inference = commands.add_parser("inference", help="eco, guardrail, in_context per prompt")
    inference.add_argument("--prompts", type=int, default=20, help="of each kind")
    inference.add_argument("--tokens", type=int, default=32, help="generated for each prompt")
    inference.add_argument("overrides", nargs="*", help="for example method/flagging=minilm")
    train = commands.add_parser("train", help="steps of loss-based methods")
    train.add_argument("--batch-size", type=int, default=8, help="forget rows a step")
    train.add_argument("--steps", type=int, default=6, help="timed, after a first one")
    ability = commands.add_parser("ability", help="MMLU against lm-eval's own model")
    ability.add_argument("--questions", type=int, default=100, help="ten of each subject")
    train.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    evaluate = commands.add_parser("evaluate", help="all metrics of a split")
    for command in (edit, evaluate):
        command.add_argument("--data", default="fictional", help="a name in conf/data")
    evaluate.add_argument("--limit", type=int, help="rows of each set; all by default")
    bfloat16 = commands.add_parser("bfloat16", help="a training pass in bfloat16 on the CPU")
    bfloat16.add_argument("--rows", type=int, default=4, help="sequences of a pass")
    bfloat16.add_argument("--tokens", type=int, default=64, help="of each sequence")
    for command in (edit, inference, train, ability, evaluate, bfloat16):
        command.add_argument("--model", default="tiny", help="a name in conf/model")
        command.add_argument("--out", type=Path, help="write the rows as JSON")
    return parser.parse_args()


def _measured(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    if arguments.command == "edit":
        return bench_edit(arguments.model, arguments.data, arguments.facts, arguments.plain)
    if arguments.command == "train":
        return bench_train(
            arguments.model, arguments.batch_size, arguments.steps, arguments.methods
        )
    if arguments.command == "evaluate":
        return bench_evaluate(arguments.model, arguments.data, arguments.limit)
    if arguments.command == "ability":
        return bench_ability(arguments.model, arguments.questions)
    if arguments.command == "bfloat16":
        return bench_halves(arguments.model, arguments.rows, arguments.tokens)
    return bench_inference(
        arguments.model, arguments.prompts, arguments.tokens, arguments.overrides
    )


def main() -> int:
    arguments = _arguments()
    try:
        rows = _measured(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.out:
        from unierase.files import write_json

        write_json(arguments.out, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
