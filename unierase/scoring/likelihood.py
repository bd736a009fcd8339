"""The likelihood pass: log-probabilities of answers given questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm.auto import tqdm

from unierase.scoring.batching import batches_by_length, left_pad
from unierase.scoring.prefix import PrefixStates, Suffixes

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel


REPLY_FLOOR = 1e-6
"""What is left to all other tokens where a fixed reply is given."""


@dataclass(frozen=True)
class AnswerScores:
    """Of each token of an answer: its log-probability (float32), and if it is the likeliest.

    standardised: (log p - mean) / standard deviation, both over the vocabulary as the model
        weighs it; None unless asked for, and where a fixed reply is given.
    """

    log_probabilities: np.ndarray
    greedy: np.ndarray
    standardised: np.ndarray | None = None


def answer_log_probabilities(
    lm: LanguageModel,
    pairs: Sequence[tuple[str, str]],
    batch_tokens: int = 8192,
    progress: str | None = None,
) -> list[np.ndarray]:
    """Log-probability of every answer token of every (question, answer) pair.

    Returns one float32 array per pair, in the order given, of the answer's length (the closing
    token included); see ``score_answers``.
    """
    encoded = [(question, lm.encode_answer(answer)) for question, answer in pairs]
    scores = score_answers(lm, encoded, batch_tokens, progress)
    return [score.log_probabilities for score in scores]


@torch.inference_mode()
def score_answers(
    lm: LanguageModel,
    pairs: Sequence[tuple[str, Sequence[int]]],
    batch_tokens: int = 8192,
    progress: str | None = None,
    standardise: bool = False,
) -> list[AnswerScores]:
    """Scores of every (question, token ids of an answer), in the order given.

    A question is run once for all its answers, and logits are computed for answer tokens only; a
    row's values do not depend on what shares its batch (to rounding).

    batch_tokens: upper bound of rows x padded length in one forward pass.
    standardise: ``AnswerScores.standardised`` is wanted, too.
    """
    questions = list(dict.fromkeys(question for question, _ in pairs))
    readings = lm.read(questions)
    prompts = [reading.ids for reading in readings]
    pairs_of: dict[str, list[int]] = {question: [] for question in questions}
    for i, (question, _) in enumerate(pairs):
        pairs_of[question].append(i)
    answers = [answer for _, answer in pairs]
    results: list[AnswerScores | None] = [None] * len(pairs)
    asked = []
    for q, reading in enumerate(readings):
        if reading.reply is None:
            asked.append(q)
            continue
        reply = (*reading.reply, *lm.end_ids)
        for i in pairs_of[questions[q]]:
            results[i] = reply_scores(answers[i], reply, len(lm.tokenizer))
    left = sum(scores is None for scores in results)
    with tqdm(total=left, desc=progress, disable=progress is None, leave=False) as bar:
        for places in batches_by_length([len(prompts[q]) for q in asked], batch_tokens):
            batch = [asked[place] for place in places]
            # The prompt's last token goes with the answers: it predicts their first tokens.
            prefixes = PrefixStates.of(
                lm,
                [prompts[q][:-1] for q in batch],
                [None if (e := readings[q].embeddings) is None else e[:-1] for q in batch],
            )
            waiting = [(row, i) for row, q in enumerate(batch) for i in pairs_of[questions[q]]]
            width = prefixes.mask.shape[1]
            lengths = [width + len(answers[i]) for _, i in waiting]
            for chosen in batches_by_length(lengths, batch_tokens):
                members = [waiting[c] for c in chosen]
                suffixes = [(prompts[batch[row]][-1], *answers[i][:-1]) for row, i in members]
                starts = [len(prompts[batch[row]]) - 1 for row, _ in members]
                scored = _scores(
                    lm,
                    prefixes.rows([row for row, _ in members]),
                    Suffixes.of(suffixes, starts, lm),
                    [answers[i] for _, i in members],
                    standardise,
                )
                for (_, i), scores in zip(members, scored, strict=True):
                    results[i] = scores
                bar.update(len(members))
    return [scores for scores in results if scores is not None]


@torch.inference_mode()
def score_texts(
    lm: LanguageModel,
    texts: Sequence[str],
    batch_tokens: int = 8192,
    progress: str | None = None,
) -> list[AnswerScores]:
    """Scores of every token of plain texts but the first, in the order given.

    No chat format and no guard: nobody asks anything. Texts longer than the model reads are cut.
    """
    most = lm.model.config.get_text_config().max_position_embeddings
    rows = [lm.tokenizer(text)["input_ids"][:most] for text in texts]
    results: dict[int, AnswerScores] = {}
    with tqdm(total=len(rows), desc=progress, disable=progress is None, leave=False) as bar:
        # Every position gets logits here: fewer rows at a time.
        for batch in batches_by_length([len(row) for row in rows], batch_tokens // 8):
            inputs = left_pad([rows[i] for i in batch], lm.pad_id, lm.device)
            logits = lm.model(**inputs, use_cache=False).logits
            for i, own in zip(batch, logits, strict=True):
                results[i] = _text_scores(own[-len(rows[i]) :].float(), rows[i])
            bar.update(len(batch))
    return [results[i] for i in range(len(rows))]


def _text_scores(logits: torch.Tensor, ids: Sequence[int]) -> AnswerScores:
    """Scores of the tokens ``ids[1:]``. logits: (tokens, vocabulary)."""
    before = logits[:-1]
    targets = torch.tensor(ids[1:], device=logits.device)
    log_p = before.gather(-1, targets[:, None]).squeeze(-1) - before.logsumexp(-1)
    parts = (log_p, before.argmax(-1) == targets, _standardised(before, log_p))
    return AnswerScores(*(part.cpu().numpy() for part in parts))


def reply_scores(answer: Sequence[int], reply: Sequence[int], vocabulary: int) -> AnswerScores:
    """Scores of ``answer``'s tokens where ``reply`` is given, whatever is asked.

    At each of its places the reply's token has all but ``REPLY_FLOOR``, which the others share;
    behind its end all tokens are alike.
    """
    same = math.log1p(-REPLY_FLOOR)
    other = math.log(REPLY_FLOOR / (vocabulary - 1))
    behind = -math.log(vocabulary)
    hits = [t < len(reply) and token == reply[t] for t, token in enumerate(answer)]
    values = [same if hit else other if t < len(reply) else behind for t, hit in enumerate(hits)]
    return AnswerScores(np.array(values, dtype=np.float32), np.array(hits, dtype=bool))


def _scores(
    lm: LanguageModel,
    prefixes: PrefixStates,
    suffixes: Suffixes,
    answers: Sequence[Sequence[int]],
    standardise: bool,
) -> list[AnswerScores]:
    """Of each row: the scores of its answer, position t of the suffix predicting token t."""
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
    greedy = kept.argmax(-1) == targets
    lengths = [len(answer) for answer in answers]
    parts = [log_p.cpu().split(lengths), greedy.cpu().split(lengths)]
    if standardise:
        parts.append(_standardised(kept, log_p).cpu().split(lengths))
    return [AnswerScores(*(part.numpy() for part in row)) for row in zip(*parts, strict=True)]


def _standardised(logits: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    """(log p - E[log p]) / sqrt(Var[log p]) of each token, under the model's own distribution
    (Min-K %++, arXiv 2404.02936, eq. 3). logits: (tokens, vocabulary); log_p: (tokens,)."""
    all_log_p = logits.log_softmax(-1)
    weights = all_log_p.exp()
    mean = (weights * all_log_p).sum(-1)
    variance = (weights * (all_log_p - mean[:, None]) ** 2).sum(-1)
    return (log_p - mean) / variance.sqrt().clamp(min=1e-6)
