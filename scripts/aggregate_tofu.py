"""Aggregate the evaluation logs of TOFU's own code.

python scripts/aggregate_tofu.py LOG.json[.gz] [--retrain LOG.json[.gz]]

Prints JSON: probability, ROUGE and truth ratio by set, model utility, forget truth ratio and,
with the log of a retrained model, forget quality.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.official_logs import aggregate_log, read_log
from unierase.errors import UserError


def main() -> int:
    parser = argparse.ArgumentParser(description="Aggregate official TOFU evaluation logs.")
    parser.add_argument("log", type=Path, help="eval_log_aggregated.json, may be gzipped")
    parser.add_argument("--retrain", type=Path, help="the same of the retrained model")
    arguments = parser.parse_args()
    try:
        retrained = read_log(arguments.retrain) if arguments.retrain else None
        result = aggregate_log(read_log(arguments.log), retrained)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
