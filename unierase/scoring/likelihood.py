"""The likelihood pass: log-probabilities of answers given questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm.auto import tqdm

from unierase.scoring.batching import batches_by_length, left_pad

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel


@torch.inference_mode()
def answer_log_probabilities(
    lm: LanguageModel,
    pairs: Sequence[tuple[str, str]],
    batch_tokens: int = 8192,
    progress: str | None = None,
) -> list[np.ndarray]:
    """Log-probability of every answer token of every (question, answer) pair.

    Returns one float32 array per pair, in the order given, of the answer's length (the closing
    token included). Rows are padded on the left, so that all answers end together and logits are
    computed for the last positions only; a row's values do not depend on what shares its batch
    (to rounding).

    batch_tokens: upper bound of rows x padded length in one forward pass.
    """
    prompts = {question: lm.encode_prompt(question).ids for question, _ in pairs}
    encoded = [(prompts[question], lm.encode_answer(answer)) for question, answer in pairs]
    results: list[np.ndarray | None] = [None] * len(pairs)
    lengths = [len(prompt) + len(answer) for prompt, answer in encoded]
    with tqdm(total=len(pairs), desc=progress, disable=progress is None, leave=False) as bar:
        for batch in batches_by_length(lengths, batch_tokens):
            rows = [(*encoded[i][0], *encoded[i][1]) for i in batch]
            inputs = left_pad(rows, lm.pad_id, lm.device)
            longest = max(len(encoded[i][1]) for i in batch)
            logits = lm.model(**inputs, use_cache=False, logits_to_keep=longest + 1).logits
            # Position t predicts token t + 1. Cast first: models return their own dtype.
            log_probabilities = logits[:, :-1].float().log_softmax(-1)
            targets = inputs["input_ids"][:, -longest:]
            picked = log_probabilities.gather(-1, targets.unsqueeze(-1)).squeeze(-1).cpu().numpy()
            for i, values in zip(batch, picked, strict=True):
                results[i] = values[longest - len(encoded[i][1]) :].copy()
            bar.update(len(batch))
    return [values for values in results if values is not None]
