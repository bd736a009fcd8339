"""lm-eval's view of a language model, weights changed or prompts guarded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import LM

from unierase.errors import UserError
from unierase.models.guard import Reading
from unierase.models.prompt import Opened, TextPrompt
from unierase.scoring.generation import generate
from unierase.scoring.likelihood import score_answers

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from unierase.models.guard import PromptGuard
    from unierase.models.language_model import LanguageModel

MAX_NEW_TOKENS = 256
"""lm-eval's own default where a task sets none."""


@dataclass(frozen=True)
class Said:
    """What a model made of one context. text, tokens: its answer, where one was generated.
    begins_unl: [UNL] stands before the answer; where nothing was generated, it is the likeliest
    token."""

    text: str | None
    tokens: int | None
    begins_unl: bool


@dataclass(frozen=True)
class Asked:
    """lm-eval's messages in one turn. system: the task's description. opening: the answer's first
    words, given."""

    system: str
    question: str
    opening: str

    @staticmethod
    def of(context: str) -> Asked:
        """What ``HarnessModel.apply_chat_template`` made of the messages."""
        try:
            texts = {m["role"]: m["content"] for m in json.loads(context)}
        except (json.JSONDecodeError, TypeError, KeyError):
            return Asked("", context, "")  # no chat format was asked for
        return Asked(texts.get("system", ""), texts["user"], texts.get("assistant", ""))

    def to(self, lm: LanguageModel) -> tuple[LanguageModel, str]:
        """The model in the format this is asked in, and the question to ask it."""
        format = lm.prompt.with_system(self.system) if self.system else lm.prompt
        question = self.question
        if format is None:
            format, question = lm.prompt, f"{self.system.strip()}\n\n{question}"
        if self.opening:
            format = Opened(format, self.opening)
        return replace(lm, prompt=format), question


class HarnessModel(LM):
    """Answers lm-eval's requests through the passes that feed all other metrics.

    With lm-eval's ``apply_chat_template=True, fewshot_as_multiturn=False`` its messages get the
    model's own prompt format, few-shot examples in the user's turn, and a guard reads that turn
    like any other question. Without, contexts are read as they are.

    max_new_tokens: at most so many, whatever a task allows.
    most: tokens it reads. said: what was made of each context, for what accuracy does not tell.
    """

    def __init__(
        self,
        lm: LanguageModel,
        chat: bool = True,
        batch_tokens: int = 8192,
        max_new_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.most: int = lm.model.config.get_text_config().max_position_embeddings
        room = min(max_new_tokens or MAX_NEW_TOKENS, self.most // 2)
        lm = replace(lm, guard=LeftCut(lm.guard, self.most - room))
        self.lm = lm if chat else replace(lm, prompt=TextPrompt("{question}"))
        self.batch_tokens = batch_tokens
        self.max_new_tokens = max_new_tokens
        self.said: dict[str, Said] = {}

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The messages as JSON: the model's format is put around them later."""
        return json.dumps(chat_history)

    @property
    def tokenizer_name(self) -> str:
        return self.lm.name

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Of every continuation the summed log-probability, and whether greedy decoding gives it.

        The closing token does not count: a task compares continuations, not whole answers.
        """
        results: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for asked, chosen in _alike([request.args[0] for request in requests]).items():
            lm, _ = asked.to(self.lm)
            closing = len(lm.end_ids)
            contexts = [requests[i].args[0] for i in chosen]
            questions = {c: Asked.of(c).to(self.lm)[1] for c in contexts}
            pairs: list[tuple[str, Sequence[int]]] = []
            for i, context in zip(chosen, contexts, strict=True):
                continuation = requests[i].args[1].removeprefix(" ")
                pairs.append((questions[context], lm.encode_answer(continuation)[:-closing]))
            unlearning = [(c, token) for c in questions for token in lm.unlearning_tokens]
            scores = score_answers(
                lm,
                [*pairs, *((questions[c], (token,)) for c, token in unlearning)],
                self.batch_tokens,
                "lm-eval, likelihoods",
            )
            for i, score in zip(chosen, scores, strict=False):
                results[i] = (float(score.log_probabilities.sum()), bool(score.greedy.all()))
            emitted = {
                c
                for (c, _), score in zip(unlearning, scores[len(pairs) :], strict=True)
                if score.greedy.all()
            }
            self.said.update({c: Said(None, None, c in emitted) for c in contexts})
        return results

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise UserError("lm-eval tasks that measure perplexity: choose tasks that ask questions")

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Greedy answers up to the first of the task's stop strings."""
        for asked, chosen in _alike([request.args[0] for request in requests]).items():
            lm, _ = asked.to(self.lm)
            contexts = [requests[i].args[0] for i in chosen]
            settings = requests[chosen[0]].args[1]  # one task's, so the same for all
            limit = int(settings.get("max_gen_toks", MAX_NEW_TOKENS))
            answers = generate(
                lm,
                [Asked.of(context).to(self.lm)[1] for context in contexts],
                min(limit, self.max_new_tokens or limit),
                self.batch_tokens,
                "lm-eval, generation",
                until=_stops(settings),
            )
            for context, answer in zip(contexts, answers, strict=True):
                # Not ``answer.text``: a program may begin with the spaces of its indentation.
                text = lm.tokenizer.decode(answer.token_ids, skip_special_tokens=True)
                text = until_first(text, _stops(settings))
                self.said[context] = Said(text, len(answer.token_ids), answer.begins_unl)
        return [self.said[request.args[0]].text or "" for request in requests]


@dataclass(frozen=True)
class LeftCut:
    """A guard that keeps the end of what is longer than the model reads, as lm-eval does."""

    inner: PromptGuard | None
    most: int

    def read(self, lm: LanguageModel, questions: Sequence[str]) -> list[Reading]:
        return [
            reading
            if len(reading.ids) <= self.most
            else replace(
                reading,
                ids=reading.ids[-self.most :],
                embeddings=None if reading.embeddings is None else reading.embeddings[-self.most :],
            )
            for reading in replace(lm, guard=self.inner).read(questions)
        ]


def _alike(contexts: Sequence[str]) -> dict[Asked, list[int]]:
    """Indices of contexts by all but their question, in the order they come."""
    groups: dict[Asked, list[int]] = {}
    for i, context in enumerate(contexts):
        groups.setdefault(replace(Asked.of(context), question=""), []).append(i)
    return groups


def _stops(settings: Mapping[str, Any]) -> list[str]:
    stops = settings.get("until") or []
    return [stop for stop in ([stops] if isinstance(stops, str) else stops) if stop]


def until_first(text: str, stops: Sequence[str]) -> str:
    """``text`` before the first of the stop strings."""
    found = [text.find(stop) for stop in stops]
    return text[: min((place for place in found if place >= 0), default=len(text))]
