"""Test-time augmentation: a model's outputs, averaged over views of an image (Krizhevsky et al. 2012, section 4.1).

Only evaluation and prediction see several views; a training step sees one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from types import MethodType

from torch import Tensor, nn
from torch.nn import functional

from dlrun.errors import ConfigError, RunError, did_you_mean


@dataclass(frozen=True)
class Views:
    """The views of an image [C, H, W].

    `flip` adds the mirrored image. `shift` adds the image moved by so many pixels up and to the left, and down and to
    the right; the gap gets the image mirrored at its border. The outputs of the unmoved image have half the weight,
    those of the moved ones a quarter each; mirrored or not, the weight is the same (Jordan 2024, arXiv:2404.00498).

    >>> import torch
    >>> Views(flip=True).average(lambda x: x.flatten(1)[:, :1], torch.tensor([[[[1.0, 5.0]]]]))
    tensor([[3.]])
    """

    flip: bool = False
    shift: int = 0

    def average(self, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The mean output of `forward` over the views of images [B, C, H, W].

        Raises `RunError` for outputs that are no tensor.
        """
        mean = self._mirrored(forward, x)
        if not self.shift:
            return mean
        height, width = x.shape[-2:]
        padded, twice = functional.pad(x, (self.shift,) * 4, mode="reflect"), 2 * self.shift
        first = self._mirrored(forward, padded[..., :height, :width])
        last = self._mirrored(forward, padded[..., twice : twice + height, twice : twice + width])
        return mean / 2 + (first + last) / 4

    def _mirrored(self, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        found = _tensor(forward(x))
        return (found + _tensor(forward(x.flip(-1)))) / 2 if self.flip else found


def make_views(options: Mapping[str, bool | int] | None, shape: tuple[int, ...]) -> Views | None:
    """The views of options such as `{flip: true, shift: 1}`, for inputs of `shape`.

    Raises `ConfigError` for an unknown name, a value out of range, or inputs other than images.
    """
    if not options:
        return None
    valid = [field.name for field in fields(Views)]
    for name, value in options.items():
        if name not in valid:
            raise ConfigError(
                f"evaluation.views has no `{name}`.{did_you_mean(name, valid)} Valid are {', '.join(valid)}."
            )
        if isinstance(value, bool) != (name == "flip") or not isinstance(value, int) or value < 0:
            raise ConfigError(
                f"evaluation.views.{name}={value}: expected true or false for flip, a number of pixels for shift."
            )
    if len(shape) != 3:
        raise ConfigError(f"evaluation.views is for images; a sample of this data set has the shape {list(shape)}.")
    views = Views(**options)  # type: ignore[arg-type]  # the types were checked above
    if views.shift >= min(shape[1:]):
        raise ConfigError(f"evaluation.views.shift={views.shift} is as large as the image, {list(shape)}.")
    return views


@contextmanager
def averaging(model: nn.Module, views: Views | None) -> Iterator[None]:
    """Average the outputs of `model` over `views` within the context, by whoever calls it."""
    if views is None:
        yield
        return
    attributes = vars(model)
    before = attributes.get("forward")

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return views.average(before or MethodType(type(self).forward, self), x)

    # past `__setattr__`, which wrappers of models replace; a method, so that a copy of the model asks itself
    attributes["forward"] = MethodType(forward, model)
    try:
        yield
    finally:
        del attributes["forward"]
        if before is not None:
            attributes["forward"] = before


@contextmanager
def requiring_call(model: nn.Module, views: Views | None) -> Iterator[None]:
    """Raise `ConfigError` if the loss, computed within the context, does not call the model: it sees no views then."""
    if views is None:
        yield
        return
    calls: list[None] = []
    hook = model.register_forward_pre_hook(lambda *_: calls.append(None))
    try:
        yield
    finally:
        hook.remove()
    if not calls:
        raise ConfigError(
            f"evaluation.views averages what `model(x)` returns, and the loss does not call the "
            f"{type(model).__name__} so: its value would be that of the image alone. Type evaluation.views=null"
        )


def _tensor(outputs: object) -> Tensor:
    if not isinstance(outputs, Tensor):
        raise RunError(
            f"evaluation.views averages the tensors that a model returns; this one returns a {type(outputs).__name__}. "
            f"Type evaluation.views=null"
        )
    return outputs
