"""Data sets of several tensors, and of sequences of several lengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytest import approx
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from dlrun.datasets import Pad, from_datasets, from_nested, from_tensors
from dlrun.datasets.samples.collate import stack
from dlrun.engine.batches import Batches, in_buckets
from dlrun.engine.evaluation import evaluate
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError, DataError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.mse import mse
from dlrun.losses.of_outputs.adapt import adapt
from dlrun.metrics import accuracy
from dlrun.metrics import mse as squared_error
from dlrun.nests.batch import Batch
from dlrun.runs.dry_run.masks import check_mask
from dlrun.types import IGNORE_INDEX, Data

CPU = torch.device("cpu")


def drawn(n: int, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = {"image": torch.randn(n, 1, 4, 4, generator=g), "age": torch.rand(n, generator=g)}
    return x, torch.randint(3, (n,), generator=g)


def batches_of(data: Data, size: int, **given: Any) -> Batches:
    return Batches(data.train, size=size, seed=0, device=CPU, **given)


def first(batches: Batches, n: int, step: int = 0) -> list[Batch]:
    found = batches.start(step)
    return [next(found) for _ in range(n)]


class Sequences(Dataset[Any]):
    """Tokens of 1 to 9, and of each whether it is even; or real values and their doubles."""

    def __init__(self, n: int, real: bool = False) -> None:
        self.n, self.real = n, real

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(i)
        tokens = torch.randint(1, 10, (1 + i % 7,), generator=g)
        return (tokens.double(), 2.0 * tokens.double()) if self.real else (tokens, tokens % 2)


def tagged(n: int = 40, **given: Any) -> Data:
    return from_datasets("tagged", Sequences(n), task="dense", classes=2, collate=Pad(), **given)


class Tagger(nn.Module):
    """Logits [B, T, 2] of each token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x)


def test_the_splits_have_the_samples_given() -> None:
    x, y = drawn(20)
    data = from_nested("mine", (x, y), task="classification", validation_size=5, test_size=0.25)
    assert [len(split) for split in (data.train, data.validation, data.test) if split] == [10, 5, 5]
    seen = [split.gather(torch.arange(5)) for split in (data.train, data.validation, data.test) if split]
    for batch in seen:
        for image, age, label in zip(batch.x["image"], batch.x["age"], batch.y, strict=True):
            i = int((x["image"] == image).flatten(1).all(1).nonzero())
            assert (x["age"][i], y[i]) == (age, label)
    assert data.spec.input_shape == {"image": (1, 4, 4), "age": (1,)}
    assert (data.spec.classes, data.spec.outputs) == (3, 3)
    other = from_nested("mine", (x, 2 - y), task="classification", validation_size=5, test_size=0.25)
    assert other.fingerprint != data.fingerprint


@pytest.mark.parametrize("size", [1, 3, 8, 20])
def test_training_batches_are_slices_of_the_keyed_order(size: int) -> None:
    x, y = drawn(20)
    nested = from_nested("nested", (x, y), task="classification")
    plain = from_tensors("plain", (x["age"], y), task="classification")
    for one, other in zip(first(batches_of(nested, size), 9), first(batches_of(plain, size), 9), strict=True):
        assert torch.equal(one.x["age"], other.x)
        assert torch.equal(one.y, other.y)


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        (({"a": torch.ones(3), "b": torch.ones(4)}, torch.ones(3)), r"x a \[3, 1\], x b \[4, 1\]"),
        (({"a": torch.tensor([1.0, float("nan")])}, torch.ones(2)), "in `a`"),
        ((torch.ones(3),), "expected a pair"),
        (({"a": ["x", "y"]}, torch.ones(2)), "inputs `a`"),
    ],
)
def test_what_does_not_fit_is_named(pair: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        from_nested("mine", pair)


def test_a_task_says_which_targets_it_takes() -> None:
    x, y = drawn(4)
    with pytest.raises(ConfigError, match='task="other"'):
        from_nested("mine", (x, {"a": y}), task="classification")
    with pytest.raises(DataError, match="a class for each element"):
        from_nested("mine", (x, y), task="dense")
    with pytest.raises(DataError, match="0 to 1"):
        from_nested("mine", (x, y[:, None].repeat(1, 2)), task="dense", classes=2)
    with pytest.raises(DataError, match="from_nested"):
        from_tensors("mine", (x, y), task="classification")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_padding_has_no_part_in_a_mean(size: int) -> None:
    data, model = tagged(), Tagger()
    found = evaluate(Objective(model, cross_entropy), {"accuracy": accuracy}, data.train, batch_size=size, device=CPU)
    pairs = [Sequences(40)[i] for i in range(40)]
    x, y = (torch.cat(each) for each in zip(*pairs, strict=True))
    with torch.no_grad():
        logits = model(x)
    assert found["loss"] == approx(float(F.cross_entropy(logits, y)), rel=1e-6)
    assert found["accuracy"] == approx(float((logits.argmax(1) == y).double().mean()))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_real_targets_are_masked(size: int) -> None:
    model = nn.Module()
    model.scale = nn.Parameter(torch.tensor(1.5))
    model.forward = lambda x: model.scale * x  # type: ignore[method-assign]
    data = from_datasets("real", Sequences(40, real=True), task="other", collate=Pad())
    x, y = (torch.cat(each).float() for each in zip(*(Sequences(40, real=True)[i] for i in range(40)), strict=True))
    expected = F.mse_loss(1.5 * x, y)
    objective = Objective(model, mse)
    found = evaluate(objective, {"mse": squared_error}, data.train, batch_size=size, device=CPU)
    assert (found["loss"], found["mse"]) == approx((float(expected), float(expected)), rel=1e-5)
    # the gradient, too, is that of the elements
    [grad] = torch.autograd.grad(objective(data.train.gather(torch.arange(40))), [model.scale])
    [own] = torch.autograd.grad(F.mse_loss(model.scale * x, y), [model.scale])
    assert float(grad) == approx(float(own), rel=1e-5)


def test_a_mask_of_ones_own_leaves_classes_out() -> None:
    logits, y = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([[1, 2, 0], [3, 0, 0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    expected = float(F.cross_entropy(logits[mask], y[mask]))
    batch, identity = Batch(logits, y, mask=mask), nn.Identity()
    assert float(Objective(identity, cross_entropy)(batch)) == approx(expected)
    right, count = accuracy(identity, batch)
    assert (float(right), int(count)) == (float((logits[mask].argmax(1) == y[mask]).sum()), 3)


def test_the_masks_of_samples_are_the_batchs() -> None:
    whole = [Batch(torch.ones(3), torch.ones(3), mask=torch.arange(3) < n) for n in (3, 1)]
    assert stack(whole).mask.tolist() == [[True] * 3, [True, False, False]]  # type: ignore[union-attr]
    for y in (torch.ones(3), torch.ones(3, dtype=torch.int64)):
        rows = [Batch(torch.ones(n), y[:n], mask=torch.arange(n) > 0) for n in (3, 2)]
        assert Pad()(rows).mask.tolist() == [[False, True, True], [False, True, False]]  # type: ignore[union-attr]
    with pytest.raises(DataError, match="some have none"):
        stack([whole[0], Batch(torch.ones(3), torch.ones(3))])


def a_mean(model: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(model(batch.x), batch.y)


def a_mean_each(model: nn.Module, batch: Batch) -> Tensor:
    return (model(batch.x) - batch.y).square().mean(1)


def a_masked_mean(model: nn.Module, batch: Batch) -> Tensor:
    found: Tensor = (model(batch.x) - batch.y)[batch.mask].square().mean()
    return found


def sums(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    return (model(batch.x) - batch.y).square().sum(), batch.y.numel()


def test_a_loss_or_metric_that_counts_padding_is_refused() -> None:
    rows = from_datasets("real", Sequences(40, real=True), task="other", collate=Pad()).train.gather(torch.arange(8))
    targets = {"loss": "lab.loss", "metrics.sums": "lab.sums"}
    for loss in (mse, a_masked_mean):
        check_mask(Objective(nn.Identity(), loss), {"mse": squared_error}, rows, targets)
        with pytest.raises(ConfigError, match=r"metrics\.sums=lab\.sums: padded targets"):
            check_mask(Objective(nn.Identity(), loss), {"sums": sums}, rows, targets)
    for loss in (a_mean, a_mean_each):
        with pytest.raises(ConfigError, match=r"loss=lab\.loss: padded targets"):
            check_mask(Objective(nn.Identity(), loss), {}, rows, targets)


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0])])
def test_a_class_that_a_loss_ignores_is_ignored_beside_padding(weight: Tensor | None) -> None:
    batch, model = tagged().train.gather(torch.arange(8)), Tagger()
    vars(model)["class_axis"] = -1  # of two tokens and two classes torch would take the other
    y = batch.y.where(batch.y > 0, IGNORE_INDEX)
    logits = model(batch.x).movedim(-1, 1)
    expected = F.cross_entropy(logits, y, weight=weight).item()
    objective = Objective(model, adapt(nn.CrossEntropyLoss(weight=weight, ignore_index=0)))
    assert objective(batch).item() == approx(expected)
    for size in (1, 3, 8):
        data = tagged(8).train
        assert evaluate(objective, {}, data, batch_size=size, device=CPU)["loss"] == approx(expected, rel=1e-6)


def test_padding_that_could_not_be_left_out_is_refused() -> None:
    rows = [(torch.ones(1 + i), {"a": torch.ones(1 + i), "b": torch.tensor(1.0)}) for i in range(4)]
    with pytest.raises(ConfigError, match=r"the target `a` has real values.*collate=FUNCTION"):
        from_datasets("rows", rows, task="other", collate=Pad())
    # a vector beside a sequence of tags: the sequences have to be named
    rows = [(torch.ones(1 + i), {"box": torch.ones(4), "tags": torch.ones(1 + i).long()}) for i in range(4)]
    with pytest.raises(ConfigError, match=r'the target `box` has real values.*Pad\(names=\(…\)\), with "tags"'):
        from_datasets("rows", rows, task="other", collate=Pad())
    data = from_datasets("rows", rows, task="other", collate=Pad(names=("", "tags")))
    assert data.train.gather(torch.arange(4)).y["box"].shape == (4, 4)


def test_targets_of_a_regression_are_no_sequences() -> None:
    rows = [(torch.ones(1 + i % 3, 2), torch.tensor([1.0, i])) for i in range(6)]
    for given in ({"task": "regression", "collate": Pad()}, {"task": "other", "collate": Pad(targets=False)}):
        batch = from_datasets("rows", rows, **given).train.gather(torch.arange(6))
        assert batch.mask is None
        assert torch.equal(batch.y, torch.stack([y for _, y in rows]))


def test_the_mask_of_the_inputs_is_an_entry() -> None:
    data = from_datasets("tagged", Sequences(7), task="dense", classes=2, collate=Pad(value=-1, mask="real"))
    batch = data.train.gather(torch.tensor([6, 1]))
    assert batch.x["real"].tolist() == [[True] * 7, [True] * 2 + [False] * 5]
    assert (batch.x["x"] == -1).tolist() == (~batch.x["real"]).tolist()
    assert (batch.y == IGNORE_INDEX).tolist() == (~batch.x["real"]).tolist()
    assert data.spec.input_shape == {"x": (None,), "real": (None,)}


def test_rows_are_taken_by_name_and_put_together_by_an_own_function() -> None:
    rows = [{"a": i, "b": [i, i + 1], "label": i % 2, "text": "unused"} for i in range(6)]
    data = from_datasets("rows", rows, task="classification", inputs=["a", "b"], targets="label", classes=2)
    batch = data.train.gather(torch.tensor([4, 1]))
    assert (batch.x["b"].tolist(), batch.y.tolist()) == ([[4, 5], [1, 2]], [0, 1])

    def collate(samples: list[Any]) -> dict[str, Any]:
        return {
            "x": torch.tensor([[s["a"], *s["b"]] for s in samples]),
            "y": torch.tensor([s["label"] for s in samples]),
        }

    own = from_datasets("rows", rows, task="other", inputs="x", targets="y", collate=collate)
    assert own.train.gather(torch.tensor([3])).x.tolist() == [[3, 3, 4]]
    with pytest.raises(DataError, match="inputs="):
        from_datasets("rows", rows, task="classification", classes=2)
    with pytest.raises(DataError, match="has no `c`"):
        from_datasets("rows", rows, task="classification", classes=2, inputs="c", targets="label")


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_put_the_same_batches_together(workers: int) -> None:
    rows = [(({"a": torch.ones(1 + i % 3) * i},), torch.tensor(float(i)), 1.0 + i) for i in range(9)]
    data = from_datasets("rows", rows, task="other", collate=Pad(mask=None, names=("0.a",)))
    batches = batches_of(data, 4, workers=workers)
    for batch, index in zip(first(batches, 3), batches.indices(0), strict=True):
        expected = data.train.gather(index)
        assert torch.equal(batch.x[0]["a"], expected.x[0]["a"])
        assert batch.weight is not None
        assert batch.weight.tolist() == [1.0 + i for i in index.tolist()] == (batch.y + 1).tolist()


def test_unlike_samples_are_told_apart() -> None:
    with pytest.raises(DataError, match=r"collate=Pad\(\)"):
        from_datasets("ragged", Sequences(9), task="other").train.gather(torch.tensor([0, 5]))


def test_buckets_hold_like_lengths_and_lose_no_sample() -> None:
    lengths, draw = torch.tensor([i * 37 % 101 for i in range(101)]), torch.Generator().manual_seed(0)
    order = torch.randperm(101, generator=draw)
    found = in_buckets(order, lengths, 8, 4, draw)
    assert found.sort().values.tolist() == list(range(101))
    spread = [int(lengths[batch].max() - lengths[batch].min()) for batch in found.split(8)]
    assert sum(spread) < sum(int(lengths[b].max() - lengths[b].min()) for b in order.split(8)) / 2
    # the samples of a group of batches stay in it
    assert [set(a.tolist()) for a in found.split(32)] == [set(b.tolist()) for b in order.split(32)]


def test_buckets_are_a_function_of_the_step() -> None:
    lengths = [len(Sequences(40)[i][0]) for i in range(40)]
    batches = batches_of(tagged(lengths=lengths, bucket=3), 4)
    whole = first(batches, 25)
    for step in (1, 9, 10, 17):
        assert torch.equal(first(batches, 1, step)[0].x, whole[step].x)


WEIGHT = torch.tensor([1.0, 0.0, 2.5, 1.0, 3.0, 0.5, 1.0])


@pytest.mark.parametrize("size", [2, 7])
def test_weighted_samples_have_their_part_in_the_mean(size: int) -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(7, 3, generator=g), torch.arange(7) % 2
    data, model = from_tensors("weighted", (x, y, WEIGHT), task="classification"), nn.Linear(3, 2)
    objective = Objective(model, cross_entropy)
    each = F.cross_entropy(model(x), y, reduction="none")
    expected = (each * WEIGHT).sum() / WEIGHT.sum()
    assert evaluate(objective, {}, data.train, batch_size=size, device=CPU)["loss"] == approx(expected.item(), rel=1e-6)
    found = torch.autograd.grad(objective(data.train.gather(torch.arange(7))), objective.params)
    for one, other in zip(found, torch.autograd.grad(expected, objective.params), strict=True):
        torch.testing.assert_close(one, other)
    assert data.fingerprint != from_tensors("weighted", (x, y), task="classification").fingerprint


def test_weights_that_are_none_are_refused() -> None:
    x, y = torch.randn(7, 3), torch.arange(7) % 2
    for wrong in (WEIGHT[:3], -WEIGHT, WEIGHT * 0, WEIGHT / 0):
        with pytest.raises(DataError, match="weights"):
            from_tensors("weighted", (x, y, wrong), task="classification")
    with pytest.raises(DataError, match="has no weights"):
        from_tensors("weighted", (x, y, WEIGHT), (x, y), task="classification")


def test_a_mean_cannot_be_weighted() -> None:
    with pytest.raises(ConfigError, match="one value a sample"):
        Objective(nn.Identity(), lambda model, batch: batch.x.mean())(
            Batch(torch.ones(2), torch.ones(2), torch.ones(2))
        )


def test_pictures_have_the_classes_on_axis_1() -> None:
    y = torch.randint(3, (2, 4, 5), generator=torch.Generator().manual_seed(0))
    y[0, 0] = IGNORE_INDEX
    logits = torch.randn(2, 3, 4, 5)
    batch = Batch(logits, y)
    assert float(cross_entropy(nn.Identity(), batch)) == approx(float(F.cross_entropy(logits, y)))
    assert float(cross_entropy(nn.Identity(), Batch(logits.movedim(1, -1), y))) == approx(
        float(F.cross_entropy(logits, y))
    )
