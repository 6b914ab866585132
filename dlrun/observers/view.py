"""What an observer sees of its run, and what it may do."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlrun.analysis.figures.style import save
from dlrun.engine.evaluation import evaluating
from dlrun.engine.loop import Training, use_average
from dlrun.engine.parameters.checksum import Checksum, checksum
from dlrun.errors import RunError
from dlrun.storage.journal import Journal, curves
from dlrun.storage.rundir import RunDir
from dlrun.terminal import output
from dlrun.types import Data, Spec, Split, Tokenizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = re.compile(r"[A-Za-z_][\w.-]*")
"""Names of values and figures."""


class WeightsChanged(RunError):
    """An observer that is declared to look has changed weights."""


@dataclass
class Moment:
    """Where a run stands; one for all of its observers."""

    step: int = 0
    epoch: float = 0.0
    resumed: bool = False
    values: dict[str, float] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)
    status: str = "running"
    diverged: bool = False
    error: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    no_model: str = ""
    """Why the model has no weights to look at."""


@dataclass(frozen=True)
class Watched:
    """A run, as its observers' views know it."""

    training: Training
    data: Data
    config: Mapping[str, Any]
    folder: RunDir
    journal: Journal
    moment: Moment = field(default_factory=Moment)
    rates: dict[str, float] = field(default_factory=dict)
    """The factors of the learning rate, by the observers that set them."""


class Guard:
    """Notices whether the weights and buffers of a run have changed."""

    def __init__(self, training: Training, name: str) -> None:
        objective = training.objective
        self._name = name
        self._tensors = [
            *dict.fromkeys([*(p for m in objective.modules for p in m.parameters()), *objective.buffers()])
        ]
        self._before: Checksum = ((), ())

    def begin(self) -> None:
        self._before = checksum(self._tensors)

    def check(self) -> None:
        """Raise `WeightsChanged` if they are others than at `begin`."""
        if checksum(self._tensors) != self._before:
            raise WeightsChanged(
                f"observers.{self._name} has changed the model's weights or buffers. If it is meant to, write "
                f"`changes_training = True` in its class: it is then part of what the run is."
            )


class RunView:
    """A run, as its observer sees it.

    It can be looked at, not changed. There is no test split in it.
    """

    def __init__(self, name: str, run: Watched, guard: Guard | None = None) -> None:
        self._name, self._run, self._guard = name, run, guard
        self._logged: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"RunView({self.name!r}, step {self.step} of {self.steps})"

    @property
    def name(self) -> str:
        return str(self._run.config["name"])

    @property
    def id(self) -> str:
        """The run's id, as `dlrun resume` takes it."""
        return self._run.folder.id

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return self._run.moment.step

    @property
    def steps(self) -> int:
        """Steps of the whole run, if nothing ends it before."""
        return self._run.training.plan.steps

    @property
    def epoch(self) -> float:
        return self._run.moment.epoch

    @property
    def resumed(self) -> bool:
        """Whether this process goes on with a run that had begun."""
        return self._run.moment.resumed

    @property
    def values(self) -> dict[str, float]:
        """What was logged just now: `train/loss` and `lr` in `on_log`, `val/…` in `on_evaluation`."""
        return dict(self._run.moment.values)

    @property
    def latest(self) -> dict[str, float]:
        """The latest value of each name."""
        return dict(self._run.moment.latest)

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Every curve up to this step, as points (step, value), read from the run's journal."""
        found = curves(self._run.folder.journal)
        # behind a checkpoint there may be points of the process before this one
        return {name: [p for p in points if p[0] <= self.step] for name, points in found.items()}

    @property
    def config(self) -> dict[str, Any]:
        """A copy of the run's configuration."""
        return deepcopy(dict(self._run.config))

    @property
    def run_folder(self) -> Path:
        return self._run.folder.path

    @property
    def folder(self) -> Path:
        """The observer's own folder, `observers/NAME` in the run's."""
        path = self._run.folder.path / "observers" / self._name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def spec(self) -> Spec:
        """The shapes and the task of the data."""
        return self._run.data.spec

    @property
    def tokenizer(self) -> Tokenizer | None:
        return self._run.data.tokenizer

    @property
    def train(self) -> Split:
        """The training split, prepared, without augmentation."""
        return self._run.data.train

    @property
    def validation(self) -> Split | None:
        """The validation split, prepared."""
        return self._run.data.validation

    @property
    def device(self) -> torch.device:
        return self._run.training.device

    @contextmanager
    def model(self) -> Iterator[nn.Module]:
        """The model in evaluation mode, without gradients, for `with run.model() as model:`.

        Its weights are those that are evaluated: the average with `trainer.ema`, and at the end of a finished run the
        selected ones.
        """
        training, moment = self._run.training, self._run.moment
        if moment.no_model:
            raise RunError(moment.no_model)
        average = None if moment.status == "finished" else training.average
        # an average is swapped with the weights in place, which is no change of the observer's
        guard = self._guard if average else None
        if guard:
            guard.check()
        try:
            with use_average(average), evaluating(training.objective), training.objective.precision():
                if guard:
                    guard.begin()
                yield training.objective.model
                if guard:
                    guard.check()
        finally:
            if guard:
                guard.begin()

    def log(self, values: Mapping[str, float | Tensor] | None = None, **more: float | Tensor) -> None:
        """Log numbers at this step: `run.log(margin=0.3)` is the curve NAME/margin, in trackers too."""
        for name, value in {**(values or {}), **more}.items():
            if not NAME.fullmatch(name):
                raise ValueError(f"run.log({name!r}): a name has letters, digits and _ . - alone")
            # torch warns of a weight, which has a gradient
            self._logged[f"{self._name}/{name}"] = float(value.detach() if isinstance(value, Tensor) else value)

    def save_figure(self, figure: Figure, name: str = "") -> Path:
        """Save a figure of matplotlib among the run's, as `figures/NAME.png` or `figures/NAME-name.png`.

        One of the same name is replaced. Trackers get it at the end of the run.
        """
        if name and not NAME.fullmatch(name):
            raise ValueError(f"run.save_figure(…, {name!r}): a name has letters, digits and _ . - alone")
        file = save(figure, self._run.folder.figures / f"{'-'.join(filter(None, (self._name, name)))}.png")
        if pyplot := sys.modules.get("matplotlib.pyplot"):
            pyplot.close(figure)  # it keeps those that it made, and warns of more than 20
        return file

    def say(self, text: str) -> None:
        """Print a line, to the run's log too."""
        output.say(f"  {text}")

    @property
    def status(self) -> str:
        """`running`; in `on_end` finished, failed, killed or pruned."""
        return self._run.moment.status

    @property
    def diverged(self) -> bool:
        """Whether the run failed by a loss that is no finite number."""
        return self._run.moment.diverged

    @property
    def error(self) -> str | None:
        """Why the run ended early."""
        return self._run.moment.error

    @property
    def metrics(self) -> dict[str, float]:
        """In `on_end` of a finished run its metrics at the selected weights, those of the test too if it was read."""
        return dict(self._run.moment.metrics)

    def take_logged(self) -> dict[str, float]:
        """The values logged since the last call; for dlrun itself."""
        logged, self._logged = self._logged, {}
        return logged


class ChangeableRun(RunView):
    """The view of an observer that changes the training, in `on_start`, `on_log` and `on_evaluation`."""

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self._run.training.rate(self.step)

    def scale_rate(self, factor: float) -> None:
        """Multiply the learning rate by `factor` from the next step on; it is kept in the checkpoint."""
        if not 0 <= factor < float("inf"):
            raise ValueError(f"run.scale_rate({factor}): expected a finite number of at least 0")
        self._run.rates[self._name] = self._run.rates.get(self._name, 1.0) * float(factor)

    def parameters(self) -> dict[str, Tensor]:
        """The weights that train, by name, to be changed in place under `torch.no_grad()`."""
        objective = self._run.training.objective
        return dict(zip(objective.names, objective.params, strict=True))
