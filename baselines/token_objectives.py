"""Forget objectives that treat every token of an answer by itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from baselines.scored import Batch, Needs, present


@dataclass(frozen=True)
class WeightedGradientAscent:
    """F = mean over tokens of p^alpha log p, the weight without gradient: tokens already
    forgotten are left alone (WGA, arXiv 2502.19301)."""

    alpha: float = 1.0
    needs = Needs()

    def __call__(self, batch: Batch) -> torch.Tensor:
        log_p = batch.answer.log_probabilities
        return batch.answer.mean_over_tokens((self.alpha * log_p).exp().detach() * log_p)


@dataclass(frozen=True)
class SaturationImportance:
    """F = mean over tokens of p^beta1 (1 - p)^beta2 log p, the weight without gradient
    (SatImp, arXiv 2505.11953)."""

    beta1: float = 5.0
    beta2: float = 1.0
    needs = Needs()

    def __call__(self, batch: Batch) -> torch.Tensor:
        log_p = batch.answer.log_probabilities
        p = log_p.exp().detach()
        weight = p**self.beta1 * (1.0 - p) ** self.beta2
        return batch.answer.mean_over_tokens(weight * log_p)


@dataclass(frozen=True)
class CrossEntropyUnlearning:
    """F = mean over tokens of the cross-entropy with the model's own distribution from which the
    token is taken out (CE-U, arXiv 2503.01224): bounded, where ascent is not."""

    needs = Needs(logits=True)

    def __call__(self, batch: Batch) -> torch.Tensor:
        logits = batch.answer.all_logits()
        rest = logits.detach().scatter(-1, batch.answer.targets.unsqueeze(-1), -torch.inf)
        own = logits.log_softmax(-1)
        return batch.answer.mean_over_tokens(-(rest.softmax(-1) * own).sum(-1))


@dataclass(frozen=True)
class SelfDistillation:
    """F = mean over tokens of the cross-entropy with softmax(z_ref - beta e_token): the model's
    own distribution before unlearning with the token's logit lowered (UNDIAL, arXiv 2402.10052)."""

    beta: float = 10.0
    needs = Needs(logits=True, reference_logits=True)

    def __call__(self, batch: Batch) -> torch.Tensor:
        reference = present(batch.reference_logits)
        tokens = batch.answer.targets.unsqueeze(-1)
        lowered = reference.gather(-1, tokens) - self.beta
        teacher = reference.scatter(-1, tokens, lowered).softmax(-1)
        own = batch.answer.all_logits().log_softmax(-1)
        return batch.answer.mean_over_tokens(-(teacher * own).sum(-1))
