"""Lightning without its optional parts: no logger, no progress bar, no checkpoints."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.peers.watch import Watch
from benchmarks.peers.works import Work, adamw, samples

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Module(lightning.LightningModule):
    def __init__(self, work: Work, watch: Watch) -> None:
        super().__init__()
        self.model, self.work = watch.seen(work.fresh()), work

    def training_step(self, batch: Any, index: int) -> Tensor:
        x, y = batch
        return self.work.loss(self.model(x), y)

    def configure_optimizers(self) -> Any:
        if self.work.name != "gpt":
            return torch.optim.SGD(self.parameters(), lr=self.work.lr)
        optimizer = adamw(self.model)
        curve = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.work.steps)
        return [optimizer], [{"scheduler": curve, "interval": "step"}]


def train(work: Work, watch: Watch) -> None:
    off = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    clip = {"gradient_clip_val": 1.0} if work.name == "gpt" else {}
    trainer = lightning.Trainer(max_steps=work.steps, accelerator="cpu", devices=1, **off, **clip)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the loader could have workers
        trainer.fit(Module(work, watch), DataLoader(samples(work), batch_size=work.batch_size, shuffle=True))
