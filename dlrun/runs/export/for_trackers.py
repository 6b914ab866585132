"""A run's model for a tracker that keeps models: the selected weights, and an example of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlrun.storage.rundir import RunDir

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_model(run: RunDir) -> tuple[nn.Module, Tensor]:
    """A run's model, and two samples of its training split."""
    import torch  # takes seconds, and most uploads need no model

    from dlrun.runs.reload.loaded import load

    loaded = load(str(run.path))
    samples = loaded.data.train.gather(torch.arange(min(2, len(loaded.data.train))))
    return loaded.model.to("cpu").eval(), samples.x.to("cpu")
