"""A data set of pairs of texts: encoded, in splits, with their keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dlrun.datasets.language.corpus import Passage, StringText
from dlrun.datasets.language.labelled import text_keys
from dlrun.datasets.language.pairs.split import PairSplit, Ragged
from dlrun.datasets.language.token_cache import tokenizer_of
from dlrun.datasets.tensors.fingerprint import fingerprint
from dlrun.datasets.tensors.sample_keys import thin
from dlrun.errors import ConfigError
from dlrun.tokenizers.description import cache_key
from dlrun.tokenizers.pair import PairTokenizer
from dlrun.types import Data, RawInputs, Spec, Tokenizer

OPEN = {"source": (None,), "shifted": (None,)}
"""The shapes of the inputs."""


@dataclass(frozen=True)
class Tokenizing:
    """How the texts become tokens: one tokenizer for both sides if `shared`, else one for each."""

    source: str | Tokenizer = "bpe"
    target: str | Tokenizer | None = None
    shared: bool = False
    vocabulary_size: int | None = None

    def make(self, texts: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> PairTokenizer:
        """The tokenizers of the training texts, their alphabets of all."""
        if self.shared:
            if self.target is not None:
                raise ConfigError(
                    "dataset.shared=true: both sides have dataset.tokenizer. Leave dataset.target_tokenizer out."
                )
            both = self._fit(self.source, {split: [*source, *target] for split, (source, target) in texts.items()})
            return PairTokenizer(both, both)
        sides = ({split: pair[side] for split, pair in texts.items()} for side in (0, 1))
        given = (self.source, self.source if self.target is None else self.target)
        return PairTokenizer(*(self._fit(one, side) for one, side in zip(given, sides, strict=True)))

    def _fit(self, given: str | Tokenizer, texts: Mapping[str, Sequence[str]]) -> Tokenizer:
        if not isinstance(given, str):
            return given
        passages = (Passage.whole(StringText("\n".join(texts[s]))) if texts.get(s) else None for s in SPLITS)
        train, validation, test = passages
        assert train is not None
        return tokenizer_of(given, train, validation, test, vocabulary_size=self.vocabulary_size)


SPLITS = ("train", "validation", "test")


def data_of_pairs(
    name: str,
    source: Sequence[str],
    target: Sequence[str],
    places: Mapping[str, Tensor],
    tokenizing: Tokenizing,
    notes: Mapping[str, Any] | None = None,
) -> Data:
    """The data set of pairs, of which `places` are the splits."""
    texts = {split: ([source[i] for i in some], [target[i] for i in some]) for split, some in _lists(places).items()}
    pair = tokenizing.make(texts)
    splits = {
        split: PairSplit(
            Ragged.of([*map(pair.encode, ours)], pair.source_size),
            Ragged.of([*map(pair.encode_target, theirs)], pair.size),
        )
        for split, (ours, theirs) in texts.items()
    }
    # of the texts, not of their tokens: they are the same samples for every tokenizer
    keys, targets = text_keys(source), text_keys(target)
    chosen = [part for split, some in places.items() for part in (split, some)]
    longest = {f"longest_{side}": int(getattr(splits["train"], side).lengths.max()) for side in ("source", "target")}
    return Data(
        name=name,
        spec=Spec("dense", OPEN, outputs=pair.size, classes=pair.size, vocabulary=pair.source_size),
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        fingerprint=fingerprint(name, keys, targets, cache_key(pair), *chosen),
        tokenizer=pair,
        split_fingerprints={split: fingerprint(keys[some], targets[some]) for split, some in places.items()},
        sample_keys={split: thin(keys[some]) for split, some in places.items()},
        notes={"source_vocabulary": pair.source_size, "vocabulary": pair.size, **longest, **(notes or {})},
        inputs=RawInputs((), "int64"),
    )


def _lists(places: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {split: some.tolist() for split, some in places.items() if len(some)}
