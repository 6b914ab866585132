"""Several losses as one: the sum of their means, each with a weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from dlrun.errors import ConfigError, did_you_mean
from dlrun.losses.entries import OfEntries
from dlrun.losses.weighing import weigh
from dlrun.losses.weighted import Values, mean_and_weight
from dlrun.losses.with_forward import with_forward
from dlrun.types import Batch, Loss

__all__ = ["WeightedSum"]


class WeightedSum:
    """Σ weight · loss over the `terms` by name; a weight is 1 if it is not given.

    The terms are functions of a model and a batch, or PyTorch's losses; the model is called once for all of them. An
    evaluation has each term's mean too, `loss_NAME`. Raises `ConfigError` for no term, weights of unknown names, and
    terms whose means are over different things: a weighted mean beside one of samples.
    """

    bound = ("terms",)
    """The arguments that are bound, not called: see `config.instantiate`."""
    weighs = True
    """Weights of samples and padding are looked at here, term by term."""

    def __init__(self, terms: Mapping[str, Any], weights: Mapping[str, float] | None = None) -> None:
        if not terms:
            raise ConfigError(
                "loss=sum has no terms. Type for example +loss.terms.ce._target_=torch.nn.CrossEntropyLoss "
                "+loss.terms.l2._target_=dlrun.losses.penalties.l2 +loss.weights.l2=1e-4"
            )
        for name in weights or ():
            if name not in terms:
                raise ConfigError(
                    f"loss.weights.{name}: there is no such term.{did_you_mean(name, terms)} There are: "
                    f"{', '.join(terms)}."
                )
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in terms}
        self.terms: dict[str, Loss] = {}
        self.set_terms(lambda term: term, terms)

    def set_terms(self, change: Callable[[Any], Any], terms: Mapping[str, Any] | None = None) -> None:
        """Replace each term by `change` of it."""
        self.terms = {name: change(term) for name, term in (terms or self.terms).items()}
        # an attribute each: weights of a module in a term train with the model's
        held = [module for term in self.terms.values() for module in _modules(term)]
        self.held = nn.ModuleList(held)

    @property
    def of_batch(self) -> bool:
        """Does a term compare the samples of a batch with each other?"""
        return any(getattr(getattr(term, "func", term), "of_batch", False) for term in self.terms.values())

    def __call__(self, model: nn.Module, batch: Batch) -> Values:
        """The sum of the terms' means; with a weight if one of them is a weighted mean."""
        found = self.found(model, batch)
        means = {n: mean_and_weight(weigh(each, batch, self.terms[n])) for n, each in found.items()}
        total = sum((self.weights[name] * mean for name, (mean, _) in means.items()), start=_zero(found))
        weights = [weight for _, weight in means.values() if weight is not None]
        return (total, weights[0]) if weights else total

    def found(self, model: nn.Module, batch: Batch) -> dict[str, Values]:
        """What each term returns, without the weights of samples; the model is called once."""
        found = dict(self._terms(model, batch))
        self._check(found)
        return found

    def _terms(self, model: nn.Module, batch: Batch) -> Iterator[tuple[str, Values]]:
        """Yield each term's values; the model's outputs are computed once."""
        outputs: list[Any] = []

        def forward(x: Any, *others: Any, **named: Any) -> Any:
            if x is not batch.x or others or named:
                return model(x, *others, **named)
            if not outputs:
                outputs.append(model(x))
            return outputs[0]

        head = with_forward(model, forward)
        for name, term in self.terms.items():
            yield name, term(head, batch)

    def _check(self, found: Mapping[str, Values]) -> None:
        """Refuse values of different shapes, and a weighted mean beside values: no one mean has both exactly."""
        shapes = {name: tuple(each.shape) for name, each in found.items() if isinstance(each, Tensor) and each.ndim}
        weighted = [name for name, each in found.items() if isinstance(each, tuple)]
        if len({*shapes.values()}) > 1 or (weighted and shapes) or len(weighted) > 1:
            kinds = [*(f"{name} {list(shape)}" for name, shape in shapes.items()), *(f"{n} weighted" for n in weighted)]
            raise ConfigError(
                f"loss.terms: the means of the terms are over different things ({', '.join(kinds)}), so their sum "
                "has no exact mean. Leave out the weights of classes, or write one function that returns values and "
                "weights."
            )


def _zero(found: Mapping[str, Values]) -> Tensor:
    first = next(iter(found.values()))
    return (first[0] if isinstance(first, tuple) else first).new_zeros(())


def _modules(term: Any) -> list[nn.Module]:
    """The modules that a term is, holds or is given."""
    if isinstance(term, OfEntries):
        return _modules(term.part)
    if isinstance(term, nn.Module):
        return [term]
    given = term.keywords if isinstance(term, partial) else getattr(term, "__dict__", {})
    return [value for value in given.values() if isinstance(value, nn.Module)]
