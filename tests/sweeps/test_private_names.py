"""The private names of Optuna that a search uses. Those of Optuna 5.0 are known: pyproject.toml allows no 6."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages.journal import JournalFileBackend

from tests.private_names import check_signature

KNOWN = "optuna 5.0"


def test_a_trial_is_opened_by_its_id_and_draws_what_was_not_drawn() -> None:
    check_signature(optuna.trial.Trial, "study trial_id", known=KNOWN)
    check_signature(optuna.trial.Trial._suggest, "trial name distribution", known=KNOWN)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = study.ask({"lr": FloatDistribution(0.0, 1.0)})
    (frozen,) = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING])
    again = optuna.trial.Trial(study, frozen._trial_id)
    assert again._suggest("lr", FloatDistribution(0.0, 1.0)) == drawn.params["lr"]
    assert again._suggest("width", FloatDistribution(0.0, 1.0)) == again.params["width"]
    assert study._storage.get_trial(frozen._trial_id).intermediate_values == {}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_journal_asks_no_more_of_a_lock_than_to_be_taken_and_freed(tmp_path: Path) -> None:
    check_signature(JournalFileBackend, "file lock_obj=", known=KNOWN)
    calls = []

    class Lock:
        def acquire(self) -> bool:
            calls.append("acquire")
            return True

        def release(self) -> None:
            calls.append("release")

    backend = JournalFileBackend(str(tmp_path / "trials.log"), lock_obj=Lock())  # type: ignore[arg-type]
    backend.append_logs([{"a": 1}])
    assert calls == ["acquire", "release"]
    assert [entry["a"] for entry in backend.read_logs(0)] == [1]
