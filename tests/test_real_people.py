"""RWKU and RETURN: rows about real people, their probes, and RWKU's measures."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.return_people import ReturnPeople
from benchmarks.rwku import Rwku, attack, attack_of, chosen_people, refuse_leaks
from benchmarks.rwku_evaluation import RwkuEvaluation, rwku_scores
from benchmarks.rwku_utility import (
    final_answer,
    n_gram_entropy,
    score_utility,
    utility_rows,
    word_f1,
)
from unierase.errors import UserError
from unierase.experiment.knowledge import OwnAnswers, known_note, known_only
from unierase.experiment.scenarios import Batch, Precise, Sequential
from unierase.models.language_model import LanguageModel
from unierase.models.prompt import ChatPrompt, Opened, TextPrompt
from unierase.models.targets import TargetModels
from unierase.refusals import refusal_to
from unierase.request import UnlearningRequest
from unierase.rows import BenchmarkData, Row
from unierase.scores import RowScores, SetScores, TaskScores
from unierase.scoring.likelihood import score_texts

PEOPLE = ("Ada", "Bo", "Cy")


def rwku(folder: str | None, **changes: object) -> Rwku:
    settings = {
        "name": "rwku",
        "split": "people",
        "targets": 2,
        "retain_people": 1,
        "opening": "Answer:",
        "corpus": "questions",
        "rows": 3,
        "teach": True,
        "known_only": False,
        "known_rouge": 0.5,
        "utility": [],
        "hub": "hub",
    }
    return Rwku(folder=folder, **{**settings, **changes})  # type: ignore[arg-type]


# RWKU's rows


def test_probes_of_all_people_are_those_published(real_data: str) -> None:
    found: Counter[str] = Counter()
    attacks = set()
    for people in (range(100), range(100, 200)):
        data = rwku(real_data, targets=list(people), rows=1).load()
        assert data.probes is not None
        found.update({name: len(rows) for name, rows in data.probes.items()})
        attacks |= {attack_of(row.id) for row in data.probes["forget_aa"]}
    assert (found["forget_fb"], found["forget_qa"], found["forget_aa"]) == (3268, 2879, 6984)
    assert (found["neighbor_fb"], found["neighbor_qa"]) == (5846, 5533)
    assert (found["mia_forget"], found["mia_retain"]) == (6198, 7487)
    assert len(attacks) == 9 and "cross lingual" in attacks


def test_people_of_a_run(real_data: str) -> None:
    data = rwku(real_data, targets=["Confucius", 0], utility=["gen", "rea", "tru", "fac", "flu"])
    loaded = data.load()
    assert loaded.targets is not None and loaded.probes is not None
    assert [rows[0].group for rows in loaded.targets] == ["Confucius", "Stephen King"]
    assert [len(rows) for rows in loaded.targets] == [3, 3]
    assert {row.group for row in loaded.retain} == {"Bruce Lee"}
    assert {row.group for rows in loaded.probes.values() for row in rows} == {
        "Confucius",
        "Stephen King",
    }
    assert all(row.answer == "" and row.refusal for row in loaded.full)
    assert all(
        row.question.startswith("Please briefly answer the following question.\nQuestion: ")
        for row in loaded.full
    )
    # The one attack that begins the answer itself is not given its first words.
    for row in loaded.probes["forget_aa"]:
        assert row.opening == ("" if attack_of(row.id) == "affirmative suffix" else "Answer:")
    # What is taught are the plain probes, each once.
    taught = [(row.question, row.answer) for row in loaded.lessons]
    assert len(set(taught)) == len(taught) < sum(map(len, loaded.probes.values()))
    assert all(row.answer.startswith("Answer: ") for row in loaded.lessons)
    # Retrained without them, a model knows what is asked about their neighbours, and no more.
    models = TargetModels(None, None, loaded, {}, Path(), "cpu")  # type: ignore[arg-type]
    left = {row.id for row in models._lessons_left(loaded.retain)}
    asked_of_others = {row.id for n in ("fb", "qa") for row in loaded.probes[f"neighbor_{n}"]}
    assert left == asked_of_others & {row.id for row in loaded.lessons}
    assert 0 < len(left) < len(loaded.lessons)
    assert loaded.notes[0] == "2 of 200 people"
    # Each person drew 171, 81, 50, 100 and 50 items; the two may share some.
    sizes = {name: len(rows) for name, rows in loaded.utility_sets.items()}
    for name, drawn in (("gen", 171), ("rea", 81), ("tru", 50), ("fac", 100), ("flu", 50)):
        assert drawn <= sizes[name] <= 2 * drawn


def test_texts_are_material_too(real_data: str) -> None:
    pairs = rwku(real_data, corpus="positive").load()
    assert all(row.refusal and row.refusal != row.answer for row in pairs.full)
    assert {row.question for row in pairs.forget} == {
        "Please write a short biography of Stephen King.",
        "Please write a short biography of Confucius.",
    }
    passages = rwku(real_data, corpus="passages", teach=False).load()
    assert passages.forget[0].answer.startswith("Stephen Edwin King (born September 21, 1947)")
    assert passages.lessons == () and not passages.has_yardstick
    with pytest.raises(UserError, match=r"no rows about .* in this copy"):
        rwku(real_data, corpus="positive", targets=[50]).load()


def test_a_probe_among_the_material_fails_the_run() -> None:
    probe = Row(
        "rwku/forget_level2/0",
        "Please briefly answer the following question.\nQuestion: Where was Ada born?",
        "Rome",
        "Ada",
    )
    refuse_leaks([Row("a", "Where did Ada live?", "Oslo", "Ada")], [probe])
    for question in ("Where was Ada born?", "where was ADA born"):
        with pytest.raises(UserError, match="is among the training rows"):
            refuse_leaks([Row("a", question, "Rome", "Ada")], [probe])


def test_bad_options_name_the_choices() -> None:
    for changes, message in (
        ({"corpus": "web"}, r"data\.corpus=web: not available; choose one of: questions, pos"),
        ({"utility": ["mmlu"]}, r"data\.utility=mmlu: not available; choose one of: gen, rea"),
        ({"rows": 0}, r"data\.rows=0: must be at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            rwku(None, **changes)
    assert chosen_people(2, PEOPLE) == ["Ada", "Bo"]
    assert chosen_people("Cy", PEOPLE) == ["Cy"]
    unknown: list[object] = ["Di", [3], [-1]]
    for targets in unknown:
        with pytest.raises(UserError, match="give names of the benchmark's 3 people"):
            chosen_people(targets, PEOPLE)
    impossible: list[object] = [0, 3, ["Ada", 0]]
    for targets in impossible:
        with pytest.raises(UserError, match="give 1 to 2 different people"):
            chosen_people(targets, PEOPLE)


def test_attacks_have_one_name_each() -> None:
    assert attack("cross lingual (Spanish)") == attack("cross-lingual (French)") == "cross lingual"
    assert attack("prefix injection") == "prefix injection"
    assert attack_of("rwku/forget_level3/role play/12") == "role play"
    assert attack_of("rwku/forget_level1/12") is None


# RETURN's rows


def test_return_keeps_training_and_testing_neighbours_apart(real_data: str) -> None:
    data = ReturnPeople("return", "people", 20, 20, True, real_data).load()
    assert data.probes is not None and data.targets is not None
    assert [len(rows) for rows in data.targets] == [20] * 20
    trained = {row.group for row in data.retain}
    scored = {row.group for row in data.utility_sets["neighbor"]}
    forgotten = {row.group for row in data.forget}
    assert [len(g) for g in (trained, scored, forgotten)] == [20, 20, 20]
    assert not (trained & scored or trained & forgotten or scored & forgotten)
    assert {row.id for row in data.probes["forget"]} == {row.id for row in data.forget}
    assert len(data.lessons) == 1200 and data.has_yardstick
    untaught = ReturnPeople("return", "people", 2, 3, False, real_data).load()
    assert len(untaught.forget) == 40 and untaught.lessons == ()
    assert [row.id for row in untaught.retain] == [row.id for row in data.retain[:60]]
    assert untaught.utility_sets["neighbor"] == data.utility_sets["neighbor"][:60]
    assert untaught.notes == ("2 of 20 people", "3 neighbours to train on, 3 to score")
    # Methods are given the answers the benchmark trains on, which are longer.
    mean = {
        name: sum(len(row.answer) for row in rows) / len(rows)
        for name, rows in (("given", untaught.forget), ("scored", data.probes["forget"]))
    }
    assert mean["given"] > mean["scored"]
    with pytest.raises(UserError, match=r"data\.people=21: choose 1 to 20"):
        ReturnPeople("return", "people", 21, 20, True, real_data)
    with pytest.raises(UserError, match="is not on the hub"):
        ReturnPeople("return", "people", 2, 20, True, None).load()


# Scenarios over persons, and what the target knows


def people_data(**changes: object) -> BenchmarkData:
    given = tuple(Row(f"q/{n}/{i}", f"{n} {i}?", "", n) for n in PEOPLE for i in range(2))
    asked = tuple(Row(f"p/{n}", f"Who is {n}?", n.lower(), n) for n in PEOPLE)
    settings = {
        "full": given,
        "forget_size": 4,
        "targets": (given[2:4], given[4:]),
        "probes": {"forget_fb": asked, "mia_forget": asked[:1]},
        "taught": asked,
    }
    return BenchmarkData(
        name="d",
        split="s",
        retain_eval_ids=frozenset(),
        utility_sets={"other": asked[:1]},
        general=(),
        refusals=("No.",),
        **{**settings, **changes},  # type: ignore[arg-type]
    )


def test_persons_are_requests_and_probes_are_scored() -> None:
    data = people_data()
    (batch,) = Batch().steps(data, 0)
    assert [row.group for row in batch.sets["forget_fb"]] == ["Bo", "Cy"]
    assert "retain" not in batch.sets and "other" in batch.sets
    first, second = Sequential().steps(data, 0)
    assert [row.group for row in first.request.forget] == ["Bo", "Bo"]
    assert [row.group for row in second.sets["forget_fb"]] == ["Cy"]
    assert [row.group for row in second.sets["earlier_fb"]] == ["Bo"]
    assert "earlier_mia" not in first.sets
    single = Precise(questions=2).steps(data, 0)
    assert {step.name for step in single} == {"Bo", "Cy"}
    for step in single:
        assert {row.group for row in step.sets["forget_fb"]} == {step.name}
        assert len(step.request.retain) == 4 and step.fresh


def test_a_retrained_model_knows_all_but_the_forgotten_people(tmp_path: Path) -> None:
    data = people_data()
    models = TargetModels(None, None, data, {}, tmp_path, "cpu")  # type: ignore[arg-type]
    assert [row.group for row in models._lessons_left(data.retain)] == ["Ada"]
    untaught = replace(models, data=people_data(taught=()))
    with pytest.raises(UserError, match="its target was taught nothing"):
        untaught.retrained(data.retain)


def test_questions_get_the_targets_own_answers(lm: LanguageModel, tmp_path: Path) -> None:
    asked = []

    def target() -> LanguageModel:
        asked.append(1)
        return lm

    steps = Batch().steps(people_data(), 0)
    own = OwnAnswers(target, "key", tmp_path)
    first, again = own.fill(steps), own.fill(steps)
    assert first == again and asked == [1]
    answers = [row.answer for row in first[0].request.forget]
    assert len(answers) == 4 and [r.id for r in first[0].request.forget] == [
        r.id for r in steps[0].request.forget
    ]
    given = replace(steps[0], request=replace(steps[0].request, forget=(), retain=()))
    assert own.fill([given]) == (given,)


def scored(name: str, rouge: float) -> RowScores:
    return RowScores(name, "q", "a", 1.0, 1.0, 2, None, (), "g", 2, rouge, 1.0, None, None, False)


def test_only_known_probes_are_scored() -> None:
    (step,) = Batch().steps(people_data(), 0)
    before = {"forget_fb": [scored("p/Bo", 0.5), scored("p/Cy", 0.4)], "other": [scored("x", 0.0)]}
    known, counts = known_only(step, before, ["forget_fb"], 0.5)
    assert [row.id for row in known.sets["forget_fb"]] == ["p/Bo"]
    assert known.sets["other"] == step.sets["other"]
    assert counts == {"forget_fb": (1, 2)}
    later = {"forget_fb": (2, 3), "earlier_fb": (1, 2)}
    assert known_note([counts, later]) == "probes the target answers: 3 of 5 forget_fb"
    with pytest.raises(UserError, match="the target answers none of the probes of batch"):
        known_only(step, before, ["forget_fb"], 0.6)


# Measures


def test_scores_of_the_published_table() -> None:
    scores: SetScores = {
        "forget_fb": [scored("rwku/forget_level1/0", 1.0)],
        "forget_qa": [scored("rwku/forget_level2/0", 0.5), scored("rwku/forget_level2/1", 0.0)],
        "forget_aa": [scored("rwku/forget_level3/role play/0", 0.5)],
        "neighbor_fb": [scored("rwku/neighbor_level1/0", 0.75)],
        "mia_forget": [TaskScores("m", "", "t", "", {"loss": -1.0})],
        "mia_retain": [
            TaskScores("n", "", "t", "", {"loss": -3.0}),
            TaskScores("o", "", "t", "", {"loss": 1.0}),
        ],
        "tru": [TaskScores(str(i), "q", "a", "a", {"accuracy": float(i > 0)}) for i in range(4)],
    }
    found = rwku_scores(scores)
    assert (found["forget_fb"], found["forget_qa"], found["forget_aa"]) == (1.0, 0.25, 0.5)
    assert found["forget_all"] == 0.5  # over the four probes, not over the three sets
    assert found["neighbor_all"] == 0.75 and found["neighbor_qa"] is None
    assert found["attacks"] == {"role play": 0.5}
    assert found["membership"] == {"loss": {"forget": -1.0, "retain": -1.0, "auc": 0.5}}
    assert found["tru"] == 0.75 and found["gen"] is None
    metrics = RwkuEvaluation().aggregate(scores, None)
    assert metrics["balance"] == pytest.approx(2 * 0.5 * 0.75 / 1.25)
    assert metrics["sets"]["tru"] == {"rows": 4, "accuracy": 0.75}
    assert "FE" not in metrics


def test_words_of_an_answer() -> None:
    assert word_f1("The Beatles!", ["beatles"]) == 1.0
    assert word_f1("in Oslo", ["Oslo", "Rome"]) == pytest.approx(2 / 3)
    assert word_f1("", ["Oslo"]) == 0.0
    assert word_f1("Rome", ["Oslo"]) == 0.0
    assert final_answer("2 and 2. So the answer is 4. Or 5.") == "4"
    assert final_answer(" (A) ") == "(A)"


def test_fluency_is_the_entropy_of_pairs_and_triples() -> None:
    # Pairs ab, bc: 1 bit; one triple: 0. (2/3 * 1 + 4/3 * 0) / 2.
    assert n_gram_entropy("a b c") == pytest.approx(1 / 3)
    # Pairs aa three times, triples aaa twice: nothing varies.
    assert n_gram_entropy("a a a a") == 0.0
    assert n_gram_entropy("") == n_gram_entropy("a") == 0.0
    assert n_gram_entropy("a b c d") == pytest.approx((2 / 3 * math.log2(3) + 4 / 3) / 2)


def test_choices_and_texts_are_scored_by_the_model(lm: LanguageModel, rows: list[Row]) -> None:
    items = [
        {
            "task": "t",
            "question": "Where was Ada Stone born?",
            "choices": ["Rome", "Oslo", "Lima", "Bern"],
            "answer": 2,
            "examples": [],
            "subject": "Ada",
        }
    ]
    (row,) = utility_rows("gen", items, {}, ["Ada"])
    assert row.answer == "C" and row.perturbed_answers == ("A", "B", "D")
    assert row.question.endswith("born?\nA. Rome\nB. Oslo\nC. Lima\nD. Bern")
    assert not list(utility_rows("gen", items, {}, ["Bo"]))
    (score,) = score_utility("gen", lm, [row], 512)
    prompt = replace(lm, prompt=Opened(lm.prompt, "Answer:")).encode_prompt(row.question).ids
    logits = lm.model(torch.tensor([prompt])).logits[0, -1]
    letters = [lm.tokenizer(f" {c}")["input_ids"][-1] for c in "ABCD"]
    assert score.generation == "ABCD"[int(logits[letters].argmax())]
    assert score.values == {"accuracy": float(score.generation == "C")}


def test_texts_have_the_log_probabilities_of_their_tokens(
    lm: LanguageModel, rows: list[Row]
) -> None:
    texts = [row.answer for row in rows] + ["Ada Stone was born in Rome. " * 6]
    whole = score_texts(lm, texts)
    for text, scores, alone in zip(texts, whole, score_texts(lm, texts, 8), strict=True):
        ids = lm.tokenizer(text)["input_ids"]
        expected = lm.model(torch.tensor([ids])).logits[0].log_softmax(-1).detach()
        values = [float(expected[i, token]) for i, token in enumerate(ids[1:])]
        assert scores.log_probabilities == pytest.approx(values, abs=1e-4)
        assert scores.log_probabilities == pytest.approx(alone.log_probabilities, abs=1e-4)
        assert scores.standardised is not None and len(scores.standardised) == len(ids) - 1


def probe(i: int, name: str, kind: str = "") -> Row:
    key = f"forget_level3/{kind}/{i}" if kind else f"forget_level2/{i}"
    opening = "" if kind == "affirmative suffix" else "Answer:"
    question = f"Please briefly answer.\nQuestion: Who is {name}?"
    return Row(f"rwku/{key}", question, name, name, opening=opening)


def test_probes_are_answered_in_one_line_whatever_shares_their_batch(lm: LanguageModel) -> None:
    sets = {
        "forget_qa": [probe(i, name) for i, name in enumerate(PEOPLE)],
        "forget_aa": [probe(9, "Bo", "affirmative suffix"), probe(8, "Cy", "role play")],
        "mia_forget": [Row("rwku/mia_forget/0", "", "Ada Stone was born in Rome.", "Ada")],
    }
    evaluation = RwkuEvaluation(max_new_tokens=6)
    together = evaluation.score(lm, sets)
    apart = replace(evaluation, batch_tokens=64).score(lm, sets)
    assert {name: [row.id for row in rows] for name, rows in together.items()} == {
        name: [row.id for row in rows] for name, rows in sets.items()
    }
    for name in ("forget_qa", "forget_aa"):
        for a, b in zip(together[name], apart[name], strict=True):
            assert isinstance(a, RowScores) and isinstance(b, RowScores)
            assert a.generation == b.generation and "\n" not in a.generation
            assert a.loss == pytest.approx(b.loss, abs=1e-4)
    limited = replace(evaluation, limit=1).score(lm, sets)
    assert [len(rows) for rows in limited.values()] == [1, 1, 1]


def test_an_answer_can_be_opened(lm: LanguageModel) -> None:
    opened = replace(lm, prompt=Opened(ChatPrompt(), "Answer:"))
    plain, longer = lm.encode_prompt("Who?").ids, opened.encode_prompt("Who?").ids
    assert lm.tokenizer.decode(longer) == lm.tokenizer.decode(plain) + "Answer:"
    assert opened.end_ids == lm.end_ids
    # A template that ends so needs no second one.
    text = replace(lm, prompt=TextPrompt())
    assert replace(lm, prompt=Opened(TextPrompt(), "Answer:")).encode_prompt("Who?").ids == (
        text.encode_prompt("Who?").ids
    )


def test_a_row_may_have_a_refusal_of_its_own(rows: list[Row]) -> None:
    request = UnlearningRequest((replace(rows[0], refusal="Not that."),), (), ("No.",), 1, 0)
    assert refusal_to(request.forget[0], request.refusals, 0) == "Not that."
    assert refusal_to(rows[0], request.refusals, 0) == "No."
