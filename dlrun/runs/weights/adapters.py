"""Adapters for the layers that `finetune.lora` names; all else is frozen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dlrun.config.settings import Lora
from dlrun.errors import ConfigError
from dlrun.models.lora import adapt, adaptable
from dlrun.runs.weights.names import any_matches, check_found, list_names, names_of, tied


def add_adapters(model: nn.Module, settings: Lora, generator: torch.Generator, *, skip: Sequence[str]) -> None:
    """Give layers adapters of `settings.rank`, and freeze all else but what `settings.train` and `skip` name.

    `skip` are the names that `init_from` has not given: they begin at random, so they train whole. Raises `ConfigError`
    for layers that cannot have adapters.
    """
    assert settings.rank is not None
    if settings.rank < 1:
        raise ConfigError(f"finetune.lora.rank={settings.rank}: expected 1 or more. Type finetune.lora.rank=8")
    whole = [*map(str, settings.train), *skip]
    check_found([str(p) for p in settings.train], [n for n, _ in model.named_parameters()], where="finetune.lora.train")
    layers = _layers(model, settings.targets, whole)
    for p, names in names_of(model):
        if not any_matches(whole, names):
            p.requires_grad_(False)
    for layer in layers.values():
        adapt(layer, settings.rank, settings.rank if settings.alpha is None else settings.alpha, generator)


def _layers(model: nn.Module, targets: Sequence[str | int] | None, whole: Sequence[str]) -> dict[str, nn.Module]:
    """The layers that get adapters, by name."""
    found, shared = adaptable(model), {name for names in tied(model) for name in names}
    known = list_names(found) if found else "  none"
    # merged into a matrix that is an embedding too, an adapter would change that
    free = {name: layer for name, layer in found.items() if f"{name}.weight" not in shared}
    if targets is None:
        chosen = {name: layer for name, layer in free.items() if not any_matches(whole, [f"{name}.weight", name])}
        if not chosen:
            raise ConfigError(f"finetune.lora: {type(model).__name__} has no layer for an adapter. It has:\n{known}")
        return chosen
    patterns = [str(pattern) for pattern in targets]
    check_found(patterns, [name for name, _ in model.named_modules() if name], where="finetune.lora.targets")
    for pattern in patterns:
        fitting = {name for name in found if any_matches([pattern], [name])}
        if not fitting:
            raise ConfigError(
                f"finetune.lora.targets: nothing that fits `{pattern}` is a linear or an attention layer of PyTorch. "
                f"Those are:\n{known}"
            )
        for name in sorted(fitting - {*free}):
            raise ConfigError(
                f"finetune.lora.targets: {name} shares its weight with another part ({', '.join(sorted(shared))}), so "
                f"an adapter of it could not be merged. Leave it out, or train it: 'finetune.lora.train=[{name}]'."
            )
    chosen = {name: layer for name, layer in free.items() if any_matches(patterns, [name])}
    if both := [name for name in chosen if any_matches(whole, [f"{name}.weight"])]:
        raise ConfigError(
            f"finetune.lora: {', '.join(both)} would train whole (finetune.lora.train, init_from_skip) and have an "
            f"adapter too. Leave it out of one of them."
        )
    return chosen
