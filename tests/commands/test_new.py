"""`dlrun new` writes parts that train, resume and are listed as they stand, and harms no file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dlrun import metrics
from dlrun.commands import new
from dlrun.commands.completion import complete
from dlrun.storage.lookup import all_runs
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
QUIET = ("tracking.enabled=false", "trainer.figures=false")


def begun(call: Call, kind: str, name: str) -> list[str]:
    """Begin a part; returns the command that is shown, without `dlrun`."""
    done = call("new", kind, name)
    assert done.code == 0, done.err
    return shlex.split(re.search(r"^try +dlrun (.*)$", done.out, re.MULTILINE)[1])


@pytest.mark.parametrize("kind", new.KINDS)
def test_what_it_writes_trains_and_resumes_exactly(kind: str, here: Path, call: Call) -> None:
    typed = begun(call, kind, "my_own")
    written = {str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()}
    module = set() if kind == "experiment" else {"my_own.py"}
    assert written == module | {f"conf/{kind}/my_own.yaml"}
    assert not re.search(f"{new.FUNCTION}|{new.CLASS}", "".join((here / name).read_text() for name in written))
    checked = call("check", *typed[1:], *QUIET)
    assert (checked.code, checked.err) == (0, "")
    for steps in (4, 2):
        done = call(*typed, f"trainer.steps={steps}", *QUIET)
        assert (done.code, done.err) == (0, "")
    through, stopped = all_runs()
    resumed = call("resume", stopped.id, "trainer.steps=4")
    assert (resumed.code, resumed.err) == (0, "")
    if kind != "schedule" and kind != "experiment":  # a schedule of two steps is another than that of four
        a, b = (torch.load(run.last, weights_only=True)["model"] for run in (through, stopped))
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert through.summary().metrics == stopped.summary().metrics
    head = (here / f"conf/{kind}/my_own.yaml").read_text()
    says(call("list", kind).out, "my_own", re.search(r"^# dlrun train.*\n# (.*?[.?])(?: |$)", head, re.MULTILINE)[1])
    assert call("list", kind, "my_own").code == 0


def test_they_go_together_and_learn(here: Path, call: Call) -> None:
    kinds = [kind for kind in new.KINDS if kind != "experiment"]
    choices = [begun(call, kind, f"own_{kind}")[1] for kind in kinds]
    done = call("train", *choices, *QUIET)
    assert (done.code, done.err) == (0, "")
    summary = all_runs()[-1].summary()
    assert summary.metrics["test/error"] < 0.1
    # of classes that are all but certain it is near one; of a guess it would be a half
    assert 0.8 < summary.metrics["test/own_metric"] <= 1
    chosen = call("train", *choices, "evaluation.monitor=val/own_metric", "trainer.steps=2", *QUIET)
    assert chosen.code == 0, chosen.err


def test_no_file_is_overwritten(here: Path, call: Call) -> None:
    (here / "mine.py").write_text("mine = 3\n")
    refuses(call("new", "model", "mine"), "mine.py", "stays")
    assert (here / "mine.py").read_text() == "mine = 3\n" and not (here / "conf").exists()
    (here / "conf/loss").mkdir(parents=True)
    (here / "conf/loss/other.yaml").symlink_to("nowhere")
    refuses(call("new", "loss", "other"), "conf/loss/other.yaml")
    assert not (here / "other.py").exists()
    # the same name for two parts is one module
    assert call("new", "loss", "twice").code == 0
    refuses(call("new", "metric", "twice"), "twice.py")


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("modle", "mine", ["`modle`", "Did you mean `model`?", "dataset, model, loss"]),
        ("model", "my-net", ["`my-net`", "dlrun new model my_net"]),
        ("model", "2d", ["dlrun new model my_2d"]),
        ("model", "class", ["dlrun new model my_class"]),
        ("model", "größe", ["expected a letter"]),
        ("model", "../../escape", ["expected a letter"]),
        ("model", "Null", ["expected a letter"]),
        ("model", "mlp", ["dlrun's model `mlp`", "dlrun new model my_mlp"]),
        ("experiment", "mnist", ["dlrun's experiment `mnist`"]),
        ("metric", "perplexity", ["dlrun's metric `perplexity`"]),
        ("optimizer", "torch", ["`torch` is an installed module", "dlrun new optimizer my_torch"]),
        ("loss", "random", ["`random` is an installed module"]),
    ],
)
def test_a_name_that_would_not_do_is_refused(kind: str, name: str, words: list[str], here: Path, call: Call) -> None:
    refuses(call("new", kind, name), *words)
    assert not [*here.iterdir()]


def test_the_names_of_computed_metrics_are_known() -> None:
    assert {*metrics.derive({"nll": 1.0}, bytes_per_token=1.0)} | {"loss"} == {*new.COMPUTED}


def test_places_that_are_not_the_users_are_refused(here: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(new.__file__).parents[3])
    refuses(call("new", "model", "mine"), "dlrun's own")
    run = here / "run"
    (run / ".hydra").mkdir(parents=True)
    monkeypatch.chdir(run)
    refuses(call("new", "model", "mine"), "folder of a run")


def test_kinds_are_completed(here: Path) -> None:
    assert complete("dlrun new mo") == ["model"]
    assert complete("dlrun new model mo") == []
