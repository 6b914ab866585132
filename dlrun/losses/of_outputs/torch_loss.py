"""PyTorch's losses as losses of a model and a batch: `loss(model(x), y)`.

In training it is torch's own number, to the last bit. Evaluated, it is one value a sample, so that the mean over a
split is exact for any batch size; weighted cross-entropy returns values and weights, the mean is Σ w·v / Σ w.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.errors import ConfigError
from dlrun.losses.auxiliary import add_shares, has_auxiliary_heads
from dlrun.losses.class_axis import axis_of
from dlrun.losses.of_outputs.fitting import fit, fit_classes
from dlrun.losses.of_outputs.forms import FORMS, Form
from dlrun.losses.weighted import Values, unweighted, weights_of
from dlrun.types import IGNORE_INDEX, AuxiliaryHeads, Batch

MEANS = ("mean", "batchmean")


class TorchLoss:
    """A loss of `torch.nn.functional`, by its name and arguments.

    Of classes the logits are those of axis 1, as in torch, or of the last one if only that fits or with `last`.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], *, title: str = "", last: bool = False) -> None:
        given = dict(arguments)
        for old in ("size_average", "reduce"):
            if given.pop(old, None) is not None:
                raise ConfigError(f"loss.{old} is a former name of loss.reduction. Leave it out.")
        self.reduction: str = given.pop("reduction", "mean")
        if self.reduction not in MEANS:
            raise ConfigError(
                f"loss.reduction={self.reduction}: a step's loss is the mean over its batch, and evaluation takes the "
                "samples' values itself. Leave it out."
            )
        if name in ("mse_loss", "l1_loss", "huber_loss") and given.get("weight") is not None:
            raise ConfigError("loss.weight is one of each sample of a batch here, which no configuration knows.")
        if given.get("label_smoothing") and bool((torch.as_tensor(_weight(given)) == 0).any()):
            raise ConfigError("loss.weight has a 0 and loss.label_smoothing is given: their mean is undefined.")
        # `title` is the name that was typed, for messages
        self.name, self.title, self.last = name, title or name, last
        self.arguments = given

    @property
    def form(self) -> Form:
        """What it takes."""
        return Form() if self.arguments.get("log_input") is False else FORMS[self.name]

    @property
    def function(self) -> Callable[..., Tensor]:
        """The function of `torch.nn.functional`."""
        return cast("Callable[..., Tensor]", getattr(F, self.name))

    def to(self, device: torch.device) -> None:
        """Move the weights."""
        self.arguments = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in self.arguments.items()}

    def __call__(self, model: nn.Module, batch: Batch) -> Values:
        """In training torch's mean, else a value a sample; of a weighted mean with its weights."""
        if not torch.is_grad_enabled() or batch.weight is not None or batch.mask is not None:
            # torch's mean knows neither weights of samples nor padded elements
            fitting = self.fit(model(batch.x), batch.y, axis_of(model))
            return self._each(*fitting, axes=batch.mask.ndim if batch.mask is not None else 1)
        if model.training and has_auxiliary_heads(model):
            heads = cast("AuxiliaryHeads", model)
            axis = axis_of(model)
            main, *others = (self._mean(*self.fit(outputs, batch.y, axis)) for outputs in heads.all_outputs(batch.x))
            return add_shares(main, others, heads.auxiliary_weight)
        return self._mean(*self.fit(model(batch.x), batch.y, axis_of(model)))

    def fit(self, outputs: Any, y: Tensor, axis: int | None = None) -> tuple[Any, Tensor]:
        """Outputs and targets as the function takes them, classes on `axis`; raises `ConfigError` for others."""
        if self.form.targets == "classes":
            axis = -1 if self.last else axis
            outputs, y = fit_classes(outputs, y, self.title, shares=self.form.outputs == "logits", axis=axis)
            ignored = self.arguments.get("ignore_index", IGNORE_INDEX)
            if ignored != IGNORE_INDEX and not y.is_floating_point():
                # padding is ignored beside the class that the user names, and torch knows one number alone
                y = y.masked_fill(y == IGNORE_INDEX, ignored)
            return outputs, y
        return fit(outputs, y, self.title, pair=self.form.outputs == "mean and variance")

    def _mean(self, outputs: Any, y: Tensor) -> Values:
        mean = self._call(outputs, y, self.reduction)
        weights = self._weights(y)
        return mean if weights is None else (mean, weights.sum())

    def _each(self, outputs: Any, y: Tensor, *, axes: int) -> Values:
        """The values of samples, or of the elements that the first axes are of."""
        values, weights = self._call(outputs, y, "none"), self._weights(y)
        if weights is not None:
            return unweighted(values, weights), weights
        if values.ndim <= axes or (values.shape == y.shape and not y.is_floating_point()):
            return values  # one a sample, or one a token
        rest = values.flatten(axes)
        return rest.sum(-1) if self.reduction == "batchmean" else rest.mean(-1)

    def _call(self, outputs: Any, y: Tensor, reduction: str) -> Tensor:
        if isinstance(outputs, tuple):
            mean, variance = outputs
            return self.function(mean, y, variance, **self.arguments, reduction=reduction)
        return self.function(outputs, y, **self.arguments, reduction=reduction)

    def _weights(self, y: Tensor) -> Tensor | None:
        """Each target's weight in the mean; None if all count alike, but for those of dlrun's `IGNORE_INDEX`."""
        # targets that are shares of classes have weights within their values
        if not self.form.weighted or y.is_floating_point():
            return None
        classes, ignored = self.arguments.get("weight"), self.arguments.get("ignore_index", IGNORE_INDEX)
        return None if classes is None and ignored == IGNORE_INDEX else weights_of(y, classes, ignored)


def _weight(arguments: Mapping[str, Any]) -> Any:
    found = arguments.get("weight")
    return 1.0 if found is None else found
