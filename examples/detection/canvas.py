"""Detection: real digits on a canvas, found by a grid of cells (Redmon et al. 2015, arXiv:1506.02640)."""

from __future__ import annotations

from itertools import pairwise

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.datasets import from_nested
from dlrun.nests.batch import Batch
from dlrun.types import IGNORE_INDEX, Data

SIDE, CELL, MOST = 40, 8, 3
"""Pixels of the canvas and of a cell, and the most digits of a picture."""
CELLS = SIDE // CELL


def canvas(train: int = 1500, validation: int = 200, test: int = 300) -> Data:
    """Pictures [1, 40, 40] of one to three 8×8 digits that do not touch.

    Targets: `boxes` [3, 4], top, left, bottom, right in pixels, and `labels` [3], `IGNORE_INDEX` where there are fewer.
    Test pictures have digits that no training picture has.
    """
    images, labels = (torch.as_tensor(each) for each in load_digits(return_X_y=True))
    images = images.view(-1, 8, 8).float() / 16
    draw = torch.Generator().manual_seed(0)
    # a third of the digits for each split
    parts = torch.randperm(len(images), generator=draw).tensor_split(3)
    pairs = [
        _pictures(n, images[part], labels[part], draw) for n, part in zip((train, validation, test), parts, strict=True)
    ]
    return from_nested("canvas", *pairs, task="other", classes=10)


def _pictures(n: int, images: Tensor, labels: Tensor, draw: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    x = torch.zeros(n, 1, SIDE, SIDE)
    boxes, classes = torch.zeros(n, MOST, 4), torch.full((n, MOST), IGNORE_INDEX)
    for row in range(n):
        for place in range(int(torch.randint(1, MOST + 1, (), generator=draw))):
            digit = int(torch.randint(len(images), (), generator=draw))
            top, left = torch.randint(SIDE - 8, (2,), generator=draw).tolist()
            if x[row, 0, max(0, top - 1) : top + 9, max(0, left - 1) : left + 9].any():
                continue
            x[row, 0, top : top + 8, left : left + 8] = images[digit]
            boxes[row, place] = torch.tensor([top, left, top + 8, left + 8])
            classes[row, place] = labels[digit]
    return x, {"boxes": boxes, "labels": classes}


class GridDetector(nn.Module):
    """Each cell of 8×8 pixels says whether a digit's centre is in it, where its box is, and which it is.

    x [B, 1, 40, 40] ↦ a dict: `object` [B, 25] logits, `boxes` [B, 25, 4] in pixels, `classes` [B, 25, 10] logits.
    """

    def __init__(self, classes: int, width: int = 32) -> None:
        super().__init__()
        sizes = [1, width, width, 2 * width, 2 * width]
        layers: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(pairwise(sizes)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if i < 3 else []
        self.layers = nn.Sequential(*layers, nn.Conv2d(2 * width, 1 + 4 + classes, 3, padding=1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.layers(x).flatten(2).transpose(1, 2)
        at = torch.arange(CELLS, device=x.device) * CELL
        corner = torch.stack(torch.meshgrid(at, at, indexing="ij"), dim=-1).view(-1, 2)
        centre = corner + CELL * found[..., 1:3].sigmoid()
        half = 4 * (0.5 * found[..., 3:5]).exp()
        boxes = torch.cat([centre - half, centre + half], dim=2)
        return {"object": found[..., 0], "boxes": boxes, "classes": found[..., 5:]}


def detection_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Of each cell whether it has an object; of those with one, the box's distance in cells and the class: [B]."""
    found, boxes, labels = model(batch.x), batch.y["boxes"], batch.y["labels"]
    here = labels != IGNORE_INDEX
    cell = ((boxes[..., 0] + boxes[..., 2]) / 2 // CELL * CELLS + (boxes[..., 1] + boxes[..., 3]) / 2 // CELL).long()
    present = torch.zeros_like(found["object"]).scatter_add(1, cell, here.float()).clamp(max=1)
    objects = F.binary_cross_entropy_with_logits(found["object"], present, reduction="none").sum(1)
    own = found["boxes"].gather(1, cell[..., None].expand(-1, -1, 4))
    logits = found["classes"].gather(1, cell[..., None].expand(-1, -1, found["classes"].shape[2]))
    distance = F.smooth_l1_loss(own, boxes, reduction="none").sum(2) / CELL
    named = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none")
    return objects + ((distance + named) * here).sum(1)


class MeanAveragePrecision:
    """The mean over classes of the area under precision and recall, a box counts with an overlap of at least `iou`.

    As for PASCAL VOC since 2010: precision is the best at that recall or above. It has the protocol of torchmetrics.
    """

    higher_is_better = True

    def __init__(self, iou: float = 0.5) -> None:
        self.iou = iou
        self.reset()

    def reset(self) -> None:
        self.found: list[tuple[int, float, bool]] = []
        self.counts: dict[int, int] = {}

    def update(self, preds: dict[str, Tensor], target: dict[str, Tensor]) -> None:
        scores = preds["object"].sigmoid()[..., None] * preds["classes"].softmax(2)
        best, label = scores.max(2)
        for row in range(len(best)):
            here = target["labels"][row] != IGNORE_INDEX
            boxes, labels = target["boxes"][row][here], target["labels"][row][here].tolist()
            for each in labels:
                self.counts[each] = self.counts.get(each, 0) + 1
            overlaps, taken = _overlaps(preds["boxes"][row], boxes), set[int]()
            for cell in best[row].argsort(descending=True).tolist():
                kind = int(label[row, cell])
                same = [i for i, each in enumerate(labels) if each == kind and i not in taken]
                fits = sorted((float(overlaps[cell, i]), i) for i in same if overlaps[cell, i] >= self.iou)
                taken |= {fits[-1][1]} if fits else set()
                self.found.append((kind, float(best[row, cell]), bool(fits)))

    def compute(self) -> float:
        areas = [self._area(kind, count) for kind, count in self.counts.items()]
        return sum(areas) / max(1, len(areas))

    def _area(self, kind: int, count: int) -> float:
        own = sorted((-score, hit) for each, score, hit in self.found if each == kind)
        right = torch.tensor([hit for _, hit in own])
        if not len(right):
            return 0.0
        hits = right.double().cumsum(0)
        precision = hits / torch.arange(1, len(hits) + 1)
        best = precision.flip(0).cummax(0).values.flip(0)
        return float((best * right).sum() / count)


def _overlaps(some: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes [N, 4] and [M, 4]: [N, M]."""
    top = torch.maximum(some[:, None, :2], others[None, :, :2])
    bottom = torch.minimum(some[:, None, 2:], others[None, :, 2:])
    both = (bottom - top).clamp(min=0).prod(2)
    areas = [(each[:, 2:] - each[:, :2]).prod(1) for each in (some, others)]
    return both / (areas[0][:, None] + areas[1] - both)
