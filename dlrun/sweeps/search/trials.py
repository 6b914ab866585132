"""The trials of a search, kept by Optuna in a file of the sweep's folder: asked for, reported on, told.

Everything of it survives any death of its process: what was asked for and not told is `open` when the
file is opened again. A trial's proposal is drawn with a seed of its own, so that a search which was
stopped does not propose its first trials again.
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
from dlrun.sweeps.search.settings import Settings
from dlrun.sweeps.search.space import Space

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

NAME = "search"
"""Of the study in its file."""


class Trials:
    """The trials of one search, in `file`."""

    def __init__(self, file: Path, space: Space, settings: Settings, *, higher_is_better: bool) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        _mend(file)
        self._space = space
        self._settings = settings
        self._points = self._grid() if settings.sampler == "grid" else []
        self._distributions = {key: dimension.distribution() for key, dimension in space.dimensions.items()}
        with _quiet():
            # the sweep's folder is held by one process, so the file needs no lock that a killed one would leave
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(file), lock_obj=_NoLock())),  # type: ignore[arg-type]
                study_name=NAME,
                direction="maximize" if higher_is_better else "minimize",
                sampler=optuna.samplers.RandomSampler(seed=settings.seed),
                pruner=_pruner(settings),
                load_if_exists=True,
            )

    def __len__(self) -> int:
        """Return how many trials were asked for so far; a point of the grid that only waits was not."""
        return sum(count for state, count in self.counts().items() if state != "waiting")

    def ask(self) -> Trial:
        """Return the next trial, its values drawn."""
        number = len(self)
        with _quiet():
            self._study.sampler = self._sampler(number)
            if self._settings.sampler == "grid":
                self._study.enqueue_trial(self._points[number], skip_if_exists=True)
            return self._study.ask(self._distributions)

    def open(self) -> list[Trial]:
        """Return the trials that were asked for and not told; what of one was not yet drawn is drawn now."""
        import optuna

        self._study.sampler = optuna.samplers.RandomSampler(seed=self._settings.seed)
        running = self._study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING])
        trials = [optuna.trial.Trial(self._study, trial._trial_id) for trial in running]
        for trial in trials:
            for key, distribution in self._distributions.items():
                trial._suggest(key, distribution)
        return trials

    def report(self, trial: Trial, values: list[float]) -> bool:
        """Report the objective at each evaluation so far; True if the trial should be pruned.

        A value that has been reported stays.
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
        """Tell what came of a trial: its value, or that it was pruned, or (None) that it failed."""
        from optuna.trial import TrialState

        state = TrialState.PRUNED if pruned else TrialState.FAIL if value is None else TrialState.COMPLETE
        with _quiet():
            self._study.tell(trial, None if pruned else value, state)

    def counts(self) -> dict[str, int]:
        """Return how many trials there are in each state, by Optuna's names in small letters."""
        states = [trial.state.name.lower() for trial in self._study.get_trials(deepcopy=False)]
        return {state: states.count(state) for state in dict.fromkeys(states)}

    def _sampler(self, number: int) -> BaseSampler:
        from optuna import samplers

        seed = randomness.key(self._settings.seed, randomness.SEARCH, number) % 2**32
        if self._settings.sampler == "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=self._settings.startup)
        if self._settings.sampler == "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        return samplers.RandomSampler(seed=seed)

    def _grid(self) -> list[dict[str, Any]]:
        """Return the points of the grid, shuffled, so that the first of them are spread over it."""
        dimensions = self._space.dimensions
        points = list(product(*(dimension.values or () for dimension in dimensions.values())))
        random.Random(self._settings.seed).shuffle(points)
        return [dict(zip(dimensions, point, strict=True)) for point in points]


def _pruner(settings: Settings) -> BasePruner:
    from optuna import pruners

    if settings.pruner == "median":
        return pruners.MedianPruner(n_startup_trials=settings.startup, n_warmup_steps=settings.warmup)
    if settings.pruner == "hyperband":
        return pruners.HyperbandPruner(min_resource=max(1, settings.warmup))
    return pruners.NopPruner()


class _NoLock:
    """The lock of a file that one process writes: none. One on disk would outlive a killed process."""

    def acquire(self) -> bool:
        """Return at once."""
        return True

    def release(self) -> None:
        """Do nothing."""


def _mend(file: Path) -> None:
    """Cut off a last line that a crash has left unfinished: what was being written has not happened."""
    if file.exists() and not (content := file.read_bytes()).endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what Optuna warns of for its own sake: features that it calls experimental."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
