"""The evaluation of text: by the token, once each, whatever the batches; and training on drawn windows."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlrun.datasets.language.from_text import from_text
from dlrun.datasets.language.windows import Streams, Windows
from dlrun.datasets.tensors.subset import bytes_per_token, take_first, take_spaced
from dlrun.engine import loop
from dlrun.engine.batches import Batches
from dlrun.engine.evaluation import batch_size_for, evaluate
from dlrun.engine.objective import Objective
from dlrun.engine.plan import Plan
from dlrun.engine.state import State
from dlrun.errors import ConfigError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.metrics import for_task
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.sgd import SGD
from dlrun.runs.dry_run.parts import check_walk
from dlrun.storage.checkpoint import BestWeights, Checkpoint
from dlrun.terminal.format import number
from dlrun.types import IGNORE_INDEX, Batch, Data, Spec, Split

CPU = torch.device("cpu")
VOCABULARY, CONTEXT = 7, 5
DECAY = 0.8


class Fading(nn.Module):
    """What was read fades: h_t = 0.8 h_{t-1} + e(x_t), logits = W tanh(h_t). The state is the memory."""

    context = None

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(4)
        self.embedding = nn.Parameter(torch.randn(VOCABULARY, 3, generator=draw))
        self.head = nn.Parameter(torch.randn(3, VOCABULARY, generator=draw))
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x, None)[0]

    def step(self, x: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        self.passes += 1
        state = torch.zeros(len(x), 3) if memory is None else memory
        states = []
        for token in self.embedding[x].unbind(1):
            state = DECAY * state + token
            states.append(state)
        return torch.tanh(torch.stack(states, 1)) @ self.head, state


def tokens(n: int) -> Tensor:
    return torch.randint(0, VOCABULARY, (n,), generator=torch.Generator().manual_seed(n))


def oracle(text: Tensor, seen: list[int]) -> dict[str, float]:
    """Return the metrics of a text whose token i+1 is predicted from the last `seen[i]` tokens, in numpy."""
    model = Fading()
    embedding, head = (p.detach().double().numpy() for p in (model.embedding, model.head))
    ids, losses, right = text.numpy(), [], []
    for i, reach in enumerate(seen):
        state = sum(DECAY**back * embedding[ids[i - back]] for back in range(reach))
        logits = np.tanh(state) @ head
        losses.append(np.log(np.exp(logits).sum()) - logits[ids[i + 1]])
        right.append(logits.argmax() == ids[i + 1])
    nll = float(np.mean(losses))
    return {"loss": nll, "nll": nll, "accuracy": float(np.mean(right)), "perplexity": math.exp(nll)}


def measured(split: Split, size: int, model: nn.Module | None = None, **options: Any) -> dict[str, float]:
    objective = Objective(model or Fading(), partial(cross_entropy, **options))
    return evaluate(objective, for_task("language"), split, batch_size=size, device=CPU)


@pytest.mark.parametrize("n", [2, CONTEXT, CONTEXT + 1, CONTEXT + 2, 103])
@pytest.mark.parametrize("stride", [1, 2, CONTEXT])
def test_the_numbers_of_windows_are_those_of_numpy_over_the_whole_text(n: int, stride: int) -> None:
    text = tokens(n)
    # the first window from its beginning; behind it, a window's last `stride` places again and again
    seen = [i + 1 if i < CONTEXT else CONTEXT - stride + 1 + (i - CONTEXT) % stride for i in range(n - 1)]
    expected = oracle(text, seen)
    ways = [measured(Windows(text, CONTEXT, stride), size) for size in (1, 7, 64, 1000)]
    for found in ways:
        assert found == pytest.approx(expected, rel=1e-6)
    assert len({number(found["perplexity"]) for found in ways}) == 1


@pytest.mark.parametrize("n", [2, 3, 10, 103])
@pytest.mark.parametrize("count", [1, 4])
def test_along_rows_every_token_is_predicted_from_all_of_its_row(n: int, count: int) -> None:
    text = tokens(n)
    length = math.ceil((n - 1) / count)
    expected = oracle(text, [i % length + 1 for i in range(n - 1)])
    streams = Streams(Windows(text, CONTEXT, CONTEXT), count)
    ways = [measured(streams, size) for size in (1, 3, 64)]
    for found in ways:
        assert found == pytest.approx(expected, rel=1e-6)
    assert len({number(found["perplexity"]) for found in ways}) == 1


def test_a_walk_takes_one_pass_a_chunk() -> None:
    model = Fading()
    measured(Streams(Windows(tokens(41), CONTEXT, CONTEXT), 2), 2, model)
    assert model.passes == 4


def test_smoothing_and_a_mean_count_only_what_is_predicted() -> None:
    text = tokens(23)
    split = Windows(text, CONTEXT, 2)
    smoothed = measured(split, 3, label_smoothing=0.1)
    x, y = split.gather(torch.arange(len(split)))
    log_p = Fading()(x).detach().double().log_softmax(-1)[y != IGNORE_INDEX]
    expected = -(0.9 * log_p.gather(1, y[y != IGNORE_INDEX][:, None]).mean() + 0.1 * log_p.mean())
    assert smoothed["loss"] == pytest.approx(float(expected), rel=1e-6)
    assert smoothed["nll"] == pytest.approx(measured(split, 3)["loss"], rel=1e-9)

    def mean(model: nn.Module, batch: Batch) -> Tensor:
        return cross_entropy(model, batch).sum() / (batch.y != IGNORE_INDEX).sum()

    found = evaluate(Objective(Fading(), mean), {}, split, batch_size=3, device=CPU)
    assert found["loss"] == pytest.approx(measured(split, 3)["loss"], rel=1e-6)


def test_in_training_the_loss_is_the_mean_over_what_is_predicted() -> None:
    batch = Windows(tokens(8), CONTEXT, CONTEXT).gather(torch.arange(2))
    objective = Objective(Fading(), cross_entropy)
    expected = oracle(tokens(8), [i % CONTEXT + 1 for i in range(7)])["nll"]
    assert float(objective(batch).detach()) == pytest.approx(expected, rel=1e-6)


def test_bits_per_byte_compare_tokenizers() -> None:
    split = Windows(tokens(41), CONTEXT, CONTEXT, bytes=100)
    found = measured(split, 7)
    assert found["bits_per_byte"] == pytest.approx(found["nll"] * 40 / (math.log(2) * 100))
    assert "bits_per_byte" not in measured(Windows(tokens(41), CONTEXT, CONTEXT), 7)
    assert measured(Streams(split, 2), 2)["bits_per_byte"] > 0


def test_the_bytes_of_some_windows_are_their_own() -> None:
    # characters of one byte, and at the end of two
    text = "a" * 60 + "é" * 40
    data = from_text("two", text, context=CONTEXT, tokenizer="character")
    split = data.train
    for some in (take_spaced(split, 3), split.take_first(4)):  # type: ignore[attr-defined]
        y = torch.cat([some.gather(torch.tensor([i])).y.flatten() for i in range(len(some))])
        y = y[y != IGNORE_INDEX]
        size = len("".join(data.tokenizer.alphabet[token] for token in y.tolist()).encode())  # type: ignore[union-attr]
        assert bytes_per_token(some) == pytest.approx(size / len(y))
    rows = Streams(split, 2).take_spaced(4)  # type: ignore[arg-type]
    known = torch.cat([batch.y.flatten() for _, batch in rows.walk(2)])
    known = known[known != IGNORE_INDEX]
    assert rows.bytes_per_token == pytest.approx(1 + float((known == 1).float().mean()))


def test_evenly_spaced_samples_stand_for_the_split() -> None:
    split = Windows(tokens(101), CONTEXT, CONTEXT, bytes=100)
    some = take_spaced(split, 3)
    assert len(some) == 3
    batch = some.gather(torch.arange(3))
    assert torch.equal(batch.x, split.gather(torch.tensor([0, 6, 13])).x)
    assert measured(some, 2)["bits_per_byte"] == pytest.approx(measured(some, 2)["nll"] / math.log(2))
    assert take_spaced(split, None) is split and take_spaced(split, 20) is split
    rows = Streams(split, 2)
    assert measured(take_spaced(rows, 4), 2) != measured(rows, 2)
    assert len(take_first(split, 3)) == 3 and take_first(split, 3).to(CPU).gather(torch.arange(3)).x.shape == (
        3,
        CONTEXT,
    )


def test_a_chunk_has_room_for_its_logits() -> None:
    def spec(context: int, vocabulary: int) -> Spec:
        return Spec("language", (context,), vocabulary, vocabulary=vocabulary)

    assert batch_size_for(1000, spec(64, 65)) == 256
    assert batch_size_for(7, spec(64, 65)) == 7
    assert batch_size_for(1000, spec(128, 33278)) * 128 * 33278 * 4 <= 256 << 20
    assert batch_size_for(1000, spec(100_000, 100_000)) == 1
    assert batch_size_for(1000, Spec("classification", (3,), 10, classes=10)) == 1000


def test_rows_need_a_model_that_goes_on() -> None:
    windows = Windows(tokens(41), CONTEXT, CONTEXT)
    data = Data("mine", Spec("language", (CONTEXT,), 7, vocabulary=7), windows, Streams(windows, 2), None, "")
    check_walk(Fading(), data)
    bounded = Fading()
    bounded.context = CONTEXT  # type: ignore[assignment]
    for model in (bounded, nn.Linear(2, 2)):
        with pytest.raises(ConfigError, match=r"Leave dataset\.streams out"):
            check_walk(model, data)


def batches(split: Split, *, size: int = 4, only: int | None = None) -> Batches:
    return Batches(split, size=size, seed=3, device=CPU, only=only)


def test_an_epoch_of_text_draws_anew_and_any_step_can_be_started_at() -> None:
    split = Windows(torch.arange(200), CONTEXT, CONTEXT)
    whole = list(islice(batches(split).start(0), 25))
    assert batches(split).per_epoch == 10
    assert all(torch.equal(x + 1, y) for x, y in whole)
    for step in (1, 9, 10, 17):
        again = islice(batches(split).start(step), 25 - step)
        assert all(torch.equal(a.x, b.x) for a, b in zip(whole[step:], again, strict=True))
    epochs = [torch.cat([x[:, 0] for x, _ in whole[k : k + 10]]) for k in (0, 10)]
    assert all(sorted((e // CONTEXT).tolist()) != list(range(40)) for e in epochs)
    assert not torch.equal(epochs[0].sort().values, epochs[1].sort().values)
    for a, b in zip(islice(batches(Streams(split, 3)).start(0), 12), whole, strict=False):
        assert torch.equal(a.x, b.x)


def test_only_the_same_windows_overfit_and_a_whole_text_is_seen_once() -> None:
    split = Windows(torch.arange(200), CONTEXT, CONTEXT)
    found = [x for x, _ in islice(batches(split, only=2).start(0), 6)]
    assert all(torch.equal(a, b) for a, b in zip(found[:2] * 2, found[2:], strict=True))
    whole = next(batches(split, size=len(split)).start(0))
    assert sorted(whole.y[whole.y != IGNORE_INDEX].tolist()) == list(range(1, 200))


class Kept:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []
        self.content: Checkpoint

    def point(self, step: int, epoch: float, values: dict[str, float]) -> None:
        exact = {name: v for name, v in values.items() if not name.startswith("throughput")}
        self.points.append((step, exact))

    def save(self, content: Checkpoint, best: BestWeights | None) -> None:
        self.content = replace(content, model=loop.clone_state(content.model), state=dict(content.state))


def training(text: Tensor) -> loop.Training:
    objective = Objective(Fading(), cross_entropy)
    optimizer = Descent(SGD(lr=0.3))
    optimizer.init(objective)
    return loop.Training(
        objective=objective,
        batches=batches(Windows(text, CONTEXT, CONTEXT)),
        optimizer=optimizer,
        schedule=lambda step, steps: 1.0,
        plan=Plan(steps=25, per_epoch=10, log_every=5, evaluate_every=10, checkpoint_every=1000),
        seed=3,
        device=CPU,
        validation=Windows(text[:60], CONTEXT, CONTEXT),
        metrics=for_task("language"),
    )


def test_a_resumed_training_on_text_ends_in_the_same_bits() -> None:
    text = tokens(200)
    whole, halves = Kept(), Kept()
    loop.train(training(text), State(), whole)
    seen = iter(range(100))
    loop.train(training(text), State(), halves, stop=lambda: next(seen) >= 13)
    assert halves.content.step == 13
    rest = training(text)
    loop.train(rest, loop.restore(rest, halves.content), halves)
    assert halves.points == whole.points
    assert all(torch.equal(v, halves.content.model[k]) for k, v in whole.content.model.items())
    losses = [values["train/loss"] for _, values in whole.points if "train/loss" in values]
    assert losses[-1] < losses[0]
