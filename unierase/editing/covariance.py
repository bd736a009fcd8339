"""Key covariances of a corpus, C0 = E[k k^T]: computed once for a model, kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from unierase.editing.keys import key_covariances
from unierase.errors import UserError
from unierase.files import build_folder, content_key, is_complete

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unierase.models.language_model import LanguageModel

CHUNK = 512
"""Sequences read from a corpus at a time: enough to batch by length, little to hold."""


def fingerprint(model: PreTrainedModel) -> torch.Tensor:
    """32 bytes that stand for all weights, to the bit, as a uint8 tensor."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


def cached_covariances(
    lm: LanguageModel,
    sequences: Iterable[tuple[int, ...]],
    identity: Mapping[str, Any],
    layers: Sequence[int],
    cache_dir: Path,
    compute: bool,
    progress: bool,
) -> list[torch.Tensor]:
    """C0 of each layer over ``sequences``, (d_k, d_k) float32 tensors on the CPU.

    identity: what decides model and sequences, as JSON values; a layer's entry in ``cache_dir``
        is found by it.
    compute: whether ``lm`` is the model of ``identity``. A UserError is raised where it is not
        and an entry is missing.
    """
    folders = [cache_dir / content_key({"layer": layer, **identity}) for layer in layers]
    missing = [i for i, folder in enumerate(folders) if not is_complete(folder)]
    if missing and not compute:
        raise UserError(
            f"{cache_dir}: the key covariances of the first round are gone; start over with "
            "run.resume=false"
        )
    if missing:
        found = _means(lm, sequences, [layers[i] for i in missing], progress)
        for i, covariance in zip(missing, found, strict=True):
            _write(folders[i], covariance)
    return [_read(folder) for folder in folders]


def _means(
    lm: LanguageModel, sequences: Iterable[tuple[int, ...]], layers: Sequence[int], progress: bool
) -> list[torch.Tensor]:
    sums = [torch.zeros(1) for _ in layers]
    tokens = 0
    with tqdm(desc="keys of the corpus", disable=not progress, leave=False) as bar:
        for chunk in _chunks(sequences):
            count = sum(len(ids) for ids in chunk)
            means = key_covariances(lm, chunk, layers)
            sums = [total + mean * count for total, mean in zip(sums, means, strict=True)]
            tokens += count
            bar.update(len(chunk))
    if not tokens:
        raise UserError("method.corpus: no text in it")
    return [total / tokens for total in sums]


def _chunks(sequences: Iterable[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    rest = iter(sequences)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def _write(folder: Path, covariance: torch.Tensor) -> None:
    from safetensors.torch import save_file

    def build(path: Path) -> None:
        save_file({"covariance": covariance}, str(path / "covariance.safetensors"))

    build_folder(folder, build)


def _read(folder: Path) -> torch.Tensor:
    from safetensors.torch import load_file

    return load_file(str(folder / "covariance.safetensors"))["covariance"]
