"""What a configuration sets beside the parts: trainer, evaluation, tracking and sweep, and the general keys.

Each is one dataclass, and the only list of its keys, types and defaults: the configuration is
checked against it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class General:
    """What is said of a run as a whole, in no group."""

    name: str
    seed: int
    metrics: dict[str, Any]
    init_from: str | None
    trusted: list[str]
    study: dict[str, Any] | None = None


@dataclass(frozen=True)
class Trainer:
    """How long, in what portions, and on what a run trains.

    Of `minutes`, `steps` and `epochs` the first that is given holds. Intervals are a number of
    steps, or text: "2 epochs", "30 s", "5 min" (times only for checkpoints, which never change a
    result). `memory_format` is the order in memory of the weights of convolutions: `auto` takes the
    faster one. `compile` makes a program of a step (on a GPU a graph of several): `auto` does where a
    small model trains for so long that it saves more than compiling takes.
    """

    epochs: float | None = 10.0
    steps: int | None = None
    minutes: float | None = None
    batch_size: int | None = 64
    drop_last: bool = False
    evaluate_every: int | str = "1 epoch"
    checkpoint_every: int | str = "30 s"
    log_every: int | None = None
    accumulate: int = 1
    clip: float | None = None
    patience: int | None = None
    ema: float | None = None
    device: str = "auto"
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    deterministic: bool = False
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    compile: bool | Literal["auto"] = "auto"
    threads: int | None = None
    workers: int = 2
    overfit_batches: int | None = None
    fast: bool = False
    figures: bool = True
    profile: bool = False


@dataclass(frozen=True)
class Evaluation:
    """What chooses the weights, and when the test split is read.

    `monitor` is a validation metric (`val/…`); without one it is `val/error` for classification and
    `val/loss` for the rest. `batch_size` has no influence on any number, only on memory and speed.
    `train_samples` is how many training samples, evenly spaced, the summary's `train/…` are measured on:
    without a number all, of a text 1,000 windows.
    """

    test: Literal["final", "every", "never"] = "final"
    monitor: str | None = None
    batch_size: int = 1000
    train_samples: int | None = None


@dataclass(frozen=True)
class Tracking:
    """What the trackers are sent, and how long a command waits for them once it has finished.

    `log_model` and `system_metrics` are for MLflow alone.
    """

    enabled: bool = True
    backends: list[Literal["mlflow"]] = field(default_factory=lambda: ["mlflow"])
    experiment: str = "dlrun"
    tags: dict[str, str | int | float | bool] = field(default_factory=dict)
    wait: float = 60.0
    log_model: bool = False
    log_checkpoints: bool = False
    system_metrics: bool = False


@dataclass(frozen=True)
class Sweep:
    """How a sweep begins and ends.

    `fresh` runs all of it anew, where it would be continued or reuse what another finished; `figures` are those of its
    report, which `dlrun report` draws later too.
    """

    fresh: bool = False
    figures: bool = True
