"""dlrun: a command-line runner for deep-learning experiments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlrun.runs.reload import Loaded

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(reference: str, *, trusted: Sequence[str] = ()) -> Loaded:
    """A run's model with its selected weights, its data, configuration and summary, for a notebook.

    `reference` is the run's folder, or the beginning of its id. `trusted` names modules outside of this folder that
    its configuration may use.

    Raises `dlrun.errors.UserError` if there is no such run, or it has no weights yet.
    """
    from dlrun.runs import reload  # imports torch, and `dlrun --help` imports this file

    return reload.load(reference, trusted=trusted)
