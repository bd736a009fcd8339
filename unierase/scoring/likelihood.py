"""The likelihood pass: log-probabilities of answers given questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm.auto import tqdm

from unierase.scoring.batching import batches_by_length
from unierase.scoring.prefix import PrefixStates, Suffixes

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
    token included). A question is run once for all its answers, and logits are computed for
    answer tokens only; a row's values do not depend on what shares its batch (to rounding).

    batch_tokens: upper bound of rows x padded length in one forward pass.
    """
    questions = list(dict.fromkeys(question for question, _ in pairs))
    prompts = [lm.encode_prompt(question).ids for question in questions]
    pairs_of: dict[str, list[int]] = {question: [] for question in questions}
    for i, (question, _) in enumerate(pairs):
        pairs_of[question].append(i)
    answers = [lm.encode_answer(answer) for _, answer in pairs]
    results: list[np.ndarray | None] = [None] * len(pairs)
    with tqdm(total=len(pairs), desc=progress, disable=progress is None, leave=False) as bar:
        for batch in batches_by_length([len(prompt) for prompt in prompts], batch_tokens):
            # The prompt's last token goes with the answers: it predicts their first tokens.
            prefixes = PrefixStates.of(lm, [prompts[q][:-1] for q in batch])
            waiting = [(row, i) for row, q in enumerate(batch) for i in pairs_of[questions[q]]]
            width = prefixes.mask.shape[1]
            lengths = [width + len(answers[i]) for _, i in waiting]
            for chosen in batches_by_length(lengths, batch_tokens):
                members = [waiting[c] for c in chosen]
                suffixes = [(prompts[batch[row]][-1], *answers[i][:-1]) for row, i in members]
                starts = [len(prompts[batch[row]]) - 1 for row, _ in members]
                picked = _picked_log_probabilities(
                    lm,
                    prefixes.rows([row for row, _ in members]),
                    Suffixes.of(suffixes, starts, lm),
                    [answers[i] for _, i in members],
                )
                for (_, i), values in zip(members, picked, strict=True):
                    results[i] = values
                bar.update(len(members))
    return [values for values in results if values is not None]


def _picked_log_probabilities(
    lm: LanguageModel,
    prefixes: PrefixStates,
    suffixes: Suffixes,
    answers: Sequence[Sequence[int]],
) -> list[np.ndarray]:
    """Of each row: log P of the answer's tokens, position t of the suffix predicting token t."""
    logits = lm.model(
        input_ids=suffixes.ids,
        attention_mask=torch.cat([prefixes.mask, suffixes.mask], dim=1),
        position_ids=suffixes.positions,
        past_key_values=prefixes.cache(),
        use_cache=True,
    ).logits
    own = suffixes.mask.bool()
    targets = torch.tensor([token for answer in answers for token in answer], device=own.device)
    # Cast first: models return their own dtype.
    kept = logits[own].float()
    log_p = kept.gather(-1, targets[:, None]).squeeze(-1) - kept.logsumexp(-1)
    return [part.numpy() for part in log_p.cpu().split([len(answer) for answer in answers])]
