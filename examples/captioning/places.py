"""Captioning: a sentence for two digits, by a decoder that looks at a map of the picture (Xu et al. 2015)."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from dlrun.datasets import Pad, from_datasets
from dlrun.nests.batch import Batch
from dlrun.types import Data

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RELATIONS = {"left of": (0, 10), "above": (10, 0)}
"""How far the second digit is from the first, in rows and columns: of each picture one sentence is right."""
WORDS = ["<pad>", "<begin>", "<end>", *DIGITS, "a", "left", "of", "above"]
NUMBER = {word: number for number, word in enumerate(WORDS)}
PAD, BEGIN, END = 0, 1, 2
SIDE = 28


def places(train: int = 4000, validation: int = 300, test: int = 600) -> Data:
    """Pictures [1, 28, 28] of two real digits, and a sentence such as "a three left of a seven".

    Inputs are `picture` and the words so far, `shifted` [T]; targets are the words [T] with an end. Test pictures have
    digits that no training picture has.
    """
    images, labels = (torch.as_tensor(each) for each in load_digits(return_X_y=True))
    images, draw = images.view(-1, 8, 8).float() / 16, torch.Generator().manual_seed(0)
    parts = torch.randperm(len(images), generator=draw).split([1000, 300, 497])
    splits = [
        [_sample(images[part], labels[part], draw) for _ in range(n)]
        for n, part in zip((train, validation, test), parts, strict=True)
    ]
    return from_datasets(
        "places", *splits, task="dense", classes=len(WORDS), collate=Pad(names=("shifted", "")), content="1"
    )


def _sample(images: Tensor, labels: Tensor, draw: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    first, second = torch.randint(len(images), (2,), generator=draw).tolist()
    name, (down, right) = [*RELATIONS.items()][int(torch.randint(len(RELATIONS), (), generator=draw))]
    # a little out of line
    down, right = (step + int(torch.randint(-1, 2, (), generator=draw)) for step in (down, right))
    # where both are inside
    top, left = (
        int(torch.randint(max(0, -step), SIDE - 7 - max(0, step), (), generator=draw)) for step in (down, right)
    )
    x = torch.zeros(1, SIDE, SIDE)
    x[0, top : top + 8, left : left + 8] = images[first]
    x[0, top + down : top + down + 8, left + right : left + right + 8] = images[second]
    words = f"a {DIGITS[labels[first]]} {name} a {DIGITS[labels[second]]}".split()
    numbers = [NUMBER[word] for word in words]
    return {"picture": x, "shifted": torch.tensor([BEGIN, *numbers])}, torch.tensor([*numbers, END])


class Captioner(nn.Module):
    """A decoder looks at a map of the picture: x of `picture` and `shifted` ↦ logits [B, T, words]."""

    def __init__(self, outputs: int, width: int = 96, heads: int = 4, depth: int = 2, longest: int = 12) -> None:
        super().__init__()
        self.longest = longest
        self.see = nn.Sequential(*_block(1, 32), nn.MaxPool2d(2), *_block(32, 64), nn.MaxPool2d(2), *_block(64, width))
        self.where = nn.Parameter(0.1 * torch.randn((SIDE // 4) ** 2, width))
        self.words, self.places = nn.Embedding(outputs, width), nn.Embedding(longest, width)
        layer = nn.TransformerDecoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.decoder = nn.TransformerDecoder(layer, depth)
        self.choose = nn.Linear(width, outputs)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        return self._say(self._look(x["picture"]), x["shifted"])

    def _look(self, picture: Tensor) -> Tensor:
        return self.see(picture).flatten(2).transpose(1, 2) + self.where

    def _say(self, seen: Tensor, words: Tensor) -> Tensor:
        n = words.shape[1]
        later = torch.ones(n, n, dtype=torch.bool, device=words.device).triu(1)
        placed = self.words(words) + self.places(torch.arange(n, device=words.device))
        return self.choose(self.decoder(placed, seen, tgt_mask=later, tgt_is_causal=True))

    @torch.no_grad()
    def describe(self, picture: Tensor) -> list[str]:
        """The likeliest word after each other, up to the end."""
        seen, words = self._look(picture), torch.full((len(picture), 1), BEGIN, device=picture.device)
        while words.shape[1] < self.longest:
            words = torch.cat([words, self._say(seen, words)[:, -1].argmax(1, keepdim=True)], dim=1)
        return [_text(row) for row in words[:, 1:].tolist()]


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


def _text(numbers: list[int]) -> str:
    words = numbers[: numbers.index(END)] if END in numbers else numbers
    return " ".join(WORDS[number] for number in words if number >= 0)


def exact_match(model: Captioner, batch: Batch) -> tuple[Tensor, int]:
    """The share of pictures whose sentence is right: (their number, all)."""
    wanted = [_text(row) for row in batch.y.tolist()]
    said = model.describe(batch.x["picture"])
    return torch.tensor(float(sum(a == b for a, b in zip(said, wanted, strict=True)))), len(wanted)


exact_match.higher_is_better = True
