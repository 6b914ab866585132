"""What a model's outputs are: probabilities of classes, components of a target, or numbers that are neither."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dlrun.analysis.figures.classes import are_probabilities
from dlrun.datasets.tensors.spec import target_names
from dlrun.errors import UserError
from dlrun.losses.class_axis import axis_of
from dlrun.metrics import for_task
from dlrun.runs.reload.predictor import Predictor
from dlrun.storage.rundir import RunDir
from dlrun.terminal import output
from dlrun.terminal.format import counted

OF_LOGITS = (
    *("torch.nn.CrossEntropyLoss", "torch.nn.NLLLoss"),
    *("torch.nn.functional.cross_entropy", "torch.nn.functional.nll_loss"),
)


def in_table(value: float, *, double: bool = False) -> str:
    """A number to six digits, or more where a large one would lose its last ones.

    >>> in_table(0.1234567), in_table(20000004.0), in_table(1e9 + 0.25, double=True)
    ('0.123457', '20000004', '1000000000.25')
    """
    return f"{value:.12g}" if double else f"{value:.9g}" if abs(value) >= 1e5 else f"{value:.6g}"


class Answers(NamedTuple):
    """Of some samples the model's `outputs` [n, ...] and what they mean: `values` [n, k], of classes the likeliest.

    A `prediction` is a class's number, -1 where an output is no number. `classes` [n, ...] are those of the elements
    of a sample.
    """

    outputs: Tensor
    values: Tensor
    prediction: Tensor | None = None
    classes: Tensor | None = None


class Meaning:
    """Interprets outputs, chunk by chunk; the first decides what they all are.

    `names` are those of the values.
    """

    names: list[str]

    def __init__(self, folder: RunDir, predictor: Predictor) -> None:
        self._predictor = predictor
        self._refused = _refused(folder, predictor)
        self._shape: list[int] | None = None
        self._classes = self._softmax = self._double = False
        self._axis: int | None = None
        self._seen = self._not_finite = 0
        self.class_names = list(predictor.spec.class_names) or [str(c) for c in range(predictor.spec.outputs)]

    def __call__(self, outputs: Tensor) -> Answers:
        if self._shape is None:
            self._decide(outputs)
        elif self._shape != list(outputs.shape[1:]):
            raise UserError("The model's outputs have another shape for each file. Type `dlrun predict` once for each.")
        flat = outputs.reshape(len(outputs), -1)
        if self._classes:
            flat = outputs.softmax(1) if self._softmax else self._checked(outputs)
        finite = flat.isfinite().all(1)
        self._seen += len(flat)
        self._not_finite += int((~finite).sum())
        elements = None if self._axis is None else outputs.argmax(self._axis)
        return Answers(outputs, flat, torch.where(finite, flat.argmax(1), -1) if self._classes else None, elements)

    @property
    def of_classes(self) -> bool:
        """The values are probabilities of classes."""
        return self._classes

    def write(self, value: float) -> str:
        """A value in a table."""
        return f"{value:.6f}" if self._classes else in_table(value, double=self._double)

    def exact(self, value: float) -> float:
        """A value as short as it can be told from all others: nine digits tell those of float32 apart."""
        return value if self._double else float(f"{value:.9g}")

    def report(self) -> None:
        """Say how many outputs were no numbers."""
        if self._not_finite:
            output.warn(
                f"The model's outputs for {self._not_finite:,} of {counted(self._seen, 'sample', ',')} are not finite "
                "numbers."
            )

    def _decide(self, outputs: Tensor) -> None:
        spec = self._predictor.spec
        shape = self._shape = list(outputs.shape[1:])
        width = outputs[0].numel()
        self._double = outputs.dtype == torch.float64
        if spec.task == "classification" and shape == [spec.outputs] and not self._refused:
            self._classes, self._softmax = True, self._takes_logits(outputs)
            self.names = [f"p({name})" for name in self.class_names]
            return
        if spec.task != "classification" and width == spec.outputs and not self._refused:
            word = {"embedding": "embedding_", "density": "log_prob"}.get(spec.task, "")
            numbered = [f"{word}{i}" for i in range(width)] if width > 1 else [word.rstrip("_")]
            self.names = numbered if word else [*target_names(spec)]
            return
        self.names = [f"output_{i}" for i in range(width)]
        if spec.task in ("dense", "other"):
            self._axis = self._axis_of_classes(shape) if spec.task == "dense" else None
            what = "logits of a class for each element" if spec.task == "dense" else "what its loss and metrics know"
            known = "" if self._axis is None else ", and the classes of the elements as `classes`"
            masks = "; --masks FOLDER writes pictures of them" if known and len(shape) == 3 else ""
            output.warn(
                f"The model's outputs are {what}, {shape} a sample. They are printed as they are, as output_0 and so "
                f"on, the last axis running fastest; a file .npz has them in this shape{known}{masks}."
            )
            return
        kind = "logits of the classes" if spec.task == "classification" else "the target"
        expected = f"; expected {[spec.outputs]}" if shape != [spec.outputs] else ", and its metrics do not fit them"
        output.warn(
            f"The model's outputs are not {kind}: they have the shape {shape} a sample{expected}. They are printed as "
            "they are, as output_0 and so on, the last axis running fastest."
        )

    def _axis_of_classes(self, shape: list[int]) -> int | None:
        """The axis of a sample's classes in a batch; None if its shape leaves it open and the model does not say it."""
        classes = self._predictor.spec.outputs
        fitting = [axis for axis, size in ((1, shape[0]), (-1, shape[-1])) if size == classes and len(shape) > 1]
        return fitting[0] if len(fitting) == 1 else axis_of(self._predictor.model) if fitting else None

    def _takes_logits(self, outputs: Tensor) -> bool:
        """Whether the outputs are logits: a loss of the user's own may be given probabilities."""
        loss = str(self._predictor.config["loss"]["_target_"])
        # PyTorch's losses of classes take logits, or log-probabilities, whose softmax are the probabilities
        if (loss.startswith("dlrun.") and loss.rpartition(".")[2] != "OfOutputs") or loss in OF_LOGITS:
            return True
        if are_probabilities(outputs):
            output.warn("The model's outputs are probabilities: none is negative, and each sample's sum is 1.")
            return False
        output.warn(
            f"p(…) is the softmax of the model's outputs. If {loss} does not take them as logits, it means nothing."
        )
        return True

    def _checked(self, outputs: Tensor) -> Tensor:
        if not are_probabilities(outputs):
            raise UserError(
                f"The model's outputs were probabilities up to sample {self._seen}, and are none behind it. Give the "
                "samples in files of fewer, or ask in Python: `run = dlrun.load(RUN)`."
            )
        return outputs


def _refused(folder: RunDir, predictor: Predictor) -> bool:
    """Did the run find that its outputs do not bear the metrics of the task?"""
    own = predictor.config["metrics"]
    wanted = {name for name in for_task(predictor.spec.task) if own.get(name, name) is not None}
    splits = [key.split("/", 1) for key in folder.summary().metrics if key.startswith(("val/", "test/"))]
    return bool(wanted and splits) and not wanted & {name for _, name in splits}
