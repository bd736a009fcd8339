"""The likelihood pass: log-probabilities of answers given questions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm.auto import tqdm

from unierase.scoring.batching import batches_by_length, left_pad
from unierase.scoring.prefix import PrefixStates, batches_by_beginning
from unierase.scoring.trees import AnswerTree, TreeInputs, may_branch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unierase.models.guard import Reading
    from unierase.models.language_model import LanguageModel


CPU_TOKENS = 2048
"""Logits of more tokens at once make a CPU wait for memory: 8,192 took 1.6 times as long."""

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

    A question is run once for all its answers, what some of these begin with once for them, and
    what many questions begin with once for all of them; logits are computed for answer tokens
    only. A pair's values do not depend on what shares its batch (to rounding).

    batch_tokens: upper bound of rows x padded length in one forward pass; on a CPU ``CPU_TOKENS``
        at most.
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
    if lm.device.type == "cpu":
        batch_tokens = min(batch_tokens, CPU_TOKENS)
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
        for shared, after, places in _groups(lm, [readings[q] for q in asked], batch_tokens):
            batch = [asked[place] for place in places]
            prefixes = PrefixStates.of(
                lm,
                [prompts[q][shared:] for q in batch],
                [readings[q].embeddings for q in batch],
                after,
            )
            rows = _tree_rows(lm, prefixes, [pairs_of[questions[q]] for q in batch], answers)
            lengths = [prefixes.mask.shape[1] + len(row.tree.tokens) for row in rows]
            for chosen in batches_by_length(lengths, batch_tokens):
                own = [rows[c] for c in chosen]
                members = [i for row in own for i in row.pairs]
                scored = _scores(
                    lm,
                    prefixes.rows([row.prompt for row in own]),
                    [row.tree for row in own],
                    [answers[i] for i in members],
                    [wanted[i] for i in members],
                )
                for i, scores in zip(members, scored, strict=True):
                    results[i] = scores
                bar.update(len(members))
    return [scores for scores in results if scores is not None]


def _groups(
    lm: LanguageModel, readings: Sequence[Reading], batch_tokens: int
) -> Iterator[tuple[int, PrefixStates | None, list[int]]]:
    """Batches of ``readings``, by index, behind what their prompts begin with: so many tokens, such
    as the examples before a question, are run once, and their states gone on from."""
    own = [i for i, reading in enumerate(readings) if reading.embeddings is not None]
    for places in batches_by_length([len(readings[i].ids) for i in own], batch_tokens):
        yield 0, None, [own[place] for place in places]
    plain = [i for i, reading in enumerate(readings) if reading.embeddings is None]
    prompts = [readings[i].ids for i in plain]
    for shared, after, places in batches_by_beginning(lm, prompts, batch_tokens):
        yield shared, after, [plain[place] for place in places]


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
    count = len(ids) - 1
    return AnswerScores(*_measured(logits[:-1], range(count), ids[1:], [True] * count))


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


@dataclass(frozen=True)
class _TreeRow:
    """A row of a forward pass: the prompt it follows, and answers to it, by their pairs."""

    prompt: int
    pairs: Sequence[int]
    tree: AnswerTree


def _tree_rows(
    lm: LanguageModel,
    prompts: PrefixStates,
    pairs: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
) -> list[_TreeRow]:
    """A row for all answers to a prompt, or, where the model cannot branch, for each answer.

    pairs: of each prompt. answers: of each pair.
    """
    longest = max(len(answers[i]) for own in pairs for i in own)
    together = may_branch(lm, prompts.mask.shape[1] + longest)
    return [
        _TreeRow(prompt, members, AnswerTree.of([answers[i] for i in members]))
        for prompt, own in enumerate(pairs)
        for members in ([own] if together else [[i] for i in own])
    ]


def _scores(
    lm: LanguageModel,
    prompts: PrefixStates,
    trees: Sequence[AnswerTree],
    answers: Sequence[Sequence[int]],
    standardise: Sequence[bool],
) -> list[AnswerScores]:
    """Of each answer its scores. A prompt predicts the first token, and the answer's own tokens
    the others; answers of one token take no pass of their own.

    prompts, trees: a row each. answers, standardise: those of the first tree, then the next's.
    """
    rows = [row for row, tree in enumerate(trees) for _ in tree.paths]
    parts = _measured(prompts.next_logits, rows, [answer[0] for answer in answers], standardise)
    pieces = [[tuple(column[n : n + 1] for column in parts)] for n in range(len(answers))]
    longer = [row for row, tree in enumerate(trees) if tree.tokens]
    if longer:
        prefixes = prompts.rows(longer) if len(longer) < len(trees) else prompts
        inputs = TreeInputs.of([trees[row] for row in longer], prefixes.mask, lm)
        with logits_at(lm.model, inputs.own.bool()):
            logits = lm.model(
                input_ids=inputs.ids,
                attention_mask=inputs.mask,
                position_ids=inputs.positions,
                past_key_values=prefixes.cache(),
                use_cache=True,
            ).logits
        firsts = np.cumsum([0, *(len(tree.tokens) for tree in trees)]).tolist()
        paths = [(row, path) for row, tree in enumerate(trees) for path in tree.paths]
        places = [firsts[row] + node for row, path in paths for node in path]
        targets = [token for answer in answers for token in answer[1:]]
        flags = [
            flag for flag, answer in zip(standardise, answers, strict=True) for _ in answer[1:]
        ]
        columns = _measured(logits, places, targets, flags)
        ends = np.cumsum([len(path) for _, path in paths])[:-1]
        for piece, *own in zip(pieces, *(np.split(c, ends) for c in columns), strict=True):
            piece.append(tuple(own))
    scores = []
    for piece, wanted in zip(pieces, standardise, strict=True):
        log_p, greedy, standardised = (np.concatenate(c) for c in zip(*piece, strict=True))
        scores.append(AnswerScores(log_p, greedy, standardised if wanted else None))
    return scores


@contextmanager
def logits_at(model: PreTrainedModel, places: torch.Tensor) -> Iterator[None]:
    """Within the context the model makes logits at these places alone, (places, vocabulary):
    padding gets none, and nothing is copied out of the whole.

    places: (rows, tokens), bool.
    """
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][places],))
    try:
        yield
    finally:
        handle.remove()


def _measured(
    logits: torch.Tensor,
    places: Sequence[int],
    targets: Sequence[int],
    standardise: Sequence[bool],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The fields of ``AnswerScores`` of tokens; standardised is NaN where it is not wanted.

    logits: (places, vocabulary). places, targets, standardise: of each token where it is
    predicted, which it is, and whether it is to be standardised.
    """
    logits = logits.float()  # before anything else: models return their own dtype
    at = torch.tensor(list(places), device=logits.device)
    wanted = torch.tensor(list(targets), device=logits.device)
    log_p = logits[at, wanted] - logits.logsumexp(-1)[at]
    standardised = torch.full_like(log_p, torch.nan)
    if any(standardise):
        chosen = torch.tensor(list(standardise), device=logits.device)
        standardised[chosen] = _standardised(logits[at[chosen]], log_p[chosen])
    greedy = logits.max(-1).indices[at] == wanted  # argmax takes twice as long
    return log_p.cpu().numpy(), greedy.cpu().numpy(), standardised.cpu().numpy()


def _standardised(logits: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    """(log p - E[log p]) / sqrt(Var[log p]) of each token, under the model's own distribution
    (Min-K %++, arXiv 2404.02936, eq. 3). logits: (tokens, vocabulary); log_p: (tokens,)."""
    all_log_p = logits.log_softmax(-1)
    weights = all_log_p.exp()
    mean = (weights * all_log_p).sum(-1)
    variance = (weights * (all_log_p - mean[:, None]) ** 2).sum(-1)
    return (log_p - mean) / variance.sqrt().clamp(min=1e-6)
