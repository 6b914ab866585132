"""What an exported file says of itself, as JSON values."""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor

from dlrun.nests.nest import Nest, named_leaves
from dlrun.runs.export.graph import INPUT
from dlrun.runs.export.trained import TrainedModel
from dlrun.storage.machine import inspect
from dlrun.storage.rundir import RunDir
from dlrun.tracking.mlflow.model import describe_inputs

GROUPS = ("dataset", "model", "loss", "optimizer", "schedule", "trainer", "evaluation", "seed")
"""The parts of the configuration that say how the model was made. Others may have addresses and paths."""


def make_card(trained: TrainedModel, given: Nest, found: dict[str, Tensor], *, prepares: bool) -> dict[str, Any]:
    """The card of a model that takes inputs such as `given` and returns such as `found`.

    `prepares`: the preparation of raw inputs is in the file.
    """
    summary, spec = trained.folder.summary(), trained.predictor.spec
    # of several outputs none is scaled back inside
    scaled = None if prepares and len(found) == 1 else spec.target_scale
    # behind the type and the shape
    takes = describe_inputs(summary.inputs, summary.spec).partition("]: ")[2]
    if trained.folder.tokenizer.is_file() and spec.task != "language":
        takes = "tokens of the tokenizer + 1; 0 follows a shorter text"
    takes = takes.replace("the model's metadata", "the card").replace("inputs.prepare", "raw_inputs.prepare")
    return {
        "task": spec.task,
        "inputs": [
            _tensor(name or INPUT, each) | {"is": "raw inputs, prepared inside" if prepares else takes}
            for name, each in named_leaves(given)
        ],
        "outputs": [_tensor(name, value) for name, value in found.items()],
        "classes": spec.classes,
        "class_names": list(spec.class_names),
        "target_names": list(spec.target_names),
        # targets are outputs · deviation + mean
        "target_scale": scaled and dict(zip(("mean", "deviation"), scaled, strict=True)),
        "vocabulary": spec.vocabulary,
        "prepares": prepares,
        "raw_inputs": dict(summary.inputs),
        "metrics": dict(summary.metrics if trained.weights == "best" else summary.last),
        "weights": {"of": trained.weights, "step": trained.step},
        "run": {"id": trained.folder.id, "name": summary.name, "started": summary.started},
        "configuration": {name: trained.predictor.config[name] for name in GROUPS if name in trained.predictor.config},
        "data": dict(summary.data),
        "versions": {"trained": dict(summary.versions), "exported": dict(inspect().versions)},
    }


def tokenizer(folder: RunDir) -> dict[str, Any]:
    """The entry of a text's tokenizer: without it the tokens mean nothing."""
    if not folder.tokenizer.is_file():
        return {}
    return {"tokenizer": json.loads(folder.tokenizer.read_text(encoding="utf-8"))}


def _tensor(name: str, value: Tensor) -> dict[str, Any]:
    return {"name": name, "dtype": str(value.dtype).removeprefix("torch."), "shape": ["batch", *value.shape[1:]]}
