"""Metrics from elsewhere in a run: what they are given, their direction, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dlrun.config import compose
from dlrun.engine.evaluation import evaluate
from dlrun.errors import ConfigError
from dlrun.runs.build import Built, build
from dlrun.stacked.why_not import why_not
from dlrun.storage.lookup import all_runs
from tests.conftest import Called
from tests.facts import says

Call = Callable[..., Called]
QUICK = ("trainer.steps=3", "trainer.figures=false", "tracking.enabled=false")
F1 = ("+metrics.f1._target_=sklearn.metrics.f1_score", "+metrics.f1.average=macro")

MINE = """
class Share:
    higher_is_better = True

    def __init__(self, num_classes=None):
        assert num_classes in (10, None)
        self.reset()

    def reset(self):
        self.right, self.all = 0, 0

    def update(self, preds, target):
        self.right = self.right + (preds == target).sum()
        self.all = self.all + len(target)

    def compute(self):
        return self.right / self.all
"""


def built(*overrides: str) -> Built:
    return build(compose.config([*overrides]))


def test_a_class_of_the_protocol_is_a_monitor_by_its_direction(here: Path, call: Call) -> None:
    (here / "mine.py").write_text(MINE)
    given = ("+metrics.share._target_=mine.Share", "+metrics.share.of=classes", "evaluation.monitor=val/share")
    assert call("train", *given, *QUICK).code == 0
    (run,) = all_runs()
    summary = run.summary()
    assert summary.selected_by == "val/share"
    for split in ("train", "val", "test"):
        assert summary.metrics[f"{split}/share"] == pytest.approx(summary.metrics[f"{split}/accuracy"], rel=1e-6)
    assert "metrics.share" in str(why_not([built(*given).training]))
    # the checkpoint has nothing of it, and the run goes on from there
    done = call("resume", run.id, "trainer.steps=5")
    assert done.code == 0, done.err


def test_what_it_takes_is_asked_for_and_its_direction_too(here: Path, call: Call) -> None:
    (here / "mine.py").write_text(MINE)
    done = call("train", "+metrics.share._target_=mine.Share", *QUICK)
    assert done.code == 2
    says(done.err, "+metrics.share.of=classes")
    done = call("train", *F1, *QUICK)
    assert done.code == 2
    says(done.err, "+metrics.f1.of=classes", "sklearn.metrics.f1_score")
    done = call("train", *F1, "+metrics.f1.of=classes", "evaluation.monitor=val/f1", *QUICK)
    assert done.code == 2
    says(done.err, "evaluation.higher_is_better")
    known = ("evaluation.monitor=val/f1", "evaluation.higher_is_better=true")
    done = call("train", *F1, "+metrics.f1.of=classes", *known, *QUICK)
    assert done.code == 0, done.err


def test_a_function_of_the_user_s_may_say_what_it_takes(here: Path) -> None:
    (here / "mine.py").write_text("def both(outputs, y):\n    return outputs.argmax(1), y\n")
    of_own = built(*F1, "+metrics.f1.of._target_=mine.both").training
    found = evaluate(of_own.objective, of_own.metrics, of_own.validation, batch_size=50, device=of_own.device)  # type: ignore[arg-type]
    known = built(*F1, "+metrics.f1.of=classes").training
    assert found == evaluate(known.objective, known.metrics, known.validation, batch_size=50, device=known.device)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((*F1, "+metrics.f1.of=class"), "classes"),
        ((*F1, "+metrics.f1.of=positive"), "two classes"),
        ((*F1[:1], "+metrics.f1.average=null", "+metrics.f1.of=classes"), "one number"),
        ((*F1, "+metrics.f1.of=classes", "+metrics.f1.averag=macro"), "averag"),
        (("+metrics.f1._target_=sklearn.metrics.make_scorer",), "not allowed"),
        (("dataset=polynomial", "model=mlp", "trainer.batch_size=10", *F1, "+metrics.f1.of=classes"), "of=outputs"),
    ],
)
def test_what_does_not_fit_is_refused(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(Exception, match=words) as refused:
        built(*overrides)
    assert type(refused.value).__name__ in ("ConfigError", "UserError")


def test_a_regression_takes_the_outputs() -> None:
    regression = ("dataset=polynomial", "model=mlp", "trainer.batch_size=10")
    run = built(*regression, "loss=mse", "+metrics.r2._target_=sklearn.metrics.r2_score")
    assert "r2" in run.quantities
    run = built(*regression, "loss._target_=torch.nn.HuberLoss", "+metrics.r2._target_=sklearn.metrics.r2_score")
    assert "r2" in run.quantities


def test_a_metric_of_a_package_that_is_missing_names_it() -> None:
    try:
        import torchmetrics  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match="pip install torchmetrics"):
            built("+metrics.f1._target_=torchmetrics.classification.MulticlassF1Score")
