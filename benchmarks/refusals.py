"""TOFU's hundred ways to say "I don't know"; the other benchmarks have none and use these."""

from __future__ import annotations

from pathlib import Path

from benchmarks.local import data_folder
from unierase.errors import UserError

FILE = "idontknow.jsonl"


def load_refusals(folder: str | None, hub: str = "locuslab/TOFU") -> tuple[str, ...]:
    """One sentence each. folder: ``paths.data``; None loads from the hub."""
    if folder is None:
        from huggingface_hub import hf_hub_download

        try:
            path = Path(hf_hub_download(hub, FILE, repo_type="dataset"))
        except OSError as error:
            raise UserError(f"data: cannot fetch {FILE} of {hub}; set paths.data=FOLDER") from error
    else:
        path = data_folder(folder, "tofu") / FILE
        if not path.is_file():
            raise UserError(f"paths.data={folder}: no tofu/{FILE} in it")
    # Plain text in spite of its name: one refusal a line.
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip())
