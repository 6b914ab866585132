"""AlexNet (Krizhevsky, Sutskever, Hinton 2012, ImageNet Classification with Deep Convolutional Neural Networks).

Five convolutions and three dense layers, named by their number. `towers: 2` is the paper's network: two halves that see
each other in the third convolution and the dense layers alone, local response normalisation behind the first two
convolutions, pooling windows that overlap; 60,965,224 parameters on 1000 classes. `towers: 1` is the network in one
piece of Krizhevsky 2014 (One weird trick for parallelizing convolutional neural networks, arXiv:1404.5997), narrower
and without the normalisation, as in torchvision: 61,100,840. Changed:

- the first convolution pads its input by 2, so that 224×224 pixels, as the paper says, give its 55×55;
- `stem: cifar`, for small pictures: a 3×3 convolution without stride instead of 11×11 with stride 4, kernels drawn as
  by He et al. 2015, and biases of 0; with the paper's initial values the loss went to log 10 and stayed there.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.models.stems import Stem, check_side, choose_stem, pooled

__all__ = ["AlexNet"]

WIDTHS = {1: (64, 192, 384, 256, 256), 2: (96, 256, 384, 384, 256)}


class AlexNet(nn.Module):
    """AlexNet: x [N, C, H, W] ↦ outputs [N, O].

    `stem` is `imagenet`, `cifar`, or None: that of CIFAR for sides below 64 pixels. `hidden` is the width of the two
    hidden dense layers, before each of which inputs are dropped with probability `dropout`. Raises `ConfigError` for
    inputs other than pictures, and for too small ones.

    >>> import torch
    >>> AlexNet((3, 32, 32), 10, hidden=16)(torch.zeros(5, 3, 32, 32)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        outputs: int,
        *,
        towers: Literal[1, 2] = 2,
        stem: Stem | None = None,
        hidden: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        stem = choose_stem(stem, input_shape)
        large = stem == "imagenet"
        check_side(input_shape, smallest=63 if large else 15, stem=stem)
        first, second, third, fourth, fifth = WIDTHS[towers]
        self.conv1 = nn.Conv2d(input_shape[0], first, *((11, 4, 2) if large else (3, 1, 1)))
        self.conv2 = nn.Conv2d(first, second, 5, padding=2, groups=towers)
        self.conv3 = nn.Conv2d(second, third, 3, padding=1)
        self.conv4 = nn.Conv2d(third, fourth, 3, padding=1, groups=towers)
        self.conv5 = nn.Conv2d(fourth, fifth, 3, padding=1, groups=towers)
        rows, columns = (_side(side, large=large) for side in input_shape[1:])
        self.fc6 = nn.Linear(fifth * rows * columns, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, outputs)
        # b = (2 + 10⁻⁴ Σ a²)^0.75 over five neighbours: PyTorch divides its alpha by their number, the paper does not
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0) if towers == 2 else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        _initialise(self, large=large)

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer [N, `hidden`]."""
        x = _pool(self.norm(F.relu(self.conv1(x))))
        x = _pool(self.norm(F.relu(self.conv2(x))))
        x = F.relu(self.conv4(F.relu(self.conv3(x))))
        x = _pool(F.relu(self.conv5(x)))
        x = F.relu(self.fc6(self.dropout(x.flatten(1))))
        return F.relu(self.fc7(self.dropout(x)))

    def forward(self, x: Tensor) -> Tensor:
        """The outputs [N, O]."""
        outputs: Tensor = self.fc8(self.features(x))
        return outputs


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, kernel_size=3, stride=2)


def _side(side: int, *, large: bool) -> int:
    """A side of the last maps."""
    if large:
        side = (side + 4 - 11) // 4 + 1
    return pooled(pooled(pooled(side)))


def _initialise(model: AlexNet, *, large: bool) -> None:
    for name, module in model.named_children():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        assert module.bias is not None
        if large or isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        else:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        # the paper's ones keep these layers' units above zero at first
        nn.init.constant_(module.bias, float(large and name in ("conv2", "conv4", "conv5", "fc6", "fc7")))
