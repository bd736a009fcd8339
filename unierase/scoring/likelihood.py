"""The likelihood pass: log-probabilities of answers given questions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm.auto import tqdm

from unierase.scoring.batching import batches_by_length, left_pad
from unierase.scoring.prefix import PrefixStates, Suffixes, sharing

if TYPE_CHECKING:
    from unierase.models.guard import Reading
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
    standardise: Sequence[bool] | None = None,
) -> list[AnswerScores]:
    """Scores of every (question, token ids of an answer), in the order given.

    A question is run once for all its answers, what many questions begin with once for all of
    them, and logits are computed for answer tokens only; a row's values do not depend on what
    shares its batch (to rounding).

    batch_tokens: upper bound of rows x padded length in one forward pass.
    standardise: of which pairs ``AnswerScores.standardised`` is wanted, too: it costs as much as
        the logits themselves.
    """
    questions = list(dict.fromkeys(question for question, _ in pairs))
    readings = lm.read(questions)
    prompts = [reading.ids for reading in readings]
    pairs_of: dict[str, list[int]] = {question: [] for question in questions}
    for i, (question, _) in enumerate(pairs):
        pairs_of[question].append(i)
    answers = [answer for _, answer in pairs]
    wanted = standardise or [False] * len(pairs)
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
        for places, after in _groups(lm, [readings[q] for q in asked], batch_tokens):
            batch = [asked[place] for place in places]
            start = 0 if after is None else after.mask.shape[1]
            prefixes = PrefixStates.of(
                lm,
                [prompts[q][start:] for q in batch],
                [readings[q].embeddings for q in batch],
                after,
            )
            waiting = [(row, i) for row, q in enumerate(batch) for i in pairs_of[questions[q]]]
            width = prefixes.mask.shape[1]
            lengths = [width + len(answers[i]) for _, i in waiting]
            for chosen in batches_by_length(lengths, batch_tokens):
                members = [waiting[c] for c in chosen]
                rows = [row for row, _ in members]
                scored = _scores(
                    lm,
                    prefixes.rows(rows),
                    [answers[i] for _, i in members],
                    [wanted[i] for _, i in members],
                )
                for (_, i), scores in zip(members, scored, strict=True):
                    results[i] = scores
                bar.update(len(members))
    return [scores for scores in results if scores is not None]


def _groups(
    lm: LanguageModel, readings: Sequence[Reading], batch_tokens: int
) -> Iterator[tuple[list[int], PrefixStates | None]]:
    """Batches of ``readings``, by index, and the states their prompts go on from: what many begin
    with, such as the examples before a question, is run once."""
    own = [i for i, reading in enumerate(readings) if reading.embeddings is not None]
    plain = [i for i, reading in enumerate(readings) if reading.embeddings is None]
    groups = [(0, own)] if own else []
    for shared, places in sharing([readings[i].ids for i in plain]):
        groups.append((shared, [plain[place] for place in places]))
    for shared, members in groups:
        after = PrefixStates.of(lm, [readings[members[0]].ids[:shared]]) if shared else None
        lengths = [len(readings[i].ids) for i in members]
        for places in batches_by_length(lengths, batch_tokens):
            yield [members[place] for place in places], after


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
                results[i] = _text_scores(own[-len(rows[i]) :], rows[i])
            bar.update(len(batch))
    return [results[i] for i in range(len(rows))]


def _text_scores(logits: torch.Tensor, ids: Sequence[int]) -> AnswerScores:
    """Scores of the tokens ``ids[1:]``. logits: (tokens, vocabulary)."""
    targets = torch.tensor(ids[1:], device=logits.device)
    return AnswerScores(*_measured(logits[:-1], targets, [True] * len(targets)))


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
    prompts: PrefixStates,
    answers: Sequence[Sequence[int]],
    standardise: Sequence[bool],
) -> list[AnswerScores]:
    """Of each row: the scores of its answer. The prompt predicts the first token, and the answer's
    own tokens the others; an answer of one token takes no pass of its own."""
    firsts = torch.tensor([answer[0] for answer in answers], device=lm.device)
    first = _measured(prompts.next_logits, firsts, standardise)
    parts = [[column[row : row + 1] for column in first] for row in range(len(answers))]
    longer = [row for row, answer in enumerate(answers) if len(answer) > 1]
    if longer:
        prefixes = prompts.rows(longer) if len(longer) < len(answers) else prompts
        starts = prefixes.mask.sum(-1).tolist()
        suffixes = Suffixes.of([answers[row][:-1] for row in longer], starts, lm)
        logits = lm.model(
            input_ids=suffixes.ids,
            attention_mask=torch.cat([prefixes.mask, suffixes.mask], dim=1),
            position_ids=suffixes.positions,
            past_key_values=prefixes.cache(),
            use_cache=True,
        ).logits[suffixes.mask.bool()]
        flat = [token for row in longer for token in answers[row][1:]]
        flags = [standardise[row] for row in longer for _ in answers[row][1:]]
        columns = _measured(logits, torch.tensor(flat, device=logits.device), flags)
        ends = np.cumsum([len(answers[row]) - 1 for row in longer])[:-1]
        for row, *own in zip(longer, *(np.split(c, ends) for c in columns), strict=True):
            parts[row] = [np.concatenate(both) for both in zip(parts[row], own, strict=True)]
    return [
        AnswerScores(log_p, greedy, standardised if wanted else None)
        for (log_p, greedy, standardised), wanted in zip(parts, standardise, strict=True)
    ]


def _measured(
    logits: torch.Tensor, targets: torch.Tensor, standardise: Sequence[bool]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The fields of ``AnswerScores`` at every place; NaN where not to be standardised.

    logits: (tokens, vocabulary). targets: (tokens,). standardise: of each token.
    """
    logits = logits.float()  # before anything else: models return their own dtype
    log_p = logits.gather(-1, targets[:, None]).squeeze(-1) - logits.logsumexp(-1)
    standardised = torch.full_like(log_p, torch.nan)
    if any(standardise):
        chosen = torch.tensor(list(standardise), device=logits.device)
        standardised[chosen] = _standardised(logits[chosen], log_p[chosen])
    greedy = logits.argmax(-1) == targets
    return log_p.cpu().numpy(), greedy.cpu().numpy(), standardised.cpu().numpy()


def _standardised(logits: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    """(log p - E[log p]) / sqrt(Var[log p]) of each token, under the model's own distribution
    (Min-K %++, arXiv 2404.02936, eq. 3). logits: (tokens, vocabulary); log_p: (tokens,)."""
    all_log_p = logits.log_softmax(-1)
    weights = all_log_p.exp()
    mean = (weights * all_log_p).sum(-1)
    variance = (weights * (all_log_p - mean[:, None]) ** 2).sum(-1)
    return (log_p - mean) / variance.sqrt().clamp(min=1e-6)
