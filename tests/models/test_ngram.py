"""The n-gram model against dictionaries, the uniform model, and counting as an optimizer."""

from __future__ import annotations

import argparse
import inspect
import io
import math
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from dlrun.config import instantiate
from dlrun.config.paths import package_folder
from dlrun.engine.ema import Average
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError, UserError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.models import ngram
from dlrun.models.ngram import NGram
from dlrun.models.smoothing import FALLBACK
from dlrun.models.uniform import Uniform
from dlrun.optimizers import counting
from dlrun.optimizers.adam import Adam
from dlrun.optimizers.counting import Counting
from dlrun.optimizers.descent import Descent
from dlrun.runs.weights import loading
from dlrun.types import IGNORE_INDEX, Batch

SHAKESPEARE = Path(os.environ.get("DLRUN_DATA", "data")) / "tinyshakespeare" / "input.txt"
CONTEXT = 16


def text() -> str:
    return SHAKESPEARE.read_text() if SHAKESPEARE.exists() else inspect.getsource(argparse)


def windows(tokens: list[int], context: int = CONTEXT) -> Batch:
    """Windows of tokens; each token but the first is predicted once."""
    number = -(-(len(tokens) - 1) // context)
    short = number * context + 1 - len(tokens)
    x = torch.tensor(tokens[:-1] + [0] * short).view(number, context)
    return Batch(x, torch.tensor(tokens[1:] + [IGNORE_INDEX] * short).view(number, context))


def split(characters: int = 12000, *, words: bool = False) -> tuple[Batch, Batch, int]:
    """Windows to count, windows to test on, and the vocabulary."""
    parts = text()[: characters * (4 if words else 1)].split() if words else list(text()[:characters])
    known = {part: i for i, part in enumerate(sorted(set(parts)))}
    tokens = [known[part] for part in parts]
    cut = len(tokens) * 9 // 10
    return windows(tokens[:cut]), windows(tokens[cut:]), len(known)


class Oracle:
    """Chen and Goodman's formulas, word for word, with dictionaries."""

    def __init__(self, batch: Batch, vocabulary: int, order: int) -> None:
        self.vocabulary, self.order = vocabulary, order
        self.seen: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(order)]
        for x, y in zip(batch.x.tolist(), batch.y.tolist(), strict=True):
            for t, token in enumerate(y):
                for j in range(min(order, t + 2)):
                    if token >= 0:
                        self.seen[j][tuple(x[t + 1 - j : t + 1])][token] += 1
        self.ways: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(order)]
        for j in range(1, order):
            for context, following in self.seen[j].items():
                self.ways[j - 1][context[1:]].update(following.keys())
        self.discounts = {top: [self._of(t) for t in table] for top, table in ((True, self.seen), (False, self.ways))}

    def _of(self, table: dict[tuple[int, ...], Counter[int]]) -> list[float]:
        n = Counter(count for following in table.values() for count in following.values())
        if not (n[1] and n[2] and n[3]):
            return [0.0, *FALLBACK]
        y = n[1] / (n[1] + 2 * n[2])
        found = [1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
        return [0.0, *(found if all(0 < d <= i + 1 for i, d in enumerate(found)) else FALLBACK)]

    def p(self, token: int, context: tuple[int, ...], *, top: bool = True) -> float:
        j = len(context)
        table, discounts = (self.seen if top else self.ways)[j], self.discounts[top][j]
        lower = self.p(token, context[1:], top=False) if j else 1 / self.vocabulary
        following = table.get(context)
        if not following:
            return lower
        kept = sum(discounts[min(c, 3)] for c in following.values())
        count = following[token]
        return (count - discounts[min(count, 3)] + kept * lower) / following.total()

    def log_p(self, batch: Batch) -> list[float]:
        return [
            math.log(self.p(token, tuple(x[max(0, t + 2 - self.order) : t + 1]) if self.order > 1 else ()))
            for x, y in zip(batch.x.tolist(), batch.y.tolist(), strict=True)
            for t, token in enumerate(y)
            if token >= 0
        ]


def fitted(batch: Batch, vocabulary: int, **sizes: Any) -> NGram:
    model = NGram(vocabulary, **sizes)
    model.count(*batch)
    return model


def log_p(model: nn.Module, batch: Batch) -> Tensor:
    """log P of the predicted tokens, in order."""
    there = batch.y >= 0
    return model(batch.x).gather(2, batch.y.clamp(min=0).unsqueeze(2)).squeeze(2)[there]


@pytest.mark.parametrize(("order", "words"), [(1, False), (2, False), (3, False), (5, False), (3, True)])
def test_it_is_what_dictionaries_say(order: int, words: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram, "CHUNK", 50_000)
    train, test, vocabulary = split(words=words)
    found = log_p(fitted(train, vocabulary, order=order), test).double()
    expected = torch.tensor(Oracle(train, vocabulary, order).log_p(test), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert math.exp(-found.mean()) == pytest.approx(math.exp(-expected.mean()), rel=1e-6)


def test_additive_smoothing_is_its_formula() -> None:
    train, test, vocabulary = split(3000)
    model = fitted(train, vocabulary, order=3, smoothing="additive", alpha=0.3)
    seen = Oracle(train, vocabulary, 3).seen
    expected = []
    for x, y in zip(test.x.tolist(), test.y.tolist(), strict=True):
        for t, token in enumerate(y):
            context = tuple(x[max(0, t - 1) : t + 1])
            following = seen[len(context)].get(context, Counter())
            expected += [math.log((following[token] + 0.3) / (following.total() + 0.3 * vocabulary))] * (token >= 0)
    torch.testing.assert_close(log_p(model, test), torch.tensor(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sizes", [{"order": 1}, {"order": 4}, {"order": 3, "smoothing": "additive"}], ids=str)
def test_probabilities_sum_to_one_after_whatever_context(sizes: dict[str, Any]) -> None:
    train, test, vocabulary = split(3000)
    model = fitted(train, vocabulary, **sizes)
    never = torch.randint(vocabulary, (20, CONTEXT), generator=torch.Generator().manual_seed(0))
    for x in (train.x, test.x, never):
        p = model(x).double().exp()
        assert (p > 0).all()
        torch.testing.assert_close(p.sum(-1), torch.ones(x.shape, dtype=torch.float64), rtol=0, atol=2e-6)


def test_before_counting_all_tokens_are_equally_likely() -> None:
    logits = NGram(7, order=3)(torch.tensor([[1, 2, 3]]))
    torch.testing.assert_close(logits, torch.full((1, 3, 7), -math.log(7)))


def test_counts_add_up_over_calls() -> None:
    train, _, vocabulary = split()
    whole, parts = fitted(train, vocabulary, order=4), NGram(vocabulary, order=4)
    for x, y in zip(train.x.split(100).__iter__(), train.y.split(100), strict=True):
        parts.count(x, y)
    for (name, a), b in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_nothing_is_counted_where_nothing_is_predicted() -> None:
    x, y = torch.tensor([[1, 2, 3, 0]]), torch.tensor([[IGNORE_INDEX, 3, 1, IGNORE_INDEX]])
    model = fitted(Batch(x, y), 4, order=3)
    assert model.counts0.sum() == 2
    # what is not predicted is a context all the same
    assert model.grams1.tolist() == [4 * 0 + 3, 4 * 1 + 1]
    assert model.contexts1.tolist() == [2, 3]
    assert len(model.contexts2) == 2


@pytest.mark.parametrize("make", [lambda v: NGram(v, order=4), lambda v: NGram(v, order=1), Uniform])
def test_steps_with_a_memory_are_one_pass(make: Any) -> None:
    train, test, vocabulary = split(3000)
    model = make(vocabulary)
    model.count(*train)
    whole, memory, seen = model(test.x), None, []
    for part in test.x.split([1, 1, 5, 2, CONTEXT - 9], dim=1):
        logits, memory = model.step(part, memory)
        seen.append(logits)
    assert torch.equal(torch.cat(seen, dim=1), whole)
    assert model.context is None


def test_it_is_causal() -> None:
    train, test, vocabulary = split(3000)
    model = fitted(train, vocabulary, order=4)
    changed = test.x.clone()
    changed[:, 9] = (changed[:, 9] + 1) % vocabulary
    before, after = model(test.x), model(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.equal(before[:, 9:13], after[:, 9:13])
    assert torch.equal(before[:, 13:], model(test.x)[:, 13:])


def test_what_was_counted_is_saved_and_loaded_into_a_fresh_model() -> None:
    train, test, vocabulary = split(3000)
    model = fitted(train, vocabulary, order=3)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    fresh = fitted(test, vocabulary, order=3)
    fresh(test.x)
    fresh.load_state_dict(saved)
    assert torch.equal(fresh(test.x), model(test.x))
    other = NGram(vocabulary, order=3)
    loading.put(other, saved, where="there")
    assert torch.equal(other(test.x), model(test.x))
    with pytest.raises(UserError, match="weights of there are of another model"):
        loading.put(NGram(vocabulary, order=4), saved, where="there")


def test_counting_is_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test, vocabulary = split(3000)
    model, optimizer = NGram(vocabulary, order=3), Counting()
    objective = Objective(model, cross_entropy)
    optimizer.init(objective)
    update = optimizer.step(objective, train, optimizer.lr)
    assert update.loss.item() == pytest.approx(math.log(vocabulary), rel=1e-6)
    assert update.grad_norm is None and optimizer.state_dict() == {}
    assert torch.equal(model(test.x), fitted(train, vocabulary, order=3)(test.x))
    # a loss over a part of the batch, where there are too many logits: all is counted nevertheless
    monkeypatch.setattr(counting, "LOGITS", 5 * CONTEXT * vocabulary)
    seen: list[int] = []
    partly = Objective(model, lambda model, batch: seen.append(len(batch.x)) or cross_entropy(model, batch))
    optimizer.step(partly, train, 1.0)
    assert seen == [5]
    assert model.counts0.sum() == 2 * (train.y >= 0).sum()


def test_the_perplexity_of_the_uniform_model_is_the_vocabulary() -> None:
    for vocabulary in (65, 33278):
        model = Uniform(vocabulary)
        batch = Batch(torch.zeros(2, 3, dtype=torch.int64), torch.tensor([[0, 1, 2], [64, 63, IGNORE_INDEX]]))
        optimizer = Counting()
        optimizer.init(Objective(model, cross_entropy))
        loss = optimizer.step(Objective(model, cross_entropy), batch, 1.0).loss
        assert math.exp(loss) == pytest.approx(vocabulary, rel=1e-6)
        assert not list(model.parameters())


@pytest.mark.parametrize("name", ["ngram", "uniform"])
def test_the_yaml_gives_the_defaults(name: str) -> None:
    config = yaml.safe_load((package_folder() / "model" / f"{name}.yaml").read_text())
    target = instantiate.check_part(config, where="model", runtime=("vocabulary",))
    model, plain = instantiate.make(config, vocabulary=65), target(65)
    for each in (model, plain):
        each.count(*split(2000)[0])
    assert torch.equal(model(torch.arange(65)[None]), plain(torch.arange(65)[None]))
    assert (NGram(65).order, NGram(33278).order) == (5, 3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: NGram(None), r"model=ngram predicts.*Type for example dataset=tinyshakespeare"),
        (lambda: Uniform(None), "model=uniform predicts"),
        (lambda: NGram(5, order=0), r"model\.order=3"),
        (lambda: NGram(5, alpha=0.0), r"model\.alpha=0\.1"),
        (lambda: Counting().init(Objective(nn.Linear(2, 2), cross_entropy)), "`Linear`.*Type model=ngram"),
        (lambda: Descent(Adam(0.1)).init(Objective(NGram(5), cross_entropy)), "Type optimizer=counting"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


def test_an_average_of_no_weights_is_none() -> None:
    average = Average([], 0.9)
    average.update(1)
    with average.applied():
        assert average.weights == []
