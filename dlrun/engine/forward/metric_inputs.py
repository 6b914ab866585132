"""What a metric from elsewhere is given of a model's outputs: classes, probabilities, or the outputs themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from dlrun.engine.forward.detections import as_samples
from dlrun.losses.class_axis import on_axis_1
from dlrun.losses.entries import entry
from dlrun.types import IGNORE_INDEX, Outputs

Of = Literal["outputs", "probabilities", "positive", "classes"]
"""The outputs as they are; their probabilities; of two classes that of the second; the classes of the highest."""
OF: tuple[str, ...] = get_args(Of)
Link = Literal["softmax", "sigmoid", "none"]
"""How outputs become probabilities; "none": they are such."""

EACH = 4
"""Samples of a class in a trial."""


@dataclass(frozen=True)
class MetricInputs:
    """Maps outputs and targets to predictions and targets as a metric takes them.

    Of a text each token is a sample, of a picture each pixel, and those that do not count are left out; "outputs" of
    a text are one row of tokens. Single components are flattened to [N]. `output` and `target` name entries; a metric
    of several tensors gets them as they are, one of `detection` a list of samples. A `function` of the user's maps
    outputs and targets to what the metric takes. `axis` is that of the classes (`losses.class_axis`). Without `row`
    outputs of a text are [N, C], as scikit-learn has them.

    >>> logits, y = torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([1, 0])
    >>> MetricInputs("classes")(Outputs(logits, y))[0]
    tensor([1, 0])
    """

    of: Of
    link: Link = "softmax"
    output: str | None = None
    target: str | None = None
    function: Callable[[Any, Any], tuple[Any, Any]] | None = None
    detection: bool = False
    axis: int | None = None
    row: bool = True

    def of_entries(self, names: Mapping[str, object]) -> MetricInputs:
        """The same of the entries `output` and `target`."""
        output, target = (None if names.get(key) is None else str(names[key]) for key in ("output", "target"))
        return replace(self, output=output, target=target)

    def choose(self, found: Outputs) -> Outputs:
        """The entries of the outputs and targets that the metric is of."""
        return Outputs(entry(found.outputs, self.output, "output"), entry(found.y, self.target, "target"))

    def __call__(self, found: Outputs) -> tuple[Any, Any]:
        outputs, y = self.choose(found)
        if self.function:
            outputs, y = self.function(outputs, y)
        if self.detection and not isinstance(outputs, Tensor):
            return as_samples(outputs), as_samples(y)
        if not (isinstance(outputs, Tensor) and isinstance(y, Tensor)):
            # such as boxes: what a metric makes of them is its own matter
            return outputs, y
        if outputs.dtype in (torch.bfloat16, torch.float16):
            outputs = outputs.float()
        of_elements = outputs.ndim > 2 and self.of != "outputs" and not y.is_floating_point()
        if of_elements and on_axis_1(outputs.shape, y.shape, self.axis or -1):
            outputs = outputs.movedim(1, -1)  # classes of pixels, as PyTorch's losses have them
        if not y.is_floating_point() and y.ndim > 1 and outputs.shape[:-1] == y.shape:
            counted = y.flatten() != IGNORE_INDEX
            outputs, y = outputs.flatten(0, -2)[counted], y.flatten()[counted]
            # metrics of sequences, such as torchmetrics' Perplexity, want their axis
            if self.of == "outputs" and self.row:
                return outputs.unsqueeze(0), y.unsqueeze(0)
        if y.is_floating_point() and self.of != "outputs":
            y = y.long()  # labels of 0 and 1
        made = self._of(outputs)
        one = made.ndim == 2 and made.shape[1] == 1 and y.shape == made.shape
        return (made[:, 0], y[:, 0]) if one else (made, y)

    def _of(self, outputs: Tensor) -> Tensor:
        if self.of == "outputs":
            return outputs
        if self.of == "classes" and self.link == "softmax":
            return outputs.argmax(1)
        if self.of == "classes":
            return (outputs > (0.0 if self.link == "sigmoid" else 0.5)).long()
        if self.link == "sigmoid":
            return outputs.sigmoid()
        probabilities = outputs.softmax(1) if self.link == "softmax" else outputs
        return probabilities[:, 1] if self.of == "positive" else probabilities

    def every_class(self, found: Outputs, classes: int | None) -> Outputs:
        """The outputs repeated, with all classes in turn: some metrics are not defined without one of them."""
        if not classes or not isinstance(found.y, Tensor) or found.y.is_floating_point() or found.y.ndim != 1:
            return found
        index = torch.arange(EACH * classes, device=found.y.device)
        return Outputs(found.outputs[index % len(found.y)], (index % classes).to(found.y.dtype))
