"""The values of a small model's parameters, as points of the curves: the path that a training takes."""

from __future__ import annotations

from dlrun.engine.parameters.names import Named
from dlrun.errors import ConfigError

MOST = 16
"""Numbers of a model that are curves; more would be no picture."""


def check_small(objective: Named) -> None:
    """Raise `ConfigError` for a model of too many numbers."""
    size = sum(p.numel() for p in objective.params)
    if size > MOST:
        raise ConfigError(
            f"trainer.log_parameters is for models of at most {MOST} numbers; this one has {size}. Type "
            f"trainer.log_parameters=false, or trainer.log_gradients=true for the norm of each layer's gradient."
        )


def parameter_values(objective: Named) -> dict[str, float]:
    """The numbers of an objective by the name of their curve; waits for the device."""
    point: dict[str, float] = {}
    for name, p in zip(objective.names, objective.params, strict=True):
        values = p.detach().flatten().tolist()
        point |= {f"parameter/{name}" + f".{i}" * (len(values) > 1): value for i, value in enumerate(values)}
    return point
