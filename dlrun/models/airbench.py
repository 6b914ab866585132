"""The convolutional network of K. Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024 (arXiv:2404.00498).

Three groups of two 3×3 convolutions behind a first one whose filters whiten patches of the training images. Changed:
the outputs' matrix begins 3.555 times smaller, and its factor is as much larger. So it learns at the biases' rate as it
does there at 12.64 times that rate. The whitening layer's bias learns until the end, not for three epochs.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.models.convnet import image_shape
from dlrun.models.whitening import Whitening

__all__ = ["Airbench"]

HEAD = 3.555
"""√(0.67 / 0.053), of the published rates for the outputs' matrix and for the biases."""


class Airbench(nn.Module):
    """Convolutional network: x [N, C, H, W] ↦ outputs [N, O].

    `widths` are those of the three groups. The first layer has 2·C·4 filters of 2×2 pixels, made from the training
    images before the first step (`Whitening`). The convolutions begin as the identity as far as they have inputs, the
    scales of the batch norms stay 1. On CIFAR-10 it has 1,971,352 learned parameters. Raises `ConfigError` for images
    below 25×25 pixels.

    >>> Airbench((3, 32, 32), 10)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self, input_shape: tuple[int, ...], outputs: int, *, widths: tuple[int, int, int] = (64, 256, 256)
    ) -> None:
        super().__init__()
        channels, height, width = image_shape(input_shape, smallest=25, model="airbench")
        self.whitening = Whitening(channels)
        sizes = [self.whitening.out_channels, *widths]
        self.groups = nn.Sequential(*(_Group(before, after) for before, after in pairwise(sizes)))
        # three poolings by two, then one by three
        last = [(((size - 1) // 2) // 2 // 2) // 3 for size in (height, width)]
        self.head = nn.Linear(widths[-1] * last[0] * last[1], outputs, bias=False)
        with torch.no_grad():
            self.head.weight /= self.head.weight.std() * HEAD
        self.factor = HEAD / self.head.in_features

    def init_from_inputs(self, x: Tensor) -> None:
        """Make the first layer's filters from training images x [N, C, H, W]."""
        self.whitening.init_from_inputs(x)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs [N, O]."""
        x = F.max_pool2d(self.groups(F.gelu(self.whitening(x))), 3)
        outputs: Tensor = self.head(x.flatten(1)) * self.factor
        return outputs


class _Group(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(before, after), _conv(after, after)
        self.norm1, self.norm2 = _norm(after), _norm(after)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


def _conv(before: int, after: int) -> nn.Conv2d:
    conv = nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[:before])
    return conv


def _norm(width: int) -> nn.BatchNorm2d:
    # statistics that follow fast: a run has few steps
    norm = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm
