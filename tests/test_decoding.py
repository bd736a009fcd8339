"""Decoding against transformers' own, one prompt at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from test_architectures import FAMILIES, random_model

from unierase.models.language_model import LanguageModel
from unierase.scoring.decoding import decode
from unierase.scoring.generation import generate_ids


def prompts_of(lm: LanguageModel, count: int) -> list[list[int]]:
    draw = random.Random(0)
    size = len(lm.tokenizer)
    return [[draw.randrange(size) for _ in range(draw.randint(1, 20))] for _ in range(count)]


def by_transformers(lm: LanguageModel, prompt: Sequence[int], tokens: int) -> list[int]:
    ids = torch.tensor([list(prompt)])
    output = lm.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=list(lm.stop_ids),
        pad_token_id=lm.pad_id,
    )
    return list(output[0, len(prompt) :].tolist())


@pytest.mark.parametrize("batch_tokens", [1, 60, 150, 8192])
def test_as_transformers_decodes(batch_tokens: int, lm: LanguageModel) -> None:
    prompts = prompts_of(lm, 9)
    expected = [by_transformers(lm, prompt, 40) for prompt in prompts]
    assert generate_ids(lm, prompts, 40, batch_tokens) == expected
    assert generate_ids(lm, prompts[::-1], 40, batch_tokens) == expected[::-1]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_decodes_as_in_transformers(family: str, lm: LanguageModel) -> None:
    other = random_model(family, lm)
    prompts = prompts_of(other, 5)
    expected = [by_transformers(other, prompt, 24) for prompt in prompts]
    assert generate_ids(other, prompts, 24, 100) == expected


@pytest.mark.parametrize("batch_tokens", [1, 80, 200, 8192])
def test_rows_end_apart_and_others_take_their_place(
    batch_tokens: int, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = prompts_of(lm, 12)
    lengths = [3, 30, 1, 12, 7, 40, 2, 2, 25, 9, 1, 18]
    whole = generate_ids(lm, prompts, 40, banned=lm.stop_ids)
    ended, batches = [], []
    forward = lm.model.forward

    def counted(*args: object, **kwargs: object) -> object:
        ids = kwargs["input_ids"]
        assert isinstance(ids, torch.Tensor)
        batches.append(tuple(ids.shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(lm.model, "forward", counted)

    def choose(rows: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        logits[:, list(lm.stop_ids)] = -torch.inf
        return logits.argmax(-1)

    of = {tuple(row[:n]): n for row, n in zip(whole, lengths, strict=True)}
    found = decode(
        lm,
        prompts,
        40,
        batch_tokens,
        choose,
        lambda said: tuple(said) in of,
        on_end=lambda: ended.append(1),
    )
    shorter = [min(n for key, n in of.items() if tuple(row[:n]) == key) for row in whole]
    assert found == [row[:n] for row, n in zip(whole, shorter, strict=True)]
    assert len(ended) == len(prompts)
    if batch_tokens == 1:
        assert all(shape[0] == 1 for shape in batches)
    else:
        most = max(shape[0] for shape in batches)
        assert most > 1 and most * 20 <= batch_tokens
        # Nobody waits for the slowest: far fewer tokens than rows times the longest answer.
        decoded = sum(shape[0] for shape in batches if shape[1] == 1)
        assert decoded < 0.6 * len(prompts) * max(shorter)


@pytest.mark.parametrize("batch_tokens", [1, 200, 8192])
def test_what_is_most_of_many_prompts_is_run_once(batch_tokens: int, lm: LanguageModel) -> None:
    """Two tasks' examples, and prompts without."""
    first, second, others = prompts_of(lm, 60)[:20], prompts_of(lm, 60)[20:40], prompts_of(lm, 4)
    shots = [[token for prompt in task for token in prompt][:60] for task in (first, second)]
    prompts = [shot + other for other in others for shot in shots] + others
    expected = [by_transformers(lm, prompt, 12) for prompt in prompts]
    run = []
    hook = lm.model.register_forward_pre_hook(
        lambda _, __, inputs: run.append(inputs["input_ids"].shape), with_kwargs=True
    )
    assert generate_ids(lm, prompts, 12, batch_tokens) == expected
    hook.remove()
    assert sum(shape[1] >= 60 for shape in run) == 2
    embeddings = [lm.model.get_input_embeddings()(torch.tensor(p)) for p in prompts]
    assert generate_ids(lm, prompts, 12, batch_tokens, embeddings=embeddings) == expected


def test_nothing_to_decode(lm: LanguageModel) -> None:
    assert generate_ids(lm, [], 5) == []
    assert generate_ids(lm, [[1], [2]], 0) == [[], []]
