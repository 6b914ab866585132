"""The program of an uploader's process: `python -m dlrun.runs.uploader_program TRACKER FOLDER…`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dlrun.storage.rundir import RunDir
from dlrun.tracking import uploader

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_model(run: RunDir) -> tuple[nn.Module, Tensor]:
    """A run's model, and two samples of its training split."""
    import torch  # takes seconds, and most uploads need no model

    from dlrun.runs import reload

    loaded = reload.load(str(run.path))
    samples = loaded.data.train.gather(torch.arange(min(2, len(loaded.data.train))))
    return loaded.model.to("cpu").eval(), samples.x.to("cpu")


if __name__ == "__main__":
    sys.exit(uploader.main(sys.argv[1:], load_model))
