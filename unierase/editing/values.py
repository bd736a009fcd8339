"""Target values: the hidden states from which the model says [UNL] (UniErase, stage 2, step 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

from unierase.editing.prompts import EditPrompt
from unierase.models.layers import changed_output, decoder_layers, frozen
from unierase.scoring.prefix import PrefixStates, Suffixes

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel
    from unierase.rows import Row


@dataclass(frozen=True)
class ValueSettings:
    """How target values are found. Defaults: AlphaEdit's for Llama-3-8B.

    steps, lr: Adam steps on every delta and their size.
    clamp: upper bound of |delta| / |h|.
    kl: weight of the term that keeps what the model says of the subject in general.
    weight_decay: weight of |delta| / |h|^2.
    stop_loss: a fact whose loss falls below it moves no more.
    """

    steps: int = 25
    lr: float = 0.1
    clamp: float = 0.75
    kl: float = 0.0625
    weight_decay: float = 0.5
    stop_loss: float = 0.05


@dataclass(frozen=True)
class TargetValues:
    """values: z = h + delta, (d_h, n). probabilities: P([UNL] | prompt, z) of every fact, (n,)."""

    values: torch.Tensor
    probabilities: torch.Tensor


class SuffixPass:
    """Forward passes that recompute only the tokens from the edit position on.

    Nothing in front of the edit position depends on a delta, so its attention keys and values
    are computed once; every later pass runs the few tokens behind it.
    """

    def __init__(self, lm: LanguageModel, prompts: Sequence[EditPrompt], layer: int) -> None:
        self.model = lm.model
        self.layer = decoder_layers(lm.model)[layer]
        self.facts = torch.tensor([p.fact for p in prompts], device=lm.device)
        self.weights = torch.tensor([p.weight for p in prompts], device=lm.device)
        self.suffixes = Suffixes.of([p.after for p in prompts], [p.position for p in prompts], lm)
        self.last = self.suffixes.lengths - 1  # of each prompt, in its suffix
        self.mask = self.suffixes.mask
        self.prefix: PrefixStates | None = None
        if any(p.position for p in prompts):
            self.prefix = PrefixStates.of(lm, [p.before for p in prompts])
            self.mask = torch.cat([self.prefix.mask, self.mask], dim=1)

    def logits(self, delta: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits after each prompt's last token, (prompts, vocabulary), in float32, and the
        hidden states at the edit position before delta, (prompts, d_h)."""
        seen: list[torch.Tensor] = []

        def add_delta(hidden: torch.Tensor) -> torch.Tensor:
            seen.append(hidden[:, 0].detach().float())
            if delta is None:
                return hidden
            moved = hidden[:, :1] + delta[self.facts].unsqueeze(1).to(hidden.dtype)
            return torch.cat([moved, hidden[:, 1:]], dim=1)

        cache = self.prefix.cache() if self.prefix is not None else None
        with changed_output(self.layer, add_delta):
            output = self.model(
                input_ids=self.suffixes.ids,
                attention_mask=self.mask,
                position_ids=self.suffixes.positions,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        rows = torch.arange(len(self.last), device=self.last.device)
        return output.logits[rows, self.last].float(), seen[0]


def _subject_prompts(lm: LanguageModel, rows: Sequence[Row]) -> list[EditPrompt]:
    """The prompt "{subject} is a" of every row with a subject; it is edited at the subject."""
    prompts = []
    for fact, row in enumerate(rows):
        if row.subject:
            subject = lm.tokenizer(row.subject, add_special_tokens=False)["input_ids"]
            rest = lm.tokenizer(" is a", add_special_tokens=False)["input_ids"]
            prompts.append(EditPrompt(fact, (*subject, *rest), len(subject) - 1, 1.0))
    return prompts


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def find_target_values(
    lm: LanguageModel,
    rows: Sequence[Row],
    prompts: Sequence[EditPrompt],
    targets: torch.Tensor,
    layer: int,
    settings: ValueSettings,
    facts_per_batch: int = 64,
    progress: bool = False,
) -> TargetValues:
    """Find z for every fact: delta minimises

        sum_c w_c (-log P(target | prompt_c, h + delta)) + kl KL(P(. | "{subject} is a") || P_0)
        + weight_decay |delta| / |h|^2,      projected to |delta| <= clamp |h| after each step.

    All facts of a batch move together; each has its own Adam state, loss and early stop, so the
    result does not depend on which facts share a batch.

    prompts: of all facts, the bare prompt of a fact first among its own.
    targets: (n,) token id each fact shall emit. layer: the layer whose output is moved.
    """
    pieces = []
    with _evaluating(lm.model), frozen(lm.model):
        starts = range(0, len(rows), facts_per_batch)
        for start in tqdm(starts, desc="target values", disable=not progress, leave=False):
            stop = min(start + facts_per_batch, len(rows))
            own = [
                EditPrompt(p.fact - start, p.ids, p.position, p.weight)
                for p in prompts
                if start <= p.fact < stop
            ]
            subjects = _subject_prompts(lm, rows[start:stop]) if settings.kl else []
            pieces.append(
                _optimise(lm, own, subjects, targets[start:stop].to(lm.device), layer, settings)
            )
    return TargetValues(
        values=torch.cat([piece.values for piece in pieces], dim=1),
        probabilities=torch.cat([piece.probabilities for piece in pieces]),
    )


def _optimise(
    lm: LanguageModel,
    prompts: Sequence[EditPrompt],
    subjects: Sequence[EditPrompt],
    targets: torch.Tensor,
    layer: int,
    settings: ValueSettings,
) -> TargetValues:
    n = len(targets)
    facts_pass = SuffixPass(lm, prompts, layer)
    subject_pass = SuffixPass(lm, subjects, layer) if subjects else None
    bare = torch.tensor([next(i for i, p in enumerate(prompts) if p.fact == f) for f in range(n)])
    with torch.no_grad():
        hidden = facts_pass.logits(None)[1][bare]  # h, (n, d_h)
        general = subject_pass.logits(None)[0].log_softmax(-1) if subject_pass else None
    norm = hidden.norm(dim=-1, keepdim=True)
    delta = torch.zeros_like(hidden, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=settings.lr)
    moving = torch.ones(n, dtype=torch.bool, device=hidden.device)
    prompt_targets = targets[facts_pass.facts].unsqueeze(-1)

    def target_log_probabilities(logits: torch.Tensor) -> torch.Tensor:
        return logits.log_softmax(-1).gather(-1, prompt_targets).squeeze(-1)

    def per_fact(values: torch.Tensor, facts: torch.Tensor) -> torch.Tensor:
        return torch.zeros(n, device=values.device).index_add(0, facts, values)

    for _ in range(settings.steps):
        log_p = target_log_probabilities(facts_pass.logits(delta)[0])
        loss = per_fact(-log_p * facts_pass.weights, facts_pass.facts)
        if subject_pass is not None and general is not None:
            now = subject_pass.logits(delta)[0].log_softmax(-1)
            kl = (now.exp() * (now - general)).sum(-1)
            loss = loss + settings.kl * per_fact(kl, subject_pass.facts)
        loss = loss + settings.weight_decay * delta.norm(dim=-1) / norm.squeeze(-1) ** 2
        moving = moving & (loss.detach() >= settings.stop_loss)
        if not bool(moving.any()):
            break
        optimiser.zero_grad()
        loss.sum().backward()
        # |delta| has no gradient at 0, where every delta starts.
        delta.grad = torch.nan_to_num(delta.grad) if delta.grad is not None else None
        before = delta.detach().clone()
        optimiser.step()
        with torch.no_grad():
            length = delta.norm(dim=-1, keepdim=True)
            delta.mul_((settings.clamp * norm / length.clamp(min=1e-12)).clamp(max=1.0))
            delta[~moving] = before[~moving]
    with torch.no_grad():
        log_p = target_log_probabilities(facts_pass.logits(delta)[0])[bare]
        return TargetValues((hidden + delta).T.cpu(), log_p.exp().cpu())
