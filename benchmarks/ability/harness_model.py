"""lm-eval's view of a language model, weights changed or prompts guarded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lm_eval.api.model import LM

from unierase.errors import UserError
from unierase.scoring.generation import generate
from unierase.scoring.likelihood import score_answers

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from unierase.models.language_model import LanguageModel

MAX_NEW_TOKENS = 256
"""lm-eval's own default where a task sets none."""


class HarnessModel(LM):
    """Answers lm-eval's requests through the passes that feed all other metrics.

    What lm-eval calls the context, few-shot examples included, is the question: it gets the
    model's own prompt format, and a guard reads it like any other question. Ask lm-eval for
    ``apply_chat_template=True, fewshot_as_multiturn=False``.
    """

    def __init__(self, lm: LanguageModel, batch_tokens: int = 8192) -> None:
        super().__init__()
        self.lm = lm
        self.batch_tokens = batch_tokens

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The messages' texts, one after another; the model's format is put around them later."""
        return "\n\n".join(message["content"].strip() for message in chat_history)

    @property
    def tokenizer_name(self) -> str:
        return self.lm.name

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Of every continuation the summed log-probability, and whether greedy decoding gives it.

        The closing token does not count: a task compares continuations, not whole answers.
        """
        closing = len(self.lm.end_ids)
        pairs = []
        for request in requests:
            context, continuation = request.args
            answer = self.lm.encode_answer(continuation.removeprefix(" "))[:-closing]
            pairs.append((context, answer))
        scores = score_answers(self.lm, pairs, self.batch_tokens, "lm-eval, likelihoods")
        return [
            (float(score.log_probabilities.sum()), bool(score.greedy.all())) for score in scores
        ]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise UserError("lm-eval tasks that measure perplexity: choose tasks that ask questions")

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Greedy answers up to the first of the task's stop strings."""
        answers: list[str] = [""] * len(requests)
        by_limit: dict[int, list[int]] = {}
        for i, request in enumerate(requests):
            limit = int(request.args[1].get("max_gen_toks", MAX_NEW_TOKENS))
            by_limit.setdefault(limit, []).append(i)
        for limit, chosen in by_limit.items():
            contexts = [requests[i].args[0] for i in chosen]
            found = generate(self.lm, contexts, limit, self.batch_tokens, "lm-eval, generation")
            for i, answer in zip(chosen, found, strict=True):
                # Not ``answer.text``: a program may begin with the spaces of its indentation.
                text = self.lm.tokenizer.decode(answer.token_ids, skip_special_tokens=True)
                answers[i] = _until(text, requests[i].args[1])
        return answers


def _until(text: str, settings: dict[str, Any]) -> str:
    """``text`` before the first of the stop strings."""
    stops = settings.get("until") or []
    found = [text.find(stop) for stop in ([stops] if isinstance(stops, str) else stops) if stop]
    return text[: min((place for place in found if place >= 0), default=len(text))]
