"""The jobs of a sweep, decided before the first starts: checked, built once for each group, identified."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from dlrun import tracking
from dlrun.analysis.comparability import same_quantity
from dlrun.config import trust
from dlrun.config.check import check_config
from dlrun.errors import ConfigError, UserError
from dlrun.execution.device import choose_of_job
from dlrun.runs.build import Built, build
from dlrun.runs.measures.quantities import are_of_batches
from dlrun.runs.parts import make_dataset
from dlrun.runs.weights import loading
from dlrun.runs.weights.overlap import begin, find_shared
from dlrun.storage import run_config
from dlrun.storage.files.config_values import raw_values
from dlrun.storage.identity import digest, essential, identify, may_be_of_batches
from dlrun.storage.jobs.job import Job
from dlrun.storage.jobs.sharing import SharedParts
from dlrun.storage.jobs.strata import find_strata
from dlrun.storage.overlap import describe_shared, mark
from dlrun.storage.sources import sources
from dlrun.sweeps.jobs.complaints import describe_complaints
from dlrun.sweeps.jobs.composed import ComposedJob
from dlrun.sweeps.jobs.pretrained import NAME, begin_with_pretrained
from dlrun.terminal import output
from dlrun.terminal.format import counted
from dlrun.types import Data, Quantity

REMARKS = 8
"""Remarks on a sweep's data that are shown: it may have a data set for each job."""


@dataclass(frozen=True)
class SelectionRule:
    """The monitored metric, and the use of the test split.

    Equal in all jobs of a sweep.
    """

    monitor: str
    higher_is_better: bool
    test: str  # as `evaluation.test`: never, final or every


class JobBuilder:
    """Checks jobs, and builds one of each group.

    `rules` are by group; `basis` is what identities rest on beside the configurations; `duplicates` are the numbers of
    jobs that equal an earlier one, with the number of that. `remarks` are on samples that are known before they judge;
    the groups `unvalidated` have no validation split. With `pretrain`, the run of `init_from=pretrained` is trained.
    """

    def __init__(self, *, pretrain: bool = True) -> None:
        self._pretrain = pretrain
        self.rules: dict[str, SelectionRule] = {}
        self.duplicates: dict[int, int] = {}
        self.remarks: dict[str, None] = {}
        self.unvalidated: set[str] = set()
        self.basis: dict[str, Any] = {"sources": sources(), "torch": torch.__version__}
        self._fingerprints: dict[str, tuple[str, str | None]] = {}
        # by group: what its jobs measure
        self._quantities: dict[str, Mapping[str, Quantity]] = {}
        self._known: list[Job] = []
        self._weights: dict[str | None, str | None] = {}
        # the data and first weights of jobs that were found to know nothing of each other
        self._begun: set[str] = set()

    def jobs(self, composed: Iterable[ComposedJob]) -> list[Job]:
        """Check the jobs of a sweep, each once; raises one `UserError` with all mistakes."""
        jobs = self._without_duplicates(self.build(composed))
        self._check_units(jobs)
        return jobs

    def build(self, composed: Iterable[ComposedJob]) -> list[Job]:
        """Check the jobs each for itself; raises one `UserError` with all mistakes."""
        complaints: dict[str, list[str]] = {}
        jobs = []
        # for this call only: a search keeps its builder for hours, and need not keep the data
        loaded: dict[str, Data] = {}
        parts = SharedParts()
        with output.once():  # what the data set says, once for all folds
            for each in composed:
                try:
                    jobs.append(self._job(each, loaded, parts))
                except UserError as error:
                    complaints.setdefault(str(error), []).append(each.label)
        if complaints:
            raise UserError(describe_complaints(complaints, len(jobs) + sum(map(len, complaints.values()))))
        self._check_together(jobs)
        return jobs

    def _without_duplicates(self, jobs: Sequence[Job]) -> list[Job]:
        """Each job once: a seed that is listed twice is no second repetition."""
        first: dict[str, Job] = {}
        for job in jobs:
            kept = first.setdefault(job.identity, job)
            if kept is not job:
                self.duplicates[job.n] = kept.n
        if len(first) < len(jobs):
            listed = ", ".join(job.label for job in jobs if job.n in self.duplicates)
            left = len(jobs) - len(first)
            verbs = "equals another, and is" if left == 1 else "equal others, and are"
            output.say(f"{left} of {counted(len(jobs), 'job')} {verbs} not run twice: {listed}")
        return [*first.values()]

    @property
    def rule(self) -> SelectionRule:
        return next(iter(self.rules.values()))

    def _job(self, composed: ComposedJob, loaded: dict[str, Data], parts: SharedParts) -> Job:
        config = begin_with_pretrained(composed.config, train=self._pretrain)
        plain = check_config(config)
        if (devices := plain["trainer"]["devices"]) > 1:
            raise ConfigError(f"trainer.devices={devices}: a job of a sweep has one device. Type trainer.devices=1")
        # what the user's own command reads may be read again, by the jobs and where they are tested
        trust.grant_environment(composed.config)
        raw = raw_values(composed.config)
        group = _group_of(raw)
        device, precision = choose_of_job(plain["trainer"]["device"], plain["trainer"]["precision"])
        data_key = digest([plain["dataset"], plain["trusted"]])
        # jobs of one group differ by the seed: if one fits together, all do
        if group not in self.rules:
            loaded[data_key] = loaded.get(data_key) or make_dataset(plain)
            built = _build_on_cpu(config, loaded[data_key], device)
            self._add_group(group, built)
        if data_key not in self._fingerprints:
            loaded[data_key] = loaded.get(data_key) or make_dataset(plain)
            data = loaded[data_key]
            self._fingerprints[data_key] = data.fingerprint, data.split_fingerprints.get("validation")
            self._remark(*(f"{data.name}: {each}" for each in describe_shared(find_shared(data))))
        fingerprint, validation = self._fingerprints[data_key]
        begun = digest([data_key, plain["init_from"], plain.get("init_from_overlap")])
        if plain["init_from"] and begun not in self._begun:
            # each for itself: the jobs of a group may differ in the split
            loaded[data_key] = loaded.get(data_key) or make_dataset(plain)
            self._remark(mark(begin(plain, loaded[data_key])[1]))
            self._begun.add(begun)
        # weights count by their content, not by the path of their file; those that a check does not train are others
        # than random ones
        initial = self._initial(plain["init_from"]) or (NAME if composed.config.get("init_from") == NAME else None)
        identity = identify(
            plain | {"init_from": initial},
            fingerprint,
            device=device.type,
            precision=precision,
            torch=torch.__version__,
            of_batches=are_of_batches(self._quantities[group]),
        )
        self.basis.setdefault("device", {})[f"{device.type} {precision}"] = True
        self.basis.setdefault("data", {})[fingerprint[:36]] = plain["dataset"]["_target_"]
        self.basis.setdefault("your modules", {})[identity.parts["modules"][:36]] = True
        return Job(
            n=composed.n,
            overrides=composed.overrides,
            config=parts.share(run_config.resolved(raw, plain)),
            identity=identity.hash,
            group=group,
            parts=identity.parts,
            unit=self._unit(group),
            validation=validation,
        )

    def _remark(self, *remarks: str) -> None:
        self.remarks.update(dict.fromkeys(filter(None, remarks)))

    def _unit(self, group: str) -> str:
        return self._quantities[group][self.rules[group].monitor.removeprefix("val/")]["unit"]

    def _initial(self, reference: str | None) -> str | None:
        # the SHA-256 of weights, whose file is read once
        if reference not in self._weights:
            self._weights[reference] = loading.digest(reference)
        return self._weights[reference]

    def _add_group(self, group: str, built: Built) -> None:
        if built.tracking.enabled and not self.rules:
            tracking.check(built.tracking.backends, system_metrics=built.tracking.system_metrics)
        training = built.training
        self.rules[group] = SelectionRule(training.monitor, training.higher_is_better, built.evaluation.test)
        self._quantities[group] = built.quantities
        if built.data.validation is None:
            self.unvalidated.add(group)

    def _check_together(self, jobs: Sequence[Job]) -> None:
        # one sweep has one selection and one test: all its jobs must agree on them
        tests = sorted({rule.test for rule in self.rules.values()})
        if len(tests) > 1:
            raise ConfigError(f"evaluation.test takes one value in a sweep, not {' and '.join(tests)}.")
        monitors = sorted({rule.monitor for rule in self.rules.values()})
        if len(monitors) > 1:
            # not any that all have: one that would be refused next is no advice
            instead = same_quantity(*([self._quantities[g] for g in groups] for groups in find_strata(jobs).values()))
            how = (
                f"Type evaluation.monitor=val/{instead}, which can rank them."
                if instead
                else "They have no metric in common that can rank them: make a sweep of each."
            )
            raise ConfigError(f"The jobs would be compared by different metrics ({', '.join(monitors)}). {how}")
        if len({rule.higher_is_better for rule in self.rules.values()}) > 1:
            raise ConfigError(
                f"Of some jobs the highest {monitors[0]} would be the best, of others the lowest. "
                "evaluation.higher_is_better takes one value in a sweep."
            )
        if len(self.rules) > 1 and self.unvalidated and self.rule.test == "final":
            raise ConfigError(
                "Without a validation split nothing can be chosen, so a sweep over more than seeds has none to test: "
                "give dataset.validation_size, or evaluation.test=never, or, where the subject is the test curve "
                "itself, evaluation.test=every."
            )

    def _check_units(self, jobs: Sequence[Job]) -> None:
        """Raise `ConfigError` if the monitored metric is not one quantity among groups that are ranked."""
        # a search brings its jobs one by one
        self._known += jobs
        for groups in find_strata(self._known).values():
            units: dict[str | None, Job] = {}
            for job in self._known:
                if job.group in groups:
                    units.setdefault(job.unit, job)
            if len(units) > 1:
                lines = "".join(f"\n  {job.group_label}: {unit}" for unit, job in units.items())
                instead = same_quantity([self._quantities[job.group] for job in units.values()])
                how = (
                    f"Type evaluation.monitor=val/{instead}, which is."
                    if instead
                    else "They have no metric in common that is: make a sweep of each."
                )
                raise ConfigError(
                    f"{self.rule.monitor} is not one quantity in all these jobs, so it cannot rank them:{lines}\n{how}"
                )


def _build_on_cpu(config: DictConfig, data: Data, device: torch.device) -> Built:
    """Build a run to check its parts."""
    on_cpu = device.type == "cpu"
    # not on a GPU: these are the jobs', and take the real steps there before they begin
    if device.type != "cpu":
        config = config.copy()
        config.trainer.device = "cpu"
    return build(config, data=data, try_steps=on_cpu)


def group_of(config: DictConfig) -> str:
    """A hash of the configuration without the keys of repetitions.

    Interpolations are not resolved. So a key that follows the seed separates no groups.
    """
    return _group_of(raw_values(config))


def _group_of(raw: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in raw.items() if key != "seed"}
    if isinstance(data := kept.get("dataset"), dict):
        kept["dataset"] = {key: value for key, value in data.items() if key not in ("split_seed", "fold")}
    return digest(essential(kept, of_batches=may_be_of_batches(kept)))[:16]


def rebuild_jobs(jobs: Sequence[Job]) -> tuple[list[Job], JobBuilder]:
    """Build a manifest's jobs with today's code and data."""
    builder = JobBuilder()
    composed = [ComposedJob(job.n, job.overrides, OmegaConf.create(job.config)) for job in jobs]
    for job in composed:
        trust.check_environment(job.config, of=f"The configuration of the sweep's job {job.n}")
    # a manifest's configurations are resolved, so `group_of` would give them other hashes
    groups = {job.n: job.group for job in jobs}
    return [replace(job, group=groups[job.n]) for job in builder.build(composed)], builder
