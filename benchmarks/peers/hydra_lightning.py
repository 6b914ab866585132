"""Lightning under Hydra with its MLflow logger, as templates set it up; only as a whole process."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import hydra
import lightning
from hydra.core.config_store import ConfigStore
from lightning.pytorch.loggers import MLFlowLogger
from torch.utils.data import DataLoader

from benchmarks.peers.lightning import Module
from benchmarks.peers.watch import Watch
from benchmarks.peers.works import Work, samples


@dataclass
class Config:
    seed: int = 0
    store: str = "sqlite:///mlflow.db"


ConfigStore.instance().store(name="config", node=Config)


def train(work: Work, watch: Watch) -> None:
    """Train with a store in the current directory."""

    @hydra.main(version_base="1.3", config_path=None, config_name="config")
    def main(cfg: Config) -> None:
        lightning.seed_everything(cfg.seed, workers=True, verbose=False)
        trainer = lightning.Trainer(
            max_steps=work.steps, accelerator="cpu", logger=MLFlowLogger("e", tracking_uri=cfg.store)
        )
        trainer.fit(Module(work, watch), DataLoader(samples(work), batch_size=work.batch_size))

    with TemporaryDirectory() as folder:
        sys.argv = ["hydra_lightning", f"hydra.run.dir={folder}"]
        main()
