"""One step of a linear model on random digits, as a Hydra app: `python -m … -m seed=range(100)`."""

from __future__ import annotations

from dataclasses import dataclass

import hydra
import torch
from hydra.core.config_store import ConfigStore


@dataclass
class Config:
    seed: int = 0


ConfigStore.instance().store(name="config", node=Config)


@hydra.main(version_base="1.3", config_path=None, config_name="config")
def main(cfg: Config) -> float:
    torch.manual_seed(cfg.seed)
    x, y = torch.randn(64, 64), torch.randint(0, 10, (64,))
    model = torch.nn.Linear(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    torch.save(model.state_dict(), f"{hydra.core.hydra_config.HydraConfig.get().runtime.output_dir}/model.pt")
    return float(loss)


if __name__ == "__main__":
    main()
