"""Classifiers that tell prompts to be forgotten from all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn import functional

from baselines.inference.encoders import PromptEncoder, Remembering, load_encoder
from unierase.models.training import Schedule, train
from unierase.request import State

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unierase.models.language_model import LanguageModel

Scorer = Callable[[str], float]
"""P(to be forgotten) of one prompt; it depends on the prompt alone."""


class PromptClassifier(Protocol):
    """Learns from prompts of two classes; what it learned is named tensors."""

    def remembering(self) -> PromptClassifier:
        """The same one, for one model: what it has read of a prompt it need not read again."""
        return self

    def fit(
        self,
        lm: LanguageModel,
        forget: Sequence[str],
        other: Sequence[str],
        before: State,
        seed: int,
        work_dir: Path,
    ) -> State:
        """What is learned; ``before``, from an earlier fit or empty, is where it starts."""

    def scorer(self, lm: LanguageModel, learned: State) -> Scorer:
        """Scores prompts by what ``fit`` returned."""


def class_weights(forget: int, other: int) -> tuple[float, float]:
    """N / N_c of both classes: they count the same however unequal they are (ECO)."""
    total = forget + other
    return total / forget, total / other


@dataclass(frozen=True)
class LinearProbe(PromptClassifier):
    """Logistic regression on an encoder's standardised vectors; convex, solved to its optimum.

    l2: weight of |w|^2 / 2 beside the mean weighted cross-entropy.
    """

    encoder: PromptEncoder
    l2: float = 0.01
    steps: int = 200

    def remembering(self) -> LinearProbe:
        return replace(self, encoder=Remembering(self.encoder))

    def fit(
        self,
        lm: LanguageModel,
        forget: Sequence[str],
        other: Sequence[str],
        before: State,
        seed: int,
        work_dir: Path,
    ) -> State:
        features = self.encoder.features(lm, [*forget, *other]).double()
        labels = torch.tensor([1.0] * len(forget) + [0.0] * len(other)).double()
        ours, theirs = class_weights(len(forget), len(other))
        mean, scale = features.mean(0), features.std(0, correction=0).clamp(min=1e-6)
        inputs = (features - mean) / scale
        counts = torch.where(labels > 0, ours, theirs)
        start = before.get("weight", torch.zeros(features.shape[1])).double()
        weight = start.clone().requires_grad_(True)
        bias = before.get("bias", torch.zeros(1)).double().clone().requires_grad_(True)
        solver = torch.optim.LBFGS(
            [weight, bias], max_iter=self.steps, line_search_fn="strong_wolfe"
        )

        def loss() -> torch.Tensor:
            solver.zero_grad()
            wrong = functional.binary_cross_entropy_with_logits(
                inputs @ weight + bias, labels, weight=counts
            )
            value = wrong + self.l2 / 2 * (weight**2).sum()
            value.backward()
            return value

        solver.step(loss)
        return {"weight": weight.detach(), "bias": bias.detach(), "mean": mean, "scale": scale}

    def scorer(self, lm: LanguageModel, learned: State) -> Scorer:
        def score(prompt: str) -> float:
            (features,) = self.encoder.features(lm, [prompt]).double()
            inputs = (features - learned["mean"]) / learned["scale"]
            return float(torch.sigmoid(inputs @ learned["weight"] + learned["bias"]))

        return score


@dataclass(frozen=True)
class FineTuned(Schedule, PromptClassifier):
    """An encoder with a head of two classes, all of it trained, as ECO does with RoBERTa.

    model: hub id, folder, or package:NAME for a model inside an installed Python package.
    """

    model: str
    max_length: int

    def _load(self) -> tuple[Any, PreTrainedModel]:
        option = "method.flagging.classifier.model"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the head
            return load_encoder(option, self.model, head=True)

    def fit(
        self,
        lm: LanguageModel,
        forget: Sequence[str],
        other: Sequence[str],
        before: State,
        seed: int,
        work_dir: Path,
    ) -> State:
        tokenizer, model = self._load()
        if before:
            model.load_state_dict(dict(before))
        prompts = [*forget, *other]
        labels = [1] * len(forget) + [0] * len(other)
        ours, theirs = class_weights(len(forget), len(other))
        encoded = [self._encoded(tokenizer, prompt) for prompt in prompts]
        counts = [ours if label else theirs for label in labels]

        def summed_loss(batch: list[int], epoch: int) -> torch.Tensor:
            logits = torch.cat([model(**encoded[i]).logits for i in batch])
            wrong = functional.cross_entropy(
                logits, torch.tensor([labels[i] for i in batch]), reduction="none"
            )
            return (wrong * torch.tensor([counts[i] for i in batch])).sum()

        lengths = [inputs["input_ids"].shape[1] for inputs in encoded]
        train(
            model,
            lengths,
            counts,
            [summed_loss],
            self,
            seed,
            "prompt classifier",
            work_dir,
        )
        return {name: tensor.detach() for name, tensor in model.state_dict().items()}

    def _encoded(self, tokenizer: Any, prompt: str) -> dict[str, torch.Tensor]:
        inputs = tokenizer(prompt, truncation=True, max_length=self.max_length, return_tensors="pt")
        return dict(inputs)

    def scorer(self, lm: LanguageModel, learned: State) -> Scorer:
        tokenizer, model = self._load()
        model.load_state_dict(dict(learned))
        model.eval()

        @torch.inference_mode()
        def score(prompt: str) -> float:
            logits = model(**self._encoded(tokenizer, prompt)).logits[0]
            return float(logits.softmax(-1)[1])

        return score
