"""The settings of a run beside its parts, a dataclass for each group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class General:
    """The keys outside of any group."""

    name: str
    seed: int
    metrics: dict[str, Any]
    init_from: str | None
    trusted: list[str]
    study: dict[str, Any] | None = None
    started: dict[str, Any] | None = None  # of a run's folder: what its paths were relative to
    init_from_overlap: Literal["refuse", "allow"] = "refuse"  # if those weights know validation or test samples
    pretrain: list[str] | None = None  # overrides of the run that init_from=pretrained begins with
    init_from_skip: list[str | int] = field(default_factory=list)  # patterns of names that are not taken from there
    observers: dict[str, Any] = field(default_factory=dict)
    resume: Literal["never", "auto"] = "never"  # auto: go on with an unfinished run of the same identity


@dataclass(frozen=True)
class Trainer:
    """The training's length, batches, intervals and device.

    Intervals are a number of steps, or text: "2 epochs", "30 s", "5 min".
    """

    # the first of minutes, steps and epochs that is given holds

    epochs: float | None = 10.0
    steps: int | None = None
    minutes: float | None = None
    batch_size: int | None = 64
    drop_last: bool = False
    classes_per_batch: int | None = None  # so many, drawn for each batch, with equally many samples of each
    evaluate_every: int | str = "1 epoch"
    checkpoint_every: int | str = "30 s"  # may be a time, for it changes no result
    log_every: int | None = None
    accumulate: int = 1
    micro_batch: int | Literal["auto"] | None = "auto"  # samples of a part of a batch; auto: as many as fit
    activation_checkpointing: bool | Literal["every block", "sqrt"] = False  # true: every block
    clip: float | None = None
    log_gradients: bool = False
    log_parameters: bool = False
    on_spike: Literal["skip", "rewind", "stop"] | None = None  # of the training loss; null: one not finite ends the run
    patience: int | None = None
    ema: float | None = None
    device: str = "auto"
    devices: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"  # of several devices; auto: fsdp where ddp would fill a GPU
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    deterministic: bool = False
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"  # auto: the faster one for convolutions
    compile: bool | Literal["auto"] = "auto"  # auto: if it saves more time than it costs
    threads: int | None = None
    workers: int = 2
    overfit_batches: int | None = None
    fast: bool = False
    figures: bool = True
    profile: bool | Literal["memory"] = False


@dataclass(frozen=True)
class Evaluation:
    """The choice of weights, and reads of the test split."""

    test: Literal["final", "every", "never"] = "final"
    monitor: str | None = None  # a validation metric; null: val/error, val/recall_at_1 or else val/loss
    higher_is_better: bool | None = None  # of the monitor, where its function does not say it
    batch_size: int = 1000  # memory and speed; no number depends on it
    train_samples: int | None = None  # evenly spaced, for the summary's train/…; null: all, of a text 1,000 windows
    views: dict[str, bool | int] | None = None  # of an image, over which the outputs are averaged


@dataclass(frozen=True)
class Tracking:
    """The trackers, and the things to send them."""

    enabled: bool = True
    backends: list[Literal["mlflow", "tensorboard"]] = field(default_factory=lambda: ["mlflow"])
    experiment: str = "dlrun"
    tags: dict[str, str | int | float | bool] = field(default_factory=dict)
    wait: float = 60.0  # seconds for which a command that has finished waits for the trackers
    log_model: bool = False  # to MLflow alone, as the metrics of the system
    log_checkpoints: bool = False
    system_metrics: bool = False


@dataclass(frozen=True)
class Lora:
    """Adapters of low rank: they train, and all else is frozen."""

    rank: int | None = None  # null: none
    alpha: float | None = None  # they are added alpha / rank times; null: the rank
    targets: list[str | int] | None = None  # patterns; null: all linear and attention layers but those that train whole
    train: list[str | int] = field(default_factory=list)  # patterns of weights that train too, such as a head


@dataclass(frozen=True)
class FineTune:
    """The weights that train, from which step on, and how fast.

    A pattern is a name of a weight or of a module, with `*` for any text and `?` for a character.
    """

    # the layers of a chain have numbers as names
    freeze: list[str | int] = field(default_factory=list)  # these never train
    unfreeze: dict[str | int, int] | None = None  # {PATTERN: STEP}: these train after so many steps
    lr: dict[str | int, float] | None = None  # {PATTERN: FACTOR} of the learning rate
    lora: dict[str, Any] = field(default_factory=dict)  # the arguments of Lora


@dataclass(frozen=True)
class Cost:
    """What a run's energy and time cost; no result depends on it."""

    watts: float | None = None  # the power that the run takes, for an estimate where nothing measures it
    price_per_kwh: float | None = None
    price_per_hour: float | None = None  # of the machine, whatever it does
    currency: str | None = None
    g_co2_per_kwh: float | None = None  # of the electricity


@dataclass(frozen=True)
class Sweep:
    """The beginning and the end of a sweep."""

    fresh: bool = False  # run all jobs anew: continue nothing, and reuse no job of another sweep
    figures: bool = True  # draw those of the report; `dlrun report` can do it later
