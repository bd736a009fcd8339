"""Unlearning tokens kept on disk, for runs that differ in the edit alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from unierase.editing.covariance import fingerprint
from unierase.editing.token import (
    TokenSettings,
    add_unlearning_tokens,
    learn_unlearning_tokens,
    put_token_rows,
)
from unierase.files import build_folder, content_key, read_json, write_json

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel

_ROWS, _LOSSES = "rows.safetensors", "losses.json"


def kept_unlearning_tokens(
    lm: LanguageModel,
    questions: Sequence[str],
    refusals: Sequence[str],
    layers: Sequence[int],
    settings: TokenSettings,
    seed: int,
    cache_dir: Path,
    progress: bool = False,
) -> dict[str, float]:
    """As ``learn_unlearning_tokens``, to the bit, but learned only where ``cache_dir`` does not
    have them: an entry is found by the weights and by all that is read."""
    identity = {
        "model": fingerprint(lm.model).tolist(),
        "prompts": [lm.encode_prompt(question).ids for question in questions],
        "questions": list(questions),
        "refusals": list(refusals),
        "layers": list(layers),
        "settings": asdict(settings),
        "seed": seed,
    }

    def build(path: Path) -> None:
        losses = learn_unlearning_tokens(lm, questions, refusals, layers, settings, seed, progress)
        _write(lm, losses, path)

    folder = build_folder(cache_dir / content_key(identity), build)
    if not lm.unlearning_tokens:  # they were there
        _put(lm, settings.num_tokens, folder)
    losses: dict[str, float] = read_json(folder / _LOSSES)
    return losses


def _write(lm: LanguageModel, losses: dict[str, float], path: Path) -> None:
    from safetensors.torch import save_file

    tokens = list(lm.unlearning_tokens)
    rows = {
        "embedding": lm.model.get_input_embeddings().weight[tokens],
        "output": lm.model.get_output_embeddings().weight[tokens],
    }
    save_file({name: row.detach().cpu() for name, row in rows.items()}, str(path / _ROWS))
    write_json(path / _LOSSES, losses)


def _put(lm: LanguageModel, count: int, folder: Path) -> None:
    from safetensors.torch import load_file

    rows = load_file(str(folder / _ROWS))
    put_token_rows(lm, add_unlearning_tokens(lm, count), rows["embedding"], rows["output"])
