"""Low-rank adapters (LoRA, arXiv 2106.09685) for loss-based methods, through peft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unierase.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LoRA:
    """An adapter on every linear layer but the output's, merged into the weights at the end.

    The model before unlearning is the same one with its adapter off: nobody needs a copy.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"method.lora.rank={self.rank}: must be at least 1")

    def wrap(self, model: PreTrainedModel, seed: int) -> PeftModel:
        """``model`` with a fresh adapter, which alone is trained; it starts as the model itself."""
        import torch
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        # A generator of its own for the adapter: nothing else that draws is disturbed.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            wrapped: PeftModel = get_peft_model(model, config)
        return wrapped

    def parameters(self, model: PreTrainedModel) -> int:
        """Number of trained parameters: rank x (inputs + outputs) of every adapted layer."""
        from torch import nn

        head = model.get_output_embeddings()
        return sum(
            self.rank * (module.in_features + module.out_features)
            for module in model.modules()
            if isinstance(module, nn.Linear) and module is not head
        )
