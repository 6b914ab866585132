"""`dlrun compare`: pairs by seed, refuses what cannot be compared, and says how sure a difference is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlrun.analysis.statistics import confidence_interval
from dlrun.storage.sweepdir import SweepDir
from tests.conftest import Called
from tests.facts import refuses, says
from tests.made_sweeps import group_of, made_sweep
from tests.summaries import summarise

Call = Callable[..., Called]
SEEDS = [0, 1, 2, 3, 4]


def value(rate: float, seed: int) -> float:
    """Return an error: seeds differ by more than rates, and rates on each seed by 0.02 give or take a little."""
    shared = 0.3 * np.random.default_rng(seed).random()
    own = 0.002 * np.random.default_rng([seed, int(1000 * rate)]).random()
    return float(0.1 + shared + own + (0.02 if rate == 0.1 else 0.0))


def errors(values: dict[str, Any]) -> dict[str, float]:
    error = value(values["optimizer.lr"], values["seed"])
    return {"val/error": error, "val/accuracy": 1 - error, "val/loss": error}


@pytest.fixture
def sweep(here: Path) -> SweepDir:
    return swept(here, "aaaa")


def swept(here: Path, name: str, metrics: Callable[[dict[str, Any]], Any] = errors, **grid: Any) -> SweepDir:
    """Make a sweep where `dlrun` looks for sweeps."""
    folder = here / "outputs" / "sweeps" / "2026-01-01" / f"120000-made-{name}"
    return made_sweep(folder, {"optimizer.lr": [0.1, 0.01, 0.02], "seed": SEEDS} | grid, metrics)


def test_groups_of_a_sweep_are_paired_by_seed(sweep: SweepDir, call: Call) -> None:
    done = call("compare", "aaaa:lr=0.1", "aaaa:lr=0.01")
    assert done.code == 0
    differences = [value(0.01, seed) - value(0.1, seed) for seed in SEEDS]
    low, high = confidence_interval(differences)
    says(
        done.out,
        "`aaaa:lr=0.01` is better than `aaaa:lr=0.1` in val/error",
        f"mean difference {np.mean(differences):+.3g}",
        f"{low:+.3g} to {high:+.3g} (5 seeds)",
    )


def test_folds_are_called_folds(here: Path, call: Call) -> None:
    swept(
        here,
        "hhhh",
        lambda values: errors({**values, "seed": values["dataset.fold"]}),
        seed=[0],
        **{"dataset.fold": SEEDS},
    )
    done = call("compare", "hhhh:lr=0.1", "hhhh:lr=0.01")
    says(done.out, "folds  mean", "(5 folds)", "Paired by fold", "Folds train on nearly the same samples")
    assert "seeds" not in done.out


def test_what_is_seed_noise_is_called_so(sweep: SweepDir, call: Call) -> None:
    done = call("compare", "aaaa:lr=0.02", "aaaa:lr=0.01")
    says(done.out, "No significant difference")


def test_high_is_better_of_an_accuracy(sweep: SweepDir, call: Call) -> None:
    done = call("compare", "aaaa:lr=0.1", "aaaa:lr=0.01", "--metric", "val/accuracy")
    says(done.out, "val/accuracy, higher is better", "is better than")


def test_one_sweep_stands_for_its_groups_the_best_first(sweep: SweepDir, call: Call) -> None:
    done = call("compare", str(sweep.path))
    assert done.out.count("`optimizer.lr=0.01` ") + done.out.count("`optimizer.lr=0.02` ") >= 2
    says(done.out, "`optimizer.lr=0.1` is worse than")


def test_a_sweep_stands_for_its_selected_group(sweep: SweepDir, here: Path, call: Call) -> None:
    undecided = call("compare", "aaaa", "aaaa:lr=0.1")
    refuses(undecided, "none was selected", "aaaa:optimizer.lr=0.1")
    summarise(sweep, selected={"group": group_of(optimizer__lr=0.01)})
    done = call("compare", "aaaa", "aaaa:lr=0.1")
    says(done.out, "`aaaa:lr=0.1` is worse than `aaaa:optimizer.lr=0.01`")


def noise(values: dict[str, Any]) -> dict[str, float]:
    """Return values that no configuration changes."""
    random = np.random.default_rng([values["seed"], int(1000 * values["optimizer.lr"])])
    return {"val/error": 0.2 + 0.01 * random.normal(), "test/error": 0.2 + 0.01 * random.normal()}


def test_the_best_of_many_that_are_alike_is_not_called_better(here: Path, call: Call) -> None:
    rates = [0.001 * k for k in range(1, 21)]
    swept(here, "ffff", noise, **{"optimizer.lr": rates, "seed": [0, 1, 2, 3]})
    done = call("compare", "ffff")
    assert done.out.count("No significant difference") == 19
    says(done.out, "hold at once for all of 20 groups", "one in twenty comparisons", "chance of")
    # of pairs by themselves, Student's t of 4 seeds would call some of them worse
    means = {rate: np.mean([noise({"seed": s, "optimizer.lr": rate})["val/error"] for s in range(4)]) for rate in rates}
    best = min(rates, key=means.__getitem__)
    pairs = [[noise({"seed": s, "optimizer.lr": r})["val/error"] for s in range(4)] for r in rates]
    own = pairs[rates.index(best)]
    alone = [confidence_interval(np.subtract(pair, own)) for pair in pairs if pair is not own]
    assert any(low > 0 for low, _ in alone)


def test_a_selected_side_is_compared_with_regard_to_its_selection(here: Path, call: Call) -> None:
    sweep = swept(here, "gggg", noise, **{"optimizer.lr": [0.001 * k for k in range(1, 11)]})
    summarise(sweep, selected={"group": group_of(optimizer__lr=0.001)})
    says(call("compare", "gggg", "gggg:lr=0.002").out, "all of 10 groups, and allow for the selection of `gggg:")
    # the test split did not select
    says(call("compare", "gggg", "gggg:lr=0.002", "--metric", "test/error").out, "by Student's t")


def test_an_error_does_not_fall_below_zero(here: Path, call: Call) -> None:
    swept(
        here, "hhhh", lambda v: {"val/error": [0.0, 0.05, 0.0, 0.15, 0.0][v["seed"]] + (v["optimizer.lr"] == 0.1) / 2}
    )
    assert call("report", "hhhh").code == 0
    text = (here / "outputs/sweeps/2026-01-01/120000-made-hhhh/report/report.md").read_text()
    assert "| 0 to 0." in text
    assert " -0" not in text.partition("## Setting")[0].replace("difference -0.5", "")


def test_single_runs_say_nothing_about_noise(sweep: SweepDir, call: Call) -> None:
    done = call("compare", "aaaa/0", str(sweep.path / "5"), "--metric", "val/error")
    assert done.code == 0
    says(done.out, "nothing about seed noise")
    apart = call("compare", "aaaa/0", "aaaa/6", "--metric", "val/error")
    refuses(apart, "common seed", "'seed=range(5)'")


def test_several_are_compared_with_the_first(sweep: SweepDir, call: Call) -> None:
    done = call("compare", "aaaa:lr=0.1", "aaaa:lr=0.01", "aaaa:lr=0.02", "aaaa:lr=0.1")
    assert done.out.count("`aaaa:lr=0.1`") >= 3
    says(done.out, "have the same val/error on each of 5 seeds", "one in twenty")


@pytest.mark.parametrize("change", ["fingerprint", "split"])
def test_other_data_is_refused(sweep: SweepDir, here: Path, call: Call, change: str) -> None:
    other = swept(here, "bbbb", **({} if change == "fingerprint" else {"dataset.validation_size": [50]}))
    for n in range(15):
        run = other.job(n)
        summarise(run, data={**run.summary().data, "fingerprint": "other", "validation": 50})
    done = call("compare", "aaaa:lr=0.1", "bbbb:lr=0.1")
    refuses(done, "different samples", "20 validation", "50 validation")
    assert ("dataset.validation_size: not set against 50" in done.err) == (change == "split")


def test_other_losses_are_refused_for_a_loss_alone(here: Path, call: Call) -> None:
    swept(here, "cccc", loss=["mse", "cross_entropy"])
    sides = ("cccc:lr=0.1,loss=mse", "cccc:lr=0.1,loss=cross_entropy")
    refused = call("compare", *sides, "--metric", "val/loss")
    refuses(refused, "val/loss", "--metric val/error")
    assert call("compare", *sides, "--metric", "val/error").code == 0


def test_a_test_metric_only_where_it_was_read(sweep: SweepDir, here: Path, call: Call) -> None:
    refused = call("compare", "aaaa:lr=0.1", "aaaa:lr=0.01", "--metric", "test/error")
    refuses(refused, "test split", "val/error")
    swept(here, "dddd", lambda values: errors(values) | {"test/error": 0.5})
    done = call("compare", "dddd:lr=0.1", "dddd:lr=0.01", "--metric", "test/error")
    says(done.out, "10 runs", "test split 10 times")


@pytest.mark.parametrize(
    ("argv", "fact"),
    [
        (["nothing", "aaaa:lr=0.1"], "No run or sweep `nothing`"),
        (["aaaa:lr=7", "aaaa:lr=0.1"], "aaaa:optimizer.lr=0.1"),
        (["aaaa:seed=0", "aaaa:lr=0.1"], "aaaa:optimizer.lr=0.1"),
        (["aaaa:lr=0.1", "aaaa:lr=0.01", "--metric", "val/eror"], "Did you mean `val/error`"),
        (["aaaa/0"], "dlrun compare aaaa/0"),
        (["aaaa:lr=0.1", "aaaa:lr=0.01", "--figure", "x.jpg"], ".png or .svg"),
    ],
)
def test_bad_input(sweep: SweepDir, call: Call, argv: list[str], fact: str) -> None:
    refuses(call("compare", *argv), fact)


def test_a_run_that_has_not_finished_is_refused(here: Path, call: Call) -> None:
    swept(here, "eeee", lambda values: {"status": "killed"} if values["seed"] == 0 else errors(values))
    refused = call("compare", "eeee/0", "eeee/1")
    refuses(refused, "killed", "dlrun resume")
    done = call("compare", "eeee:lr=0.1", "eeee:lr=0.01")
    says(done.out, "(4 seeds)")


def test_the_figure(sweep: SweepDir, here: Path, call: Call) -> None:
    done = call("compare", "aaaa:lr=0.1", "aaaa:lr=0.01", "--figure", "pairs.svg")
    assert done.code == 0
    assert (here / "pairs.svg").read_text().lstrip().startswith("<?xml")
