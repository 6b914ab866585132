"""The metric by which a run selects its weights."""

from __future__ import annotations

from collections.abc import Mapping

from dlrun.config.settings import Evaluation
from dlrun.engine.loop import Training
from dlrun.errors import ConfigError, did_you_mean
from dlrun.types import Data, Quantity


def set_monitor(training: Training, evaluation: Evaluation, data: Data, measured: Mapping[str, Quantity]) -> None:
    """Set the metric for selecting weights, and its direction.

    Raises `ConfigError` for one that is not computed, without a validation split, and for an unknown direction.
    """
    # only where it is computed: it was taken away, or the outputs are no logits
    usual = {"classification": "error", "embedding": "recall_at_1"}.get(data.spec.task, "loss")
    monitor = evaluation.monitor or f"val/{usual if usual in measured else 'loss'}"
    if data.validation is None:
        for name, value in (("evaluation.monitor", evaluation.monitor), ("trainer.patience", training.patience)):
            if value is not None:
                raise ConfigError(f"{name}={value} needs a validation split: give dataset.validation_size.")
    valid = [f"val/{name}" for name in measured]
    if monitor not in valid:
        hint = did_you_mean(monitor, valid)
        raise ConfigError(f"evaluation.monitor={monitor} is not computed.{hint} There are: {', '.join(valid)}.")
    training.monitor = monitor
    training.higher_is_better = _direction(monitor, evaluation, measured[monitor.removeprefix("val/")])


def _direction(monitor: str, evaluation: Evaluation, quantity: Quantity) -> bool:
    """Whether higher values of the monitor are better; it is never guessed."""
    declared, given = quantity["higher_is_better"], evaluation.higher_is_better
    if declared is None and given is None:
        raise ConfigError(
            f"evaluation.monitor={monitor}: nobody says whether higher or lower values of it are better. Type "
            f"evaluation.higher_is_better=true or false, or set the attribute `higher_is_better` of the function "
            f"{quantity['unit'].partition('(')[0]}."
        )
    if declared is not None and given is not None and declared != given:
        raise ConfigError(
            f"evaluation.higher_is_better={str(given).lower()}: {'higher' if declared else 'lower'} values of "
            f"{monitor} are better. Leave it out."
        )
    return bool(given if declared is None else declared)
