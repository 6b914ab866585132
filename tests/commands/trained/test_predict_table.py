"""`dlrun predict` of a run that learned from a table: raw columns in, answers out."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from dlrun.datasets.table import table
from dlrun.runs.reload.predictor import load_predictor
from dlrun.storage.lookup import all_runs
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
QUICK = ("trainer.epochs=2", "tracking.enabled=false", "trainer.figures=false")
TABLE = ("dataset=table", "dataset.path=t.csv")


@pytest.fixture
def rows(here: Path) -> pd.DataFrame:
    draw = random.Random(0)
    frame = pd.DataFrame(
        {
            "size": [draw.gauss(5, 2) for _ in range(300)],
            "colour": [draw.choice(["red", "blue", "a,b"]) for _ in range(300)],
            "sort": [draw.choice(["good", "bad", "none such"]) for _ in range(300)],
        }
    )
    frame.loc[::7, "size"] = None
    frame.to_csv(here / "t.csv", index=False)
    return frame


def test_answers_to_raw_rows_are_those_to_the_prepared_ones(rows: pd.DataFrame, here: Path, call: Call) -> None:
    done = call("train", *TABLE, "dataset.target=sort", "dataset.missing=indicator", *QUICK)
    assert done.code == 0, done.err
    says(done.out, "numbers size; categories colour (3)", "sort, 3 classes (bad, good, none such)")
    run = all_runs()[-1]
    assert run.summary().data["columns"].startswith("numbers size")
    split = {"validation_size": 0, "test_size": 0}
    data = table(path="t.csv", target="sort", missing="indicator", **split)
    asked = load_predictor(run)
    # in another order, with a column too many, and as Parquet
    rows[["colour", "sort", "size"]].to_csv(here / "new.csv", index=False)
    rows.to_parquet(here / "new.parquet")
    answers = call("predict", run.id, "new.csv")
    says(answers.err, "1 column left out: sort")
    assert answers.code == 0 and answers.out == call("predict", run.id, "new.parquet").out
    found = pd.read_csv(pd.io.common.StringIO(answers.out))
    raw = torch.stack(
        [torch.tensor(rows["size"]), torch.tensor([data.inputs.texts[1].index(c) for c in rows.colour])], 1
    )
    probabilities = asked(raw).softmax(1)
    assert torch.allclose(torch.tensor(found.iloc[:, 1:].to_numpy()).float(), probabilities, atol=1e-6)
    assert [*found.columns] == ["prediction", "p(bad)", "p(good)", "p(none such)"]


def test_what_new_rows_have_otherwise_is_said_or_refused(rows: pd.DataFrame, here: Path, call: Call) -> None:
    rows["weight"] = rows["size"].fillna(0) * 2
    rows.drop(columns="size").to_csv(here / "t.csv", index=False)
    assert call("train", *TABLE, "dataset.target=sort", *QUICK).code == 0
    run = all_runs()[-1].id
    (here / "new.csv").write_text("weight,colour\n3,green\n1000,red\n")
    answered = call("predict", run, "new.csv")
    assert answered.code == 0 and len(answered.out.splitlines()) == 3
    says(answered.err, "`colour` has a value that the run's table lacks in 1 of 2 rows", "`weight` is outside")
    for name, content, facts in (
        ("gap.csv", "weight,colour\n,red\n", ["`weight` is missing in 1 of 1 row", "dataset.missing=mean"]),
        ("lacking.csv", "wight,colour\n1,red\n", ["no column `weight`", "`wight`"]),
        ("text.csv", "weight,colour\nheavy,red\n", ["`weight`", "`heavy`", "row 1"]),
        ("empty.csv", "weight,colour\n", ["no rows"]),
    ):
        (here / name).write_text(content)
        refuses(call("predict", run, name), *facts)
    torch.save({}, here / "x.npy")
    refuses(call("predict", run, "x.npy"), "categories", ".csv")


def test_a_table_without_names_is_predicted_so_too(here: Path, call: Call) -> None:
    draw = random.Random(0)
    rows = [f"{draw.random():.3f},{draw.randrange(2)},{draw.random():.3f}" for _ in range(200)]
    (here / "t.csv").write_text("\n".join(rows) + "\n")
    refuses(call("check", *TABLE, "dataset.target=column_2"), "dataset.header=false")
    assert call("train", *TABLE, "dataset.target=column_2", "dataset.header=false", *QUICK).code == 0
    answered = call("predict", all_runs()[-1].id, "t.csv")
    assert answered.code == 0 and len(answered.out.splitlines()) == 201
    (here / "less.csv").write_text("0.1,0.2\n")
    refuses(call("predict", all_runs()[-1].id, "less.csv"), "no column `column_3`")


@pytest.mark.usefixtures("rows")
def test_a_run_of_a_table_resumes_bit_for_bit(verify_resume: Call) -> None:
    done = verify_resume(*TABLE, "dataset.target=sort", "dataset.missing=mean", "dataset.stratify=true", *QUICK)
    assert done.code == 0, done.err
    says(done.out, "equal, bit for bit")


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        ([], ["dataset.path=table.csv"]),
        (["dataset.path=t.csv"], ["dataset.target=sort"]),
        (["dataset.path=u.csv", "dataset.target=sort"], ["u.csv", "t.csv"]),
        (["dataset.path=t.csv", "dataset.target=sort"], ["`size` in 43 of 300 rows"]),
        (["dataset.path=t.csv", "dataset.target=sort", "dataset.missing=drop"], ["missing=drop", "`mean`"]),
    ],
)
def test_a_mistake_is_one_message(rows: pd.DataFrame, call: Call, given: list[str], facts: list[str]) -> None:
    refuses(call("check", "dataset=table", *given), *facts)
