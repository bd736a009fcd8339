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
from unierase.experiment.record import read_record
from unierase.files import replace_folder, write_text


def export(run: Path, out: Path) -> None:
    """Fill ``out`` with the model of ``run`` and a README.md; all of it or nothing."""
    record = read_record(run / "result.json")
    if record.status != "finished":
        raise UserError(f"{run}: the run is {record.status}, not finished")
    if not (run / "model" / "config.json").is_file():
        raise UserError(f"{run}: no model in it; run it again with run.save_model=true")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: is there already and not empty")
    config = (run / "config.yaml").read_text(encoding="utf-8")

    def fill(folder: Path) -> None:
        shutil.copytree(run / "model", folder, dirs_exist_ok=True)
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
