"""What comes into a data set is understood, or refused with its split and sample."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from dlrun.datasets import from_datasets, from_tensors
from dlrun.datasets.tensors.made_by_hand import check_made_by_hand
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.errors import ConfigError, DataError
from dlrun.types import Batch, Data, Spec
from tests.conftest import Called
from tests.facts import refuses, says

DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(20, 3)), np.arange(20) % 2


def made(x: Any, y: Any = Y, **options: Any) -> Data:
    return from_tensors("mine", (x, y), task="classification", **options)


@pytest.mark.parametrize(
    "x",
    [
        X,
        X.tolist(),
        np.asfortranarray(X),
        X[::-1][::-1],
        X.astype(">f8"),
        X.astype(np.longdouble),
        np.ma.masked_array(X, mask=False),
        torch.from_numpy(X),
        torch.from_numpy(X.T.copy()).T,
        torch.from_numpy(X).requires_grad_(),
    ],
    ids=range(10),
)
def test_an_array_of_any_kind_is_the_same_data(x: Any) -> None:
    assert torch.equal(made(x).train.x, torch.from_numpy(X).float())
    assert made(x).fingerprint == made(X).fingerprint


def test_mirrored_and_read_only_arrays_are_read_as_they_look() -> None:
    assert torch.equal(made(X[::-1]).train.x, torch.from_numpy(X[::-1].copy()).float())
    frozen = X.copy()
    frozen.flags.writeable = False
    assert torch.equal(made(frozen, np.flip(Y)).train.y, torch.from_numpy(np.flip(Y).copy()))
    assert made(np.full((20, 2), 60000, np.uint16)).train.x.max() == 60000


def test_the_columns_of_a_table_are_matched_in_every_split() -> None:
    import pandas as pd

    table = pd.DataFrame(X, columns=["a", "b", "c"])
    data = from_tensors("mine", (table, pd.Series(Y)), (table[["c", "a", "b"]], Y), task="classification")
    assert data.validation is not None
    assert torch.equal(data.train.x, data.validation.x)
    assert data.inputs is not None and data.inputs.columns == ("a", "b", "c")
    assert data.inputs.high == pytest.approx(tuple(X.max(0)))
    with pytest.raises(DataError, match=r"columns a, b.*a, b, c"):
        from_tensors("mine", (table, Y), (table[["a", "b"]], Y), task="classification")
    for y, names in ((table[["b"]], ("b",)), (table["b"], ("b",)), (table[["b", "a"]], ("b", "a")), (X[:, :2], ())):
        assert from_tensors("mine", (table, y), task="regression").spec.target_names == names
    with pytest.raises(ConfigError, match="2 names"):
        made(X, columns=["a", "b"])


def holed(value: float) -> np.ndarray:
    x = X.copy()
    x[7, 2] = value
    return x


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        (lambda: made({"a": X}), ["training split", "dict", "torch.Tensor|numpy"]),
        (lambda: made(X.astype(str)), ["numpy array of numbers"]),
        (lambda: made(X * 1j), ["type complex128"]),
        (lambda: made(torch.from_numpy(X) * 1j), ["complex"]),
        (lambda: made(torch.eye(20).to_sparse()), ["to_dense"]),
        (lambda: made(np.ma.masked_array(X, mask=holed(9) == 9)), ["masked"]),
        (lambda: from_tensors("mine", X, task="classification"), ["a pair of tensors"]),
        (lambda: made(holed(np.nan)), ["Sample 7 of the training split", "nan at [2]", "the data"]),
        (lambda: made(holed(1e39)), ["Sample 7 of the training split", "1e+39 at [2]"]),
        (
            lambda: from_tensors("mine", (X, Y), (holed(np.inf), Y), task="classification"),
            ["Sample 7 of the validation"],
        ),
        (
            lambda: from_tensors("mine", (X, X[:, 0]), (X, holed(np.nan)[:, 2]), task="regression"),
            ["Sample 7", "target"],
        ),
        (lambda: made(X, Y + 1), ["run from 1 to 2", "y - 1", "classes=3"]),
        (lambda: made(X, Y * 2), ["run from 0 to 2", "1 of them", "classes=3"]),
        (lambda: made(X, Y - 1), ["run from -1 to 0"]),
        (lambda: made(X, Y + 0.5), ["whole numbers"]),
        (lambda: made(X, Y.astype(float)), ["y.long()"]),
        (lambda: made(X, np.eye(2)[Y]), ["y.argmax(1)"]),
        (lambda: made(X, Y[:, None]), ["y[:, 0]"]),
        (lambda: from_tensors("mine", (X, Y), (X, Y + 1), task="classification"), ["sample 1 of the validation split"]),
        (lambda: from_tensors("mine", (X, Y), (X[:, :2], Y), task="classification"), ["validation", "[2]", "[3]"]),
        (lambda: from_tensors("mine", (X, Y), None, (X.astype(int), Y), task="classification"), ["test", "int64"]),
    ],
    ids=range(21),
)
def test_what_would_be_bent_is_refused(make: Callable[[], Data], facts: list[str]) -> None:
    with pytest.raises(DataError) as refused:
        make()
    says(str(refused.value), *(fact for fact in facts if "|" not in fact))


def test_another_layout_in_another_split_is_refused_with_what_to_type() -> None:
    x = torch.rand(20, 3, 8, 8)
    with pytest.raises(DataError) as refused:
        from_tensors("mine", (x, Y), None, (x.movedim(1, -1), Y), task="classification")
    says(str(refused.value), "test split", "[8, 8, 3]", "[3, 8, 8]", "x.moveaxis(-1, -3)")
    assert torch.equal(torch.as_tensor(x.movedim(1, -1)).moveaxis(-1, -3), x)


def test_channels_that_seem_last_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    for shape, said in (((20, 8, 8, 3), True), ((20, 8, 8, 1), True), ((20, 3, 8, 8), False), ((20, 8, 8, 8), False)):
        made(np.ones(shape))
        assert ("x.moveaxis(-1, -3)" in capsys.readouterr().err) == said
    stream = torch.utils.data.TensorDataset(torch.zeros(9, 8, 8, 3), torch.arange(9) % 2)
    from_datasets("mine", stream, task="classification", classes=2)
    assert "x.moveaxis(-1, -3)" in capsys.readouterr().err


def test_classes_without_samples_are_fine_if_their_number_is_said() -> None:
    assert made(X, Y * 2, classes=3).spec.classes == 3
    assert made(X, Y + 1, class_names=["none", "a", "b"]).spec.classes == 3


def test_splits_of_another_scale_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    x = DRAW.uniform(0, 255, (40, 3))
    from_tensors("mine", (x, np.arange(40) % 2), None, (x / 255, np.arange(40) % 2), task="classification")
    says(capsys.readouterr().err, "test split", "training split", "scaled alike")
    from_tensors("mine", (x, np.arange(40) % 2), None, (x / 2, np.arange(40) % 2), task="classification")
    assert not capsys.readouterr().err


def test_pixels_are_two_values() -> None:
    x = np.ones((20, 1, 4, 4))
    data = made(x, pixels=(255, 0))
    assert data.inputs is not None and (data.inputs.pixels, data.inputs.low) == ((255, 0), (0,))
    for pixels in ((0,), (1, 1), (0, np.nan), (0, 1, 2)):
        with pytest.raises(ConfigError, match="black and white"):
            made(x, pixels=pixels)


def test_numbered_columns_are_no_names() -> None:
    import pandas as pd

    data = made(pd.DataFrame(X))
    assert data.inputs is not None and data.inputs.columns == ()


class Stream(Dataset):
    """Ten samples, of which the fourth is `odd`."""

    def __init__(self, odd: Any = None) -> None:
        self.odd = odd

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> Any:
        return self.odd if i == 4 and self.odd is not None else (np.full((2, 3), i, np.uint8)[::-1], i % 2)


GOOD = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("odd", "facts"),
    [
        ((GOOD / 0, 0), ["of its inputs 6 of 6 are NaN", "the data"]),
        ((torch.zeros(3, 2), 0), ["[3, 2]", "[2, 3]"]),
        ((GOOD, 0.9), ["0.9", "whole number"]),
        ((GOOD, 2), ["class", "is 2", "0 to 1"]),
        ((GOOD, -1), ["is -1"]),
        ((GOOD, [0, 1]), ["whole number"]),
        (("text", 0), ["str"]),
        ((None, 0), ["NoneType"]),
    ],
    ids=range(8),
)
def test_a_sample_of_a_stream_is_checked_as_it_comes(odd: Any, facts: list[str]) -> None:
    data = from_datasets("mine", Stream(), Stream(odd), task="classification", classes=2)
    assert data.train.gather(torch.arange(10)).x.shape == (10, 2, 3)
    assert data.validation is not None
    with pytest.raises(DataError) as refused:
        data.validation.gather(torch.tensor([0, 4]))
    says(str(refused.value), "ample 4 of Stream", *facts)


def test_the_first_samples_of_a_stream_are_looked_at_before_a_run() -> None:
    class Last(Stream):
        def __getitem__(self, i: int) -> Any:
            return torch.zeros(2, 4), 0

    with pytest.raises(DataError, match=r"Sample 0 of Last, in the test split"):
        from_datasets("mine", Stream(), None, Last(), task="classification", classes=2)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_ends_with_the_sample_s_number(here: Path, call: Callable[..., Called], workers: int) -> None:
    name = f"holes_{workers}_{random.randrange(10**9)}"
    (here / f"{name}.py").write_text(
        "import torch\nfrom dlrun.datasets import from_datasets\n"
        "class Holes(torch.utils.data.Dataset):\n"
        "    def __len__(self): return 40\n"
        "    def __getitem__(self, i): return torch.full((4,), float('nan') if i == 17 else 1.0), i % 2\n"
        "def data(): return from_datasets('holes', Holes(), task='classification', classes=2)\n"
    )
    (here / "conf" / "dataset").mkdir(parents=True)
    (here / "conf" / "dataset" / "holes.yaml").write_text(f"_target_: {name}.data\n")
    quick = ("tracking.enabled=false", "trainer.figures=false", "trainer.batch_size=8", "trainer.epochs=1")
    done = call("train", "dataset=holes", f"trainer.workers={workers}", *quick)
    assert done.code in (1, 2)  # in the training, or already in what is tried before it
    assert "Traceback" not in done.err
    says(done.err, "Sample 17 of Holes, in the training split", "the data")
    assert "learning rate" not in done.err


def test_numpy_and_labels_from_one_by_command(here: Path, call: Callable[..., Called]) -> None:
    (here / "labels_from_one.py").write_text(
        "import numpy as np\nfrom dlrun.datasets import from_tensors\n"
        "def data(): return from_tensors('mine', (np.ones((9, 2)), np.arange(9) % 3 + 1), task='classification')\n"
    )
    (here / "conf" / "dataset").mkdir(parents=True)
    (here / "conf" / "dataset" / "mine.yaml").write_text("_target_: labels_from_one.data\n")
    refuses(call("train", "dataset=mine"), "run from 1 to 3", "y - 1")


def by_hand(x: torch.Tensor, y: torch.Tensor) -> Data:
    whole = TensorSplit(torch.zeros(6, 3), torch.arange(6) % 2)
    return Data("mine", Spec("classification", (3,), 2, 2), whole, TensorSplit(x, y), None, "print")


class Ends:
    """Ten samples, of which the last is odd."""

    def __len__(self) -> int:
        return 10

    def gather(self, index: torch.Tensor) -> Batch:
        return Batch((index[:, None] / (9 - index)[:, None]).expand(-1, 3), index % 2)

    def to(self, device: torch.device) -> Ends:
        return self


def test_data_made_by_hand_is_compared_with_its_spec() -> None:
    x, y = torch.zeros(4, 3), torch.tensor([0, 1, 0, 1])
    check_made_by_hand(by_hand(x, y))
    for data, facts in (
        (by_hand(x[:, :2], y), ["validation split", "[4, 2]", "[N, 3]"]),
        (by_hand(x, y * 2), ["Sample 1 of the validation split", "class 2", "0 to 1"]),
        (by_hand(x / 0, y), ["Sample 0 of the validation split", "nan"]),
        (replace(by_hand(x, y), test=Ends()), ["Sample 1 of the test split", "inf"]),
    ):
        with pytest.raises(DataError) as refused:
            check_made_by_hand(data)
        says(str(refused.value), *facts)


def test_a_task_that_is_none_is_named(here: Path, call: Callable[..., Called]) -> None:
    (here / "waves.py").write_text(
        "import torch\nfrom dlrun.datasets import from_tensors\n\n\ndef waves():\n"
        "    return from_tensors('waves', (torch.rand(9, 2), torch.rand(9)), task='regresion')\n"
    )
    (here / "conf" / "dataset").mkdir(parents=True)
    (here / "conf" / "dataset" / "waves.yaml").write_text("_target_: waves.waves\n")
    refuses(call("train", "dataset=waves", "loss=mse"), "`regresion`", "Did you mean `regression`?")
