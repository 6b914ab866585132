"""What a class must be like to be an observer: said before the first step."""

from __future__ import annotations

import re
from typing import Any

from dlrun.errors import ConfigError, did_you_mean
from dlrun.observers import HOOKS

RESERVED = (
    *("train", "val", "test", "best", "system", "cost", "throughput", "memory", "grad_norm", "parameter"),
    *("lr", "epoch", "step"),
)
"""First parts of the names of dlrun's own curves: an observer's would stand among them."""

ELSEWHERE = {
    "on_epoch_end": "on_evaluation, with trainer.evaluate_every=1 epoch",
    "on_train_epoch_end": "on_evaluation, with trainer.evaluate_every=1 epoch",
    "on_validation_end": "on_evaluation",
    "on_validation_epoch_end": "on_evaluation",
    "on_test_end": "on_end, where run.metrics has the test's",
    "on_train_begin": "on_start",
    "on_train_start": "on_start",
    "on_fit_start": "on_start",
    "on_train_end": "on_end",
    "on_fit_end": "on_end",
    "on_exception": "on_end, where run.error says why",
    "on_save_checkpoint": "state_dict, or on_checkpoint",
    "on_load_checkpoint": "load_state_dict",
    "on_batch_end": "on_log, with trainer.log_every=1",
    "on_train_batch_end": "on_log, with trainer.log_every=1",
}
"""Methods of the callbacks of Keras and Lightning, and what stands for them here."""


def check_observer(name: str, path: str, kind: Any) -> None:
    """Raise `ConfigError` if a class cannot be the observer `name`."""
    if not re.fullmatch(r"[A-Za-z_]\w*", name) or name in RESERVED:
        reserved = f" The names {', '.join(RESERVED)} are of dlrun's own curves." if name in RESERVED else ""
        raise ConfigError(
            f"An observer cannot be called `{name}`: its curves are NAME/…, its files lie in observers/NAME.{reserved} "
            f"Give another name, in the line `# @package observers.NAME` of its yaml."
        )
    if not isinstance(kind, type):
        raise ConfigError(f"observers.{name}: {path} is a function; an observer is a class with {_listed()}.")
    unknown = [each for each in dir(kind) if each.startswith("on_") and each not in HOOKS]
    if unknown:
        first = unknown[0]
        instead = f" Write {ELSEWHERE[first]}." if first in ELSEWHERE else did_you_mean(first, HOOKS)
        raise ConfigError(f"observers.{name}: dlrun never calls {path}.{first}.{instead}\nIt calls {_listed()}.")
    if not any(hasattr(kind, hook) for hook in HOOKS):
        raise ConfigError(
            f"observers.{name}: {path} has no method to call. An observer has at least one of {_listed()}."
        )


def _listed() -> str:
    return ", ".join(HOOKS)
