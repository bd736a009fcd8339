"""Target values: hidden states from which the model says its target (UniErase, stage 2, step 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

from unierase.editing.prompts import EditPrompt
from unierase.models.layers import decoder_layers, frozen, replaced_outputs
from unierase.scoring.batching import batches_by_length
from unierase.scoring.likelihood import logits_at
from unierase.scoring.prefix import PrefixStates, Suffixes

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel
    from unierase.rows import Row


FACTS_PER_BATCH = 64
"""Facts whose target values are sought together."""

PASS_TOKENS = 2048
"""Tokens from edit positions on that pass through the layers together, padding included."""


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
    """values: z = h + delta, (d_h, n). probabilities: P(target | prompt, z) of every fact, (n,)."""

    values: torch.Tensor
    probabilities: torch.Tensor


class SuffixPass:
    """Forward passes that recompute only what a delta at the edit position can change.

    Nothing in front of the edit position depends on it: those tokens' attention keys and values
    are computed once. Nor does any layer up to the one it is added to: the hidden states there
    are computed once, too. Every pass runs the few tokens from the edit position on through the
    layers above.

    hidden: the states at the edit position without a delta, (prompts, d_h), float32.
    """

    def __init__(
        self,
        lm: LanguageModel,
        prompts: Sequence[EditPrompt],
        layer: int,
        predicted: Sequence[int] | None = None,
    ) -> None:
        """``predicted``: of each prompt, how many of its last tokens' logits are wanted (1)."""
        self.model = lm.model
        self.facts = torch.tensor([p.fact for p in prompts], device=lm.device)
        suffixes = Suffixes.of([p.after for p in prompts], [p.position for p in prompts], lm)
        self.positions, self.mask = suffixes.positions, suffixes.mask
        counts = torch.tensor(predicted or [1] * len(prompts), device=lm.device)
        place = torch.arange(suffixes.ids.shape[1], device=lm.device)
        ends = suffixes.lengths.to(lm.device)[:, None]
        self.wanted = (place < ends) & (place >= ends - counts[:, None])
        self.rows = self.wanted.nonzero()[:, 0]
        self.prefix: PrefixStates | None = None
        if any(p.position for p in prompts):
            self.prefix = PrefixStates.sharing(lm, [p.before for p in prompts])
            self.mask = torch.cat([self.prefix.mask, self.mask], dim=1)
        layers = decoder_layers(lm.model)
        self.below, self.layer = layers[:layer], layers[layer]
        self.ids = suffixes.ids
        outputs: list[object] = []
        handle = self.layer.register_forward_hook(lambda *call: outputs.append(call[2]))
        try:
            with torch.no_grad():
                self._pass()
        finally:
            handle.remove()
        # Some architectures' layers put out a tuple that begins with the hidden states.
        self.is_tuple = isinstance(outputs[0], tuple)
        states = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
        assert isinstance(states, torch.Tensor)
        self.states = states.detach()
        self.hidden = self.states[:, 0].float()

    def _pass(self) -> torch.Tensor:
        cache = self.prefix.cache() if self.prefix is not None else None
        with logits_at(self.model, self.wanted):
            logits: torch.Tensor = self.model(
                input_ids=self.ids,
                attention_mask=self.mask,
                position_ids=self.positions,
                past_key_values=cache,
                use_cache=cache is not None,
            ).logits
        return logits

    def logits(self, delta: torch.Tensor | None) -> torch.Tensor:
        """Logits after each prompt's last ``predicted`` tokens, one row for each, prompt after
        prompt, (sum of ``predicted``, vocabulary), in float32.

        delta: (facts, d_h), added to the states at the edit position.
        """
        states = self.states
        if delta is not None:
            moved = states[:, :1] + delta[self.facts].unsqueeze(1).to(states.dtype)
            states = torch.cat([moved, states[:, 1:]], dim=1)
        output = (states,) if self.is_tuple else states
        unused = (self.states,) if self.is_tuple else self.states
        with replaced_outputs({**dict.fromkeys(self.below, unused), self.layer: output}):
            logits = self._pass()
        return logits.float()


def subject_prompts(lm: LanguageModel, rows: Sequence[Row]) -> list[EditPrompt]:
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
    targets: Sequence[Sequence[int]],
    layer: int,
    settings: ValueSettings,
    facts_per_batch: int = FACTS_PER_BATCH,
    moving: torch.Tensor | None = None,
    progress: bool = False,
) -> TargetValues:
    """Find z for every fact: delta minimises

        sum_c w_c (-log P(target | prompt_c, h + delta)) + kl KL(P(. | "{subject} is a") || P_0)
        + weight_decay |delta| / |h|^2,

    projected to |delta| <= clamp |h| after each step.

    All facts of a batch move together; each has its own Adam state, loss and early stop, so the
    result does not depend on which facts share a batch.

    prompts: of all facts, the bare prompt of a fact first among its own.
    targets: the token ids each fact shall emit: [UNL], or a sentence; log P is then the mean
        over its tokens.
    layer: the layer whose output is moved.
    moving: (n,) booleans; of the other facts z is h, as it is. None: all move.
    """
    pieces = []
    free = torch.ones(len(rows), dtype=torch.bool) if moving is None else moving
    starts = range(0, len(rows), facts_per_batch)
    steps = len(starts) * settings.steps
    bar = tqdm(total=steps, desc="target values", disable=not progress, leave=False)
    with bar, _evaluating(lm.model), frozen(lm.model):
        for start in starts:
            stop = min(start + facts_per_batch, len(rows))
            own = [replace(p, fact=p.fact - start) for p in prompts if start <= p.fact < stop]
            subjects = subject_prompts(lm, rows[start:stop]) if settings.kl else []
            sought, moved = targets[start:stop], free[start:stop]
            pieces.append(_optimise(lm, own, subjects, sought, layer, settings, moved, bar))
            bar.update(len(pieces) * settings.steps - bar.n)  # what an early stop spared
    return TargetValues(
        values=torch.cat([piece.values for piece in pieces], dim=1),
        probabilities=torch.cat([piece.probabilities for piece in pieces]),
    )


class TargetPass:
    """The mean log-probability of each fact's target after each of its prompts.

    Prompts of similar length pass together: where the edit position lies early in some questions
    and late in others, most of one batch would be padding.

    facts, weights: of each prompt, (prompts,). hidden: the states at its edit position without a
    delta, (prompts, d_h), float32.
    """

    def __init__(
        self,
        lm: LanguageModel,
        prompts: Sequence[EditPrompt],
        targets: Sequence[Sequence[int]],
        layer: int,
    ) -> None:
        # All of a target but its last token is read; all of it is predicted.
        longer = [replace(p, ids=(*p.ids, *targets[p.fact][:-1])) for p in prompts]
        self.parts: list[_Part] = []
        order: list[int] = []
        for chosen in batches_by_length([len(p.after) for p in longer], PASS_TOKENS):
            wanted = [targets[prompts[i].fact] for i in chosen]
            counts = [len(target) for target in wanted]
            suffixes = SuffixPass(lm, [longer[i] for i in chosen], layer, counts)
            tokens = torch.tensor([t for target in wanted for t in target], device=lm.device)
            self.parts.append(_Part(suffixes, torch.tensor(counts, device=lm.device), tokens))
            order += chosen
        self.places = torch.tensor(order, device=lm.device).argsort()
        self.facts = torch.tensor([p.fact for p in prompts], device=lm.device)
        self.weights = torch.tensor([p.weight for p in prompts], device=lm.device)
        self.hidden = self._in_order([part.suffixes.hidden for part in self.parts])

    def log_probabilities(self, delta: torch.Tensor | None) -> torch.Tensor:
        """One for each prompt, (prompts,)."""
        return self._in_order([part.means(part.suffixes.logits(delta)) for part in self.parts])

    def outcome(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Without a delta: the log-probabilities, and whether the target's first token is the
        likeliest, (prompts,) each."""
        made = [(part, part.suffixes.logits(None)) for part in self.parts]
        means = self._in_order([part.means(logits) for part, logits in made])
        return means, self._in_order([part.says(logits) for part, logits in made])

    def _in_order(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """What each part has of its prompts, in the prompts' own order."""
        return torch.cat(list(parts))[self.places]


@dataclass(frozen=True)
class _Part:
    """counts: tokens of each prompt's target, (prompts,). targets: all of them, one after the
    other."""

    suffixes: SuffixPass
    counts: torch.Tensor
    targets: torch.Tensor

    def means(self, logits: torch.Tensor) -> torch.Tensor:
        """Of each prompt the target's mean log-probability, (prompts,)."""
        picked = logits.log_softmax(-1).gather(-1, self.targets[:, None]).squeeze(-1)
        sums = torch.zeros(len(self.counts), device=picked.device)
        return sums.index_add(0, self.suffixes.rows, picked) / self.counts

    def says(self, logits: torch.Tensor) -> torch.Tensor:
        """Whether the target's first token is the likeliest, (prompts,)."""
        first = self.counts.cumsum(0) - self.counts
        return logits[first].argmax(-1) == self.targets[first]


class _Objective:
    """The loss of some facts as a function of their deltas.

    facts: their indices. hidden: h of each, (facts, d_h).
    """

    def __init__(
        self,
        lm: LanguageModel,
        facts: Sequence[int],
        prompts: Sequence[EditPrompt],
        subjects: Sequence[EditPrompt],
        targets: Sequence[Sequence[int]],
        layer: int,
    ) -> None:
        place = {fact: i for i, fact in enumerate(facts)}

        def own(all_prompts: Sequence[EditPrompt]) -> list[EditPrompt]:
            return [replace(p, fact=place[p.fact]) for p in all_prompts if p.fact in place]

        self.facts = torch.tensor(list(facts), device=lm.device)
        prompts, subjects = own(prompts), own(subjects)
        self.target_pass = TargetPass(lm, prompts, [targets[fact] for fact in facts], layer)
        first = [next(i for i, p in enumerate(prompts) if p.fact == n) for n in range(len(facts))]
        self.bare = torch.tensor(first, device=lm.device)
        self.hidden = self.target_pass.hidden[self.bare]
        self.subject_pass = SuffixPass(lm, subjects, layer) if subjects else None
        with torch.no_grad():
            self.general = (
                self.subject_pass.logits(None).log_softmax(-1) if self.subject_pass else None
            )

    def losses(self, delta: torch.Tensor, settings: ValueSettings) -> torch.Tensor:
        """One for each fact, (facts,). delta: (facts, d_h)."""
        targets = self.target_pass
        log_p = targets.log_probabilities(delta)
        loss = self._per_fact(-log_p * targets.weights, targets.facts)
        if self.subject_pass is not None and self.general is not None:
            now = self.subject_pass.logits(delta).log_softmax(-1)
            kl = (now.exp() * (now - self.general)).sum(-1)
            loss = loss + settings.kl * self._per_fact(kl, self.subject_pass.facts)
        norm = self.hidden.norm(dim=-1)
        return loss + settings.weight_decay * delta.norm(dim=-1) / norm**2

    def _per_fact(self, values: torch.Tensor, facts: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(self.facts), device=values.device).index_add(0, facts, values)


def _optimise(
    lm: LanguageModel,
    prompts: Sequence[EditPrompt],
    subjects: Sequence[EditPrompt],
    targets: Sequence[Sequence[int]],
    layer: int,
    settings: ValueSettings,
    moving: torch.Tensor,
    bar: tqdm,
) -> TargetValues:
    n = len(targets)
    whole = objective = _Objective(lm, range(n), prompts, subjects, targets, layer)
    hidden = whole.hidden  # h, (n, d_h)
    norm = hidden.norm(dim=-1, keepdim=True)
    delta = torch.zeros_like(hidden, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=settings.lr)
    moving = moving.to(hidden.device, copy=True)
    for _ in range(settings.steps):
        # Those that move no more are run no more, once they are half: preparing others is a pass.
        if 2 * int(moving.sum()) <= len(objective.facts):
            left = moving.nonzero().squeeze(-1).tolist()
            if not left:
                break
            objective = _Objective(lm, left, prompts, subjects, targets, layer)
        loss = objective.losses(delta[objective.facts], settings)
        moving[objective.facts] &= loss.detach() >= settings.stop_loss
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
        bar.update()
    with torch.no_grad():
        log_p = whole.target_pass.log_probabilities(delta)[whole.bare]
        return TargetValues((hidden + delta).T.cpu(), log_p.exp().cpu())
