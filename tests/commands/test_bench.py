"""`dlrun bench`: the machine's peak, and forward passes of models and of runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dlrun.storage.lookup import all_runs
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
FEW = ("--batch-sizes", "1,3", "--seconds", "0", "--device", "cpu")


def tables(here: Path) -> Path:
    [folder] = (here / "outputs" / "bench").glob("*/*-forward-*")
    return folder


def test_peak_keeps_what_mfu_is_a_share_of(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLRUN_CACHE", str(here / "cache"))
    monkeypatch.setattr("dlrun.execution.kernel_rates.LARGEST", 256)
    done = call("bench", "peak", "--device", "cpu", "--json")
    assert done.code == 0, done.err
    rates = {each["precision"]: each for each in json.loads(done.out)["rates"]}
    assert [*rates] == ["fp32", "bf16"]
    kept = json.loads((here / "cache" / "peak_flops.json").read_text())["content"]
    # one thread each in tests
    assert [*kept.values()] == [each["peak"] for each in rates.values()]
    assert all(each["measured"] > 1e8 and each["data_sheet"] is None for each in rates.values())
    says(call("bench", "peak", "--device", "cpu").out, "mfu is a share of", "FLOP/s")


def test_forward_times_models_of_given_sizes(call: Call, here: Path) -> None:
    done = call("bench", "forward", "model=lenet5,mlp", "input=1x12x12", "classes=4", *FEW)
    assert done.code == 0, done.err
    folder = tables(here)
    says(done.out, "milliseconds per image of 1×12×12", "lenet5", str(folder))
    with (folder / "forward_time.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [(row["model"], row["batch_size"]) for row in rows] == [
        ("lenet5", "1"),
        ("lenet5", "3"),
        ("mlp", "1"),
        ("mlp", "3"),
    ]
    assert all(0 < float(row["ms_low"]) <= float(row["ms"]) <= float(row["ms_high"]) for row in rows)
    assert (folder / "forward_time.png").read_bytes().startswith(b"\x89PNG")
    assert not (folder / "accuracy_operations.png").exists()
    found = json.loads((folder / "forward.json").read_text())
    assert [len(model["times"]) for model in found["models"]] == [2, 2]


def test_forward_takes_the_sizes_of_a_data_set(call: Call, here: Path) -> None:
    done = call("bench", "forward", "model=linear", "dataset=digits", "--json", *FEW)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["input"] == [1, 8, 8]
    # 64 inputs, 10 classes
    assert (found["models"][0]["flop"], found["models"][0]["parameters"]) == (2 * 64 * 10, 650)


def test_forward_draws_accuracy_of_runs(call: Call, here: Path) -> None:
    fast = ("trainer.steps=3", "tracking.enabled=false", "trainer.figures=false")
    for values in (["model=linear"], ["model=mlp", "model.width=8"], ["model=mlp", "model.width=8", "seed=1"]):
        assert call("train", *values, *fast).code == 0
    runs = all_runs()
    done = call("bench", "forward", *(run.id for run in runs), *FEW)
    assert done.code == 0, done.err
    folder = tables(here)
    with (folder / "accuracy_operations.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [(row["run"], float(row["test/accuracy"])) for row in rows] == [
        (run.id, pytest.approx(run.summary().metrics["test/accuracy"])) for run in runs
    ]
    # two runs of one kind of model are timed once
    assert [row["model"] for row in rows] == ["Linear", "MLP", "MLP"]
    assert int(rows[0]["flop"]) == 1280
    assert len((folder / "forward_time.csv").read_text().splitlines()) == 1 + 2 * 2
    assert (folder / "accuracy_operations.png").exists()
    assert "views" not in done.err
    # the score of several passes is no score of one
    assert call("train", "model=linear", "evaluation.views={flip: true}", *fast).code == 0
    done = call("bench", "forward", runs[0].id, all_runs()[-1].id, *FEW)
    says(done.err, "Linear 2", "evaluation.views")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model=mlpp"], "Did you mean `mlp`?"),
        (["model=mlp", "trainer.precision=bf16"], "--precision"),
        (["model=lenet5", "input=8", "input=9"], "`input` is given twice"),
        (["model=lenet5", "input=3xx"], "input=3xx: expected sizes above 0"),
        (["model=lenet5", "input=1x12x12", "classes=0"], "classes=0: expected sizes above 0"),
        (["model=lenet5", "input=1x8x8", "dataset=digits"], "Leave one of them out"),
        (["dataset=digits"], "of which models?"),
        (["model=gpt", "input=3x8x8"], "gpt"),
        (["nothing"], "No run `nothing`"),
        (["model=mlp", "nothing"], "Give one kind of them"),
        (["model=mlp", "--batch-sizes", "0,1"], "--batch-sizes 0,1: expected numbers of at least 1"),
        (["model=mlp", "--seconds", "nan"], "--seconds nan"),
    ],
)
def test_mistakes_are_told(call: Call, words: list[str], told: str) -> None:
    refuses(call("bench", "forward", *words), told)


def test_the_kind_is_asked_for(call: Call) -> None:
    done = call("bench")
    assert done.code == 2
    says(done.err, "peak|forward")
