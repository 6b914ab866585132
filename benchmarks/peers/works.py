"""The works that programs are compared on: data, model, loss, batch size, rate, threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import gpt

NAMES = ("convnet", "mlp", "plane", "polynomial", "gpt")
RECIPE = gpt.Recipe()
LETTERS = 65


@dataclass(frozen=True, eq=False)
class Work:
    """`steps` steps on batches of the samples `x` and `y`, on `threads` threads (None: all)."""

    name: str
    steps: int
    batch_size: int
    lr: float
    threads: int | None
    make: Callable[[], nn.Module]
    criterion: type[nn.Module]
    log_every: int
    x: Tensor
    y: Tensor

    def fresh(self) -> nn.Module:
        """The model, with the same initial weights each time."""
        torch.manual_seed(1)
        return self.make()

    def batch(self) -> tuple[Tensor, Tensor]:
        """The first batch."""
        if self.name == "gpt":
            return gpt.get_batch(self.x, RECIPE.context, RECIPE.batch_size)
        return self.x[: self.batch_size], self.y[: self.batch_size]

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The mean loss of a batch."""
        if self.name == "gpt":
            return F.cross_entropy(outputs.view(-1, outputs.size(-1)), y.view(-1))
        value: Tensor = self.criterion()(outputs, y)
        return value


class ConvNet(nn.Module):
    """The network of the slides: [N, 1, 28, 28] -> logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 5), nn.Conv2d(32, 64, 5)
        self.fc1, self.fc2 = nn.Linear(256, 200), nn.Linear(200, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 3))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        scores: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return scores


def mlp() -> nn.Module:
    """Two layers on flat images."""
    return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))


def plane() -> nn.Module:
    """Eight layers of two units on points of the plane: so small that operator calls dominate."""
    layers = [layer for _ in range(8) for layer in (nn.Linear(2, 2), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(2, 2))


_WORKS: dict[str, dict[str, Any]] = {
    "convnet": {"steps": 60, "batch_size": 100, "threads": None, "make": ConvNet, "log_every": 20},
    "mlp": {"steps": 600, "batch_size": 32, "threads": 1, "make": mlp, "log_every": 50},
    "plane": {"steps": 1000, "batch_size": 32, "threads": 1, "make": plane, "log_every": 50},
    "polynomial": {"steps": 2000, "batch_size": 32, "threads": 1, "make": lambda: nn.Linear(9, 1), "log_every": 50},
    "gpt": {"steps": 60, "batch_size": 12, "threads": None, "make": lambda: gpt.GPT(RECIPE, LETTERS), "log_every": 10},
}


def work(name: str, steps: int | None, images: tuple[Tensor, Tensor], tokens: Tensor) -> Work:
    """Make a work.

    Its data are `images` [N, 1, 28, 28] with classes, `tokens` [N], a sine (`polynomial`), or points of the plane
    inside and outside a circle (`plane`).
    """
    given = _WORKS[name] | ({"steps": steps} if steps else {})
    given["log_every"] = min(given["log_every"], max(1, given["steps"] // 3))
    n = given["steps"] * given["batch_size"]
    criterion: type[nn.Module] = nn.CrossEntropyLoss
    draw = torch.Generator().manual_seed(0)
    x, y = images[0][:n], images[1][:n]
    if name == "mlp":
        x = x.flatten(1)
    elif name == "plane":
        x = torch.randn(n, 2, generator=draw)
        y = (x.square().sum(1) > 1).long()
    elif name == "polynomial":
        t = torch.rand(n, 1, generator=draw) * 2 - 1
        x, y, criterion = torch.cat([t**k for k in range(1, 10)], 1), torch.sin(3 * t), nn.MSELoss
    elif name == "gpt":
        x = y = tokens
    return Work(name=name, lr=RECIPE.lr if name == "gpt" else 0.1, criterion=criterion, x=x, y=y, **given)


def save(found: Work, path: Path) -> None:
    """Write a work for `load` in another environment."""
    torch.save({"name": found.name, "steps": found.steps, "x": found.x.clone(), "y": found.y.clone()}, path)


def load(path: Path) -> Work:
    kept = torch.load(path, weights_only=True)
    empty = torch.zeros(0, 1, 28, 28), torch.zeros(0, dtype=torch.long)
    return replace(work(kept["name"], kept["steps"], empty, kept["x"]), x=kept["x"], y=kept["y"])


def tiny() -> Work:
    """One step on next to nothing: the rest of the process is its start."""
    x, y = torch.randn(32, 784), torch.randint(0, 10, (32,))
    return replace(work("mlp", 1, (x, y), y), x=x, y=y)


def traffic(found: Work) -> int:
    """The least bytes that a step of plain SGD has to move.

    Weights are read forward and backward and written, gradients are written and read, the batch is read, and
    activations saved for the backward pass are written and read.
    """
    model, (x, y) = found.fresh(), found.batch()
    kept: dict[int, int] = {}

    def note(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        held = found.loss(model(x), y)
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), x, y]}
    activations = sum(size for place, size in kept.items() if place not in own)
    batch = sum(t.numel() * t.element_size() for t in (x, y))
    del held
    return 5 * sum(4 * p.numel() for p in model.parameters()) + batch + 2 * activations


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """nanoGPT's optimizer."""
    params = [*model.parameters()]
    groups = [
        {"params": [p for p in params if p.dim() >= 2], "weight_decay": RECIPE.weight_decay},
        {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=RECIPE.lr, betas=(RECIPE.beta1, RECIPE.beta2))


class Windows(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """As many windows at random places of a text as the steps need."""

    def __init__(self, found: Work) -> None:
        self._tokens, self._n = found.x, found.steps * found.batch_size

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        i = int(torch.randint(len(self._tokens) - RECIPE.context, ()))
        return self._tokens[i : i + RECIPE.context], self._tokens[i + 1 : i + 1 + RECIPE.context]


def samples(found: Work) -> torch.utils.data.Dataset[Any]:
    """A work's samples as a PyTorch data set."""
    return Windows(found) if found.name == "gpt" else torch.utils.data.TensorDataset(found.x, found.y)
