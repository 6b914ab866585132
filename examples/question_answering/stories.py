"""Question answering: stories of who went where (Weston et al. 2015, arXiv:1502.05698, tasks 1 and 2)."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from dlrun.datasets import Pad, from_datasets
from dlrun.types import Data

NAMES = ("anna", "bela", "chen", "dora")
PLACES = ("kitchen", "garden", "office", "hall", "cellar", "attic")
THINGS = ("apple", "book", "lamp")
WORDS = ("<pad>", *NAMES, *PLACES, *THINGS, "went", "to", "the", "took", "dropped", "where", "is", ".", "?")
NUMBER = {word: number for number, word in enumerate(WORDS)}


def story(draw: random.Random, sentences: int) -> tuple[list[str], str]:
    """A story with its question, and the answer."""
    at, holder, left = dict[str, str](), dict[str, str](), dict[str, str]()
    words: list[str] = []
    for _ in range(sentences):
        name, thing = draw.choice(NAMES), draw.choice(THINGS)
        if name in at and thing not in holder and left.get(thing, at[name]) == at[name] and draw.random() < 0.5:
            holder[thing] = name
            words += [name, "took", "the", thing, "."]
        elif holder.get(thing) == name and draw.random() < 0.5:
            del holder[thing]
            left[thing] = at[name]
            words += [name, "dropped", "the", thing, "."]
        else:
            at[name] = draw.choice([place for place in PLACES if place != at.get(name)])
            words += [name, "went", "to", "the", at[name], "."]
    answers = at | left | {thing: at[name] for thing, name in holder.items()}
    asked = draw.choice(sorted(answers))
    return [*words, "where", "is", asked, "?"], answers[asked]


def stories(train: int = 8000, validation: int = 500, test: int = 1000, sentences: int = 6) -> Data:
    """Stories of 2 to `sentences` sentences as words, a class for each place; no story is in two splits."""
    draw, seen, samples = random.Random(0), set[tuple[str, ...]](), list[tuple[Tensor, int]]()
    while len(samples) < train + validation + test:
        words, answer = story(draw, draw.randint(2, sentences))
        if tuple(words) not in seen:
            seen.add(tuple(words))
            samples.append((torch.tensor([NUMBER[word] for word in words]), PLACES.index(answer)))
    cut = samples[:train], samples[train : train + validation], samples[train + validation :]
    lengths = [len(x) for x, _ in cut[0]]
    return from_datasets(
        "stories", *cut, task="classification", class_names=PLACES, collate=Pad(), lengths=lengths, content="1"
    )


class Reader(nn.Module):
    """A transformer encoder that answers at the question mark: words [B, T] ↦ logits [B, places]."""

    def __init__(self, outputs: int, width: int = 64, heads: int = 4, depth: int = 3, longest: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(len(WORDS), width, padding_idx=0)
        self.places = nn.Embedding(longest, width)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.answer = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        padding = x == 0
        # counted from the end: the question is always at the same place
        places = (~padding).flip(1).cumsum(1).flip(1)
        seen = self.layers(self.words(x) + self.places(places), src_key_padding_mask=padding)
        last = (~padding).sum(1) - 1
        return self.answer(seen[torch.arange(len(x), device=x.device), last])
