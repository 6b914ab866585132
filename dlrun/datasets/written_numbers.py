"""Numbers in words, English to French, as pairs of texts: a translation that needs no download."""

from __future__ import annotations

import torch

from dlrun.datasets.language.pairs.make import Tokenizing, data_of_pairs
from dlrun.errors import ConfigError
from dlrun.types import Data

__all__ = ["written_numbers"]

NUMBERS = 100_000


def _words(text: str) -> list[str]:
    return text.split()


SMALL = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
TENS = _words("_ _ twenty thirty forty fifty sixty seventy eighty ninety")
PETITS = _words(
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept dix-huit "
    "dix-neuf"
)
DIZAINES = _words("_ _ vingt trente quarante cinquante soixante soixante quatre-vingt quatre-vingt")


def english(n: int) -> str:
    """In words, up to 99,999.

    >>> english(21075)
    'twenty-one thousand and seventy-five'
    """
    if n < 20:
        return SMALL[n]
    if n < 100:
        return TENS[n // 10] + (f"-{SMALL[n % 10]}" if n % 10 else "")
    if n < 1000:
        return f"{SMALL[n // 100]} hundred" + (f" and {english(n % 100)}" if n % 100 else "")
    joint = " and " if n % 1000 < 100 else " "
    return f"{english(n // 1000)} thousand" + (joint + english(n % 1000) if n % 1000 else "")


def french(n: int) -> str:
    """In words, up to 99,999, as in France before 1990.

    >>> [french(n) for n in (21, 71, 80, 91, 200, 1300, 80000)]
    ['vingt et un', 'soixante et onze', 'quatre-vingts', 'quatre-vingt-onze', 'deux cents', 'mille trois cents', \
'quatre-vingt mille']
    """
    if n < 20:
        return PETITS[n]
    if n < 100:
        ten, rest = (n // 10, n % 10) if n // 10 not in (7, 9) else (n // 10, 10 + n % 10)
        if rest == 0:
            return "quatre-vingts" if ten == 8 else DIZAINES[ten]
        joint = " et " if rest in (1, 11) and ten < 8 else "-"
        return DIZAINES[ten] + joint + PETITS[rest]
    if n < 1000:
        head = "cent" if n < 200 else f"{PETITS[n // 100]} cent" + ("s" if n % 100 == 0 else "")
        return head + (f" {french(n % 100)}" if n % 100 else "")
    thousands = "" if n < 2000 else _before_mille(n // 1000) + " "
    return f"{thousands}mille" + (f" {french(n % 1000)}" if n % 1000 else "")


def _before_mille(n: int) -> str:
    # `vingt` and `cent` have no s before another number
    words = french(n)
    return words[:-1] if words.endswith(("vingts", "cents")) else words


def written_numbers(
    *,
    train_size: int = 6000,
    validation_size: int = 500,
    test_size: int = 1000,
    tokenizer: str = "bpe",
    shared: bool = False,
    vocabulary_size: int | None = None,
    split_seed: int = 0,
) -> Data:
    """Pairs of texts, such as "forty-two" and "quarante-deux", as `text_pairs` has them.

    `split_seed` draws numbers below 100,000, none of them twice. Raises `ConfigError` for sizes out of range.
    """
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    if train_size < 1 or min(sizes.values()) < 0 or sum(sizes.values()) > NUMBERS:
        typed = " ".join(f"dataset.{split}_size={size}" for split, size in sizes.items())
        raise ConfigError(f"{typed}: expected at least one to train on, and not more than {NUMBERS:,} in all.")
    drawn = torch.randperm(NUMBERS, generator=torch.Generator().manual_seed(split_seed)).tolist()[: sum(sizes.values())]
    parts = torch.split(torch.arange(len(drawn)), [*sizes.values()])
    places = {split: part for split, part in zip(sizes, parts, strict=True) if len(part)}
    tokenizing = Tokenizing(tokenizer, shared=shared, vocabulary_size=vocabulary_size)
    return data_of_pairs("written_numbers", [*map(english, drawn)], [*map(french, drawn)], places, tokenizing)
