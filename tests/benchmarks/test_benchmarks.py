"""The benchmarks in small: their parts run, and their reports say what was found. No time is judged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import (
    bare,
    checkpoints,
    commands,
    exactness,
    kill,
    mnist_error,
    noncausal,
    report,
    startup,
    step,
    tracking,
)
from benchmarks.alternation import added, alternate, ratios, spread
from benchmarks.report import Figure, Section
from dlrun.models.mlp import MLP
from dlrun.storage.rundir import RunDir
from tests.summaries import summarise

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set: random images of MNIST's shape; and only so many of them as are needed."""
    monkeypatch.setenv("DLRUN_DATA", "nowhere")
    x, y = torch.randn(400, 1, 28, 28), torch.arange(400) % 10
    monkeypatch.setattr(step, "images", lambda: (x, y, "random"))


def rows(section: Section) -> dict[str, str]:
    table = re.findall(r"^\| (.+?) \| (.+?) \|", section.markdown(), flags=re.MULTILINE)
    return dict(table)


def test_programs_take_turns() -> None:
    order: list[str] = []
    programs = {name: lambda name=name: order.append(name) or len(order) for name in "AB"}
    assert alternate(programs, 3) == {"A": [3, 6, 7], "B": [4, 5, 8]}
    assert "".join(order) == "BA" + "AB" + "BA" + "AB"


def test_comparisons_are_made_round_by_round() -> None:
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    assert added([2.0, 9.0], [1.0, 3.0]) == [1.0, 6.0]
    assert spread([5.0]) == "5 (n = 1)"
    assert spread([1.0, 2.0, 30.0], ".1f", "s") == "2.0 s (1.5 to 16.0, n = 3)"


def test_the_bare_loop_and_dlrun_do_the_same_maths() -> None:
    """On a batch that is the whole split, whose order is its own, the weights come out the same."""
    x, y = torch.randn(40, 784), torch.arange(40) % 10
    torch.manual_seed(0)
    ours, theirs = MLP((784,), 10, width=8), MLP((784,), 10, width=8)
    theirs.load_state_dict(ours.state_dict())
    for _ in range(3):
        bare.train(theirs, x, y, batch_size=40, lr=0.1)
        step.ours(step.Case("mlp", MLP, x, y, 40, 1, 1), ours, step.Silent())
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_step_reports_both_cases() -> None:
    threads = torch.get_num_threads()
    found = rows(step.measure(quick=True))
    assert torch.get_num_threads() == threads
    for case in (f"convnet, batch 100, {threads} thread", "mlp, batch 32, 1 thread"):
        assert any(what.startswith(case) and what.endswith("bare loop, a step") for what in found)
        for form in ("dlrun", "dlrun with its journal"):
            assert any(what.startswith(case) and what.endswith(f"{form}, more a step") for what in found)


def test_a_start_is_timed_from_its_own_journal(here: Path) -> None:
    trained = startup.trained(here, "tracking.enabled=false", "trainer.fast=true", "trainer.figures=false")
    # the journal's times have milliseconds
    assert 0 < trained["begun"] <= trained["step"] <= trained["closing"] + 1e-3 <= trained["end"] + 1e-3
    assert startup.ready("pass", here)["ready"] > 0
    assert startup.help_shown(here)["end"] > 0


def test_startup_compares_first_steps_with_torch() -> None:
    figures = startup.figures(
        {
            "help end": [0.1, 0.2, 0.1],
            "torch ready": [1.0, 1.0, 1.0],
            "optimizer ready": [2.0, 2.0, 3.0],
            "train step": [2.5, 4.0, 3.5],
            "train closing": [4.0, 4.0, 4.0],
            "train end": [6.0, 6.0, 6.0],
            "untracked step": [3.5, 3.5, 3.5],
            "untracked closing": [4.0, 4.0, 4.0],
        }
    )
    found = {f.what: (f.value, f.met) for f in figures}
    assert found["`dlrun --help`"] == ("0.10 s (0.10 to 0.15, n = 3)", True)
    assert found["… of which `import torch`"] == ("25 % (25 to 25, n = 3)", None)
    assert [f.met for f in figures if f.what.startswith("… more")] == [True, False]


def test_evaluation_batches_make_no_difference() -> None:
    section = exactness.measure(quick=True)
    assert rows(section)["equal as printed"] == "yes"
    assert section.figures[-1].met


def test_a_checkpoint_is_saved_and_loaded_with_and_without_what_durability_adds() -> None:
    assert len(checkpoints.measure(quick=True).figures) == 4


def test_the_noncausal_formulation_has_the_causal_values_for_as_many_passes_as_tokens() -> None:
    found = {f.what: (f.value, f.met) for f in noncausal.measure(quick=True).figures}
    for tokens in (4, 8):
        assert found[f"T = {tokens}: largest difference of a logit"][1]
        assert found[f"T = {tokens}: operations, non-causal / causal"] == (f"{tokens}.00", True)


@pytest.fixture
def summaries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What the next calls of `dlrun train` are to leave, instead of training."""
    left: list[dict[str, Any]] = []

    def train(here: Path, *overrides: str) -> RunDir:
        run = RunDir(tmp_path)
        summarise(run, **(left.pop(0) if "trainer.fast=true" not in overrides else {}))
        return run

    monkeypatch.setattr(commands, "train", train)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return left


def test_the_median_error_is_reported(summaries: list[dict[str, Any]]) -> None:
    summaries += [{"metrics": {"test/error": error}, "train_seconds": 60.0} for error in (0.0093, 0.0085, 0.0101)]
    section = mnist_error.measure()
    assert rows(section)["seed 2: test error"] == "1.01 % in 60 s"
    assert rows(section)["median test error"] == "0.93 %" and section.figures[-1].met


def test_tracking_is_compared_round_by_round(summaries: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    taken = [(10.2, 0.3), (10.0, 0.1), (20.0, 0.1), (20.2, 0.3), (30.0, 0.0), (30.0, 0.0)]  # on, off; off, on; on, off
    monkeypatch.setattr(tracking, "train", lambda here, *overrides: tracking.Taken(*taken.pop(0)))
    found = rows(tracking.measure(repeats=3))
    assert found["… more with tracking"] == "+1.00 % (+0.50 to +1.50, n = 3)"
    assert found["threads without a processor, tracking on"] == "0.30 s (0.15 to 0.30, n = 3)"
    assert found["tracking costs: … more, of train_seconds"].startswith("+0.99 % (")


def test_deaths_are_counted() -> None:
    good = kill.Death(moment=1.0, step=7, checkpointed=True, seen_after=0.5, resumed=True, differing=[])
    early = kill.Death(moment=0.0, step=0, checkpointed=False, seen_after=1.5, resumed=True, differing=[])
    bad = kill.Death(moment=2.0, step=9, checkpointed=True, seen_after=None, resumed=False, differing=["best.pt: w"])
    assert [f.met for f in kill.figures([good, early]) if f.target] == [True] * 3
    found = {f.what: f.value for f in kill.figures([good, early, bad])}
    assert found["KILLED in MLflow within 30 s"] == "2 of 3"
    assert found["resumed: equal bit for bit"] == "2 of 3" and found["a difference"] == "best.pt: w"
    assert found["killed with this step last in the journal"] == "7, 0 (no checkpoint yet), 9"


def test_a_section_takes_the_place_of_its_older_self(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    for name, value in (("a", "1"), ("b", "2"), ("a", "3")):
        report.write(Section(name, "a title", "python -m x", [Figure("it", value, "≤ 2", value != "3")]), path)
    written = path.read_text()
    assert written.startswith("# ") and written.count("\n## ") == 2
    assert written.index("## a: a title") < written.index("| it | 3 | ≤ 2 | missed |") < written.index("## b:")
    assert "| it | 1 |" not in written and "| it | 2 | ≤ 2 | met |" in written
    assert re.search(r"\d+ cores, .*load 0\.0 at the start; Python 3", written)
