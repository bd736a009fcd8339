"""Methods that leave the weights alone: what they make of a prompt, by hand and by property."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.inference import strength as strength_module
from baselines.inference.classifier import (
    FineTuned,
    LinearProbe,
    PromptClassifier,
    Scorer,
    class_weights,
)
from baselines.inference.corruption import FlipLargest, Noise, ZeroLargest
from baselines.inference.eco import ECO, CorruptionGuard, corrupted_positions
from baselines.inference.encoders import OwnStates, SentenceStates
from baselines.inference.flagging import Flagging
from baselines.inference.general_prompts import GENERAL_PROMPTS
from baselines.inference.guardrail import Guardrail
from baselines.inference.in_context import FlippedLabels, InContext, NameTopics
from baselines.inference.strength import StrengthSearch
from baselines.inference.texts import joined, packed, unpacked
from unierase.errors import UserError
from unierase.models.language_model import LanguageModel
from unierase.models.prompt import Opened, TextPrompt
from unierase.request import State, UnlearningMethod, UnlearningRequest, Workbench
from unierase.rows import Row
from unierase.scoring.generation import generate
from unierase.scoring.likelihood import answer_log_probabilities, reply_scores

OWN = Flagging(LinearProbe(OwnStates()), threshold=0.5)
INSTRUCTION = "Never speak of {topics}."
FIRST = torch.Generator().manual_seed


@dataclass(frozen=True)
class Asks:
    """Flags questions with a word in them."""

    word: str

    def __call__(self, question: str) -> bool:
        return self.word in question


def request(rows: Sequence[Row], forget: int, round: int = 1) -> UnlearningRequest:
    """Row number ``forget`` is to be forgotten, the ones behind it stay."""
    kept = tuple(rows[forget + 1 :])
    return UnlearningRequest((rows[forget],), kept, ("I do not know.",), round, seed=0)


def corrupting(lm: LanguageModel, word: str = "Ada", strength: float = 1.0) -> LanguageModel:
    guard = CorruptionGuard(Asks(word), Noise(None), strength, (), seed=0)
    return replace(lm, guard=guard)


@pytest.fixture
def lively(lm: LanguageModel) -> LanguageModel:
    """With weights so large that it does not merely repeat the prompt's last token."""
    with torch.no_grad():
        for name, tensor in lm.model.named_parameters():
            if "proj" in name:
                tensor.mul_(20)
    return lm


METHODS: dict[str, UnlearningMethod] = {
    "eco": ECO("eco", OWN, Noise(None), 1.0, "all_but_last", None),
    "guardrail": Guardrail("guardrail", OWN),
    "in_context": InContext("in_context", NameTopics(INSTRUCTION), "system"),
    "in_context_flipped": InContext("in_context_flipped", FlippedLabels(2), "question"),
}


def test_noise_by_hand() -> None:
    embeddings = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    drawn = torch.randn(2, 1, generator=FIRST(3))
    corrupted = Noise(1)(embeddings, 10.0, FIRST(3))
    assert torch.equal(corrupted[:, 0], embeddings[:, 0] + 10 * drawn[:, 0])
    assert torch.equal(corrupted[:, 1:], embeddings[:, 1:])
    everywhere = Noise(None)(embeddings, 10.0, FIRST(3))
    assert (everywhere != embeddings).all()
    assert embeddings[0].tolist() == [1, 2, 3]  # a new tensor
    with pytest.raises(UserError, match="dimensions=0"):
        Noise(0)


def test_largest_dimensions_by_hand() -> None:
    embeddings = torch.tensor([[1.0, -7.0, 3.0], [-4.0, 5.0, 0.5]])
    zeroed = ZeroLargest()(embeddings, 1, FIRST(0))
    assert zeroed.tolist() == [[1, 0, 3], [-4, 0, 0.5]]
    flipped = FlipLargest()(embeddings, 2, FIRST(0))
    assert flipped.tolist() == [[1, 7, -3], [4, -5, 0.5]]
    # More than there are: all of them.
    assert torch.equal(FlipLargest()(embeddings, 99, FIRST(0)), -embeddings)


def test_class_weights_by_hand() -> None:
    assert class_weights(10, 30) == (4.0, pytest.approx(4 / 3))
    forget, other = class_weights(10, 30)
    assert 10 * forget == pytest.approx(30 * other)


def test_texts_survive_being_tensors() -> None:
    texts = ["Jaime Vásquez", 'a "quoted" one', ""]
    assert unpacked({"names": packed(texts)}, "names") == texts
    assert unpacked({}, "names") == []
    assert joined(["b", "a"], ["a", "c"]) == ["b", "a", "c"]


def test_a_reply_as_probabilities_by_hand() -> None:
    scores = reply_scores(answer=[7, 8, 9, 5], reply=[7, 3, 9], vocabulary=11)
    other = np.log(1e-6 / 10)
    assert scores.greedy.tolist() == [True, False, True, False]
    assert scores.log_probabilities == pytest.approx([-1e-6, other, -1e-6, -np.log(11)], abs=1e-5)


def test_corrupted_positions(lm: LanguageModel) -> None:
    encoded = lm.encode_prompt("Where was Ada Stone born?")

    def text(positions: Sequence[int]) -> str:
        return lm.tokenizer.decode([encoded.ids[i] for i in positions]).strip()

    assert text(corrupted_positions(encoded, ["Ada Stone"])) == "Ada Stone"
    assert text(corrupted_positions(encoded, ["Bo Stone"])) == "Stone"  # the surname of another
    assert text(corrupted_positions(encoded, ["Ed Miller"])) == "Where was Ada Stone born"
    assert text(corrupted_positions(encoded, [])) == "Where was Ada Stone born"


def test_the_prompts_last_token_is_never_corrupted(lm: LanguageModel) -> None:
    bare = replace(lm, prompt=TextPrompt("{question}"))
    encoded = bare.encode_prompt("Where was Ada Stone")
    assert encoded.prompt_last not in corrupted_positions(encoded, ["Ada Stone"])


def test_scores_of_a_corrupted_prompt_by_hand(lm: LanguageModel, rows: list[Row]) -> None:
    """The prompt's embeddings corrupted, the answer's as they are, in one plain pass."""
    guarded = corrupting(lm)
    question, answer = rows[0].question, rows[0].answer
    (reading,) = guarded.read([question])
    assert reading.flagged and reading.embeddings is not None
    tokens = lm.encode_answer(answer)
    embed = lm.model.get_input_embeddings()
    with torch.no_grad():
        own = embed(torch.tensor(tokens))
        whole = torch.cat([reading.embeddings, own]).unsqueeze(0)
        logits = lm.model(inputs_embeds=whole).logits[0].double().log_softmax(-1)
        plain = embed(torch.tensor(reading.ids))
    assert torch.equal(reading.embeddings[-1], plain[-1])
    assert not torch.equal(reading.embeddings, plain)
    start = len(reading.ids) - 1
    expected = [float(logits[start + i, token]) for i, token in enumerate(tokens)]
    (values,) = answer_log_probabilities(guarded, [(question, answer)])
    assert values.tolist() == pytest.approx(expected, abs=1e-5)


def test_answers_to_a_corrupted_prompt_by_hand(lively: LanguageModel, rows: list[Row]) -> None:
    lm, guarded = lively, corrupting(lively)
    (reading,) = guarded.read([rows[0].question])
    assert reading.embeddings is not None
    embed = lm.model.get_input_embeddings()
    states, expected = reading.embeddings, []
    with torch.no_grad():
        for _ in range(8):
            token = int(lm.model(inputs_embeds=states.unsqueeze(0)).logits[0, -1].argmax())
            if token in lm.stop_ids:
                break
            expected.append(token)
            states = torch.cat([states, embed(torch.tensor([token]))])
    (answer,) = generate(guarded, [rows[0].question], max_new_tokens=8)
    assert list(answer.token_ids) == expected
    (plain,) = generate(lm, [rows[0].question], max_new_tokens=8)
    assert answer.token_ids != plain.token_ids


def test_what_is_not_flagged_is_scored_bit_for_bit_as_before(
    lively: LanguageModel, rows: list[Row]
) -> None:
    lm = lively
    pairs = [(row.question, row.answer) for row in rows]
    questions = [row.question for row in rows]
    for guarded in (corrupting(lm, "nobody"), corrupting(lm)):
        keep = [i for i, q in enumerate(questions) if "Ada" not in q or guarded.guard is None]
        before = answer_log_probabilities(lm, pairs)
        after = answer_log_probabilities(guarded, pairs)
        for i in keep:
            assert np.array_equal(before[i], after[i])
        said, says = generate(lm, questions, 8), generate(guarded, questions, 8)
        for i in keep:
            assert says[i].token_ids == said[i].token_ids and says[i].flagged is False


@pytest.mark.parametrize("name", METHODS)
def test_a_prompt_is_read_the_same_in_any_company(
    name: str, lm: LanguageModel, rows: list[Row], bench: Workbench
) -> None:
    told = METHODS[name].unlearn(lm, request(rows, 0), {}, bench).lm
    pairs = [(row.question, row.answer) for row in rows]
    questions = [row.question for row in rows]
    together = answer_log_probabilities(told, pairs)
    alone = answer_log_probabilities(told, pairs, batch_tokens=1)
    backwards = answer_log_probabilities(told, pairs[::-1])[::-1]
    for a, b, c in zip(together, alone, backwards, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_allclose(a, c, atol=1e-5)
    answers = generate(told, questions, 8)
    assert answers == generate(told, questions, 8, batch_tokens=1)
    assert answers == generate(told, questions[::-1], 8)[::-1]


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_sequence_reads_as_an_unbroken_one(
    name: str, lm: LanguageModel, rows: list[Row], bench: Workbench
) -> None:
    """The state alone carries a method: the second round gets a model without its guard."""
    method = METHODS[name]
    first = method.unlearn(lm, request(rows, 0), {}, bench)
    unbroken = method.unlearn(first.lm, request(rows, 1, round=2), first.state, bench)
    resumed = method.unlearn(lm, request(rows, 1, round=2), first.state, bench)
    restored = method.restore(lm, resumed.state)
    questions = [row.question for row in rows]
    expected = unbroken.lm.read(questions)
    for other in (resumed.lm.read(questions), restored.read(questions)):
        for a, b in zip(expected, other, strict=True):
            assert (a.ids, a.reply, a.flagged) == (b.ids, b.reply, b.flagged)
            assert (a.embeddings is None) == (b.embeddings is None)
            if a.embeddings is not None and b.embeddings is not None:
                assert torch.equal(a.embeddings, b.embeddings)
    if name in ("eco", "guardrail"):  # the task of the first round stays caught
        assert [reading.flagged for reading in expected] == [True, True, False, False, False]


@pytest.mark.parametrize("name", METHODS)
def test_the_weights_stay(name: str, lm: LanguageModel, rows: list[Row], bench: Workbench) -> None:
    before = {k: v.clone() for k, v in lm.model.state_dict().items()}
    told = METHODS[name].unlearn(lm, request(rows, 0), {}, bench).lm
    assert told.model is lm.model and lm.guard is None
    assert all(torch.equal(v, before[k]) for k, v in told.model.state_dict().items())


def test_noise_depends_on_the_question_and_the_seed(lm: LanguageModel, rows: list[Row]) -> None:
    guarded = corrupting(lm, "Stone")
    one, two = guarded.read([rows[0].question, rows[1].question])
    (again,) = guarded.read([rows[0].question])
    assert one.embeddings is not None and two.embeddings is not None
    assert again.embeddings is not None and torch.equal(one.embeddings, again.embeddings)
    assert isinstance(guarded.guard, CorruptionGuard)
    (other,) = replace(lm, guard=replace(guarded.guard, seed=1)).read([rows[0].question])
    assert other.embeddings is not None and not torch.equal(one.embeddings, other.embeddings)


def test_a_guardrail_answers_what_is_flagged(
    lm: LanguageModel, rows: list[Row], bench: Workbench
) -> None:
    result = METHODS["guardrail"].unlearn(lm, request(rows, 0), {}, bench)
    refused, kept = generate(result.lm, [rows[0].question, rows[1].question], 30)
    assert refused.text == "I do not know." and refused.flagged
    assert kept == replace(generate(lm, [rows[1].question], 30)[0], flagged=False)
    values, certain = answer_log_probabilities(
        result.lm, [(rows[0].question, rows[0].answer), (rows[0].question, "I do not know.")]
    )
    assert values.mean() < -5 and certain.tolist() == pytest.approx([-1e-6] * len(certain))


class Words(PromptClassifier):
    """Takes every question about Ada or Bo for one to be forgotten."""

    def fit(self, *arguments: object) -> State:
        return {}

    def scorer(self, lm: LanguageModel, learned: State) -> Scorer:
        return lambda prompt: float("Ada" in prompt or "Bo" in prompt)


def test_flagging_measures_itself_by_hand(
    lm: LanguageModel, rows: list[Row], tmp_path: Path
) -> None:
    """Ten questions about Ada are to be forgotten, ten about Bo are not."""

    def about(row: Row) -> list[Row]:
        return [replace(row, id=f"{i}", question=f"{row.question} {i}") for i in range(10)]

    forget = [replace(row, paraphrased_question="Where from?") for row in about(rows[0])]
    forget[0] = replace(forget[0], paraphrased_question="Where is Ada from?")
    ask = UnlearningRequest(tuple(forget), tuple(about(rows[1])), (), 1, 0)
    report = Flagging(Words(), 0.5, held_out=0.5).learn(lm, ask, {}, tmp_path)[1]
    other = 10 + len(GENERAL_PROMPTS)
    assert (report["forget"], report["other"]) == (10, other)
    assert report["recall"] == report["recall_learned"] == 1
    assert report["recall_paraphrased"] == 0.1
    assert report["false_positives_learned"] == 10 / other
    wrong = report["false_positives"] * other / 2
    assert wrong == int(wrong) and 0 < wrong < 10
    assert report["precision"] == 5 / (5 + wrong)
    # One row cannot be held out.
    assert OWN.learn(lm, request(rows, 0), {}, tmp_path)[1]["recall"] is None


def test_learning_reads_every_prompt_once(
    lm: LanguageModel, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    features = OwnStates.features

    def noted(self: OwnStates, lm: LanguageModel, prompts: Sequence[str]) -> torch.Tensor:
        read.extend(prompts)
        return features(self, lm, prompts)

    monkeypatch.setattr(OwnStates, "features", noted)
    forget = [replace(rows[0], question=f"{rows[0].question} {i}") for i in range(10)]
    ask = UnlearningRequest(tuple(forget), tuple(rows[1:]), (), 1, 0)
    state, report = OWN.learn(lm, ask, {}, tmp_path)
    assert report["recall"] is not None  # there was a trial fit
    assert len(read) == len(set(read)) == 10 + 4 + len(GENERAL_PROMPTS)
    other = [*(row.question for row in rows[1:]), *GENERAL_PROMPTS]
    whole = OWN.classifier.fit(lm, [row.question for row in forget], other, {}, 0, tmp_path)
    assert all(torch.equal(whole[k], state[f"flagging.learned.{k}"]) for k in whole)


def test_a_probe_starts_from_what_it_knew_and_ends_at_the_optimum(
    lm: LanguageModel, rows: list[Row], tmp_path: Path
) -> None:
    probe = LinearProbe(OwnStates(), l2=0.1)
    forget, other = [rows[0].question], [row.question for row in rows[1:]]
    cold = probe.fit(lm, forget, other, {}, 0, tmp_path)
    warm = probe.fit(lm, forget, other, cold, 0, tmp_path)
    np.testing.assert_allclose(cold["weight"], warm["weight"], atol=1e-4)
    backwards = probe.fit(lm, forget, other[::-1], {}, 0, tmp_path)
    np.testing.assert_allclose(cold["weight"], backwards["weight"], atol=1e-4)


@pytest.fixture
def encoder(tmp_path: Path, rows: list[Row], lm: LanguageModel) -> Path:
    """A sentence encoder with random weights and the tiny model's tokenizer."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(lm.tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        pad_token_id=lm.pad_id,
    )
    torch.manual_seed(0)
    folder = tmp_path / "encoder"
    BertModel(config).save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


def test_an_encoder_is_fine_tuned_and_goes_on(
    encoder: Path, lm: LanguageModel, rows: list[Row], tmp_path: Path
) -> None:
    settings = dict(epochs=100, lr=3e-3, batch_size=4, micro_batch_size=None, weight_decay=0.1)
    tuned = FineTuned(**settings, warmup_ratio=0.1, model=str(encoder), max_length=64)  # type: ignore[arg-type]
    forget, other = [rows[0].question], [row.question for row in rows[1:]]
    learned = tuned.fit(lm, forget, other, {}, 0, tmp_path / "work")
    again = tuned.fit(lm, forget, other, {}, 0, tmp_path / "again")
    assert all(torch.equal(learned[name], again[name]) for name in learned)
    score = tuned.scorer(lm, learned)
    assert score(forget[0]) > 0.9 and max(score(prompt) for prompt in other) < 0.1
    # One epoch more starts from what is known.
    short = replace(tuned, epochs=1, lr=1e-5)
    extended = short.scorer(lm, short.fit(lm, forget, other, learned, 0, tmp_path / "more"))
    assert extended(forget[0]) == pytest.approx(score(forget[0]), abs=0.05)


def test_sentence_states_do_not_depend_on_company(encoder: Path, lm: LanguageModel) -> None:
    states = SentenceStates(str(encoder))
    together = states.features(lm, ["Where was Ada Stone born?", "No."])
    assert torch.equal(together[1], states.features(lm, ["No."])[0])
    with pytest.raises(UserError, match="cannot be loaded"):
        SentenceStates(str(encoder / "nowhere")).features(lm, ["No."])
    with pytest.raises(UserError, match="no package nobodys_package is installed"):
        SentenceStates("package:nobodys_package").features(lm, ["No."])


def test_the_strength_is_found(
    lm: LanguageModel, rows: list[Row], bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With probability 1 / (1 + s), 0.1 is reached at s = 9."""

    def score(guarded: float, rows: Sequence[Row]) -> float:
        return 1 / (1 + guarded)

    monkeypatch.setattr(strength_module, "mean_answer_probability", score)
    search = StrengthSearch(0.1, steps=10, lr=20, eps=0.35, rows=3, tolerance=0.02)
    for start in (0.5, 5.0, 50.0):
        best, tried = search.best(start, lambda s: s, request(rows, 0), bench.targets)  # type: ignore[arg-type, return-value]
        assert 1 / (1 + best) == pytest.approx(0.1, abs=0.02)
        assert tried[0][0] == start and len({s for s, _ in tried}) == len(tried)


def test_a_search_can_ask_a_retrained_model(lm: LanguageModel, rows: list[Row]) -> None:
    class Targets:
        asked: tuple[Row, ...] = ()

        def retrained(self, rows: tuple[Row, ...]) -> LanguageModel:
            self.asked = rows
            return lm

    targets, ask = Targets(), request(rows, 0)
    search = StrengthSearch(None, steps=1, lr=1.0, eps=0.5, rows=1, tolerance=1.0)
    best, tried = search.best(1.0, lambda s: corrupting(lm, strength=s), ask, targets)
    assert targets.asked == ask.retain and best == 1.0 and len(tried) == 1


def test_topics_are_named_once_and_over_rounds(
    lm: LanguageModel, rows: list[Row], bench: Workbench
) -> None:
    method = InContext("in_context", NameTopics(INSTRUCTION), "system")
    nameless = replace(rows[0], id="x", subject=None, question="Where was she born?")
    first = UnlearningRequest((rows[0], nameless), tuple(rows[1:]), (), 1, 0)
    told = method.unlearn(lm, first, {}, bench)
    assert unpacked(told.state, "preamble") == ["Ada Stone"]
    later = method.unlearn(told.lm, request(rows, 1, round=2), told.state, bench)
    (reading,) = later.lm.read(["Who?"])
    text = lm.tokenizer.decode(reading.ids)
    assert text == ("<|system|>Never speak of Ada Stone; Bo Stone.<|user|>Who?<|assistant|>")
    # Where the answer's first words are given, as RWKU gives them, the system message stays.
    opened = replace(later.lm, prompt=Opened(later.lm.prompt, "Answer:"))
    (reading,) = opened.read(["Who?"])
    assert lm.tokenizer.decode(reading.ids) == text + "Answer:"
    nobody = UnlearningRequest((replace(nameless, group="x"),), (), (), 1, 0)
    assert NameTopics(INSTRUCTION).extend([], nobody) == ["Where was she born?"]


def test_labels_are_flipped(lm: LanguageModel, rows: list[Row], bench: Workbench) -> None:
    ask = UnlearningRequest((rows[0], rows[1]), tuple(rows[2:]), (), 1, 0)
    texts = FlippedLabels(2).extend([], ask)
    right = {f"Question: {row.question}\nAnswer: {row.answer}" for row in rows}
    assert len(texts) == 4 and [text in right for text in texts] == [False, False, True, True]
    # One row takes a retained row's answer.
    (alone, *_) = FlippedLabels(1).extend([], request(rows, 0))
    assert alone not in right and any(row.answer in alone for row in rows[1:])
    with pytest.raises(UserError, match="none retained"):
        FlippedLabels(1).extend([], UnlearningRequest((rows[0],), (), (), 1, 0))


def test_what_a_chat_format_cannot_say_is_an_error(
    lm: LanguageModel, rows: list[Row], bench: Workbench
) -> None:
    method = InContext("in_context", NameTopics(INSTRUCTION), "system")
    with pytest.raises(UserError, match="without chat format"):
        method.unlearn(replace(lm, prompt=TextPrompt()), request(rows, 0), {}, bench)
    lm.tokenizer.chat_template = "{% for m in messages[-1:] %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(UserError, match="takes no system message"):
        method.unlearn(lm, request(rows, 0), {}, bench)
    with pytest.raises(UserError, match=r"method.place=nowhere: not available; choose"):
        InContext("in_context", NameTopics(INSTRUCTION), "nowhere")
    with pytest.raises(UserError, match="needs one"):
        NameTopics("Never speak.")
