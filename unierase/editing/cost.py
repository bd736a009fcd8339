"""What an edit costs, from the shapes of model and request alone: nothing is run.

Operations are floating-point ones, a multiply-add counted as two. Passes count the layers' matrix
products, attention over all positions and the logits that are made; norms and activations are left
out. Memory is the largest tensors that live at once; ``tests/test_cost.py`` holds the operations
against those counted in a real edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from unierase.editing.corpus import Corpus
from unierase.editing.keys import BATCH_TOKENS
from unierase.editing.values import FACTS_PER_BATCH
from unierase.models.layers import checked_layers, decoder_layers, down_projection, oriented

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unierase.editing.method import UniErase
    from unierase.request import UnlearningRequest

_FLOAT32, _FLOAT64 = 4, 8
_EIGH = 9
"""Operations of a symmetric eigendecomposition with vectors, per n^3 (tridiagonalisation,
divide and conquer, back-transformation): an upper estimate."""


@dataclass(frozen=True)
class Workload:
    """The size of a request. Lengths are means, in tokens.

    prompt_tokens: a question in the model's prompt format.
    suffix_tokens: its tokens from the edit position on.
    raw_tokens: the question as bare text.
    refusal_tokens: a refusal with its unlearning tokens and the end of the turn.
    answer_tokens: an answer.
    """

    facts: int
    retain: int = 0
    earlier: int = 0
    prompt_tokens: int = 45
    suffix_tokens: int = 10
    raw_tokens: int = 20
    refusal_tokens: int = 20
    answer_tokens: int = 40

    @classmethod
    def of(cls, request: UnlearningRequest, fact_token: str) -> Workload:
        """The size of ``request`` before there is a tokenizer: lengths from characters."""
        forget = request.forget
        behind = {
            "subject_last": fmean(_behind(row.question, row.subject) for row in forget),
            "question_last": 0.0,
            "prompt_last": -FORMAT_AFTER * CHARACTERS,
        }[fact_token]
        raw = round(fmean(len(row.question) for row in forget) / CHARACTERS)
        return cls(
            facts=len(forget),
            retain=len(request.retain),
            earlier=sum(map(len, request.earlier)),
            prompt_tokens=FORMAT_BEFORE + raw + FORMAT_AFTER,
            suffix_tokens=1 + round(FORMAT_AFTER + behind / CHARACTERS),
            raw_tokens=raw,
            refusal_tokens=3 + round(fmean(len(text) for text in request.refusals) / CHARACTERS),
            answer_tokens=1 + round(fmean(len(row.answer) for row in forget) / CHARACTERS),
        )


CHARACTERS = 4
"""Of a token, about, in English."""

FORMAT_BEFORE, FORMAT_AFTER = 20, 6
"""Tokens that a chat format puts before and behind a question, about."""


def _behind(question: str, subject: str | None) -> float:
    """Characters behind the last mention of ``subject``; none where it is edited at its end."""
    return len(question.rpartition(subject)[2]) if subject and subject in question else 0.0


@dataclass(frozen=True)
class Phase:
    """A part of the edit: operations; bytes at once on the device, weights included, and besides
    it in the host's memory."""

    name: str
    operations: float
    device_bytes: float
    host_bytes: float = 0.0


class ModelShape:
    """The numbers a cost depends on, read off a model, with or without weights.

    layer: weights of one layer's matrices. attention: operations per pair of positions.
    cached: bytes of keys and values of one token in one layer.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config.get_text_config()
        layers = decoder_layers(model)
        heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        self.bytes = next(model.parameters()).element_size()
        self.hidden = config.hidden_size
        self.inner = oriented(down_projection(model, 0)).shape[1]
        self.vocabulary = config.vocab_size
        self.layers = len(layers)
        self.layer = sum(p.numel() for p in layers[0].parameters() if p.dim() == 2)
        self.attention = 4 * heads * head_dim
        self.cached = 2 * kv_heads * head_dim * self.bytes
        self.parameters = sum(p.numel() for p in model.parameters())
        self.weights = float(self.parameters * self.bytes)
        # What a pass through a layer keeps of a token for the way back, or holds while it runs.
        self.activations = (10 * self.hidden + 4 * self.inner) * self.bytes

    def passing(self, layers: float, tokens: float, length: float) -> float:
        """Operations of ``tokens`` tokens through ``layers``, each seeing ``length`` positions."""
        return layers * tokens * (2 * self.layer + self.attention * length)

    def logits(self, positions: float) -> float:
        return 2 * positions * self.hidden * self.vocabulary


def edit_cost(model: PreTrainedModel, method: UniErase, work: Workload) -> list[Phase]:
    """The phases of ``method`` on a request of the size of ``work``, in their order."""
    shape = ModelShape(model)
    layers = checked_layers(model, method.layers)
    phases = []
    if method.nullspace:
        phases += _projection(shape, method.corpus, layers, work)
    if method.target == "unl":
        phases.append(_token(shape, method, layers, work))
    phases.append(_values(shape, method, layers, work))
    phases.append(_update(shape, method, layers, work))
    return phases


def _projection(
    shape: ModelShape, corpus: Corpus, layers: Sequence[int], work: Workload
) -> list[Phase]:
    passages, length = corpus.size(work.retain, work.prompt_tokens + work.answer_tokens)
    tokens = passages * length
    matrix = shape.inner**2 * _FLOAT32
    batch = min(BATCH_TOKENS, tokens)
    running = shape.weights + len(layers) * matrix + batch * shape.activations
    return [
        Phase(
            "covariances of the corpus",
            shape.passing(layers[-1] + 1, tokens, length)
            + 2 * tokens * len(layers) * shape.inner**2,
            running,
            len(layers) * matrix,
        ),
        Phase(
            "projectors",
            _EIGH * len(layers) * shape.inner**3,
            shape.weights,
            # The covariances, half of the eigenvectors of each, and one decomposition at work.
            len(layers) * 1.5 * matrix + 3 * matrix,
        ),
    ]


def _token(shape: ModelShape, method: UniErase, layers: Sequence[int], work: Workload) -> Phase:
    settings = method.token
    sequences = max(work.facts, settings.min_sequences)
    quiet = settings.raw_epochs + settings.chat_epochs
    noisy = len(layers) * settings.robust_epochs if settings.robust_phase else 0

    def trained(prefix: int, epochs: int) -> float:
        tokens = sequences * work.refusal_tokens
        forward = shape.passing(shape.layers, tokens, prefix + work.refusal_tokens)
        # Back to the embeddings, without gradients of the weights: as much again.
        return epochs * 2 * (forward + shape.logits(tokens))

    def read(prefix: int, times: int) -> float:
        return times * (
            shape.passing(shape.layers, sequences * prefix, prefix) + shape.logits(sequences)
        )

    # Questions are read once while the weights stay, and at every step under noise.
    raw = trained(work.raw_tokens, quiet + noisy) + read(work.raw_tokens, 1 + noisy)
    chat_epochs = settings.chat_epochs + noisy
    chat = trained(work.prompt_tokens, chat_epochs) + read(work.prompt_tokens, 1 + noisy)
    if method.refine_epochs:
        chat += trained(work.prompt_tokens, method.refine_epochs) + read(work.prompt_tokens, 1)
    step = settings.batch_size * work.refusal_tokens
    kept = sequences * (work.raw_tokens + work.prompt_tokens) * shape.layers * shape.cached
    return Phase(
        "unlearning token",
        raw + chat,
        shape.weights
        + min(kept, settings.prefix_memory)
        + step * (shape.layers * shape.activations + 4 * shape.vocabulary * _FLOAT32),
    )


def _values(shape: ModelShape, method: UniErase, layers: Sequence[int], work: Workload) -> Phase:
    contexts = (1 + method.context_prefixes) * (2 if method.opening else 1)
    longer = method.context_tokens if method.context_prefixes else 0
    prompt = work.prompt_tokens + longer
    target = 0 if method.target == "unl" else work.refusal_tokens - 1
    suffix = work.suffix_tokens + target
    prompts = work.facts * (contexts + method.answer_cuts)
    above = shape.layers - 1 - layers[-1]
    read = shape.passing(shape.layers, prompts * prompt, prompt) + shape.logits(2 * prompts)
    # Forward and back to the moved states, at every step, and once more for the result.
    step = shape.passing(above, prompts * suffix, prompt) + shape.logits(prompts * (1 + target))
    batch = min(work.facts, FACTS_PER_BATCH) * contexts
    return Phase(
        "target values",
        method.passes * (read + (2 * method.values.steps + 1) * step),
        shape.weights
        + batch * prompt * shape.layers * shape.cached
        + batch * suffix * above * shape.activations
        + batch * (1 + target) * 4 * shape.vocabulary * _FLOAT32,
    )


def _update(shape: ModelShape, method: UniErase, layers: Sequence[int], work: Workload) -> Phase:
    contexts = 1 + method.context_prefixes
    retained = 0
    if method.retain_weight:
        most = work.retain if method.retain_rows is None else method.retain_rows
        retained = min(work.retain, most)
    points = 1 + method.answer_cuts
    columns = (work.facts + work.earlier + retained) * points
    prompt = work.prompt_tokens
    prompts = work.facts * (contexts + method.answer_cuts) + retained * points
    read = shape.passing(layers[-1] + 1, prompts * prompt, prompt)
    # The smaller block of eigenvectors has at most half of the directions.
    project = 4 * shape.inner * (shape.inner / 2) * columns
    solve = 2 / 3 * columns**3 + 2 * columns**2 * (shape.inner + shape.hidden)
    write = 2 * shape.hidden * shape.inner * columns
    basis = shape.inner * shape.inner / 2
    once = len(layers) * method.passes
    return Phase(
        "keys and update",
        once * (read + project + solve + write),
        shape.weights + min(BATCH_TOKENS, work.facts * contexts * prompt) * shape.activations,
        len(layers) * basis * _FLOAT32
        + (basis + 3 * shape.hidden * shape.inner + 3 * shape.inner * columns) * _FLOAT64,
    )
