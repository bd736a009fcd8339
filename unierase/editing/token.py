"""The unlearning token (UniErase, stage 1): an embedding after which the model refuses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from tqdm.auto import tqdm

from unierase.models.layers import down_projection, frozen
from unierase.refusals import refusal_for
from unierase.scoring.prefix import PrefixStates, Suffixes

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel


@dataclass(frozen=True)
class TokenSettings:
    """The schedule of stage 1. Defaults: the published code's.

    num_tokens: unlearning tokens; forget questions are dealt to them in blocks.
    share_output_row: untied models only: the token's output row is the initial embedding and
        stays (published); false trains it too. Tied models have one row for both.
    min_sequences: a request of fewer questions repeats them, with other refusals, up to so many:
        one question alone would give a step an epoch (published: 0).
    prefix_memory: bytes in which the attention states of the questions are kept between epochs.
    robust_phase: train with noise on the layers to be edited.
    noise_scale: standard deviation of that noise in units of the weights' own. The published
        code adds noise of the size of the weights' *mean*, which is almost zero; null does that.
    """

    num_tokens: int = 1
    raw_epochs: int = 5
    raw_lr: float = 1e-3
    chat_epochs: int = 3
    chat_lr: float = 1e-4
    robust_phase: bool = True
    robust_epochs: int = 2
    robust_lr: float = 1e-4
    noise_scale: float | None = 0.1
    share_output_row: bool = True
    batch_size: int = 16
    max_length: int = 128
    min_sequences: int = 0
    prefix_memory: int = 4 * 2**30


@dataclass(frozen=True)
class TokenSequence:
    """``question [UNL] refusal [UNL] end``: ids, and the index of the first [UNL].

    Everything behind the first [UNL] is predicted: the refusal, the second [UNL], one more.
    """

    ids: tuple[int, ...]
    first: int

    @property
    def prefix(self) -> tuple[int, ...]:
        return self.ids[: self.first]

    @property
    def suffix(self) -> tuple[int, ...]:
        return self.ids[self.first :]


def add_unlearning_tokens(lm: LanguageModel, count: int) -> tuple[int, ...]:
    """Add [UNL] (or [UNL1], [UNL2], ...) to tokenizer and model; returns the ids.

    Each starts at the mean of the embeddings.
    """
    names = ["[UNL]"] if count == 1 else [f"[UNL{i + 1}]" for i in range(count)]
    embeddings = lm.model.get_input_embeddings().weight
    mean = embeddings.detach().float().mean(0)
    lm.tokenizer.add_special_tokens(
        {"extra_special_tokens": names}, replace_extra_special_tokens=False
    )
    if len(lm.tokenizer) > embeddings.shape[0]:
        lm.model.resize_token_embeddings(len(lm.tokenizer), mean_resizing=False)
    ids = lm.unlearning_tokens
    put_token_rows(lm, ids, mean, mean)
    return ids


@torch.no_grad()
def put_token_rows(
    lm: LanguageModel, tokens: Sequence[int], embedding: torch.Tensor, output: torch.Tensor
) -> None:
    """Write the rows of ``tokens``, (tokens, d_h) or one for all, into the model: ``embedding``
    into the input matrix, ``output`` into the output matrix. Tied models have one for both."""
    matrices = lm.model.get_input_embeddings(), lm.model.get_output_embeddings()
    for matrix, rows in zip(matrices, (embedding, output), strict=True):
        matrix.weight[list(tokens)] = rows.detach().to(matrix.weight)


def token_of_fact(tokens: Sequence[int], fact: int, facts: int) -> int:
    """Facts are dealt to the unlearning tokens in blocks of equal size."""
    return tokens[fact * len(tokens) // facts]


def token_sequences(
    lm: LanguageModel,
    questions: Sequence[str],
    refusals: Sequence[str],
    tokens: Sequence[int],
    chat: bool,
    seed: int,
    max_length: int,
    at_least: int = 0,
) -> list[TokenSequence]:
    """``question [UNL] refusal [UNL] end`` for every question, as raw text or as a chat.

    at_least: the questions are taken again, with other refusals, until there are that many.
    """
    sequences = []
    turns = max(1, math.ceil(at_least / len(questions)))
    for turn, (i, question) in product(range(turns), enumerate(questions)):
        token = token_of_fact(tokens, i, len(questions))
        prompt = (
            lm.encode_prompt(question).ids
            if chat
            else tuple(lm.tokenizer(question, add_special_tokens=False)["input_ids"])
        )
        refusal = refusal_for(question, refusals, seed, turn)
        answer = lm.encode_answer(refusal)
        end = lm.end_ids
        words = answer[: len(answer) - len(end)]
        ids = (*prompt, token, *words, token, *end[:1])
        sequences.append(TokenSequence(ids[:max_length], min(len(prompt), max_length - 1)))
    return sequences


@contextmanager
def _noise(weight: torch.Tensor, scale: float | None, generator: torch.Generator) -> Iterator[None]:
    """Within the context ``weight`` carries Gaussian noise; afterwards it is bit for bit itself."""
    clean = weight.detach().clone()
    size = float(clean.float().mean()) if scale is None else scale * float(clean.float().std())
    noise = torch.randn(weight.shape, generator=generator).to(weight)
    with torch.no_grad():
        weight.add_(noise, alpha=size)
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(clean)


class TokenTrainer:
    """Trains the embeddings of the unlearning tokens, and nothing else, with Adam.

    The embedding matrix itself never gets a gradient: the trained rows are put in its place in
    the inputs, and their logits in place of the matrix's own.
    """

    def __init__(self, lm: LanguageModel, tokens: Sequence[int], settings: TokenSettings) -> None:
        self.lm = lm
        self.tokens = torch.tensor(list(tokens), device=lm.device)
        self.settings = settings
        input_rows = lm.model.get_input_embeddings().weight
        output_rows = lm.model.get_output_embeddings().weight
        self.tied = input_rows.data_ptr() == output_rows.data_ptr()
        self.embedding = input_rows[self.tokens].detach().float().clone().requires_grad_()
        self.output = self.embedding
        if not self.tied:
            self.output = output_rows[self.tokens].detach().float().clone()
            self.output.requires_grad_(not settings.share_output_row)
        trained = [self.embedding]
        if self.output.requires_grad and self.output is not self.embedding:
            trained.append(self.output)
        self.trained = trained
        self.kept: dict[TokenSequence, PrefixStates] = {}

    def _prefixes(self, sequences: Sequence[TokenSequence], keep: bool) -> PrefixStates:
        """States of the questions, which no embedding in training precedes.

        ``keep``: while the weights stay as they are, so do the states. They are kept in memory
        as long as they fit into ``settings.prefix_memory``.
        """
        if not keep:
            return PrefixStates.sharing(self.lm, [s.prefix for s in sequences])
        missing = [s for s in dict.fromkeys(sequences) if s not in self.kept]
        if missing:
            states = PrefixStates.sharing(self.lm, [s.prefix for s in missing])
            fresh = {s: states.rows([i]) for i, s in enumerate(missing)}
            room = self.settings.prefix_memory - sum(k.bytes for k in self.kept.values())
            if sum(states.bytes for states in fresh.values()) > room:
                return PrefixStates.joined([fresh.get(s) or self.kept[s] for s in sequences])
            self.kept.update(fresh)
        return PrefixStates.joined([self.kept[s] for s in sequences])

    def loss(self, batch: Sequence[TokenSequence], keep: bool) -> torch.Tensor:
        """Mean cross-entropy of all tokens behind the first [UNL]."""
        lm = self.lm
        prefixes = self._prefixes(batch, keep)
        suffixes = Suffixes.of([s.suffix for s in batch], [s.first for s in batch], lm)
        embedded = lm.model.get_input_embeddings()(suffixes.ids).detach()
        is_token = (suffixes.ids.unsqueeze(-1) == self.tokens).to(embedded.dtype)
        ours = is_token @ self.embedding.to(embedded.dtype)
        # Scaled as the model's embedding layer scales (Gemma multiplies inside the layer).
        embedded = torch.where(is_token.any(-1, keepdim=True), ours, embedded)
        hidden: list[torch.Tensor] = []
        head = lm.model.get_output_embeddings()
        handle = head.register_forward_pre_hook(lambda _, args: hidden.append(args[0]))
        try:
            logits = lm.model(
                inputs_embeds=embedded,
                attention_mask=torch.cat([prefixes.mask, suffixes.mask], dim=1),
                position_ids=suffixes.positions,
                past_key_values=prefixes.cache(),
                use_cache=True,
            ).logits.float()
        finally:
            handle.remove()
        own = hidden[0].float() @ self.output.T
        cap = getattr(lm.model.config, "final_logit_softcapping", None)
        own = cap * torch.tanh(own / cap) if cap else own
        logits = logits.index_copy(-1, self.tokens, own)
        # The logits of a position are for the next token; the last position predicts nothing.
        labels = suffixes.ids.masked_fill(suffixes.mask == 0, -100)[:, 1:]
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten())

    def train(
        self,
        sequences: Sequence[TokenSequence],
        epochs: int,
        lr: float,
        seed: int,
        bar: tqdm,
        noisy_weight: torch.Tensor | None = None,
    ) -> float:
        """``epochs`` passes over ``sequences``; returns the mean loss of the last one."""
        optimiser = torch.optim.Adam(self.trained, lr=lr)
        generator = torch.Generator().manual_seed(seed)
        size = self.settings.batch_size
        mean = math.nan
        for _ in range(epochs):
            order = torch.randperm(len(sequences), generator=generator).tolist()
            losses = []
            for start in range(0, len(order), size):
                batch = [sequences[i] for i in order[start : start + size]]
                optimiser.zero_grad()
                if noisy_weight is None:
                    loss = self.loss(batch, keep=True)
                    loss.backward()
                else:
                    with _noise(noisy_weight, self.settings.noise_scale, generator):
                        loss = self.loss(batch, keep=False)
                        loss.backward()
                optimiser.step()
                losses.append(loss.item())
                bar.update()
            mean = sum(losses) / len(losses)
            bar.set_postfix(loss=f"{mean:.2f}")
        return mean

    def write(self) -> None:
        """Put the trained rows into the model."""
        put_token_rows(self.lm, self.tokens.tolist(), self.embedding, self.output)


def learn_unlearning_tokens(
    lm: LanguageModel,
    questions: Sequence[str],
    refusals: Sequence[str],
    layers: Sequence[int],
    settings: TokenSettings,
    seed: int,
    progress: bool = False,
) -> dict[str, float]:
    """Add the unlearning tokens to ``lm`` and train them; returns the loss after each phase.

    Phases: raw text; raw and chat; raw and chat with noise on each layer to be edited in turn,
    so that the tokens still work once the edit has moved those weights.
    """
    tokens = add_unlearning_tokens(lm, settings.num_tokens)
    trainer = TokenTrainer(lm, tokens, settings)

    def sequences(chat: bool) -> list[TokenSequence]:
        return token_sequences(
            lm,
            questions,
            refusals,
            tokens,
            chat,
            seed,
            settings.max_length,
            settings.min_sequences,
        )

    raw, both = sequences(False), sequences(False) + sequences(True)
    per_epoch = [math.ceil(len(s) / settings.batch_size) for s in (raw, both)]
    steps = settings.raw_epochs * per_epoch[0] + settings.chat_epochs * per_epoch[1]
    if settings.robust_phase:
        steps += len(layers) * settings.robust_epochs * per_epoch[1]
    losses: dict[str, float] = {}
    bar = tqdm(total=steps, desc="unlearning token", disable=not progress, leave=False)
    with bar, frozen(lm.model):
        losses["raw"] = trainer.train(raw, settings.raw_epochs, settings.raw_lr, seed, bar)
        losses["chat"] = trainer.train(both, settings.chat_epochs, settings.chat_lr, seed + 1, bar)
        if settings.robust_phase:
            for layer in layers:
                weight = down_projection(lm.model, layer).weight
                losses[f"robust layer {layer}"] = trainer.train(
                    both, settings.robust_epochs, settings.robust_lr, seed + 2 + layer, bar, weight
                )
    trainer.write()
    return losses


def refine_unlearning_tokens(
    lm: LanguageModel,
    tasks: Sequence[Sequence[str]],
    refusals: Sequence[str],
    settings: TokenSettings,
    epochs: int,
    lr: float,
    seed: int,
    progress: bool = False,
) -> float:
    """Train the tokens a model has on, as a chat, on the weights as they are; the last loss.

    An edit moves the states that follow the token, too: what it was learned on is not the model
    it is to work in. tasks: the questions of each request, which dealt them to the tokens.
    """
    tokens = lm.unlearning_tokens
    size, least = settings.max_length, settings.min_sequences
    sequences = [
        sequence
        for questions in tasks
        for sequence in token_sequences(
            lm, questions, refusals, tokens, True, seed, size, math.ceil(least / len(tasks))
        )
    ]
    trainer = TokenTrainer(lm, tokens, settings)
    steps = epochs * math.ceil(len(sequences) / settings.batch_size)
    bar = tqdm(total=steps, desc="unlearning token", disable=not progress, leave=False)
    with bar, frozen(lm.model):
        loss = trainer.train(sequences, epochs, lr, seed, bar)
    trainer.write()
    return loss
