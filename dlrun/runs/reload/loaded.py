"""A run in a notebook: its model, metrics, curves, and its data set once it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from dlrun.analysis.frames import curves_frame
from dlrun.config import trust
from dlrun.datasets.tensors.spec import restore
from dlrun.runs.reload.predictor import load_predictor
from dlrun.runs.reload.rebuild import rebuild
from dlrun.storage.lookup import find
from dlrun.storage.rundir import RunDir
from dlrun.types import Data, Spec

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Loaded:
    """A run in a notebook, its model with the selected weights.

    `prepare` maps raw inputs, as in the data set's files, to the model's. The data set is loaded when `data` is first
    asked for.
    """

    model: nn.Module
    prepare: Callable[[Tensor], Tensor]
    spec: Spec
    config: DictConfig
    summary: dict[str, Any]
    folder: RunDir

    def __repr__(self) -> str:
        # a notebook shows it; the fields would take 14 kB
        return f"Loaded({type(self.model).__name__}, {self.summary.get('name')}, {str(self.folder.path)!r})"

    @cached_property
    def data(self) -> Data:
        """The run's data set, on its device.

        Raises `UserError` if its files are missing, or are not those that the run was trained on.
        """
        return rebuild(self.folder, watched=False).data

    def restore(self, outputs: Tensor) -> Tensor:
        """Outputs in the unit of the raw targets: of `dataset.scale_targets` scaled back, else as they are."""
        return restore(self.spec, outputs)

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics at the selected weights: `run.metrics["test/error"]`."""
        return {name: float(value) for name, value in self.folder.summary().metrics.items()}

    @property
    def curves(self) -> pd.DataFrame:
        """What has been logged so far: a row a step, a column a metric, and the epoch."""
        return curves_frame(self.folder.journal)


def load(reference: str, *, trusted: Sequence[str] = ()) -> Loaded:
    """Load a run with its selected weights, without its data set.

    `reference` is its folder or the beginning of its id.

    >>> import dlrun
    >>> run = dlrun.load("k3x9")                            # doctest: +SKIP
    >>> run.model(run.prepare(raw))                         # doctest: +SKIP

    Raises `UserError` if there is no such run, or it has no weights yet.
    """
    trust.grant(trusted)
    folder = find(reference)
    made = load_predictor(folder)
    config = OmegaConf.create(made.config)
    return Loaded(made.model.eval(), made.prepare, made.spec, config, folder.summary().to_dict(), folder)
