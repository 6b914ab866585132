"""The table of predictions against the model's own answers."""

from __future__ import annotations

import ast
import csv
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

import dlrun as package
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.observers.predictions import Predictions
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from dlrun.tokenizers.character import Character
from dlrun.tokenizers.pair import PairTokenizer
from dlrun.types import IGNORE_INDEX, Spec
from tests.conftest import Called
from tests.facts import refuses

Call = Callable[..., Called]
QUICK = ("tracking.enabled=false", "trainer.figures=false", "evaluation.test=never", "+observer=predictions")


def table(run: RunDir) -> list[dict[str, str]]:
    with (run.path / "observers" / "predictions" / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_classes_have_their_prediction_and_probability(here: Path, call: Call) -> None:
    assert call("train", *QUICK, "trainer.epochs=2", "observers.predictions.samples=[3,150]").code == 0
    run = package.load(all_runs()[-1].id)
    rows = table(run.folder)
    assert [(row["step"], row["epoch"], row["sample"]) for row in rows] == [
        ("21", "1", "3"),
        ("21", "1", "150"),
        ("42", "2", "3"),
        ("42", "2", "150"),
    ]
    assert run.data.validation is not None
    x, y = run.data.validation.gather(torch.tensor([3, 150]))
    with torch.no_grad():
        shares, found = run.model(x).softmax(1).max(1)
    # the best weights are the last
    assert run.summary["best_step"] == 42
    assert [int(row["target"]) for row in rows[2:]] == y.tolist()
    assert [int(row["prediction"]) for row in rows[2:]] == found.tolist()
    assert [float(row["confidence"]) for row in rows[2:]] == pytest.approx(shares.tolist(), abs=1e-3)
    assert (run.folder.figures / "predictions.png").stat().st_size > 5_000


def test_a_resumed_run_goes_on_with_its_table(here: Path, call: Call) -> None:
    assert call("train", *QUICK, "trainer.epochs=2").code == 0
    run = all_runs()[-1]
    assert call("resume", run.id, "trainer.epochs=3").code == 0
    assert [row["step"] for row in table(run)] == ["21"] * 16 + ["42"] * 16 + ["63"] * 16


class Named(NamedTuple):
    """Inputs of two tensors."""

    a: Tensor
    b: Tensor


def test_scaled_targets_of_named_inputs_are_shown_in_their_own_unit(tmp_path: Path) -> None:
    ones = torch.ones(3, 1)
    spec = Spec("regression", ((1,), (1,)), 1, target_scale=((100.0,), (10.0,)))
    # a view of a run, as far as the observer asks
    run: Any = SimpleNamespace(
        validation=TensorSplit(Named(ones, 2 * ones), ones),
        model=lambda: nullcontext(lambda x: x.a + x.b),
        spec=spec,
        tokenizer=None,
        device=torch.device("cpu"),
        step=1,
        epoch=1.0,
        resumed=False,
        folder=tmp_path,
    )
    observer = Predictions(samples=2)
    observer.on_start(run)
    observer.on_evaluation(run)
    assert [(row.target, row.prediction) for row in observer.table[1]] == [("110", "130")] * 2


def test_numbers_have_rows_too(here: Path, call: Call) -> None:
    given = ("dataset=polynomial", "model=polynomial", "loss=mse", "optimizer=least_squares")
    done = call("train", *QUICK, *given, "trainer.batch_size=null", "trainer.steps=1", "trainer.evaluate_every=1")
    assert done.code == 0, done.err
    assert "observers.predictions" not in done.err, done.err
    run = package.load(all_runs()[-1].id)
    assert run.data.validation is not None
    x, y = run.data.validation.gather(torch.arange(len(run.data.validation)))
    with torch.no_grad():
        expected = run.model(x)
    rows = table(run.folder)
    for column, values in (("input", x), ("target", y), ("prediction", expected)):
        assert [float(row[column]) for row in rows] == pytest.approx(values.reshape(-1).tolist(), rel=1e-3)
    assert {row["confidence"] for row in rows} == {""}


def test_a_class_for_each_element_has_the_share_that_is_right(tmp_path: Path) -> None:
    x, y = torch.rand(3, 1, 4, 4), torch.arange(3 * 16).reshape(3, 4, 4) % 3
    y[:, 0] = IGNORE_INDEX
    answers = y.clamp(min=0)
    answers[1, 1] = (y[1, 1] + 1) % 3
    logits = F.one_hot(answers, 3).movedim(-1, 1).float()
    split = TensorSplit(x, y)
    figures: list[Figure] = []
    spec = Spec("dense", (1, 4, 4), outputs=3, classes=3, class_names=("a", "b", "c"))
    run: Any = SimpleNamespace(
        validation=split, device="cpu", spec=spec, tokenizer=None, folder=tmp_path, step=5, epoch=1.0, resumed=False
    )
    run.model, run.save_figure = lambda: nullcontext(lambda _: logits), figures.append
    observer = Predictions()
    observer.on_start(run)
    observer.on_evaluation(run)
    observer.on_end(run)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["prediction"] for row in rows] == ["100.0% right", "66.7% right", "100.0% right"]
    assert rows[0]["target"] == "b c a b c a b c …"
    # a picture and its classes in each row
    assert len(figures[0].axes[0].images) == 6


def test_pairs_of_texts_are_words(tmp_path: Path) -> None:
    pair = PairTokenizer(Character("ab"), Character("cd"))
    x = torch.nn.utils.rnn.pad_sequence([torch.tensor(pair.encode(text)) for text in ("ab", "b")], batch_first=True)
    y = torch.tensor([pair.encode_target("cd"), [*pair.encode_target("d"), IGNORE_INDEX]])
    split = TensorSplit({"source": x, "shifted": y.clamp(min=0)}, y)
    run: Any = SimpleNamespace(
        validation=split, device="cpu", spec=Spec("dense", (), 5), tokenizer=pair, folder=tmp_path, step=5, epoch=1.0
    )

    class Answers(torch.nn.Module):
        def forward(self, x: Any) -> Tensor:
            return F.one_hot(y.clamp(min=0), 5).float()

        def generate(self, source: Tensor) -> Tensor:
            return torch.tensor([pair.encode_target("dd"), pair.encode_target("cc")])

    run.model, run.save_figure, run.resumed = lambda: nullcontext(Answers()), lambda figure: None, False
    observer = Predictions()
    for hook in (observer.on_start, observer.on_evaluation, observer.on_end):
        hook(run)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["input"], row["target"], row["prediction"]) for row in rows] == [("ab", "cd", "dd"), ("b", "d", "cc")]


def test_a_text_has_the_token_after_each_window(here: Path, call: Call) -> None:
    (here / "book.txt").write_text("the cat sat on the mat, and the dog lay by the log. " * 200)
    given = ("dataset=text", "dataset.path=book.txt", "dataset.context=16", "model=lstm", "trainer.steps=2")
    done = call("train", *QUICK, *given, "trainer.evaluate_every=2", "dataset.tokenizer=character")
    assert done.code == 0, done.err
    assert "observers.predictions" not in done.err, done.err
    text = (here / "book.txt").read_text()
    rows = table(all_runs()[-1])
    assert len(rows) == 16
    for row in rows:
        window, target = ast.literal_eval(row["input"]), ast.literal_eval(row["target"])
        assert window + target in text
        assert 0 < float(row["confidence"]) <= 1


@pytest.mark.parametrize(
    ("given", "fact"),
    [
        ("observers.predictions.samples=[3,200]", "0 to 199"),
        ("observers.predictions.samples=0", "samples=16"),
        ("dataset.validation_size=0", "dataset.validation_size"),
    ],
)
def test_mistakes(here: Path, call: Call, given: str, fact: str) -> None:
    refuses(call("train", *QUICK, "trainer.steps=2", given), fact)
