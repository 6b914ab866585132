"""The vocabulary: the handful of types that every signature speaks.

A data set is `Data`: up to three `Split`s and a `Spec`. A split gives a `Batch` for any set of
indices. A model is a `torch.nn.Module`. A `Loss` asks the model for what it needs and returns one
value a sample; a `Metric` returns a sum and a count; a `Schedule` maps a step to a factor of the
learning rate; a `Rule` turns gradients into one change of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Task = Literal["classification", "regression", "density", "language"]

IGNORE_INDEX = -100
"""A target that is not predicted: what pads a text's last window, or what another window predicts."""


class Batch(NamedTuple):
    """Samples side by side: inputs `x` [B, ...] and targets `y` [B, ...]."""

    x: Tensor
    y: Tensor


class Split(Protocol):
    """One part of a data set, whose samples are gathered by their indices."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def gather(self, index: Tensor) -> Batch:
        """Return the samples at `index` (int64 [B], on the split's device), in that order."""

    def to(self, device: torch.device) -> Split:
        """Return the split with its tensors on `device`."""


@dataclass(frozen=True)
class Spec:
    """What the data decides about a model: shapes, classes and the kind of inference.

    `input_shape` is the shape of one sample, without the batch axis; `outputs` is the number of
    values that a model returns for it (the classes, or the components of a target). Of a text a sample
    is a window of `input_shape[0]` tokens, and `outputs` the vocabulary.
    """

    task: Task
    input_shape: tuple[int, ...]
    outputs: int
    classes: int | None = None
    class_names: tuple[str, ...] = ()
    vocabulary: int | None = None


def identity(x: Tensor) -> Tensor:
    """Return `x` as it is: the preparation of a data set that needs none."""
    return x


Augmentation = Callable[["Tensor", "torch.Generator"], "Tensor"]


class Tokenizer(Protocol):
    """Text ↔ tokens, the numbers 0 … size-1."""

    size: int

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`."""

    def content(self) -> dict[str, Any]:
        """The values it is made of, as JSON can hold them; the class method `load(content)` makes it again."""


@dataclass(frozen=True)
class Data:
    """A data set, split and ready: what a run learns from, chooses by, and is tested on.

    `prepare` maps raw inputs, as they lie in the files, to what the model sees; the splits are
    already prepared. `augment` varies a training batch, as a function of its generator alone.
    `truth` is the function that the targets were drawn around, where it is known. `tokenizer` is that of
    a text.
    """

    name: str
    spec: Spec
    train: Split
    validation: Split | None
    test: Split | None
    fingerprint: str
    prepare: Callable[[Tensor], Tensor] = identity
    augment: Augmentation | None = None
    truth: Callable[[Tensor], Tensor] | None = None
    tokenizer: Tokenizer | None = None
    notes: dict[str, Any] = field(default_factory=dict)


class LanguageModel(Protocol):
    """A causal model of tokens: what follows after each, from it and those before it alone.

    Calling it is one step with no memory: x [B, T] → logits [B, T, V], those at t of the token t+1.
    """

    @property
    def context(self) -> int | None:
        """Return how many tokens it can see at once; None if there is no bound."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return `step(x, None)[0]`."""

    def step(self, x: Tensor, memory: Any | None) -> tuple[Tensor, Any]:
        """Return the logits [B, t, V] of x [B, t], which goes on behind what `memory` has seen, and the new memory.

        The given memory is left as it was. It is made of tuples, lists and tensors with the batch as an axis.
        """


Loss = Callable[["nn.Module", Batch], "Tensor"]
"""(model, batch) → one value a sample, float [B] (or a token, [B, T]), or already their mean, a scalar."""

Metric = Callable[["nn.Module", Batch], "tuple[Tensor, int | Tensor]"]
"""(model, batch) → the sum of a quantity over the batch, and how many it was summed over."""

Schedule = Callable[[int, int], float]
"""(step, steps) → the factor by which the learning rate of step 0 … steps-1 is multiplied."""


class Rule(Protocol):
    """The mathematics of a gradient method: gradients and a rate in, changed parameters out."""

    lr: float

    def init(self, params: list[Tensor], decay: list[bool]) -> None:
        """Allocate the state for `params`; weight decay acts on those whose `decay` is true."""

    def update(self, params: list[Tensor], grads: list[Tensor], lr: float) -> None:
        """Change `params` in place by one step at the rate `lr`."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers and tensors (loads with `weights_only=True`)."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` returned, after `init`."""


class Update(NamedTuple):
    """What one optimizer step reports: the loss before it, and the gradient's norm if it was taken."""

    loss: Tensor
    grad_norm: Tensor | None
