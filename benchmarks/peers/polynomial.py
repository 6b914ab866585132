"""The capacity study as a Hydra app with MLflow's fluent API: `python -m … -m degree=range(10) seed=range(20)`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import hydra
import mlflow
import torch
from hydra.core.config_store import ConfigStore
from torch import Tensor


@dataclass
class Config:
    degree: int = 3
    seed: int = 0
    store: str = "sqlite:///mlflow.db"


ConfigStore.instance().store(name="config", node=Config)


def draw(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, generator=generator, dtype=torch.float64)
    y = 0.5 + 0.8 * torch.sin(2.5 * math.pi * x) + 0.1 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    return x, y


@hydra.main(version_base="1.3", config_path=None, config_name="config")
def main(cfg: Config) -> float:
    splits = {"train": draw(20, cfg.seed), "val": draw(10, cfg.seed + 1000), "test": draw(1000, 10**6)}
    powers = torch.arange(cfg.degree + 1)
    x, y = splits["train"]
    coefficients = torch.linalg.lstsq(x**powers, y, driver="gelsd").solution
    errors = {f"{name}/mse": float(((x**powers @ coefficients - y) ** 2).mean()) for name, (x, y) in splits.items()}
    mlflow.set_tracking_uri(cfg.store)
    mlflow.set_experiment("polynomial")
    with mlflow.start_run(run_name=f"degree={cfg.degree} seed={cfg.seed}"):
        mlflow.log_params({"degree": cfg.degree, "seed": cfg.seed})
        mlflow.log_metrics(errors, step=1)
    return errors["val/mse"]


if __name__ == "__main__":
    main()
