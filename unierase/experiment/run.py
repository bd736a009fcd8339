"""One experiment: config -> rows -> requests -> unlearned models -> scores -> record."""

from __future__ import annotations

import gc
import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from unierase.config_types import check_types
from unierase.errors import UserError, invalid_choice
from unierase.experiment.ability import Abilities
from unierase.experiment.changes import changed_share, parameter_count
from unierase.experiment.checkpoint import RunFolder
from unierase.experiment.knowledge import OwnAnswers, known_note, known_only
from unierase.experiment.parallel import Parallel
from unierase.experiment.record import Clock, RunRecord, change, mean_metrics
from unierase.experiment.report import print_plan
from unierase.experiment.scenarios import Scenario, Step, hold_out, with_holdout, with_swapped
from unierase.experiment.scoring import CachedScores, write_scores
from unierase.experiment.tracking import TrackedRun
from unierase.memory import peak_memory, reset_peak_memory
from unierase.models.sources import ModelSource, resolve_device
from unierase.models.targets import TargetModels
from unierase.request import State, UnlearningMethod, Workbench
from unierase.rows import BenchmarkData, Row
from unierase.run_values import config_values
from unierase.scores import Evaluation, SetScores

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel

log = logging.getLogger(__name__)


def seed_everything(seed: int) -> None:
    """Every generator a library may draw from; methods themselves use ``request.seed``."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def evaluation_of(cfg: DictConfig, refusals: Sequence[str] = ()) -> Evaluation:
    """What scores rows; the tasks that stand beside it, ``evaluation.ability``, are no part.

    refusals: the data's, for an evaluation that counts them.
    """
    settings = OmegaConf.to_container(cfg.evaluation, resolve=True)
    assert isinstance(settings, dict)
    del settings["ability"]
    if settings.get("over_forgetting"):
        settings["refusals"] = list(refusals)
    evaluation: Evaluation = instantiate(settings)
    return evaluation


class Experiment:
    """The parts a config names, put together."""

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        check_types(config_values(cfg))
        if not isinstance(cfg.held_out, int):
            raise UserError(f"held_out={cfg.held_out}: give a whole number")
        if cfg.forget_quality not in ("auto", True, False):
            raise invalid_choice("forget_quality", cfg.forget_quality, ("auto", "true", "false"))
        self.cfg = cfg
        self.files = RunFolder(folder)
        self.device = resolve_device(str(cfg.device))
        self.data: BenchmarkData = instantiate(cfg.data).load()
        self.source: ModelSource = instantiate(cfg.model.source)
        self.scenario: Scenario = instantiate(cfg.scenario)
        self.method = self._method()
        skeleton = self.source.skeleton()
        self.method.check(skeleton)
        self.evaluation = evaluation_of(cfg, self.data.refusals)
        self.steps = hold_out(self.scenario.steps(self.data, cfg.seed), cfg.held_out, cfg.seed)
        if self.evaluation.settings().get("privacy") and self.data.holdout:
            self.steps = with_holdout(self.steps, self.data.holdout)
        if self.evaluation.settings().get("over_forgetting") is not None:
            self.steps = with_swapped(self.steps)
        self.cost = self.method.cost(skeleton, self.steps[0].request)
        self.cache_dir = Path(cfg.paths.cache)
        self.targets = TargetModels(
            self.source,
            instantiate(cfg.model.finetune),
            self.data,
            dict(cfg.model.published),
            self.cache_dir,
            self.device,
        )
        self.abilities = Abilities(instantiate(cfg.ability), self.data.refusals, self.cache_dir)
        self.before = CachedScores(
            self.targets.target, self.targets.target_key(), self.evaluation, self.cache_dir
        )

    def _method(self) -> UnlearningMethod:
        method: UnlearningMethod = instantiate(self.cfg.method)
        parallel: Parallel = instantiate(self.cfg.parallel)
        config = {
            name: OmegaConf.to_container(self.cfg[name], resolve=True)
            for name in ("method", "model", "paths")
        }
        return parallel.over(method, config, self.source)

    def compares_with_retrained(self) -> bool:
        """Whether forget quality is computed: asked for, or by default in batch."""
        asked = self.cfg.forget_quality
        if asked != "auto":
            return bool(asked)
        return self.scenario.name == "batch" and self.data.has_yardstick

    def plan(self) -> dict[str, str]:
        """What the run will do, for the console."""
        forget = sum(len(step.request.forget) for step in self.steps)
        scoring = [step for step in self.steps if step.scored]
        scored = sum(len(rows) for step in scoring for rows in step.sets.values())
        cached = "cached" if self.targets.has_target() else "to be prepared first"
        plan = {
            "method": self.cfg.method.name,
            "model": f"{self.cfg.model.name} on {self.device}; target {cached}",
            "data": ", ".join(
                [
                    f"{self.data.name}/{self.data.split}, {len(self.data.full)} rows",
                    *self.data.notes,
                ]
            ),
            "scenario": (
                f"{self.scenario.name}: {len(self.steps)} request(s), {forget} forget rows"
            ),
            "scoring": f"{scored} rows in {len(scoring)} step(s)",
            "folder": str(self.files.folder),
        }
        if self.abilities:
            asked = sum(self._asks_ability(n) for n in range(1, len(self.steps) + 1))
            names = ", ".join(self.abilities.tasks.tasks)
            plan["ability"] = f"{names}: before, and after {asked} step(s)"
        if self.cost:
            each = "" if len(self.steps) == 1 else ", each request"
            plan["cost"] = self.cost + each
        if self.compares_with_retrained():
            kept = self.targets.has_retrained(self._all_retained(self.steps[0]))
            plan["retrained model"] = "cached" if kept else "to be prepared, for forget quality"
        return plan

    def run(self, record: RunRecord, clock: Clock, tracked: TrackedRun) -> None:
        """Fill ``record``; steps that an earlier, killed run finished are not done again."""
        with clock("target"):
            target = self.targets.target()
            record.parameters = parameter_count(target)
            del target
        with clock("scores before"):
            self._ask_target(record)
            before = [self._aggregate_before(step) if step.scored else {} for step in self.steps]
        if self.abilities:
            with clock("ability"):
                key = self.targets.target_key()
                ability = self.abilities.before(self.targets.target, key)
            before = [{**metrics, "ability": ability} for metrics in before]
        lm: LanguageModel | None = None
        state: State = {}
        for number, step in enumerate(self.steps, start=1):
            done = self.files.step(number)
            if number == len(self.steps) and self._model_is_missing():
                done = None
            if done is not None and self._lacks_ability(number):
                done = None
            if done is not None:
                lm = None  # whatever it is, it is not this step's
            else:
                if step.fresh:
                    lm, state = None, {}
                    gc.collect()
                    lm = self.targets.target()
                elif lm is None:
                    carried = self.files.carried(number - 1, self.source, self.device)
                    if carried is None:
                        log.warning("the model after step %d is missing; starting over", number - 1)
                        self.files.clear()
                        record.rounds.clear()
                        return self.run(record, clock, tracked)
                    lm, state = carried
                done, lm, state = self._step(number, step, lm, state, tracked.report_to)
            if self._asks_ability(number):
                with clock("ability"):
                    ability = self._ability_after(number, lm)
                done = {**done, "metrics": {**done["metrics"], "ability": ability}}
            record.rounds.append(done)
            record.changed_share = done["changed_share"]
            tracked.log(done["metrics"], number)
            if step.scored:
                log.info("%s: %s", step.name, _summary(done["metrics"]))
        if lm is not None and self._model_is_missing():
            self.files.keep_model(lm, state)
        self.files.finish()
        if tracked.report_to:  # else nobody looks: no files are read for it
            tracked.log_examples(self.files.examples(self.steps[-1].name, len(self.steps)))
        # Steps that were done before a kill took their time, too.
        for phase, own in (("unlearning", "unlearning"), ("scores after", "scores")):
            clock.seconds[phase] = round(sum(d["seconds"][own] for d in record.rounds), 3)
        after = [done["metrics"] for done in record.rounds]
        if self.scenario.name == "precise":
            record.before, record.after = mean_metrics(before), mean_metrics(after)
        else:
            record.before, record.after = before[-1], after[-1]
        record.change = change(record.before, record.after)

    def _ask_target(self, record: RunRecord) -> None:
        """Complete what the steps leave to what the target knows."""
        targets = self.targets
        answers = OwnAnswers(targets.target, targets.target_key(), self.cache_dir)
        self.steps = answers.fill(self.steps)
        if self.data.known_rouge is None:
            return
        probes, steps, counts = list(self.data.probes or {}), [], []
        for step in self.steps:
            known, count = known_only(
                step, self.before.score(step.sets), probes, self.data.known_rouge
            )
            steps.append(known)
            counts.append(count)
        record.notes.append(known_note(counts))
        self.steps = tuple(steps)

    def _asks_ability(self, number: int) -> bool:
        """Whether ability is measured after step ``number``: of models that go no further."""
        return bool(self.abilities) and not self._goes_on(number)

    def _goes_on(self, number: int) -> bool:
        return number < len(self.steps) and not self.steps[number].fresh

    def _lacks_ability(self, number: int) -> bool:
        """Whether a finished step's ability is to be measured and its model is lost."""
        if not self._asks_ability(number) or self.abilities.are_in(self.files.ability(number)):
            return False
        return not self.files.has_carried(number)

    def _ability_after(self, number: int, lm: LanguageModel | None) -> dict[str, Any]:
        def load() -> LanguageModel:
            if lm is not None:
                return lm
            carried = self.files.carried(number, self.source, self.device)
            assert carried is not None  # else the step was not taken for done
            return self.method.restore(*carried)

        ability = self.abilities.after(load, self.files.ability(number))
        if not self._goes_on(number):
            self.files.drop_carried(number)
        return ability

    def _model_is_missing(self) -> bool:
        return bool(self.cfg.run.save_model and not self.files.has_model())

    def _aggregate_before(self, step: Step) -> dict[str, Any]:
        scores = self.before.score(step.sets)
        write_scores(self.files.before(step.name), scores)
        return self._aggregate(step, scores)

    def _aggregate(self, step: Step, scores: SetScores) -> dict[str, Any]:
        return dict(self.evaluation.aggregate(scores, self._retrained_scores(step)))

    def _retrained_scores(self, step: Step) -> SetScores | None:
        """The retrained model's scores on the forget set of ``step``, and on holdout rows."""
        if not self.compares_with_retrained():
            return None
        retain = self._all_retained(step)
        scores = CachedScores(
            lambda: self.targets.retrained(retain),
            self.targets.retrained_key(retain),
            self.evaluation,
            self.cache_dir,
        )
        names = ("forget", "holdout")
        return scores.score({name: step.sets[name] for name in names if name in step.sets})

    def _all_retained(self, step: Step) -> tuple[Row, ...]:
        """What is to stay after ``step``, held-out rows too."""
        kept = {row.id for row in (*step.request.retain, *step.sets.get("held_out", ()))}
        return tuple(row for row in self.data.full if row.id in kept)

    def _step(
        self,
        number: int,
        step: Step,
        lm: LanguageModel,
        state: State,
        report_to: tuple[str, ...],
    ) -> tuple[dict[str, Any], LanguageModel, State]:
        request = step.request
        seed_everything(request.seed * 1000 + number)
        bench = Workbench(self.files.work(number), self.cache_dir, self.targets, report_to)
        own = Clock()
        reset_peak_memory()
        with own("unlearning"):
            unlearned = self.method.unlearn(lm, request, state, bench)
        peak = peak_memory()
        with own("scores"):
            scores = self.evaluation.score(unlearned.lm, step.sets) if step.scored else {}
        metrics = self._aggregate(step, scores) if step.scored else {}
        done = {
            "name": step.name,
            "forget_rows": len(request.forget),
            "metrics": metrics,
            "report": dict(unlearned.report),
            "changed_share": changed_share(self.targets.target(), unlearned.lm),
            "seconds": own.seconds,
            "peak_memory_bytes": peak,
        }
        if self._goes_on(number) or self._asks_ability(number):
            self.files.carry(number, unlearned.lm, unlearned.state)
        self.files.write_step(number, done, scores)
        self.files.drop_carried(number - 1)
        self.files.drop_work(number)
        return done, unlearned.lm, unlearned.state


def _summary(metrics: Mapping[str, Any]) -> str:
    scored = {name: values for name, values in metrics["sets"].items() if "rouge" in values}
    forgotten = ("forget", "earlier")
    parts = [f"{n} {v['rouge']:.3f}" for n, v in scored.items() if n.startswith(forgotten)]
    if "retain" in scored:
        kept = scored["retain"]
        parts.append(f"retain {kept['rouge']:.3f}, probability {kept['probability']:.3f}")
    return f"ROUGE-L {', '.join(parts)}"


def run_experiment(
    cfg: DictConfig, folder: Path, record: RunRecord, clock: Clock, tracked: TrackedRun
) -> None:
    """Run what ``cfg`` says in ``folder`` and fill ``record``."""
    if not isinstance(cfg.seed, int):
        raise UserError(f"seed={cfg.seed}: give a whole number")
    seed_everything(cfg.seed)
    experiment = Experiment(cfg, folder)
    record.notes = list(experiment.data.notes)
    limit = experiment.evaluation.settings().get("limit")
    record.limit = limit
    if limit is not None:
        record.notes.append(f"at most {limit} rows of each set scored")
    part = experiment.evaluation.settings().get("part", "all")
    if part != "all":
        record.notes.append(f"the {part} half of each set")
    if dtype := experiment.evaluation.settings().get("dtype"):
        record.notes.append(f"scored in {dtype}")
    if rows := cfg.scenario.get("task_rows"):
        record.notes.append(f"tasks of {rows} rows")
    record.notes += experiment.abilities.tasks.notes()
    print_plan(experiment.plan())
    experiment.run(record, clock, tracked)
    peaks = [done.get("peak_memory_bytes", 0) for done in record.rounds]
    record.peak_memory_bytes = max(peaks) or None
