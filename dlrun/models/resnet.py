"""Residual networks (He, Zhang, Ren, Sun 2015, Deep Residual Learning for Image Recognition, arXiv:1512.03385).

`resnet` makes the networks of table 1, for 224×224 pixels; a block that changes its size has a projection as shortcut
(the paper's option B). `cifar_resnet` makes those of section 4.2, for 32×32 pixels, whose shortcuts have no parameters
(option A). Layers have the names of torchvision, whose weights fit those of table 1. Changed:

- the stride of a bottleneck lies on its 3×3 convolution, as in torchvision, and not on its first 1×1 convolution;
  `strided: 1` is the paper's;
- `stem: cifar`, for small pictures: a 3×3 convolution without stride instead of 7×7 with stride 2, and no max-pooling;
- `zero_init`: the scale of each block's last norm begins at 0, so each block as the identity (Goyal et al. 2017,
  arXiv:1706.02677, 5.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.errors import ConfigError
from dlrun.models.stems import Stem, choose_stem

__all__ = ["cifar_resnet", "resnet"]

MakeBlock = Callable[[int, int, int], "Basic | Bottleneck"]
"""(channels of the input, width of the stage, stride) → a block."""


def resnet(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    depth: Literal[18, 34, 50, 101, 152],
    stem: Stem | None = None,
    width: int = 64,
    strided: Literal[1, 3] = 3,
    zero_init: bool = False,
) -> ResNet:
    """A network of table 1, with `depth` layers: x [N, C, H, W] ↦ outputs [N, O].

    `stem` is `imagenet`, `cifar`, or None: that of CIFAR for sides below 64 pixels. `width` has the channels of the
    first stage; each further stage has twice as many. `strided` is the kernel of the convolution that carries a
    bottleneck's stride. Raises `ConfigError` for inputs other than pictures.

    >>> sum(p.numel() for p in resnet((3, 32, 32), 10, depth=18).parameters())
    11173962
    """
    stages = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]
    make = Basic if depth < 50 else partial(Bottleneck, strided=strided)
    chosen = choose_stem(stem, input_shape)
    return ResNet(input_shape[0], outputs, make, stages=stages, width=width, stem=chosen, zero_init=zero_init)


def cifar_resnet(
    input_shape: tuple[int, ...], outputs: int, *, depth: int, width: int = 16, zero_init: bool = False
) -> ResNet:
    """A network of section 4.2, with `depth` = 6n + 2 layers: x [N, C, H, W] ↦ outputs [N, O].

    Three stages of n blocks, with `width`, 2·`width` and 4·`width` channels. Raises `ConfigError` for another depth,
    and for inputs other than pictures.

    >>> sum(p.numel() for p in cifar_resnet((3, 32, 32), 10, depth=20).parameters())
    269722
    """
    n, rest = divmod(depth - 2, 6)
    if rest or n < 1:
        raise ConfigError(
            f"model.depth={depth}: expected 6n + 2 layers, of which the paper has 20, 32, 44, 56 and 110. "
            "Type for example model.depth=20, or model=resnet18."
        )
    stem = choose_stem("cifar", input_shape)
    make = partial(Basic, project=False)
    return ResNet(input_shape[0], outputs, make, stages=(n, n, n), width=width, stem=stem, zero_init=zero_init)


class ResNet(nn.Module):
    """Stages of residual blocks behind a stem: x [N, C, H, W] ↦ outputs [N, O].

    `stages` has the number of blocks of each; every stage but the first halves the sides and doubles the width.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        make_block: MakeBlock,
        *,
        stages: Sequence[int],
        width: int,
        stem: Stem,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        large = stem == "imagenet"
        self.conv1 = convolution(channels, width, 7, 2) if large else convolution(channels, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if large else nn.Identity()
        self.stages: list[str] = []
        inputs = width
        for stage, blocks in enumerate(stages):
            layers = nn.Sequential()
            for place in range(blocks):
                block = make_block(inputs, width << stage, 2 if stage and not place else 1)
                inputs = block.outputs
                layers.append(block)
            self.stages.append(f"layer{stage + 1}")
            self.add_module(self.stages[-1], layers)
        self.fc = nn.Linear(inputs, outputs)
        _initialise(self, zero_init=zero_init)

    def features(self, x: Tensor) -> Tensor:
        """The mean of the last stage's maps [N, F]."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """The outputs [N, O]."""
        outputs: Tensor = self.fc(self.features(x))
        return outputs


class Basic(nn.Module):
    """Two 3×3 convolutions, and the input added to their result.

    `project`: where the shapes differ, the input passes a 1×1 convolution; else it is thinned out and padded with
    zeros.
    """

    def __init__(self, inputs: int, width: int, stride: int, *, project: bool = True) -> None:
        super().__init__()
        self.outputs = width
        self.conv1 = convolution(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride) if project else Padded(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return F.relu(residual + self.downsample(x))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions to four times the width, and the input added to their result."""

    def __init__(self, inputs: int, width: int, stride: int, *, strided: int = 3) -> None:
        super().__init__()
        self.outputs = 4 * width
        self.conv1 = convolution(inputs, width, 1, stride if strided == 1 else 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride if strided == 3 else 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, self.outputs, 1)
        self.bn3 = nn.BatchNorm2d(self.outputs)
        self.downsample = _shortcut(inputs, self.outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = F.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return F.relu(residual + self.downsample(x))


class Padded(nn.Module):
    """Every `stride`-th pixel, with channels of zeros behind the input's: a shortcut without parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.channels = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1 and not self.channels:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.channels))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the sides, divided by the stride; a norm behind it has the bias."""
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def _initialise(model: nn.Module, *, zero_init: bool) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            # He et al. 2015, arXiv:1502.01852, by the number of outputs as in their code
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif zero_init and isinstance(module, Basic | Bottleneck):
            last = module.bn2 if isinstance(module, Basic) else module.bn3
            nn.init.zeros_(last.weight)
