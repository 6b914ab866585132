"""The trials of a search, in Optuna's file in the sweep's folder.

They survive any death of the process: trials without a result are `open` when the file is opened again. Each
proposal has a seed of its own. So a resumed search does not propose its first trials again.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun import randomness
from dlrun.sweeps.search.settings import SearchSettings
from dlrun.sweeps.search.space import Space

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

NAME = "search"
"""The name of the study in the file."""


class Trials:
    """The trials of one search."""

    def __init__(self, file: Path, space: Space, settings: SearchSettings, *, higher_is_better: bool) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        _cut_torn_line(file)
        self._space = space
        self._settings = settings
        self._points = self._grid() if settings.sampler == "grid" else []
        self._distributions = {key: dimension.distribution() for key, dimension in space.dimensions.items()}
        with _quiet():
            # one process holds the sweep's folder, so the file needs no lock
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(file), lock_obj=_NoLock())),  # type: ignore[arg-type]
                study_name=NAME,
                direction="maximize" if higher_is_better else "minimize",
                sampler=optuna.samplers.RandomSampler(seed=settings.seed),
                pruner=_pruner(settings),
                load_if_exists=True,
            )

    def __len__(self) -> int:
        """The number of trials so far."""
        # without those that wait: points of the grid, enqueued and not yet asked for
        return sum(count for state, count in self.counts().items() if state != "waiting")

    def ask(self) -> Trial:
        """Propose the next trial, with all its values."""
        number = len(self)
        with _quiet():
            self._study.sampler = self._sampler(number)
            if self._settings.sampler == "grid":
                # a process that was killed here has enqueued the point already
                self._study.enqueue_trial(self._points[number], skip_if_exists=True)
            return self._complete(self._study.ask())

    def open(self) -> list[Trial]:
        """The trials without a result."""
        import optuna

        self._study.sampler = optuna.samplers.RandomSampler(seed=self._settings.seed)
        running = self._study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING])
        trials = [optuna.trial.Trial(self._study, trial._trial_id) for trial in running]
        for trial in trials:
            # a process that was killed may have drawn some values and not others
            self._complete(trial)
        return trials

    def _complete(self, trial: Trial) -> Trial:
        """Have all values of a trial drawn, the choices before what depends on them."""
        for key in self._space.order:
            if self._space.has(key, trial.params):
                trial._suggest(key, self._distributions[key])
        return trial

    def report(self, trial: Trial, values: list[float]) -> bool:
        """Report the metric so far; returns True to prune.

        A reported value is never replaced.
        """
        with _quiet():
            known = trial.storage.get_trial(trial._trial_id).intermediate_values
            for number, value in enumerate(values, start=1):
                if number in known:
                    continue
                trial.report(value, number)
                # at each evaluation, not only at the last: by now a fast trial may be past the end of all others
                if trial.should_prune():
                    return True
        return False

    def tell(self, trial: Trial, value: float | None, *, pruned: bool = False) -> None:
        """Record a trial's result, None if pruned or failed."""
        from optuna.trial import TrialState

        state = TrialState.PRUNED if pruned else TrialState.FAIL if value is None else TrialState.COMPLETE
        with _quiet():
            self._study.tell(trial, None if pruned else value, state)

    def values(self) -> list[tuple[int, dict[str, Any], float]]:
        """The number, values and result of each complete trial."""
        from optuna.trial import TrialState

        complete = self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return [(trial.number, trial.params, trial.value) for trial in complete if trial.value is not None]

    def counts(self) -> dict[str, int]:
        """The number of trials by Optuna's state, in lower case."""
        states = [trial.state.name.lower() for trial in self._study.get_trials(deepcopy=False)]
        return {state: states.count(state) for state in dict.fromkeys(states)}

    def _sampler(self, number: int) -> BaseSampler:
        from optuna import samplers

        # the samplers' numpy takes seeds of 32 bits
        seed = randomness.key(self._settings.seed, randomness.SEARCH, number) % 2**32
        if self._settings.sampler == "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=self._settings.startup)
        if self._settings.sampler == "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        return samplers.RandomSampler(seed=seed)

    def _grid(self) -> list[dict[str, Any]]:
        # shuffled: a search of fewer trials still covers all of it
        dimensions = self._space.dimensions
        whole = [
            dict(zip(dimensions, point, strict=True))
            for point in product(*(d.values or () for d in dimensions.values()))
        ]
        own = [{key: value for key, value in point.items() if self._space.has(key, point)} for point in whole]
        # points that differ only in what they lack are one
        points = [*{tuple(point.items()): point for point in own}.values()]
        random.Random(self._settings.seed).shuffle(points)
        return points


def _pruner(settings: SearchSettings) -> BasePruner:
    from optuna import pruners

    if settings.pruner == "median":
        return pruners.MedianPruner(n_startup_trials=settings.startup, n_warmup_steps=settings.warmup)
    if settings.pruner == "hyperband":
        return pruners.HyperbandPruner(min_resource=max(1, settings.warmup))
    return pruners.NopPruner()


class _NoLock:
    """Does nothing: Optuna's own lock would outlive a killed process."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _cut_torn_line(file: Path) -> None:
    # the last line of a process that was killed while it wrote
    if file.exists() and not (content := file.read_bytes()).endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Optuna's warnings of experimental features."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
