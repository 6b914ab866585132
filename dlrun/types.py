"""The vocabulary: a handful of types for every signature.

A data set is `Data`: up to three `Split`s and a `Spec`. A split gives a `Batch` for any set of
indices. A model is a `torch.nn.Module`. A `Loss` asks the model for what it needs and returns one
value a sample; a `Metric` returns a sum and a count; a `Schedule` maps a step to a factor of the
learning rate; a `Rule` turns gradients into one change of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypedDict

from dlrun.nests.batch import Batch as Batch

if TYPE_CHECKING:  # torch takes a second to import, and no type here needs it at run time
    import torch
    from torch import Tensor, nn

Task = Literal["classification", "regression", "density", "language", "embedding", "dense", "other"]
"""`dense`: a class for each element of a sequence or picture; `other`: what the loss and the metrics make of it."""


IGNORE_INDEX = -100  # the default of torch's losses
"""A target that no loss counts: padding of a text's last window, and tokens that another window predicts."""


class Split(Protocol):
    """One part of a data set: samples by their indices."""

    def __len__(self) -> int:
        """The number of samples."""

    def gather(self, index: Tensor) -> Batch:
        """The samples at `index`, in that order.

        `index` is int64 [B], on the split's device.
        """

    def to(self, device: torch.device) -> Split:
        """The split with its tensors on `device`."""


@dataclass(frozen=True)
class Spec:
    """The shapes and the task of a data set.

    `input_shape` is the shape of one sample, without the batch axis; of inputs that are a tuple or dict of tensors it
    is a tuple or dict of shapes, with None for sizes that differ from sample to sample. `outputs` is the number of a
    model's values for it: the classes, or the components of a target; 0 if a task `other` does not say. A sample of
    text is a window of `input_shape[0]` tokens, with the vocabulary as `outputs`. `levels` is the number of values that
    a pixel takes, evenly spaced from 0 to 1, if they are so few and lie so.
    `target_scale`: mean and deviation of the raw targets. `target_names` are those of a regression's targets, if known.
    """

    task: Task
    input_shape: Any
    outputs: int
    classes: int | None = None
    class_names: tuple[str, ...] = ()
    vocabulary: int | None = None
    levels: int | None = None
    target_scale: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    target_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class RawInputs:
    """The inputs of a data set before `prepare`, as files for `dlrun predict` hold them.

    `shape` is that of one sample, `dtype` a name of torch's. `low` and `high` bound the training samples: one value
    for all, or one for each component of a vector and each channel of a picture; empty if not known. `pixels` are the
    values of black and white, if declared. `columns` are the names of a vector's components. The outermost pixels of
    nearly all training pictures have a mean within `border`. Pictures of another size are brought to it as `resize`
    says (`crop`, `stretch`; None: refused), transparent ones laid on `background`. A table's columns have `kinds`, and
    a category `texts`: the raw input is a place in them, -1 for others. `missing` says what becomes of NaN.
    """

    shape: tuple[int, ...]
    dtype: str
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    pixels: tuple[float, float] | None = None
    columns: tuple[str, ...] = ()
    border: tuple[float, float] | None = None
    resize: str | None = None
    background: str | None = None
    kinds: tuple[str, ...] = ()
    texts: tuple[tuple[str, ...], ...] = ()
    missing: str = "refuse"


def identity(x: Tensor) -> Tensor:
    """Return `x`: no preparation."""
    return x


@dataclass(frozen=True)
class Samples:
    """The samples of a batch: their places `index` [B], int64, in the training split, and their epoch."""

    index: Tensor
    epoch: int
    seed: int


Augmentation = (
    Callable[["Tensor", "torch.Generator"], "Tensor"] | Callable[["Tensor", "torch.Generator", Samples], "Tensor"]
)
"""(inputs, generator) → varied inputs, or (inputs, generator, samples) → varied inputs; `reading`: see `Batches`."""


class Tokenizer(Protocol):
    """Text ↔ tokens, the numbers 0 … size-1."""

    size: int

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`."""

    def content(self) -> dict[str, Any]:
        """The tokenizer as JSON values, for the class method `load`."""


@dataclass(frozen=True)
class SampleKeys:
    """Numbers [n] that are equal for equal samples: of all `total`, or of about one in `one_in`.

    A text has one for each window of characters.
    """

    values: Tensor
    total: int
    one_in: int = 1


@dataclass(frozen=True)
class Data:
    """A data set in three splits.

    `prepare` maps raw inputs, as in the files, to inputs of the model; the splits are already prepared.
    `augment` varies a training batch, as a function of its generator, and of the samples and their epoch if it takes a
    third argument `samples`. `truth` is the function behind noisy targets, if it is known. `tokenizer` is set for a
    text.

    `split_fingerprints` are of each split's raw samples, before any preparation: equal for equal inputs and targets.
    `sample_keys` are of each split's raw inputs: they find what two splits, or two runs, share.
    `inputs` describes the raw inputs, if they are no tokens.
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
    split_fingerprints: Mapping[str, str] = field(default_factory=dict)
    sample_keys: Mapping[str, SampleKeys] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    inputs: RawInputs | None = None

    def __repr__(self) -> str:
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        sizes = ", ".join(f"{len(split)} {name}" for name, split in splits.items() if split is not None)
        return f"Data({self.name!r}, {self.spec.task}: {sizes})"


class LanguageModel(Protocol):
    """A causal model: the next token from those before.

    Calling it is one step with no memory: x [B, T] → logits [B, T, V]; those at t are of the token t+1.
    """

    @property
    def context(self) -> int | None:
        """The most tokens seen at once; None: no bound."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return `step(x, None)[0]`."""

    def step(self, x: Tensor, memory: Any | None) -> tuple[Tensor, Any]:
        """The logits after `memory`, and the new memory.

        For x [B, t] the logits are [B, t, V]. The given memory is left as it was: tuples, lists and tensors with the
        batch as an axis.
        """


class AuxiliaryHeads(Protocol):
    """A model with further heads, which have a share of the loss in training.

    Calling it gives the main outputs alone. dlrun's losses add `auxiliary_weight` times the loss of each further head;
    to a loss of one's own, `losses.auxiliary.with_auxiliary_heads` adds them.
    """

    @property
    def auxiliary_weight(self) -> float:
        """The share of each head; 0: they are not computed."""

    def all_outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """The main outputs, and those of each auxiliary head."""


Loss = Callable[["nn.Module", Batch], "Tensor | tuple[Tensor, Tensor]"]
"""(model, batch) → one value a sample, float [B] (or a token, [B, T]), or already their mean, a scalar.

Of a weighted mean it returns a pair instead, the values and their weights, [B] both, or the mean and Σ w: the mean of a
split is Σ w·v / Σ w, on the curve too. A loss that compares the samples of a batch has the attribute `of_batch = True`.

A function, or a class whose objects are called. Training takes the mean of the values; where targets may be
`IGNORE_INDEX`, the loss returns the mean over the others itself while gradients are on, and 0 for ignored ones
otherwise. Evaluation asks without gradients and sums the values. A tensor made of the arguments belongs on the
device of `batch.x`. Nothing is registered: stacked runs call the loss under `torch.vmap`.
"""

Metric = Callable[["nn.Module", Batch], "tuple[Tensor, int | Tensor]"]
"""(model, batch) → the sum of a quantity over the batch, and how many it was summed over."""


class Outputs(NamedTuple):
    """The model's `outputs` of a whole split, float [N, ...], and its targets `y` [N, ...], or nests of such."""

    outputs: Any
    y: Any


SplitMetric = Callable[..., "float | Tensor"]
"""(outputs, y) → a quantity of a whole split, one number; its function has the attribute `of_split = True`.

For what is no sum over samples, such as the share of samples whose nearest neighbour is of their class. It stands among
the metrics, and is called once, with the outputs of all samples in order, on the model's device. An argument `inputs`
gets the prepared inputs [N, ...], an argument `train` the `Outputs` of the training split; such a metric is not
computed of the training split itself.
"""


class StepMemory(TypedDict, total=False):
    """Bytes of activations (None: not known), seconds, and the time as a multiple of the plain step."""

    activations: int | None
    forward: float
    backward: float
    relative: float


class Quantity(TypedDict):
    """The direction and the unit of a metric.

    Values of another unit are not comparable. The direction is None if nobody declared it.
    """

    higher_is_better: bool | None
    unit: str


Schedule = Callable[[int, int], float]
"""(step, steps) → the factor by which the learning rate of step 0 … steps-1 is multiplied."""


class Rule(Protocol):
    """Changes parameters by their gradients, at a rate."""

    lr: float

    def init(self, params: list[Tensor], decay: list[bool]) -> None:
        """Allocate the state for `params`.

        `decay` is true for those that weight decay acts on.
        """

    def update(self, params: list[Tensor], grads: list[Tensor], lr: float) -> None:
        """Change `params` in place, at the rate `lr`."""

    def state_dict(self) -> dict[str, Any]:
        """The state as plain numbers and tensors, for `weights_only=True`."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of `state_dict`, after `init`."""


class Update(NamedTuple):
    """The loss before a step, the batch's weight in a weighted mean, and norms of the gradient, if measured.

    `grad_norm` is that of the whole gradient, `parameter_norms` those of each parameter's, [P] or of a stack [P, R];
    both are before clipping. `clipped_norm` is that of the whole after it.
    """

    loss: Tensor
    grad_norm: Tensor | None
    weight: Tensor | None = None
    parameter_norms: Tensor | None = None
    clipped_norm: Tensor | None = None
