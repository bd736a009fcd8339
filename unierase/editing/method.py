"""UniErase (arXiv 2505.15674): an unlearning token and an unlearning edit."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from unierase.editing.closed_form import KeyResiduals, edit_update
from unierase.editing.corpus import Corpus, RetainRows
from unierase.editing.cost import Workload, edit_cost
from unierase.editing.covariance import cached_covariances, fingerprint
from unierase.editing.kept_token import kept_unlearning_tokens
from unierase.editing.keys import activations_at_edit, key_covariances
from unierase.editing.projector import NullSpaceProjector
from unierase.editing.prompts import (
    POSITIONS,
    EditPrompt,
    answer_prompts,
    fact_prompts,
    fall_backs,
    generated_prefixes,
)
from unierase.editing.token import (
    TokenSettings,
    learn_unlearning_tokens,
    refine_unlearning_tokens,
    token_of_fact,
)
from unierase.editing.values import TargetPass, ValueSettings, find_target_values
from unierase.errors import UserError, invalid_choice
from unierase.models.layers import checked_layers, down_projection, oriented
from unierase.refusals import refusal_to
from unierase.request import State, Unlearned, UnlearningMethod, UnlearningRequest, Workbench
from unierase.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unierase.models.language_model import LanguageModel

log = logging.getLogger(__name__)

TARGETS = ("unl", "refusal")
_FIRST = "first_model"


@dataclass(frozen=True)
class UniErase(UnlearningMethod):
    """The method as a whole.

    target: what a forget question is edited to: "unl", the unlearning token, or "refusal", a
        refusal sentence at once, without any token (ablation: does the token earn its place?).
    layers: S, the layers whose down-projections change (Llama-3.1-8B: 4..8).
    fact_token: the edit position: "subject_last", "question_last" or "prompt_last".
    nullspace, nullspace_threshold: the projector; see ``NullSpaceProjector.of``.
    nullspace_energy: instead of the threshold, the share of the corpus's key energy that may be
        disturbed; see ``NullSpaceProjector.of_energy``.
    l2: lambda of the closed form (10 for Llama-3-8B).
    context_prefixes, context_tokens: number and length of the generated contexts of a fact.
    opening: what answers may be made to begin with, as RWKU's with "Answer:"; the question is to
        lead to the token behind it, too. Beyond the paper ("").
    earlier_weight: weight of the keys of earlier rounds' facts (the paper's edit: 1).
    retain_weight: b, the weight of retained prompts' keys in the edit; 0 is the paper's edit.
    retain_rows: at most this many retain rows, drawn by the seed, give such keys; None: all.
    answer_cuts: at so many points of its answer, too, a forget question leads to the token, and
        a retained one's keys are kept. Beyond the paper (0), whose edit redirects the first
        token only: the rest of the answer stays as likely as it was.
    passes: at most so often target values are sought and the layers changed, after the first time
        for the facts that do not lead to the target yet, on the model as it is by then. Beyond
        the paper (1): values are sought as if nothing but the edit position changed, but the
        tokens behind it see the changed layers, too.
    refine_epochs, refine_lr: so long the tokens are trained on after the layers were changed, on
        the questions asked so far. Beyond the paper (0): what follows a token passes layers it
        was not learned on, and becomes a weak refusal where the values had to move far.
    revisit: in a sequence, earlier rounds' facts take part in every edit: those that no longer lead
        to the target are led there anew, the states of the others are to stay. Beyond the paper
        (false), which holds on to their keys as they were right after their own round.
    reuse_token: keep the learned tokens in the cache, for runs that differ in the edit alone; the
        seconds of such a run are without stage 1.
    """

    name: str
    layers: Sequence[int]
    token: TokenSettings = field(default_factory=TokenSettings)
    values: ValueSettings = field(default_factory=ValueSettings)
    corpus: Corpus = field(default_factory=RetainRows)
    target: str = "unl"
    fact_token: str = "subject_last"
    nullspace: bool = True
    nullspace_threshold: float = 0.02
    nullspace_energy: float | None = None
    l2: float = 10.0
    context_prefixes: int = 5
    context_tokens: int = 10
    opening: str = ""
    earlier_weight: float = 1.0
    retain_weight: float = 0.0
    retain_rows: int | None = None
    answer_cuts: int = 0
    passes: int = 1
    refine_epochs: int = 0
    refine_lr: float = 1e-3
    revisit: bool = False
    reuse_token: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        if self.fact_token not in POSITIONS:
            raise invalid_choice("method.fact_token", self.fact_token, POSITIONS)
        if self.target not in TARGETS:
            raise invalid_choice("method.target", self.target, TARGETS)
        if self.passes < 1:
            raise UserError(f"method.passes={self.passes}: must be at least 1")

    def check(self, model: PreTrainedModel) -> None:
        for layer in checked_layers(model, self.layers):
            down_projection(model, layer)

    def cost(self, model: PreTrainedModel, request: UnlearningRequest) -> str:
        phases = edit_cost(model, self, Workload.of(request, self.fact_token))
        operations = sum(phase.operations for phase in phases) / 1e12
        peak = max(phase.device_bytes for phase in phases) / 1e9
        layers = ", ".join(map(str, self.layers))
        return (
            f"edit of layers {layers}: about {operations:,.3g} TFLOP, at most {peak:.1f} GB "
            "(scripts/plan.py has the phases)"
        )

    def unlearn(
        self, lm: LanguageModel, request: UnlearningRequest, state: State, bench: Workbench
    ) -> Unlearned:
        """Learn the token in the first round, then edit; ``state`` holds earlier rounds' keys."""
        layers = checked_layers(lm.model, self.layers)
        report: dict[str, Any] = {}
        # Before anything changes the model: covariances are kept on disk by its weights.
        first = self._first_model(lm, state)
        projectors = self._projectors(lm, request, layers, state, first, bench)
        report["nullspace_dimensions"] = [projector.dimensions for projector in projectors]
        if self.target == "unl" and not lm.unlearning_tokens:
            report["token_loss"] = self._learn_tokens(lm, request, layers, bench)
        rows, prompts, targets = self._facts(lm, request)
        report["fall_backs"] = fall_backs(lm, request.forget, self.fact_token)
        asked = {row.id for row in request.forget}
        new = torch.tensor([row.id in asked for row in rows])
        moving = new
        if self.revisit and request.earlier:
            _, says = _outcome(lm, prompts, targets, layers[-1])
            report["earlier_lost"] = int((~says & ~new).sum())
            moving = new | ~says
        report["residuals"] = []
        for turn in range(self.passes):
            found = find_target_values(
                lm,
                rows,
                prompts,
                targets,
                layers[-1],
                self.values,
                moving=moving,
                progress=self.progress,
            )
            if turn == 0:
                report["p_target_value"] = float(found.probabilities[new].mean())
            report["residuals"] += self._edit(lm, request, prompts, found.values, projectors, state)
            if turn == 0 and self.refine_epochs and self.target == "unl":
                report["refined_token_loss"] = self._refine_tokens(lm, request)
            log_p, says = _outcome(lm, prompts, targets, layers[-1])
            report["emits_target"] = float(says[new].float().mean())
            report["p_target_edited"] = float(log_p[new].exp().mean())
            if bool(says.all()):
                break
            moving = ~says
        if report["emits_target"] < 0.5:
            log.warning(
                "the edit did not take: %.0f %% of the facts lead to the target; raise "
                "method.values.steps, method.values.lr or method.values.clamp, lower method.l2, "
                "or raise method.nullspace_threshold",
                100 * report["emits_target"],
            )
        if self.revisit:  # earlier rounds' facts are edited themselves: their keys are not needed
            return Unlearned(lm, first, report)
        keys, _ = activations_at_edit(lm, prompts, layers, None, len(rows))
        all_keys = {
            name: torch.cat([state[name], k], dim=1) if name in state else k
            for name, k in zip(map(_state_name, layers), keys, strict=True)
        }
        return Unlearned(lm, {**all_keys, **first}, report)

    def _learn_tokens(
        self,
        lm: LanguageModel,
        request: UnlearningRequest,
        layers: Sequence[int],
        bench: Workbench,
    ) -> dict[str, float]:
        questions = [row.question for row in request.forget]
        asked = (lm, questions, request.refusals, layers, self.token, request.seed)
        if self.reuse_token:
            return kept_unlearning_tokens(*asked, bench.cache_dir / "tokens", self.progress)
        return learn_unlearning_tokens(*asked, self.progress)

    def _refine_tokens(self, lm: LanguageModel, request: UnlearningRequest) -> float:
        return refine_unlearning_tokens(
            lm,
            [[row.question for row in task] for task in (*request.earlier, request.forget)],
            request.refusals,
            self.token,
            self.refine_epochs,
            self.refine_lr,
            request.seed,
            self.progress,
        )

    def _first_model(self, lm: LanguageModel, state: State) -> dict[str, torch.Tensor]:
        """What later rounds find the covariances of the first round's model by: AlphaEdit
        measures general knowledge once, on the untouched model."""
        if not self.nullspace or self.corpus.follows_request:
            return {}
        return {_FIRST: state[_FIRST] if _FIRST in state else fingerprint(lm.model)}

    def _facts(
        self, lm: LanguageModel, request: UnlearningRequest
    ) -> tuple[list[Row], list[EditPrompt], list[tuple[int, ...]]]:
        """The row of every fact, the prompts of all, and the tokens each shall lead to."""
        prefixes = generated_prefixes(lm, self.context_prefixes, self.context_tokens)
        asked = [*request.earlier, request.forget] if self.revisit else [request.forget]
        rows = [row for task in asked for row in task]
        prompts = fact_prompts(lm, rows, self.fact_token, prefixes, self.opening)
        cut_rows, cut_prompts = answer_prompts(lm, rows, self.answer_cuts, len(rows))
        rows, prompts = [*rows, *cut_rows], [*prompts, *cut_prompts]
        if self.target == "refusal":
            said = (refusal_to(row, request.refusals, request.seed) for row in rows)
            return rows, prompts, [lm.encode_answer(refusal) for refusal in said]
        own = {
            row.id: token_of_fact(lm.unlearning_tokens, i, len(task))
            for task in asked
            for i, row in enumerate(task)
        }
        return rows, prompts, [(own[row.id],) for row in rows]

    def _projectors(
        self,
        lm: LanguageModel,
        request: UnlearningRequest,
        layers: Sequence[int],
        state: State,
        first: State,
        bench: Workbench,
    ) -> list[NullSpaceProjector]:
        if not self.nullspace:
            sizes = [oriented(down_projection(lm.model, layer)).shape[1] for layer in layers]
            return [NullSpaceProjector.identity(size) for size in sizes]
        if self.corpus.follows_request:
            sequences = list(self.corpus.sequences(lm, request))
            covariances = key_covariances(lm, sequences, layers)
        else:
            covariances = cached_covariances(
                lm,
                self.corpus.sequences(lm, request),
                {"model": first[_FIRST].tolist(), **self.corpus.identity()},
                layers,
                bench.cache_dir / "covariances",
                compute=_FIRST not in state,
                progress=self.progress,
            )
        if self.nullspace_energy is not None:
            return [NullSpaceProjector.of_energy(c, self.nullspace_energy) for c in covariances]
        return [NullSpaceProjector.of(c, self.nullspace_threshold) for c in covariances]

    def _edit(
        self,
        lm: LanguageModel,
        request: UnlearningRequest,
        prompts: Sequence[EditPrompt],
        values: torch.Tensor,
        projectors: Sequence[NullSpaceProjector],
        state: State,
    ) -> list[float]:
        """Spread the residual over the layers, each on the weights changed so far.

        The keys of earlier rounds and of retained prompts enter with no residual: the output
        there is to stay. Returns |z - h| / |z| before every update and after the last.
        """
        layers = checked_layers(lm.model, self.layers)
        facts, retain = values.shape[1], self._retained(request)
        retained = fact_prompts(lm, retain, self.fact_token)
        retained += answer_prompts(lm, retain, self.answer_cuts, len(retain))[1]
        residuals = []
        for i, (layer, projector) in enumerate(zip(layers, projectors, strict=True)):
            (keys,), hidden = activations_at_edit(lm, prompts, [layer], layers[-1], facts)
            assert hidden is not None
            missing = values - hidden
            residuals.append(float(missing.norm() / values.norm()))
            groups = [KeyResiduals(keys.double(), (missing / (len(layers) - i)).double())]
            if _state_name(layer) in state:
                keys = state[_state_name(layer)]
                groups.append(KeyResiduals(keys.double(), weight=self.earlier_weight))
            if retained:
                (keys,), _ = activations_at_edit(lm, retained, [layer], None, len(retained))
                groups.append(KeyResiduals(keys.double(), weight=self.retain_weight))
            update = edit_update(groups, projector, self.l2)
            weight = oriented(down_projection(lm.model, layer))
            with torch.no_grad():
                weight.copy_((weight.double().cpu() + update).to(weight))
        _, hidden = activations_at_edit(lm, prompts, [], layers[-1], facts)
        assert hidden is not None
        residuals.append(float((values - hidden).norm() / values.norm()))
        return residuals

    def _retained(self, request: UnlearningRequest) -> Sequence[Row]:
        """The retain rows whose keys join the system."""
        if not self.retain_weight:
            return ()
        draw = random.Random(f"retained:{request.seed}")
        rows = request.retain
        most = len(rows) if self.retain_rows is None else min(self.retain_rows, len(rows))
        return [rows[i] for i in sorted(draw.sample(range(len(rows)), most))]


def _outcome(
    lm: LanguageModel,
    prompts: Sequence[EditPrompt],
    targets: Sequence[tuple[int, ...]],
    layer: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether the edit took, on the bare prompts: of each fact the target's log-probability, as
    ``find_target_values`` has it, and whether the target's first token is the likeliest."""
    bare = [next(p for p in prompts if p.fact == fact) for fact in range(len(targets))]
    with torch.no_grad():
        return TargetPass(lm, bare, targets, layer).outcome()


def _state_name(layer: int) -> str:
    return f"keys.layer{layer}"
