"""Translation: written-out numbers from English to French, by a transformer (Vaswani et al. 2017, arXiv:1706.03762)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlrun.datasets import Pad, from_datasets
from dlrun.datasets.written_numbers import english, french
from dlrun.nests.batch import Batch
from dlrun.types import Data


def _split(text: str) -> list[str]:
    """Words and hyphens."""
    return text.replace("-", " - ").split()


PAD, BEGIN, END = 0, 1, 2
SOURCE = ["<pad>", *sorted({word for n in range(1200) for word in _split(english(n))})]
TARGET = ["<pad>", "<begin>", "<end>", *sorted({word for n in range(1200) for word in _split(french(n))})]
NUMBER = {word: i for i, word in enumerate(SOURCE)}
NUMMER = {word: i for i, word in enumerate(TARGET)}


def numbers(train: int = 6000, validation: int = 300, test: int = 1000) -> Data:
    """Pairs of words: `source` and `shifted` [T], and the targets [T], the French words with an end.

    Numbers up to 99,999, drawn without repetition.
    """
    drawn = torch.randperm(100_000, generator=torch.Generator().manual_seed(0)).tolist()
    parts = drawn[:train], drawn[train : train + validation], drawn[train + validation :][:test]
    splits = [[_pair(n) for n in part] for part in parts]
    lengths = [len(y) for _, y in splits[0]]
    return from_datasets(
        "numbers", *splits, task="dense", classes=len(TARGET), collate=Pad(value=PAD), lengths=lengths, content="1"
    )


def _pair(n: int) -> tuple[dict[str, Tensor], Tensor]:
    source = torch.tensor([NUMBER[word] for word in _split(english(n))])
    words = [NUMMER[word] for word in _split(french(n))]
    return {"source": source, "shifted": torch.tensor([BEGIN, *words])}, torch.tensor([*words, END])


class Translator(nn.Module):
    """An encoder and a decoder: x of `source` and `shifted`, [B, S] and [B, T] ↦ logits [B, T, words]."""

    def __init__(self, outputs: int, width: int = 96, heads: int = 4, depth: int = 2, longest: int = 64) -> None:
        super().__init__()
        self.longest = longest
        self.source, self.target = nn.Embedding(len(SOURCE), width), nn.Embedding(outputs, width)
        self.places = nn.Embedding(longest, width)
        options = {"dim_feedforward": 2 * width, "dropout": 0.0, "batch_first": True, "norm_first": True}
        encoder = nn.TransformerEncoderLayer(width, heads, **options)
        self.encoder = nn.TransformerEncoder(encoder, depth, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(width, heads, **options), depth)
        self.choose = nn.Linear(width, outputs)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        return self._decode(self._encode(x["source"]), x["source"] == PAD, x["shifted"])

    def _encode(self, source: Tensor) -> Tensor:
        return self.encoder(self._placed(self.source(source)), src_key_padding_mask=source == PAD)

    def _decode(self, memory: Tensor, padding: Tensor, words: Tensor) -> Tensor:
        n = words.shape[1]
        later = torch.ones(n, n, dtype=torch.bool, device=words.device).triu(1)
        seen = self.decoder(
            self._placed(self.target(words)),
            memory,
            tgt_mask=later,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        return self.choose(seen)

    def _placed(self, words: Tensor) -> Tensor:
        return words + self.places(torch.arange(words.shape[1], device=words.device))

    @torch.no_grad()
    def translate(self, source: Tensor) -> list[list[int]]:
        """The likeliest word at each place, up to the end."""
        memory, padding = self._encode(source), source == PAD
        words = torch.full((len(source), 1), BEGIN, device=source.device)
        while words.shape[1] < self.longest and not bool((words == END).any(1).all()):
            following = self._decode(memory, padding, words)[:, -1].argmax(1, keepdim=True)
            words = torch.cat([words, following], dim=1)
        return [_to_end(row[1:]) for row in words.tolist()]


def _to_end(words: Sequence[int]) -> list[int]:
    return list(words[: words.index(END)]) if END in words else list(words)


def exact_match(model: Translator, batch: Batch) -> tuple[Tensor, int]:
    """The share of sources that are translated without a mistake: (their number, all)."""
    wanted = [_to_end(row) for row in batch.y.tolist()]
    right = sum(a == b for a, b in zip(model.translate(batch.x["source"]), wanted, strict=True))
    return torch.tensor(float(right)), len(wanted)


def bleu(model: Translator, batch: Batch) -> tuple[Tensor, int]:
    """The mean BLEU of a translation, of up to four words, the counts of two and more raised by 1 (Lin, Och 2004)."""
    wanted = [_to_end(row) for row in batch.y.tolist()]
    scores = [_bleu(a, b) for a, b in zip(model.translate(batch.x["source"]), wanted, strict=True)]
    return torch.tensor(sum(scores)), len(scores)


for metric in (exact_match, bleu):
    metric.higher_is_better = True


def _bleu(found: list[int], wanted: list[int]) -> float:
    if not found:
        return 0.0
    logs = 0.0
    for n in range(1, 5):
        some, others = (Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in (found, wanted))
        more = int(n > 1)
        right = (some & others).total() + more
        logs += math.log(right / (some.total() + more)) / 4 if right else -math.inf
    return math.exp(logs + min(0.0, 1 - len(wanted) / len(found)))
