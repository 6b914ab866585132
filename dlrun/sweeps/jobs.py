"""Every job of a sweep decided before the first is started: checked, built once for each kind, identified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from dlrun import tracking
from dlrun.config.check import check_config
from dlrun.errors import ConfigError, UserError
from dlrun.execution.device import choose
from dlrun.runs import weights
from dlrun.runs.build import Built, build
from dlrun.runs.parts import make_dataset
from dlrun.storage.identity import digest, essential, identify
from dlrun.storage.manifest import Job
from dlrun.storage.sources import sources
from dlrun.types import Data


@dataclass(frozen=True)
class ComposedJob:
    """A job as it was expanded, before anything of it is checked."""

    n: int
    overrides: tuple[str, ...]
    config: DictConfig

    @property
    def label(self) -> str:
        """Return the overrides as a person reads them."""
        return " ".join(self.overrides) or "the one job"


@dataclass(frozen=True)
class Rule:
    """By what the groups are chosen among, and when the test split is read; one for the whole sweep."""

    monitor: str
    higher_is_better: bool
    test: str


class JobBuilder:
    """Makes jobs of candidates; what several share (a data set, a kind of run) is loaded or built once."""

    def __init__(self) -> None:
        self.rules: dict[str, Rule] = {}
        self.basis: dict[str, Any] = {"sources": sources(), "torch": torch.__version__}
        self._fingerprints: dict[str, str] = {}
        self._unvalidated: set[str] = set()
        self._weights: dict[str | None, str | None] = {}

    def jobs(self, candidates: Sequence[ComposedJob]) -> list[Job]:
        """Return the jobs of the candidates.

        Raises `UserError` with everything that is wrong with any of them, and the overrides of the job.
        """
        complaints: dict[str, list[str]] = {}
        jobs = []
        loaded: dict[str, Data] = {}
        for candidate in candidates:
            try:
                jobs.append(self._job(candidate, loaded))
            except UserError as error:
                complaints.setdefault(str(error), []).append(candidate.label)
        if complaints:
            raise UserError(_told(complaints, len(candidates)))
        self._check_together()
        return jobs

    @property
    def rule(self) -> Rule:
        """Return the rule that all jobs share."""
        return next(iter(self.rules.values()))

    def _job(self, candidate: ComposedJob, loaded: dict[str, Data]) -> Job:
        plain = check_config(candidate.config)
        group = group_of(candidate.config)
        device, precision = choose(plain["trainer"]["device"], plain["trainer"]["precision"])
        data_key = digest([plain["dataset"], plain["trusted"]])
        if group not in self.rules:
            loaded[data_key] = loaded.get(data_key) or make_dataset(plain)
            built = _rehearsed(candidate.config, loaded[data_key], device)
            self._note(group, built)
        if data_key not in self._fingerprints:
            loaded[data_key] = loaded.get(data_key) or make_dataset(plain)
            self._fingerprints[data_key] = loaded[data_key].fingerprint
        fingerprint = self._fingerprints[data_key]
        identity = identify(
            plain | {"init_from": self._initial(plain["init_from"])},
            fingerprint,
            device=device.type,
            precision=precision,
            torch=torch.__version__,
        )
        self.basis.setdefault("device", {})[f"{device.type} {precision}"] = True
        self.basis.setdefault("data", {})[fingerprint[:36]] = plain["dataset"]["_target_"]
        self.basis.setdefault("your modules", {})[identity.parts["modules"][:36]] = True
        return Job(candidate.n, candidate.overrides, plain, identity.hash, group, identity.parts)

    def _initial(self, reference: str | None) -> str | None:
        """Return the SHA-256 of the weights that jobs start from, read once for all of them."""
        if reference not in self._weights:
            self._weights[reference] = weights.digest(reference)
        return self._weights[reference]

    def _note(self, group: str, built: Built) -> None:
        """Keep what the choice among groups needs to know."""
        if built.tracking.enabled and not self.rules:
            tracking.check(built.tracking.backends, system_metrics=built.tracking.system_metrics)
        training = built.training
        self.rules[group] = Rule(training.monitor, training.higher_is_better, built.evaluation.test)
        if built.data.validation is None:
            self._unvalidated.add(group)

    def _check_together(self) -> None:
        tests = sorted({rule.test for rule in self.rules.values()})
        if len(tests) > 1:
            raise ConfigError(f"evaluation.test takes one value in a sweep, not {' and '.join(tests)}.")
        monitors = sorted({rule.monitor for rule in self.rules.values()})
        if len(monitors) > 1:
            raise ConfigError(
                f"The jobs would be compared by different metrics ({', '.join(monitors)}): give one that all of them "
                f"have, as in evaluation.monitor=val/loss."
            )
        if len(self.rules) > 1 and self._unvalidated and self.rule.test == "final":
            raise ConfigError(
                "Without a validation split nothing can be chosen, so a sweep over more than seeds has none to test: "
                "give dataset.validation_size, or evaluation.test=never, or, where the subject is the test curve "
                "itself, evaluation.test=every."
            )


def _rehearsed(config: DictConfig, data: Data, device: torch.device) -> Built:
    """Build a run once to see that its parts fit together, on the CPU: the GPUs are the jobs'."""
    if device.type != "cpu":
        config = config.copy()
        config.trainer.device = "cpu"
    return build(config, data=data)


def group_of(config: DictConfig) -> str:
    """Return the hash of what jobs have in common that differ by the seed alone.

    Interpolations are left as they are: a key that follows the seed separates no groups.
    """
    raw = OmegaConf.to_container(config, resolve=False)
    assert isinstance(raw, dict)
    kept = essential({str(k): v for k, v in raw.items() if k != "seed"})
    return digest(kept)[:16]


def rebuild_jobs(jobs: Sequence[Job]) -> tuple[list[Job], JobBuilder]:
    """Return the jobs of a manifest as they would be defined now, from the configurations that it holds."""
    builder = JobBuilder()
    candidates = [ComposedJob(job.n, job.overrides, OmegaConf.create(job.config)) for job in jobs]
    groups = {job.n: job.group for job in jobs}
    return [replace(job, group=groups[job.n]) for job in builder.jobs(candidates)], builder


def _told(complaints: Mapping[str, Sequence[str]], count: int) -> str:
    if count == 1:
        return next(iter(complaints))
    wrong = sum(len(labels) for labels in complaints.values())
    lines = []
    for message, labels in complaints.items():
        more = f" (and {len(labels) - 1} more)" if len(labels) > 1 else ""
        lines.append(f"{labels[0]}{more}: {message}")
    return f"{wrong} of {count} jobs cannot run, so none was started:\n" + "\n".join(lines)
