"""Segmentation: discs and squares on noise, and a small U-Net (Ronneberger et al. 2015, arXiv:1505.04597)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlrun.datasets import from_nested
from dlrun.types import Data

CLASSES = ("background", "disc", "square")


def shapes(train: int = 2400, validation: int = 200, test: int = 400, side: int = 32, noise: float = 0.5) -> Data:
    """Pictures [1, side, side] of a disc and a square that may overlap, both dark or bright, with a class a pixel."""
    draw = torch.Generator().manual_seed(0)
    n = train + validation + test
    grid = torch.arange(side)
    row, column = grid[None, :, None], grid[None, None, :]

    def place() -> Tensor:
        return torch.randint(6, side - 6, (n, 1, 1), generator=draw)

    radius, half = torch.randint(3, 7, (n, 1, 1), generator=draw), torch.randint(3, 7, (n, 1, 1), generator=draw)
    disc = (row - place()).square() + (column - place()).square() <= radius.square()
    square = ((row - place()).abs() <= half) & ((column - place()).abs() <= half)
    y = torch.where(square, 2, disc.long())
    sign = torch.randint(2, (n, 1, 1), generator=draw) * 2 - 1
    x = (sign * (y > 0) + noise * torch.randn(n, side, side, generator=draw))[:, None]
    return from_nested("shapes", (x, y), task="dense", class_names=CLASSES, validation_size=validation, test_size=test)


class UNet(nn.Module):
    """A U-Net of two levels: x [B, C, H, W] ↦ logits [B, classes, H, W]; H and W are multiples of 4."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, width: int = 12) -> None:
        super().__init__()
        self.down1, self.down2 = _block(input_shape[0], width), _block(width, 2 * width)
        self.bottom = _block(2 * width, 4 * width)
        self.up2, self.up1 = _block(6 * width, 2 * width), _block(3 * width, width)
        self.pool, self.grow = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.classify = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down1(x)
        middle = self.down2(self.pool(fine))
        coarse = self.grow(self.bottom(self.pool(middle)))
        middle = self.up2(torch.cat([coarse, middle], dim=1))
        fine = self.up1(torch.cat([self.grow(middle), fine], dim=1))
        return self.classify(fine)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


class MeanIoU:
    """The intersection over union of each class over all pixels of a split, and their mean.

    It has the protocol of torchmetrics. A class that neither occurs nor is predicted is left out.
    """

    higher_is_better = True

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.reset()

    def reset(self) -> None:
        self.counts = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)

    def update(self, preds: Tensor, target: Tensor) -> None:
        pairs = self.num_classes * target.flatten() + preds.flatten()
        self.counts += pairs.bincount(minlength=self.num_classes**2).view_as(self.counts).cpu()

    def compute(self) -> Tensor:
        both = self.counts.diag()
        either = self.counts.sum(0) + self.counts.sum(1) - both
        return (both[either > 0] / either[either > 0]).mean()
