"""The parameters that weight decay acts on, by their kind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dlrun.engine.lazy_modules import materialise, uninitialised
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.types import Batch


class ChannelNorm(nn.Module):
    """A norm of one's own, with scales of three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(4, 1, 1))


class Places(nn.Module):
    """A bias for each place, and a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(4, 6, 6))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.mixing = nn.Parameter(torch.ones(4, 4))


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.LayerNorm([4, 6, 6]), nn.GroupNorm(2, 4), nn.BatchNorm2d(4), nn.RMSNorm([6, 6]),
        ChannelNorm(), Places(), nn.InstanceNorm2d(4, affine=True), nn.Embedding(5, 4), nn.LSTM(4, 4),
        nn.MultiheadAttention(4, 2, add_bias_kv=True), nn.PReLU(4), nn.Linear(4, 2),
    )  # fmt: skip


def chosen(model: nn.Module, flags: list[bool]) -> list[str]:
    return [name for (name, _), flag in zip(model.named_parameters(), flags, strict=True) if flag]


def test_weight_decay_acts_on_matrices_and_kernels_by_their_kind() -> None:
    model = net()
    assert chosen(model, Objective(model, cross_entropy).decay) == [
        *("0.weight", "6.mixing", "8.weight", "9.weight_ih_l0", "9.weight_hh_l0"),
        *("10.in_proj_weight", "10.out_proj.weight", "12.weight"),
    ]


def test_the_hidden_matrices_are_no_norms_and_no_biases() -> None:
    model = net()
    names = chosen(model, Objective(model, cross_entropy).hidden)
    assert names == [
        n for n in chosen(model, Objective(model, cross_entropy).decay) if n not in ("8.weight", "12.weight")
    ]
    ended_by_a_norm = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.LayerNorm([4, 4]))
    assert chosen(ended_by_a_norm, Objective(ended_by_a_norm, cross_entropy).hidden) == ["0.weight"]


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3))


def test_lazy_modules_get_their_parameters_before_these_are_collected() -> None:
    model, batch = lazy(), Batch(torch.ones(2, 1, 5, 5), torch.tensor([0, 2]))
    assert uninitialised(model)
    materialise(model, cross_entropy, batch)
    assert not uninitialised(model)
    assert chosen(model, Objective(model, cross_entropy).decay) == ["0.weight", "3.weight"]
    # the pass counts in no statistic
    assert model.training and model[1].num_batches_tracked == 0  # type: ignore[index]


def test_a_lazy_module_that_is_not_called_is_refused() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.LazyLinear(3), nn.LazyLinear(3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.used(x)
            return out

    with pytest.raises(ConfigError, match=r"does not call: idle.weight, idle.bias"):
        materialise(Idle(), cross_entropy, Batch(torch.ones(2, 4), torch.tensor([0, 2])))


def test_lazy_modules_of_a_loss_get_theirs_too() -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.LazyLinear(3)

        def forward(self, model: nn.Module, batch: Batch) -> Tensor:
            return nn.functional.cross_entropy(self.project(model(batch.x)), batch.y)

    loss, model = Projected(), nn.Linear(4, 5)
    materialise(model, loss, Batch(torch.ones(2, 4), torch.tensor([0, 2])))
    assert loss.project.weight.shape == (3, 5)
    assert loss.training
