"""GoogLeNet (Szegedy et al. 2014, Going Deeper with Convolutions, arXiv:1409.4842).

Nine inception modules, table 1 of the paper; layers have the names of torchvision. Two auxiliary heads, at modules 4a
and 4d, are trained with `auxiliary_weight` of the loss each, and not computed in evaluation. On 1000 classes it has
6,998,552 parameters without them, 13,378,280 with them. What the paper leaves open is as in its authors' Caffe model,
with He's initial weights. Options:

- `batch_norm`: as in TensorFlow's slim and torchvision: a norm behind each convolution, no local response
  normalisation, 3×3 convolutions in place of the 5×5 ones, a last pooling of 2×2; 6,624,904 parameters;
- `stem: cifar`, for small pictures: a 3×3 convolution without stride instead of 7×7 with stride 2, and no pooling
  behind it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.errors import ConfigError
from dlrun.models.stems import Stem, check_side, choose_stem, pooled

__all__ = ["GoogLeNet"]

# of table 1: 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool proj
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
AUXILIARY = {"4a": "aux1", "4d": "aux2"}
DROPOUT = 0.7  # of the auxiliary heads


class GoogLeNet(nn.Module):
    """GoogLeNet: x [N, C, H, W] ↦ outputs [N, O].

    `stem` is `imagenet`, `cifar`, or None: that of CIFAR for sides below 64 pixels. `auxiliary_weight` 0 leaves the
    auxiliary heads out. Raises `ConfigError` for a negative weight and for inputs other than large enough pictures.

    >>> GoogLeNet((3, 32, 32), 10).eval()(torch.zeros(5, 3, 32, 32)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        outputs: int,
        *,
        batch_norm: bool = False,
        auxiliary_weight: float = 0.3,
        stem: Stem | None = None,
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        if auxiliary_weight < 0:
            raise ConfigError(f"model.auxiliary_weight={auxiliary_weight}: expected 0 or more; 0 leaves the heads out.")
        stem = choose_stem(stem, input_shape)
        large = stem == "imagenet"
        check_side(input_shape, smallest=79 if large else 20, stem=stem)
        self.auxiliary_weight = auxiliary_weight
        self.conv1 = Convolution(input_shape[0], 64, *((7, 2) if large else (3, 1)), norm=batch_norm)
        self.conv2 = Convolution(64, 64, 1, norm=batch_norm)
        self.conv3 = Convolution(64, 192, 3, norm=batch_norm)
        self.maxpool1 = _pool() if large else nn.Identity()
        self.maxpool2 = _pool()
        self.maxpool3 = _pool()
        self.maxpool4 = _pool(2 if batch_norm else 3)
        self.norm = nn.Identity() if batch_norm else nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
        # the sides of the maps of stage 4
        sides = [pooled(pooled(_after_stem(side, large=large), ceil=True), ceil=True) for side in input_shape[1:]]
        width = 192
        for name, widths in MODULES.items():
            self.add_module(f"inception{name}", module := Inception(width, widths, norm=batch_norm))
            width = module.outputs
            if auxiliary_weight and name in AUXILIARY:
                self.add_module(AUXILIARY[name], AuxiliaryHead(width, outputs, sides, norm=batch_norm))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, outputs)
        _initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """The mean of the last module's maps [N, 1024]."""
        return self._trunk(x)[0]

    def forward(self, x: Tensor) -> Tensor:
        """The main outputs [N, O]."""
        outputs: Tensor = self.fc(self.dropout(self.features(x)))
        return outputs

    def all_outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """The main outputs, and those of each auxiliary head, [N, O] all."""
        features, maps = self._trunk(x)
        heads = [self.get_submodule(AUXILIARY[name])(each) for name, each in maps.items()]
        return self.fc(self.dropout(features)), *heads

    def _trunk(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The last features, and the maps that auxiliary heads take."""
        x = self.norm(self.maxpool1(self.conv1(x)))
        x = self.maxpool2(self.norm(self.conv3(self.conv2(x))))
        maps = {}
        for name in MODULES:
            x = self.get_submodule(f"inception{name}")(x)
            if name in AUXILIARY:
                maps[name] = x
            if name in ("3b", "4e"):
                x = (self.maxpool3 if name == "3b" else self.maxpool4)(x)
        return x.mean((2, 3)), maps if self.auxiliary_weight else {}


class Inception(nn.Module):
    """Four branches over the same maps, their channels side by side."""

    def __init__(self, inputs: int, widths: tuple[int, ...], *, norm: bool) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pool = widths
        self.outputs = one + three + five + pool
        self.branch1 = Convolution(inputs, one, 1, norm=norm)
        self.branch2 = nn.Sequential(
            Convolution(inputs, reduce3, 1, norm=norm), Convolution(reduce3, three, 3, norm=norm)
        )
        self.branch3 = nn.Sequential(
            Convolution(inputs, reduce5, 1, norm=norm), Convolution(reduce5, five, 3 if norm else 5, norm=norm)
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), Convolution(inputs, pool, 1, norm=norm))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in (self.branch1, self.branch2, self.branch3, self.branch4)], 1)


class AuxiliaryHead(nn.Module):
    """A classifier of inner maps: pooling, a 1×1 convolution, two dense layers."""

    def __init__(self, inputs: int, outputs: int, sides: list[int], *, norm: bool) -> None:
        super().__init__()
        rows, columns = ((side - 5) // 3 + 1 for side in sides)
        self.conv = Convolution(inputs, 128, 1, norm=norm)
        self.fc1 = nn.Linear(128 * rows * columns, 1024)
        self.fc2 = nn.Linear(1024, outputs)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.avg_pool2d(x, kernel_size=5, stride=3))
        outputs: Tensor = self.fc2(self.dropout(F.relu(self.fc1(x.flatten(1)))))
        return outputs


class Convolution(nn.Module):
    """A convolution that keeps the sides, divided by the stride, and a ReLU behind it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=not norm)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001) if norm else nn.Identity()  # slim's eps

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def _pool(kernel: int = 3) -> nn.Module:
    return nn.MaxPool2d(kernel, stride=2, ceil_mode=True)


def _after_stem(side: int, *, large: bool) -> int:
    """A side after `maxpool1`."""
    return pooled((side - 1) // 2 + 1, ceil=True) if large else side


def _initialise(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if name.endswith(("fc", "fc2")):  # small outputs: the loss begins at that of equal probabilities
            nn.init.normal_(module.weight, std=0.01)
        else:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
