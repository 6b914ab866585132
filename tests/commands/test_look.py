"""`dlrun data NAME --look`: counts against numpy, and a figure."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlrun.commands.data.lines import lines, see
from dlrun.commands.data.pictures import draw
from dlrun.datasets import from_datasets, from_nested, from_tensors, from_text
from dlrun.datasets.digits import digits
from dlrun.types import IGNORE_INDEX, Data
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]


def said(data: Data) -> str:
    return "\n".join(lines(data, see(data)))


def test_it_counts_the_classes_of_each_split_and_draws_them(call: Call, here: Path) -> None:
    done = call("data", "digits", "dataset.validation_size=100", "--look")
    assert done.code == 0, done
    data = digits(validation_size=100)
    assert data.validation is not None
    y = data.validation.gather(torch.arange(100)).y.numpy()
    for label, count in enumerate(np.bincount(y)):
        row = next(line for line in done.out.splitlines() if line.split()[:1] == [str(label)])
        assert row.split()[3:5] == [str(count), f"({count / 100:.1%})"]
    says(done.out, "1,397 training, 100 validation, 300 test", "uint8 [1, 8, 8], 0 to 16", "no sample is in two splits")
    with Image.open(here / "outputs" / "data" / "digits.png") as figure:
        # ten rows of eight pictures
        assert figure.height > figure.width > 500
    assert "outputs/data/digits.png" in done.out


def test_what_is_repeated_shared_or_missing_is_counted() -> None:
    x = torch.arange(40.0).view(20, 2)
    x[1], x[2], x[15], x[:, 1] = x[0], x[0], x[3], 7
    y = torch.arange(20) % 2
    other = (x[[4, 4]], torch.tensor([0, 0]))
    data = from_tensors("mine", (x, y), (x[16:] + 0.5, y[16:]), other, task="classification", normalise=True)
    text = said(data)
    says(text, "3 of 20 training samples (1 input with different labels); 1 of 2 test samples")
    says(text, "2 of 2 test samples have the input of one in training", "1 of 2 inputs have one value")
    says(text, "test has no sample of 1", "float32 [2], 0 to 38")
    assert float(np.asarray(x[:, 0]).mean()) == float(
        next(r for r in text.splitlines() if r.split()[:1] == ["x0"]).split()[2]
    )


def test_a_data_set_that_is_read_is_looked_at_in_part() -> None:
    samples = [(torch.tensor([float(i)]), torch.tensor([2.0 * i])) for i in range(3000)]
    data = from_datasets("read", samples, task="regression", validation_size=0)  # type: ignore[arg-type]
    says(said(data), "2,000 samples each of training", "0 to 2999", "y 0")
    assert draw(data, see(data)) is not None


def test_rare_classes_and_text_have_their_lines() -> None:
    y = torch.tensor([0] * 90 + [1] * 10)
    rare = from_tensors("rare", (torch.randn(100, 3, 1, 1), y), task="classification", class_names=["no", "yes"])
    says(said(rare), "no has 90 samples, yes 10", "right for 90.0%")
    text = from_text("text", "to be or not to be " * 20, context=8, validation_size=0.2)
    says(said(text), "vocabulary 7", "begins 'to be or not", "validation characters begin 64 that are in training")
    assert draw(text, see(text)) is not None


def test_the_columns_of_a_table_are_those_of_its_file(call: Call, here: Path) -> None:
    rows = [[i, ["Rome", "Bern", "Oslo"][i % 3 if i < 8 else 0], "" if i == 4 else 10 * i, i % 2] for i in range(12)]
    with (here / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["n", "city", "income", "y"], *rows])
    given = ["dataset.path=t.csv", "dataset.target=y", "dataset.test_size=0", "dataset.leave_out=[n]"]
    out = call("data", "table", *given, "dataset.validation_size=0", "dataset.missing=indicator", "--look").out
    incomes = [10.0 * i for i in range(12) if i != 4]
    row = next(line.split() for line in out.splitlines() if line.split()[:1] == ["income"])
    assert [float(cell) for cell in row[1:]] == pytest.approx([0, np.mean(incomes), 110, np.std(incomes)], rel=1e-5)
    says(out, "city 3 values: Rome 7, Bern 3, Oslo 2", "1 value in 1 sample of training are NaN", "0 6 (50.0%)")
    filled = call("data", "table", *given, "dataset.missing=mean", "--look").out
    says(filled, "filled by dataset.missing=mean", "missing in income (1)", "outputs/data/table-t.png")


def test_targets_have_their_names_and_units_and_dates_are_dates(call: Call, here: Path) -> None:
    rows = [f"2026-0{1 + i % 9}-15,{50 * i},{i % 4}" for i in range(30)]
    (here / "t.csv").write_text("day,income,children\n" + "\n".join(rows))
    given = [
        "dataset.path=t.csv",
        "dataset.target=[income,children]",
        "dataset.dates=[day]",
        "dataset.scale_targets=true",
    ]
    done = call("data", "table", *given, "dataset.validation_size=0", "dataset.test_size=0", "--look")
    says(done.out, "targets income, children", "day 2026-01-15", "2026-09-15", " days")
    row = next(line.split() for line in done.out.splitlines() if line.split()[:1] == ["income"])
    assert [float(cell) for cell in row[1:]] == pytest.approx([0, 725, 1450, 50 * np.std(np.arange(30))], rel=1e-4)


def test_nests_and_classes_of_elements_are_counted_as_what_they_are() -> None:
    y = torch.tensor([0, 0, 1]).repeat(10)
    nest = from_nested("nest", ({"scan": torch.randn(30, 1, 8, 8), "age": torch.randn(30)}, y), task="classification")
    says(said(nest), "scan [1, 8, 8], age [1]", "0 20 (66.7%)")
    assert draw(nest, see(nest)) is None
    masks = torch.full((6, 4, 4), 1)
    masks[:, 0], masks[:, 1] = 0, IGNORE_INDEX
    dense = from_nested("dense", (torch.randn(6, 1, 4, 4), masks), task="dense", classes=2)
    says(said(dense), "0 24 (33.3%)", "1 48 (66.7%)")
    assert draw(dense, see(dense)) is not None
    flat = from_tensors("values", (torch.randn(9, 3), torch.randn(9, 2)), task="regression")
    says(said(flat), "y1", "x2", "float32 [3]")


def test_a_mistake_is_said(call: Call, here: Path) -> None:
    refuses(call("data", "--look"), "dlrun data digits --look")
    refuses(call("data", "digits", "dataset.sized=3", "--look"), "dataset.sized")
    refuses(call("data", "digts", "--look"), "digts", "digits")
    (here / "t.csv").touch()
    refuses(call("data", "t.csv", "--look"), "dlrun data table dataset.path=t.csv dataset.target=COLUMN --look")
