"""Export an unlearned model with its model card.

python scripts/export.py RUN_DIR OUT

The run must have kept its model: python run.py ... run.save_model=true
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from unierase.errors import UserError
from unierase.experiment.card import model_card
from unierase.experiment.checkpoint import STATE
from unierase.experiment.record import read_record
from unierase.experiment.saved import load_unlearned
from unierase.files import replace_folder, write_text


def export(run: Path, out: Path) -> None:
    """Fill ``out`` with the model of ``run`` and a README.md; all of it or nothing."""
    record = read_record(run / "result.json")
    if record.status != "finished":
        raise UserError(f"{run}: the run is {record.status}, not finished")
    if load_unlearned(run).guard is not None:
        raise UserError(
            f"{run}: method={record.method} leaves the weights as they are, there is no checkpoint "
            "to export; unierase.experiment.saved.load_unlearned gives the model with its guard"
        )
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: is there already and not empty")
    config = (run / "config.yaml").read_text(encoding="utf-8")

    def fill(folder: Path) -> None:
        own = shutil.ignore_patterns(STATE)  # nothing a checkpoint needs
        shutil.copytree(run / "model", folder, ignore=own, dirs_exist_ok=True)
        write_text(folder / "README.md", model_card(record, config))

    replace_folder(out, fill)
    (out / "complete.json").unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description="Export an unlearned model with its model card.")
    parser.add_argument("run", type=Path, help="directory of a finished run with its model")
    parser.add_argument("out", type=Path, help="folder to write")
    arguments = parser.parse_args()
    try:
        export(arguments.run, arguments.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.out}: an ordinary transformers checkpoint, with its model card")
    return 0


if __name__ == "__main__":
    sys.exit(main())
