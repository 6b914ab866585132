"""The loss of a run: PyTorch's by name, weights of classes, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from dlrun.config import compose
from dlrun.datasets.digits import digits
from dlrun.engine.evaluation import evaluate
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError, UserError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.entries import OfEntries
from dlrun.losses.of_outputs.adapt import adapt
from dlrun.losses.weighted_sum import WeightedSum
from dlrun.runs.build import Built, build
from dlrun.runs.measures.loss import balanced, check_loss
from dlrun.stacked.objective import StackedObjective
from dlrun.stacked.why_not import why_not
from dlrun.storage.identity import essential, may_be_of_batches
from dlrun.storage.lookup import all_runs
from dlrun.types import Batch
from tests.conftest import Called
from tests.facts import says

Call = Callable[..., Called]
QUICK = ("trainer.steps=3", "trainer.figures=false", "tracking.enabled=false")
TORCH = "loss._target_=torch.nn.CrossEntropyLoss"
WEIGHTS = [1.0, 2, 0.5, 3, 1, 1, 4, 1, 1, 0]

MULTILABEL = """
import torch
from dlrun.datasets import from_tensors

def tags(n=60):
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(0))
    return from_tensors("tags", (x, (x[:, :3] > 0).float()), task="regression", validation_size=20, test_size=20)
"""


def built(*overrides: str) -> Built:
    return build(compose.config([*overrides]))


def test_a_run_with_torchs_loss_is_the_run_with_dlruns(call: Call) -> None:
    for loss in ("loss=cross_entropy", TORCH, "loss._target_=torch.nn.functional.cross_entropy"):
        assert call("train", loss, *QUICK).code == 0
    one, *others = (run.summary() for run in all_runs())
    assert len(others) == 2
    for other in others:
        assert other.metrics == one.metrics
        assert other.identity != one.identity


@pytest.mark.parametrize("loss", [TORCH + " +loss.weight=", "loss.class_weights="])
def test_weights_of_classes_are_exact_for_any_evaluation(loss: str) -> None:
    run = built(*(loss + str(WEIGHTS).replace(" ", "")).split())
    training, split = run.training, run.data.validation
    assert split is not None
    batch = split.gather(torch.arange(len(split)))
    with torch.no_grad():
        expected = nn.functional.cross_entropy(
            training.objective.model.eval()(batch.x), batch.y, weight=torch.tensor(WEIGHTS)
        )
    for size in (1, 7, 1000):
        found = evaluate(training.objective, {}, split, batch_size=size, device=training.device)
        assert found["loss"] == pytest.approx(expected.item(), rel=1e-6)
    training.objective.train()
    mean = training.objective(batch)
    assert torch.equal(
        mean, nn.functional.cross_entropy(training.objective.model(batch.x), batch.y, torch.tensor(WEIGHTS))
    )


def test_balanced_weights_are_scikit_learns() -> None:
    data = built("dataset.train_size=150").data
    y = data.train.gather(torch.arange(len(data.train))).y.numpy()
    expected = compute_class_weight("balanced", classes=np.arange(10), y=y)
    assert balanced(data).tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    run = built("dataset.train_size=150", "loss.class_weights=balanced")
    given = "loss.class_weights=[" + ",".join(map(str, balanced(data).tolist())) + "]"
    # the unit has the numbers: other weights are another quantity, however they were asked for
    assert run.quantities["loss"] == built("dataset.train_size=150", given).quantities["loss"]
    assert run.quantities["loss"] != built("dataset.train_size=170", "loss.class_weights=balanced").quantities["loss"]


def test_no_weights_are_what_they_were_before_the_key() -> None:
    run = built()
    assert run.config["loss"]["class_weights"] is None
    before = run.config | {"loss": {k: v for k, v in run.config["loss"].items() if k != "class_weights"}}
    assert essential(run.config) == essential(before)
    assert run.quantities["loss"]["unit"] == "dlrun.losses.cross_entropy.cross_entropy(label_smoothing=0.0)"
    weighed = run.config | {"loss": run.config["loss"] | {"class_weights": "balanced"}}
    assert essential(run.config) != essential(weighed)


@pytest.mark.parametrize(
    "overrides",
    [
        (TORCH,),
        (TORCH, "+loss.weight=" + str(WEIGHTS).replace(" ", "")),
        ("loss.class_weights=balanced",),
        ("dataset=polynomial", "model=mlp", "trainer.batch_size=10", "loss._target_=torch.nn.HuberLoss"),
    ],
)
def test_stacked_runs_have_the_losses_and_gradients_of_single_ones(overrides: tuple[str, ...]) -> None:
    runs = [built(*overrides, f"seed={seed}").training for seed in (0, 1)]
    assert why_not(runs) is None
    batches = [run.batches.split.gather(torch.arange(9) + i) for i, run in enumerate(runs)]
    stack = StackedObjective([run.objective for run in runs])
    losses, _, _ = stack.gradient(Batch(*(torch.stack(each) for each in zip(*batches, strict=True))))
    expected = [run.objective(batch).item() for run, batch in zip(runs, batches, strict=True)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)


def test_runs_of_other_weights_are_not_stacked() -> None:
    runs = [built(f"loss.class_weights={given}").training for given in ("balanced", [1] * 10)]
    assert why_not(runs) == "they differ in loss"
    smoothed = [built("loss.class_weights=balanced", f"loss.label_smoothing={e}").training for e in (0.1, 0.2)]
    assert why_not(smoothed) == "they differ in loss"
    # torch's function picks out the classes with a mask, which `vmap` does not know
    assert "many runs at once" in str(why_not(smoothed[:1]))


def test_labels_of_zeros_and_ones(here: Path, call: Call) -> None:
    (here / "tags.py").write_text(MULTILABEL)
    (here / "conf" / "dataset").mkdir(parents=True)
    (here / "conf" / "dataset" / "tags.yaml").write_text("_target_: tags.tags\nn: 60\n")
    given = ("dataset=tags", "trainer.batch_size=10")
    done = call("train", *given, "loss._target_=torch.nn.BCEWithLogitsLoss", "+loss.pos_weight=[1,2,3]", *QUICK)
    assert done.code == 0, done.err
    says(done.out, "mse is not computed", "logits")
    assert {*all_runs()[0].summary().metrics} == {f"{split}/loss" for split in ("train", "val", "test")}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((TORCH, "+loss.weight=[1,2]"), "10 numbers"),
        (("loss.class_weights=[1,2]",), "10 numbers"),
        (("loss.class_weights=[0,0,0,0,0,0,0,0,0,0]",), "one of them above"),
        (("loss.class_weights=balance",), "balanced"),
        (("loss.class_weights=balanced", "dataset.train_size=5"), "no training sample"),
        ((TORCH, "+loss.reduction=sum"), "reduction=sum"),
        (("loss._target_=torch.nn.NLLLoss",), "CrossEntropyLoss"),
        (("loss._target_=torch.nn.MSELoss",), "cross_entropy"),
        (("loss._target_=torch.nn.CTCLoss",), "input_lengths"),
        (("loss._target_=torch.nn.functional.triplet_margin_loss",), "loss=triplet"),
        ((TORCH, "loss.class_weights=balanced"), "class_weights"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises((ConfigError, UserError), match=words):
        built(*overrides)


def test_another_number_of_logits_than_classes_is_refused() -> None:
    for model in (nn.Flatten(), nn.Sequential(nn.Flatten(), nn.Linear(64, 9))):
        objective = Objective(model, adapt(nn.CrossEntropyLoss()))
        with pytest.raises(ConfigError, match="10 classes"):
            check_loss(objective, digits(), torch.device("cpu"))


def test_losses_of_entries_and_terms_of_a_sum_are_looked_at_too() -> None:
    data, model = digits(), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    vars(model)["forward"] = lambda x: {"logits": model[1](model[0](x))}
    entry = OfEntries(adapt(nn.NLLLoss()), output="logits")
    for loss in (entry, WeightedSum({"nll": entry})):
        with pytest.raises(ConfigError, match="they are logits"):
            check_loss(Objective(model, loss), data, torch.device("cpu"))
    check_loss(Objective(model, OfEntries(adapt(nn.CrossEntropyLoss()), output="logits")), data, torch.device("cpu"))


def test_weights_of_classes_are_one_for_each_of_an_entrys_values() -> None:
    data, model = digits(), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    vars(model)["forward"] = lambda x: {"logits": model[1](model[0](x))}
    for size in (10, 9):
        weights = torch.ones(size)
        entries = [
            OfEntries(adapt(nn.CrossEntropyLoss(weight=weights)), output="logits"),
            OfEntries(partial(cross_entropy, class_weights=weights), output="logits"),
        ]
        for loss in (*entries, WeightedSum({"ce": entries[1]})):
            objective = Objective(model, loss)
            if size == 10:
                check_loss(objective, data, torch.device("cpu"))
                continue
            with pytest.raises(ConfigError, match=r"9 numbers.*10 values.*Give 10 numbers"):
                check_loss(objective, data, torch.device("cpu"))


def test_values_of_torchs_losses_are_none_of_batches() -> None:
    model = {"_target_": "dlrun.models.mlp.MLP"}
    assert not may_be_of_batches({"model": model, "loss": {"_target_": "torch.nn.HuberLoss"}})
    term = {"_target_": "dlrun.losses.triplet.triplet"}
    total = {"_target_": "dlrun.losses.weighted_sum.WeightedSum", "terms": {"a": term}}
    assert may_be_of_batches({"model": model, "loss": total})
    assert may_be_of_batches({"model": {"_target_": "torch.nn.Linear"}, "loss": {"_target_": "torch.nn.HuberLoss"}})


def test_any_function_of_outputs_and_targets_by_the_adapter(here: Path, call: Call) -> None:
    (here / "mine.py").write_text(
        "import torch\n\ndef gap(outputs, y, power=1.0):\n    return (outputs.softmax(1)[:, 0] - y) .abs() ** power\n"
    )
    done = call("train", "loss=of_outputs", "loss.function._target_=mine.gap", "+loss.function.power=2.0", *QUICK)
    assert done.code == 0, done.err
    done = call("train", "loss=of_outputs", "loss.function._target_=mine.gap", "+loss.function.powr=2.0", *QUICK)
    assert done.code == 2
    says(done.err, "loss.function.power")
    done = call("train", "loss=of_outputs", *QUICK)
    assert done.code == 2
