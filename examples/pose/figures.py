"""Pose: the joints of a stick figure, by heat maps (Tompson et al. 2014, arXiv:1406.2984)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.datasets import from_nested
from dlrun.nests.batch import Batch
from dlrun.types import Data

JOINTS = ("head", "left hand", "right hand", "left foot", "right foot")
SIDE = 32


def figures(train: int = 800, validation: int = 100, test: int = 200, noise: float = 0.2) -> Data:
    """Pictures [1, 32, 32] of a figure with random limbs; targets are the places [5, 2] of its joints, in pixels."""
    draw = torch.Generator().manual_seed(0)
    n = train + validation + test

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=draw)

    neck = torch.stack([between(10, 15), between(12, 20)], 1)
    hip = neck + torch.stack([between(5, 8), between(-2, 2)], 1)
    # from where, towards which angle, how far off, and how long
    limbs = [
        (neck, -math.pi / 2, 0.5, 4), (neck, math.pi, 1.2, 8), (neck, 0, 1.2, 8), (hip, 2.2, 0.6, 9), (hip, 0.9, 0.6, 9)
    ]  # fmt: skip
    joints = []
    for start, middle, spread, length in limbs:
        angle = middle + spread * (2 * torch.rand(n, generator=draw) - 1)
        joints.append(start + length * torch.stack([angle.sin(), angle.cos()], 1))
    places = torch.stack(joints, 1).clamp(1, SIDE - 2)
    bones = [(neck, hip), *((start, places[:, i]) for i, (start, *_) in enumerate(limbs))]
    x = torch.zeros(n, SIDE, SIDE)
    for start, end in bones:
        for along in torch.linspace(0, 1, 40):
            at = torch.lerp(start, end, along).round().long().clamp(0, SIDE - 1)
            x[torch.arange(n), at[:, 0], at[:, 1]] = 1.0
    x += noise * torch.randn(x.shape, generator=draw)
    return from_nested("figures", (x[:, None], places), validation_size=validation, test_size=test)


class HeatMaps(nn.Module):
    """A map a joint: x [B, 1, H, W] ↦ logits [B, 5, H, W] of where each joint is."""

    def __init__(self, input_shape: tuple[int, ...], width: int = 24) -> None:
        super().__init__()
        layers, channels = [], input_shape[0]
        # the field of view grows to the whole figure
        for dilation in (1, 1, 2, 4, 8, 1):
            layers += [nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation)]
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, len(JOINTS), 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def heat_map_loss(model: nn.Module, batch: Batch, width: float = 1.0) -> Tensor:
    """Cross-entropy of each map and a Gaussian of `width` pixels around its joint: the mean over joints, [B]."""
    log_p = model(batch.x).flatten(2).log_softmax(2)
    return -(_gaussians(batch.y, width) * log_p).sum(2).mean(1)


def pck(model: nn.Module, batch: Batch, radius: float = 1.5) -> tuple[Tensor, int]:
    """The share of joints found within `radius` pixels ("percentage of correct key points"): (their number, all)."""
    found = model(batch.x).flatten(2).argmax(2)
    places = torch.stack([found // SIDE, found % SIDE], dim=2)
    right = (places - batch.y).norm(dim=2) <= radius
    return right.sum().double(), right.numel()


pck.higher_is_better = True


def _gaussians(places: Tensor, width: float) -> Tensor:
    grid = torch.arange(SIDE, device=places.device)
    rows, columns = ((grid - places[..., axis, None]).square() for axis in (0, 1))
    return F.softmax(-(rows[..., :, None] + columns[..., None, :]).flatten(2) / (2 * width**2), dim=2)
