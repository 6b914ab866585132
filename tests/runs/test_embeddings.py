"""Runs that learn an embedding: measured by neighbours, of as many components as the model has outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest import approx

import dlrun as package
from dlrun.metrics import knn_accuracy, recall_at_1
from dlrun.storage.lookup import all_runs
from dlrun.types import Outputs
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]

QUICK = ("loss=triplet", "+model.outputs=3", "trainer.epochs=2", "tracking.enabled=false")


@pytest.mark.usefixtures("here")
def test_a_run_is_selected_by_recall_and_its_metrics_are_those_of_its_embedding(call: Call) -> None:
    done = call("train", *QUICK, "+metric=knn_accuracy", "evaluation.batch_size=100", "loss.normalise=true")
    assert done.code == 0, done.err
    (folder,) = all_runs()
    summary = folder.summary()
    assert summary.selected_by == "val/recall_at_1"
    assert "train/knn_accuracy" not in summary.metrics  # each sample would be its own neighbour
    run = package.load(folder.id)
    found = {}
    for name in ("train", "validation"):
        split = getattr(run.data, name)
        x, y = split.gather(torch.arange(len(split)))
        with torch.no_grad():
            found[name] = Outputs(run.model(x), y)
    assert found["train"].outputs.shape[1] == 3
    # distances as the loss has them
    assert summary.metrics["val/recall_at_1"] == approx(float(recall_at_1(*found["validation"], normalise=True)))
    assert summary.metrics["val/knn_accuracy"] == approx(float(knn_accuracy(*found["validation"], found["train"])))
    np.save("one.npy", np.zeros((1, 1, 8, 8), dtype=np.float32))
    assert call("predict", folder.id, "one.npy").out.splitlines()[0] == "embedding_0,embedding_1,embedding_2"


def test_what_nobody_says_is_asked_for(here: Path, call: Call) -> None:
    refuses(call("train", "loss=triplet"), "+model.outputs=16")
    refuses(call("train", *QUICK, "trainer.accumulate=2"), "trainer.accumulate=1")
    refuses(call("train", *QUICK, "dataset=polynomial", "trainer.batch_size=null"), "class number for each sample")
    for size, classes in ((2, None), (8, 1), (8, 8)):
        batch = (f"trainer.batch_size={size}", f"trainer.classes_per_batch={classes or 'null'}")
        refuses(call("train", *QUICK, *batch), "two samples of a class", "trainer.batch_size=64")
    (here / "book.txt").write_text("a b c d " * 500)
    text = ("dataset=text", "dataset.path=book.txt", "model=ngram", "optimizer=counting", "trainer.batch_size=null")
    refuses(call("train", *text, "trainer.steps=1", "+metric=recall_at_1"), "metrics.recall_at_1", "text")


@pytest.mark.usefixtures("here")
def test_a_classifier_may_be_measured_by_neighbours_too(call: Call) -> None:
    done = call("train", "trainer.epochs=2", "tracking.enabled=false", "+metric=[recall_at_1,recall_at_1_of_inputs]")
    assert done.code == 0, done.err
    says(done.out, "recall_at_1", "error")
    metrics = all_runs()[0].summary().metrics
    assert metrics["val/recall_at_1_of_inputs"] > 0.9
    assert metrics["test/recall_at_1"] > 0.7


@pytest.mark.usefixtures("here")
def test_balanced_batches_that_the_classes_cannot_fill_are_refused(call: Call) -> None:
    def refused(*given: str) -> Called:
        return call("train", *given, "tracking.enabled=false")

    refuses(refused("trainer.classes_per_batch=10"), "trainer.batch_size=60")
    refuses(refused("trainer.classes_per_batch=16"), "10 classes")
    refuses(refused("trainer.classes_per_batch=20"), "trainer.classes_per_batch=10")
    refuses(refused("trainer.classes_per_batch=0"), "greater than 0")
    refuses(
        refused("trainer.classes_per_batch=8", "dataset.train_size=70"), "samples of a class", "trainer.batch_size="
    )
    refuses(refused("trainer.classes_per_batch=8", "trainer.batch_size=null"), "whole training split")
    refuses(refused("trainer.classes_per_batch=2", "dataset=polynomial", "trainer.batch_size=8"), "no classes")


@pytest.mark.usefixtures("here")
def test_classes_are_held_out_for_the_test(call: Call, verify_resume: Call) -> None:
    balanced = ("trainer.classes_per_batch=8", "dataset.held_out_classes=[3,7]", "dataset.test_size=350")
    done = call("train", *QUICK, *balanced, "trainer.epochs=1")
    assert done.code == 0, done.err
    says(done.out, "350 test", "8 of each of 8 classes")
    data = package.load(all_runs()[0].id).data
    targets = [split.gather(torch.arange(len(split))).y for split in (data.train, data.validation, data.test) if split]
    assert [{*y.tolist()} for y in targets] == [{*range(10)} - {3, 7}] * 2 + [{3, 7}]
    resumed = verify_resume(*QUICK, *balanced)
    assert resumed.code == 0, resumed.err
    refuses(call("train", "dataset.held_out_classes=[3,7]"), "loss=triplet", "+metrics.error=null")
    refuses(call("train", *QUICK, "dataset.held_out_classes=[3,12]"), "0 to 9")
    refuses(call("train", *QUICK, "dataset.held_out_classes=[3]", "dataset.test_size=300"), "dataset.test_size=183")
