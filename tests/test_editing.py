"""UniErase: each equation against its plain form."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unierase.editing import covariance, kept_token
from unierase.editing.closed_form import KeyResiduals, edit_update
from unierase.editing.corpus import GeneratedText, TextFile
from unierase.editing.covariance import cached_covariances
from unierase.editing.kept_token import kept_unlearning_tokens
from unierase.editing.keys import activations_at_edit, key_covariances
from unierase.editing.method import UniErase
from unierase.editing.projector import NullSpaceProjector
from unierase.editing.prompts import (
    answer_prompts,
    cut_points,
    fact_prompts,
    fall_backs,
)
from unierase.editing.token import (
    TokenSettings,
    TokenTrainer,
    add_unlearning_tokens,
    learn_unlearning_tokens,
    refine_unlearning_tokens,
    token_of_fact,
    token_sequences,
)
from unierase.editing.values import SuffixPass, TargetPass, ValueSettings, find_target_values
from unierase.errors import UserError
from unierase.models.finetune import FinetuneRecipe, finetune
from unierase.models.language_model import LanguageModel
from unierase.models.layers import decoder_layers, down_projection
from unierase.models.sources import TinyModel
from unierase.refusals import refusal_for
from unierase.request import UnlearningRequest, Workbench
from unierase.rows import Row

REFUSALS = ("I do not know.", "That is unknown to me.")


class _NoTargets:
    def retrained(self, rows: tuple[Row, ...]) -> LanguageModel:
        raise AssertionError("not asked for")


BENCH = Workbench(Path("."), Path("."), _NoTargets())


@contextmanager
def _moved_output(
    layer: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    handle = layer.register_forward_hook(lambda module, inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


@pytest.mark.parametrize("previous", [0, 3])
@pytest.mark.parametrize("retain", [0, 4])
@pytest.mark.parametrize("threshold", [0.3, 1.5])
def test_closed_form_equals_the_dense_one(previous: int, retain: int, threshold: float) -> None:
    d_k, d_h, n, l2, beta = 12, 5, 3, 0.7, 2.0
    general = _random(d_k, 30, seed=1)
    projector = NullSpaceProjector.of(general @ general.T / 30, threshold)
    keys, residuals = _random(d_k, n, seed=2), _random(d_h, n, seed=3)
    old, kept = _random(d_k, previous, seed=4), _random(d_k, retain, seed=5)
    drift = _random(d_h, retain, seed=6)
    p = projector.dense()
    energy = keys @ keys.T + old @ old.T + beta * kept @ kept.T
    wanted = keys @ residuals.T + beta * kept @ drift.T
    dense = torch.linalg.solve(p @ energy + l2 * torch.eye(d_k, dtype=torch.double), p @ wanted).T
    groups = [
        KeyResiduals(keys, residuals),
        KeyResiduals(old),
        KeyResiduals(kept, drift, weight=beta),
    ]
    update = edit_update(groups, projector, l2)
    torch.testing.assert_close(update, dense, atol=1e-12, rtol=1e-10)


def test_an_unprotected_edit_reaches_its_targets() -> None:
    keys, residuals = _random(12, 3, seed=2), _random(5, 3, seed=3)
    wanted = [KeyResiduals(keys, residuals)]
    update = edit_update(wanted, NullSpaceProjector.identity(12), l2=1e-10)
    torch.testing.assert_close(update @ keys, residuals, atol=1e-6, rtol=0)


@pytest.mark.parametrize("threshold", [0.05, 0.6, 100.0])
def test_projector(threshold: float) -> None:
    directions = torch.linalg.qr(_random(10, 10))[0]
    energies = torch.tensor([0.0, 0.0, 0.01, 0.02, 0.1, 0.5, 1, 2, 4, 8], dtype=torch.double)
    covariance = directions * energies @ directions.T
    projector = NullSpaceProjector.of(covariance, threshold)
    p = projector.dense()
    torch.testing.assert_close(p, p.T)
    torch.testing.assert_close(p, p @ p)
    free = energies < threshold
    assert projector.dimensions == int(free.sum())
    torch.testing.assert_close(p @ directions[:, free], directions[:, free])
    assert float((p @ directions[:, ~free]).abs().sum()) < 1e-10
    assert projector.basis.shape[1] <= 5  # the smaller block


def test_projector_by_energy() -> None:
    directions = torch.linalg.qr(_random(10, 10))[0]
    # Trace 16: the six smallest hold 1.13 of it, 7.1 %; the seven smallest 2.63, 16.4 %.
    energies = torch.tensor([0.0, 0.0, 0.01, 0.02, 0.1, 1.5, 1, 2, 4, 7.37], dtype=torch.double)
    covariance = directions * energies @ directions.T
    for share, free in ((1e-9, 2), (0.07, 5), (0.1, 6), (0.16, 6), (0.17, 7), (1.0, 10)):
        assert NullSpaceProjector.of_energy(covariance, share).dimensions == free


def test_an_edit_leaves_protected_keys_alone() -> None:
    protected = _random(12, 4, seed=1)
    projector = NullSpaceProjector.of(protected @ protected.T, 1e-9)
    wanted = [KeyResiduals(_random(12, 3, seed=2), _random(5, 3, seed=3))]
    update = edit_update(wanted, projector, 0.1)
    assert float(update.norm()) > 0.1
    assert float((update @ protected).abs().max()) < 1e-10


def test_positions_and_fall_backs(lm: LanguageModel, rows: list[Row]) -> None:
    other = Row("x", "Where was she born?", "Rome.", "x", subject="Ada Stone")
    prompts = fact_prompts(lm, [rows[0], other], "subject_last", ["Well."])
    assert [(p.fact, p.weight) for p in prompts] == [(0, 0.5), (0, 0.5), (1, 0.5), (1, 0.5)]
    tokens = lm.tokenizer.convert_ids_to_tokens
    assert tokens(prompts[0].after[0]) == tokens(prompts[1].after[0]) == "ĠStone"
    assert tokens(prompts[2].after[0]) == "?"
    assert fall_backs(lm, [rows[0], other], "subject_last") == 1
    assert fall_backs(lm, [rows[0], other], "prompt_last") == 0


def test_keys_and_hidden_states(lm: LanguageModel, rows: list[Row]) -> None:
    prompts = fact_prompts(lm, rows, "subject_last")
    keys, hidden = activations_at_edit(lm, prompts, [0, 1], 1, len(rows))
    assert hidden is not None and keys[0].shape == (64, 5) and hidden.shape == (32, 5)
    seen: dict[str, torch.Tensor] = {}
    projection = down_projection(lm.model, 1)
    handle = projection.register_forward_pre_hook(lambda m, args: seen.update(key=args[0]))
    prompt = prompts[3]
    states = lm.model(torch.tensor([prompt.ids]), output_hidden_states=True).hidden_states
    handle.remove()
    torch.testing.assert_close(keys[1][:, 3], seen["key"][0, prompt.position], atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden[:, 3], states[2][0, prompt.position], atol=1e-5, rtol=0)


def test_key_covariance_ignores_padding(lm: LanguageModel, rows: list[Row]) -> None:
    sequences = [lm.encode_prompt(row.question).ids for row in rows] + [(5, 6)]
    (together,) = key_covariances(lm, sequences, [1])
    (alone,) = key_covariances(lm, sequences, [1], batch_tokens=1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_suffix_pass_equals_the_whole_pass(lm: LanguageModel, rows: list[Row]) -> None:
    prompts = fact_prompts(lm, rows, "subject_last", ["Well.", "In the end."])
    delta = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        fast = SuffixPass(lm, prompts, 1).logits(delta)
    for prompt, logits in zip(prompts, fast, strict=True):

        def move(hidden: torch.Tensor, prompt: object = prompt) -> torch.Tensor:
            moved = hidden.clone()
            moved[:, prompt.position] += delta[prompt.fact]  # type: ignore[attr-defined]
            return moved

        with torch.no_grad(), _moved_output(decoder_layers(lm.model)[1], move):
            whole = lm.model(torch.tensor([prompt.ids])).logits[0, -1]
        torch.testing.assert_close(logits, whole, atol=1e-4, rtol=1e-4)


def test_what_prompts_begin_with_is_run_once(lm: LanguageModel, rows: list[Row]) -> None:
    """A system message of 30 tokens: as each prompt alone has it, in fewer tokens."""
    system = tuple(int(token) for token in 10 + torch.arange(30) % 7)
    prompts = [
        replace(p, ids=(*system, *p.ids), position=len(system) + p.position)
        for p in fact_prompts(lm, rows, "question_last")
    ]
    read: list[torch.Tensor] = []
    embeddings = lm.model.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda module, args, output: read.append(args[0]))
    (together,), hidden = activations_at_edit(lm, prompts, [1], 1, len(rows))
    handle.remove()
    whole = sum(prompt.position + 1 for prompt in prompts)
    assert sum(ids.numel() for ids in read) < whole - 3 * len(system)
    logits = SuffixPass(lm, prompts, 1).logits(None)
    assert hidden is not None
    for i, prompt in enumerate(prompts):
        alone = [replace(prompt, fact=0)]
        (key,), state = activations_at_edit(lm, alone, [1], 1, 1)
        assert state is not None
        torch.testing.assert_close(together[:, [i]], key, atol=1e-5, rtol=0)
        torch.testing.assert_close(hidden[:, [i]], state, atol=1e-5, rtol=0)
        own = SuffixPass(lm, alone, 1).logits(None)
        torch.testing.assert_close(logits[i], own[0], atol=1e-5, rtol=0)


def test_target_values(lm: LanguageModel, rows: list[Row]) -> None:
    prompts = fact_prompts(lm, rows, "prompt_last")
    targets = [(7,)] * len(rows)
    settings = ValueSettings(steps=60, lr=0.5, clamp=20.0, weight_decay=0.0)
    found = find_target_values(lm, rows, prompts, targets, 1, settings)
    one_by_one = find_target_values(lm, rows, prompts, targets, 1, settings, facts_per_batch=1)
    torch.testing.assert_close(found.values, one_by_one.values, atol=1e-2, rtol=1e-2)
    _, hidden = activations_at_edit(lm, prompts, [], 1, len(rows))
    assert hidden is not None
    start = SuffixPass(lm, prompts, 1).logits(None).softmax(-1)[:, 7]
    # Its final norm and small embeddings keep this random model from being sure of anything.
    assert bool((found.probabilities > 2 * start.detach()).all())
    moved = (found.values - hidden).norm(dim=0)
    assert bool((moved <= 20.0 * hidden.norm(dim=0) * 1.001).all())
    tight = find_target_values(
        lm, rows, prompts, targets, 1, ValueSettings(lr=5.0, clamp=0.1, weight_decay=0.0)
    )
    moved = (tight.values - hidden).norm(dim=0)
    torch.testing.assert_close(moved, 0.1 * hidden.norm(dim=0), atol=1e-4, rtol=1e-3)


def test_facts_that_may_not_move_keep_their_state(lm: LanguageModel, rows: list[Row]) -> None:
    """The others find the same values as ever."""
    prompts = fact_prompts(lm, rows, "prompt_last")
    asked = (lm, rows, prompts, [(7,)] * len(rows), 1, ValueSettings(steps=10, lr=0.5, clamp=20.0))
    everyone = find_target_values(*asked)
    moving = torch.tensor([True, False, False, True, False])
    some = find_target_values(*asked, moving=moving)
    _, hidden = activations_at_edit(lm, prompts, [], 1, len(rows))
    assert hidden is not None
    torch.testing.assert_close(some.values[:, ~moving], hidden[:, ~moving], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        some.values[:, moving], everyone.values[:, moving], atol=1e-3, rtol=1e-3
    )


def test_who_has_stopped_is_run_no_more(
    lm: LanguageModel, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same values, whoever else is still moving; and fewer rows in the passes."""
    prompts = fact_prompts(lm, rows, "prompt_last", ["Well."])
    targets = [(token,) for token in (7, 20, 33, 46, 59)]
    settings = ValueSettings(steps=30, lr=0.02, clamp=20.0, weight_decay=0.0, stop_loss=5.2)
    rows_run: list[int] = []
    logits = SuffixPass.logits

    def counted(self: SuffixPass, delta: torch.Tensor | None) -> torch.Tensor:
        rows_run.append(len(self.facts))
        return logits(self, delta)

    monkeypatch.setattr(SuffixPass, "logits", counted)
    found = find_target_values(lm, rows, prompts, targets, 1, settings)
    assert max(rows_run) == 10 and min(rows_run) <= 4
    steps = set()
    for fact, row in enumerate(rows):
        rows_run.clear()
        own = [replace(p, fact=0) for p in prompts if p.fact == fact]
        alone = find_target_values(lm, [row], own, [targets[fact]], 1, settings)
        torch.testing.assert_close(found.values[:, [fact]], alone.values, atol=1e-3, rtol=1e-3)
        steps.add(len(rows_run))
    assert len(steps) > 1  # some stopped before others


def test_values_lead_to_the_token_behind_an_opened_answer_too(
    lm: LanguageModel, rows: list[Row]
) -> None:
    opened = fact_prompts(lm, rows, "question_last", ["Well."], "Answer:")
    words = tuple(lm.tokenizer("Answer:", add_special_tokens=False)["input_ids"])
    assert [p.weight for p in opened] == [0.25] * 4 * len(rows)
    for bare, begun in zip(opened[::2], opened[1::2], strict=True):
        assert begun.ids == (*bare.ids, *words) and begun.position == bare.position
    recipe = FinetuneRecipe(
        60, 3e-3, 2, None, 0.0, 0.1, max_length=64, train_on_questions=False, seed=0
    )
    finetune(lm, rows, recipe, "teaching")
    token = lm.encode_answer(rows[0].answer)[1]  # one it is used to saying, but not there
    settings = ValueSettings(steps=80, lr=0.5, clamp=50.0, weight_decay=0.0, kl=0.0)
    reached = []
    for opening in ("", "Answer:"):
        prompts = fact_prompts(lm, rows, "question_last", opening=opening)
        targets = [(token,)] * len(rows)
        values = find_target_values(lm, rows, prompts, targets, 0, settings).values
        behind = fact_prompts(lm, rows, "question_last", opening="Answer:")[1::2]
        suffixes = SuffixPass(lm, behind, 0)
        with torch.no_grad():
            logits = suffixes.logits(values.T.to(suffixes.hidden) - suffixes.hidden)
        reached.append(float(logits.softmax(-1)[:, token].mean()))
    assert reached[1] > 1.3 * reached[0]


def test_points_inside_an_answer_by_hand(lm: LanguageModel, rows: list[Row]) -> None:
    assert cut_points(9, 0) == [] and cut_points(1, 3) == []
    # Behind the first token, and every second one: 8 points inside nine tokens.
    assert cut_points(9, 4) == [1, 3, 5, 7]
    assert cut_points(4, 3) == cut_points(4, 50) == [1, 2, 3]
    owners, prompts = answer_prompts(lm, rows[:2], 2, 5)
    assert [row.id for row in owners] == ["r0", "r0", "r1", "r1"]
    assert [p.fact for p in prompts] == [5, 6, 7, 8]
    question = lm.encode_prompt(rows[0].question).ids
    answer = lm.encode_answer(rows[0].answer)
    assert prompts[0].ids == (*question, answer[0]) and prompts[0].position == len(question)
    assert prompts[1].ids == (*question, *answer[: cut_points(len(answer), 2)[1]])


def test_an_edit_inside_the_answer_leads_to_the_token_there(
    lm: LanguageModel, rows: list[Row], bench: Workbench
) -> None:
    recipe = FinetuneRecipe(
        60, 3e-3, 2, None, 0.0, 0.1, max_length=64, train_on_questions=False, seed=0
    )
    finetune(lm, rows, recipe, "teaching")
    reached = {}
    for cuts in (0, 3):
        method = UniErase(
            "unierase",
            [0, 1],
            values=ValueSettings(steps=80, lr=0.3, clamp=3.0, kl=0.0, weight_decay=0.0),
            nullspace=False,
            fact_token="prompt_last",
            l2=1e-3,
            context_prefixes=0,
            answer_cuts=cuts,
            progress=False,
        )
        copied = replace(lm, model=copy.deepcopy(lm.model), tokenizer=copy.deepcopy(lm.tokenizer))
        request = UnlearningRequest(tuple(rows[:2]), tuple(rows[2:]), REFUSALS, 1, 0)
        out = method.unlearn(copied, request, {}, bench)
        keys = next(iter(v for k, v in out.state.items() if k.startswith("keys")))
        assert keys.shape[1] == 2 * (1 + cuts)
        _, inside = answer_prompts(out.lm, rows[:2], 3, 0)
        (token,) = out.lm.unlearning_tokens
        with torch.no_grad():
            found = TargetPass(out.lm, inside, [(token,)] * len(inside), 1).outcome()[0]
        reached[cuts] = found.exp()
    # Far from certain, on a model this small; but closer at every point.
    assert bool((reached[3] > 2 * reached[0]).all())


@pytest.mark.parametrize("pass_tokens", [1, 40, 2048])
def test_sentences_as_targets(
    lm: LanguageModel, rows: list[Row], pass_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unierase.editing.values.PASS_TOKENS", pass_tokens)
    prompts = fact_prompts(lm, rows, "subject_last", ["Well."])
    targets = [lm.encode_answer(REFUSALS[i % 2]) for i in range(len(rows))]
    delta = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        targets_pass = TargetPass(lm, prompts, targets, 1)
        fast = targets_pass.log_probabilities(delta)
    assert (len(targets_pass.parts) == 1) == (pass_tokens == 2048)
    assert targets_pass.facts.tolist() == [prompt.fact for prompt in prompts]
    torch.testing.assert_close(
        targets_pass.weights, torch.tensor([prompt.weight for prompt in prompts])
    )
    for prompt, log_p in zip(prompts, fast, strict=True):
        target = targets[prompt.fact]

        def move(hidden: torch.Tensor, prompt: object = prompt) -> torch.Tensor:
            moved = hidden.clone()
            moved[:, prompt.position] += delta[prompt.fact]  # type: ignore[attr-defined]
            return moved

        with torch.no_grad(), _moved_output(decoder_layers(lm.model)[1], move):
            whole = lm.model(torch.tensor([(*prompt.ids, *target)])).logits[0].log_softmax(-1)
        picked = whole[len(prompt.ids) - 1 : -1].gather(-1, torch.tensor(target)[:, None])
        torch.testing.assert_close(log_p, picked.mean(), atol=1e-4, rtol=1e-4)


def test_token_sequences(lm: LanguageModel) -> None:
    tokens = add_unlearning_tokens(lm, 2)
    assert lm.tokenizer.convert_ids_to_tokens(list(tokens)) == ["[UNL1]", "[UNL2]"]
    assert [token_of_fact(tokens, i, 5) for i in range(5)] == [tokens[0]] * 3 + [tokens[1]] * 2
    raw, chat = (
        token_sequences(lm, ["Where?", "Who?"], REFUSALS[:1], tokens, chat, 0, 64)[1]
        for chat in (False, True)
    )
    assert lm.tokenizer.decode(list(raw.ids)) == "Who?[UNL2]I do not know.[UNL2]<|end|>"
    assert lm.tokenizer.decode(list(chat.ids)) == (
        "<|user|>Who?<|assistant|>[UNL2]I do not know.[UNL2]<|end|>"
    )
    assert raw.ids[raw.first] == chat.ids[chat.first] == tokens[1]
    again = token_sequences(lm, ["Where?", "Who?"], REFUSALS, tokens, False, 0, 64, at_least=39)
    assert len(again) == 40 and len({sequence.prefix for sequence in again}) == 2
    assert len(set(again)) == 4  # two questions, two refusals


def test_refusals_are_chosen_by_question_and_seed() -> None:
    many = [str(i) for i in range(100)]
    # Fixed values: the choice must be the same in every process and version.
    assert refusal_for("q", many, 0) == refusal_for("q", many, 0)
    assert len({refusal_for(f"q{i}", many, 0) for i in range(50)}) > 20


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("memory", [0, 2**30])
def test_token_loss_equals_the_plain_one(
    lm: LanguageModel, rows: list[Row], keep: bool, memory: int
) -> None:
    tokens = add_unlearning_tokens(lm, 1)
    questions = [row.question for row in rows[:3]] + ["Who?"]
    sequences = [
        sequence
        for chat in (False, True)
        for sequence in token_sequences(lm, questions, REFUSALS, tokens, chat, 0, 64)
    ]
    trainer = TokenTrainer(lm, tokens, TokenSettings(prefix_memory=memory))
    trainer.loss(sequences[:2], keep)  # leaves something in the memory
    loss = trainer.loss(sequences, keep)
    (gradient,) = torch.autograd.grad(loss, trainer.embedding)
    weight = lm.model.get_input_embeddings().weight
    weight.requires_grad_()
    losses = []
    for sequence in sequences:
        logits = lm.model(torch.tensor([sequence.ids])).logits[0]
        log_p = logits.log_softmax(-1)
        losses += [
            -log_p[t - 1, sequence.ids[t]] for t in range(sequence.first + 1, len(sequence.ids))
        ]
    plain = torch.stack(losses).mean()
    (whole,) = torch.autograd.grad(plain, weight)
    torch.testing.assert_close(loss, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient[0], whole[tokens[0]], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("tied", [True, False])
def test_only_the_token_is_trained(lm: LanguageModel, rows: list[Row], tied: bool) -> None:
    if not tied:
        lm.model.config.tie_word_embeddings = False
        lm.model.lm_head.weight = torch.nn.Parameter(lm.model.lm_head.weight.detach().clone())
    add_unlearning_tokens(copy.deepcopy(lm), 1)
    before = {k: v.clone() for k, v in lm.model.state_dict().items()}
    settings = TokenSettings(raw_lr=0.05, chat_lr=0.05, robust_lr=0.05, batch_size=4)
    questions = [row.question for row in rows]
    losses = learn_unlearning_tokens(lm, questions, REFUSALS, [0, 1], settings, seed=0)
    assert losses["chat"] < losses["raw"]
    (token,) = lm.unlearning_tokens
    for name, tensor in lm.model.state_dict().items():
        old = before[name]
        assert torch.equal(tensor[: len(old)] if tensor.dim() == 2 else tensor, old), name
    embedding = lm.model.get_input_embeddings().weight[token]
    mean = before["model.embed_tokens.weight"].mean(0)
    assert float((embedding - mean).detach().norm()) > 0.05
    if not tied:  # share_output_row: the output row stays at the initial embedding
        torch.testing.assert_close(lm.model.lm_head.weight[token], mean)


@pytest.mark.parametrize("tied", [True, False])
def test_a_kept_token_is_the_learned_one(
    lm: LanguageModel, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: bool
) -> None:
    if not tied:
        lm.model.config.tie_word_embeddings = False
        lm.model.lm_head.weight = torch.nn.Parameter(lm.model.lm_head.weight.detach().clone())
    first, again, anew = (copy.deepcopy(lm) for _ in range(3))
    settings = TokenSettings(raw_lr=0.05, share_output_row=False, batch_size=4)
    questions = [row.question for row in rows]

    def kept(model: LanguageModel, seed: int) -> dict[str, float]:
        return kept_unlearning_tokens(model, questions, REFUSALS, [0], settings, seed, tmp_path)

    plain = learn_unlearning_tokens(lm, questions, REFUSALS, [0], settings, 0)
    assert kept(first, 0) == plain

    def forbidden(*_: object) -> None:
        raise AssertionError("learned again")

    monkeypatch.setattr(kept_token, "learn_unlearning_tokens", forbidden)
    assert kept(again, 0) == plain
    for model in (first, again):
        assert model.unlearning_tokens == lm.unlearning_tokens
        for name, tensor in lm.model.state_dict().items():
            assert torch.equal(tensor, model.model.state_dict()[name]), name
    with pytest.raises(AssertionError, match="learned again"):
        kept(anew, 1)


def test_refining_goes_on_from_the_learned_token(lm: LanguageModel, rows: list[Row]) -> None:
    questions = [row.question for row in rows]
    settings = TokenSettings(raw_lr=0.05, chat_lr=0.05, batch_size=4, robust_phase=False)
    learn_unlearning_tokens(lm, questions, REFUSALS, [0], settings, 0)
    with torch.no_grad():  # an edit, and a large one
        weight = down_projection(lm.model, 0).weight
        weight.add_(0.5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    before = {k: v.clone() for k, v in lm.model.state_dict().items()}

    def refined(epochs: int) -> float:
        tasks = [questions[:1], questions[1:]]
        return refine_unlearning_tokens(lm, tasks, REFUSALS, settings, epochs, 0.05, 0)

    first = refined(1)
    assert refined(20) < first
    (token,) = lm.unlearning_tokens
    for name, tensor in lm.model.state_dict().items():
        other = [i for i in range(len(tensor)) if i != token or tensor.dim() == 1]
        assert torch.equal(tensor[other], before[name][other]), name


def _unierase(**changes: object) -> UniErase:
    settings: dict[str, object] = {
        "name": "unierase",
        "layers": [0, 1],
        "token": TokenSettings(raw_lr=0.05, chat_lr=0.05, batch_size=4),
        "values": ValueSettings(steps=60, lr=0.5, clamp=20.0, kl=0.0, weight_decay=0.0),
        "fact_token": "prompt_last",
        "nullspace": False,
        "l2": 1e-4,
        "context_prefixes": 0,
        "progress": False,
    }
    return UniErase(**{**settings, **changes})  # type: ignore[arg-type]


def test_the_edited_model_says_unl(lm: LanguageModel, rows: list[Row], tmp_path: Path) -> None:
    from unierase.scoring.generation import generate

    request = UnlearningRequest(tuple(rows[:2]), tuple(rows[2:]), REFUSALS, 1, 0)
    out = _unierase().unlearn(lm, request, {}, BENCH)
    assert out.report["emits_target"] == 1.0
    assert out.report["residuals"][-1] < 0.1 < out.report["residuals"][0]
    assert {name: t.shape for name, t in out.state.items()} == {
        "keys.layer0": (64, 2),
        "keys.layer1": (64, 2),
    }
    questions = [row.question for row in rows[:2]]
    answers = generate(out.lm, questions, max_new_tokens=8)
    assert all(answer.emits_unl and "[UNL]" not in answer.text for answer in answers)
    # The result is an ordinary checkpoint: it generates the same in plain transformers.
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out.lm.save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for question, answer in zip(questions, answers, strict=True):
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        assert tokenizer.decode(new, skip_special_tokens=True).strip() == answer.text
    # Loaded again, the model knows its unlearning token.
    loaded = TinyModel("tiny", lm.prompt).load(tmp_path, "cpu")
    assert loaded.unlearning_tokens == out.lm.unlearning_tokens != ()
    # A second round keeps the token and adds its keys to the first round's.
    second = UnlearningRequest(tuple(rows[2:3]), tuple(rows[3:]), REFUSALS, 2, 0)
    free, held = (
        _unierase(earlier_weight=weight).unlearn(copy.deepcopy(loaded), second, out.state, BENCH)
        for weight in (0.0, 100.0)
    )
    kept = fact_prompts(loaded, rows[:2], "prompt_last")
    was, left, stayed = (
        activations_at_edit(model, kept, [], 1, 2)[1] for model in (loaded, free.lm, held.lm)
    )
    assert was is not None and left is not None and stayed is not None
    assert float((stayed - was).norm()) < 0.5 * float((left - was).norm())
    later = _unierase().unlearn(loaded, second, out.state, BENCH)
    assert "token_loss" not in later.report
    assert later.state["keys.layer0"].shape == (64, 3)


def test_retained_keys_and_passes(lm: LanguageModel, rows: list[Row]) -> None:
    """Retained prompts are disturbed less, and another pass makes up for what the first missed."""
    request = UnlearningRequest(tuple(rows[:2]), tuple(rows[2:]), REFUSALS, 1, 0)
    kept = fact_prompts(lm, rows[2:], "prompt_last")
    before = activations_at_edit(lm, kept, [], 1, 3)[1]
    assert before is not None
    moved, reports = {}, {}
    for weight, passes in ((0.0, 1), (100.0, 1), (100.0, 6)):
        # l2 keeps a pass from reaching its targets at once.
        method = _unierase(retain_weight=weight, passes=passes, l2=0.1)
        out = method.unlearn(copy.deepcopy(lm), request, {}, BENCH)
        after = activations_at_edit(out.lm, kept, [], 1, 3)[1]
        assert after is not None
        moved[weight, passes] = float((after - before).norm())
        reports[weight, passes] = out.report
    assert moved[100.0, 1] < 0.5 * moved[0.0, 1]
    assert moved[100.0, 6] < 0.5 * moved[0.0, 1]
    assert reports[100.0, 1]["emits_target"] == 0.0
    # The second pass is enough, and the last: three residuals a pass.
    assert reports[100.0, 6]["emits_target"] == 1.0
    assert len(reports[100.0, 6]["residuals"]) == 2 * 3


def test_earlier_facts_are_visited_again(lm: LanguageModel, rows: list[Row]) -> None:
    """A second round whose edit undoes the first one's leaves it undone, unless it looks back."""
    refusals, method = REFUSALS, _unierase(earlier_weight=100.0)
    first = UnlearningRequest(tuple(rows[:2]), tuple(rows[2:]), refusals, 1, 0)
    second = UnlearningRequest(
        tuple(rows[2:3]), tuple(rows[3:]), refusals, 2, 0, (tuple(rows[:2]),)
    )
    unlearned = method.unlearn(lm, first, {}, BENCH)
    edited, state = unlearned.lm, unlearned.state
    before = copy.deepcopy(edited)
    with torch.no_grad():  # as if the tokens behind the edit position had been moved
        for layer in (0, 1):
            weight = before.model.model.layers[layer].mlp.down_proj.weight
            weight.mul_(torch.linspace(-1, 1, len(weight))[:, None])
    kept = fact_prompts(lm, rows[:2], "prompt_last")
    targets = [tuple(edited.unlearning_tokens)] * 2

    def says(model: LanguageModel) -> list[bool]:
        with torch.no_grad():
            return TargetPass(model, kept, targets, 1).outcome()[1].tolist()

    assert says(edited) == [True, True] and not any(says(before))
    again = _unierase(revisit=True)
    out = again.unlearn(copy.deepcopy(before), second, {}, BENCH)
    assert out.report["earlier_lost"] == 2 and out.report["emits_target"] == 1.0
    assert says(out.lm) == [True, True]
    assert not any(says(method.unlearn(copy.deepcopy(before), second, state, BENCH).lm))
    # Facts that still lead to the target keep their states, as with their keys.
    assert out.state == {}
    held = again.unlearn(copy.deepcopy(edited), second, {}, BENCH)
    assert held.report["earlier_lost"] == 0
    free = _unierase().unlearn(copy.deepcopy(edited), second, {}, BENCH)
    was, stayed, left = (
        activations_at_edit(model, kept, [], 1, 2)[1] for model in (edited, held.lm, free.lm)
    )
    assert was is not None and stayed is not None and left is not None
    assert float((stayed - was).norm()) < 0.5 * float((left - was).norm())


def test_retain_rows_are_drawn_by_the_seed(rows: list[Row]) -> None:
    request = UnlearningRequest(tuple(rows[:1]), tuple(rows[1:]), REFUSALS, 1, 0)
    assert _unierase()._retained(request) == ()
    assert list(_unierase(retain_weight=1.0)._retained(request)) == rows[1:]
    two = _unierase(retain_weight=1.0, retain_rows=2)._retained(request)
    assert len(two) == 2 and set(two) < set(rows[1:])


def test_the_null_space_protects_retain_rows(lm: LanguageModel, rows: list[Row]) -> None:
    request = UnlearningRequest(tuple(rows[:1]), tuple(rows[1:]), REFUSALS, 1, 0)
    other = copy.deepcopy(lm)
    out = _unierase(nullspace=True, nullspace_threshold=1e-5).unlearn(lm, request, {}, BENCH)
    free = _unierase().unlearn(other, request, {}, BENCH)
    assert all(n < 64 for n in out.report["nullspace_dimensions"])
    assert free.report["nullspace_dimensions"] == [64, 64]


def test_covariances_are_measured_once_on_the_untouched_model(
    lm: LanguageModel, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "text.txt"
    file.write_text("\n".join(row.answer for row in rows) + "\n\n")
    corpus = TextFile(str(file), passages=4)
    sequences = list(corpus.sequences(lm, None))  # type: ignore[arg-type]
    assert len(sequences) == 4
    whole = key_covariances(lm, sequences, [0, 1])
    monkeypatch.setattr(covariance, "CHUNK", 3)
    arguments = (sequences, {"model": "a"}, [0, 1], tmp_path / "cache")
    chunked = cached_covariances(lm, *arguments, compute=True, progress=False)
    torch.testing.assert_close(chunked, whole)
    kept = cached_covariances(None, *arguments, compute=False, progress=False)  # type: ignore[arg-type]
    assert all(torch.equal(one, two) for one, two in zip(kept, chunked, strict=True))
    with pytest.raises(UserError, match="are gone; start over"):
        cached_covariances(
            lm, sequences, {"model": "b"}, [0], tmp_path / "cache", compute=False, progress=False
        )
    # A sequence of requests finds the first round's, though the model has changed since.
    bench = Workbench(tmp_path, tmp_path / "run", _NoTargets())
    method = _unierase(nullspace=True, nullspace_threshold=1e-3, corpus=corpus)
    first = UnlearningRequest(tuple(rows[:1]), tuple(rows[1:]), REFUSALS, 1, 0)
    out = method.unlearn(lm, first, {}, bench)
    made = set((tmp_path / "run" / "covariances").glob("*/complete.json"))
    assert len(made) == 2
    second = UnlearningRequest(tuple(rows[1:2]), tuple(rows[2:]), REFUSALS, 2, 0)
    later = method.unlearn(out.lm, second, out.state, bench)
    assert set((tmp_path / "run" / "covariances").glob("*/complete.json")) == made
    assert torch.equal(later.state["first_model"], out.state["first_model"])


def test_text_the_model_writes(lm: LanguageModel) -> None:
    state = torch.random.get_rng_state()
    corpus = GeneratedText(passages=5, max_tokens=6, batch_size=2)
    texts = list(corpus.sequences(lm, None))  # type: ignore[arg-type]
    assert 1 <= len(texts) <= 5 and all(1 <= len(text) <= 6 for text in texts)
    assert len(set(texts)) > 1 and not any(set(text) & set(lm.stop_ids) for text in texts)
    assert list(corpus.sequences(lm, None)) == texts  # type: ignore[arg-type]
    other = GeneratedText(passages=5, max_tokens=6, batch_size=2, seed=1)
    assert list(other.sequences(lm, None)) != texts  # type: ignore[arg-type]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_missing_corpus_is_named() -> None:
    with pytest.raises(UserError, match=r"method\.corpus\.path=nowhere: no such file"):
        TextFile("nowhere", 1).identity()


def test_bad_settings() -> None:
    with pytest.raises(UserError, match=r"fact_token=first.*subject_last"):
        _unierase(fact_token="first")
    with pytest.raises(UserError, match=r"method.passes=0.*at least 1"):
        _unierase(passes=0)


def test_layer_out_of_range(lm: LanguageModel, rows: list[Row]) -> None:
    request = UnlearningRequest(tuple(rows[:1]), tuple(rows[1:]), REFUSALS, 1, 0)
    with pytest.raises(UserError, match=r"method\.layers: 9 is out of range.*0\.\.2"):
        _unierase(layers=[1, 9]).unlearn(lm, request, {}, BENCH)


def test_editing_to_a_refusal_needs_no_token(lm: LanguageModel, rows: list[Row]) -> None:
    request = UnlearningRequest(tuple(rows[:2]), tuple(rows[2:]), REFUSALS, 1, 0)
    out = _unierase(target="refusal").unlearn(lm, request, {}, BENCH)
    assert out.lm.unlearning_tokens == () and "token_loss" not in out.report
    assert out.report["emits_target"] == 1.0
    with pytest.raises(UserError, match="choose one of: unl, refusal"):
        _unierase(target="x")
