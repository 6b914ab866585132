"""dlrun: a command-line runner for deep-learning experiments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlrun.runs.reload import Loaded

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(reference: str, *, trusted: Sequence[str] = ()) -> Loaded:
    """Return a run's model (with the selected weights), data, config and summary, for a notebook.

    `reference` is the run's folder, or the beginning of the id that its name ends with; `trusted` names modules outside
    this folder that its configuration may use. Raises
    `dlrun.errors.UserError` if there is no such run, or it has no weights yet.
    """
    from dlrun.runs import reload  # torch is imported only when it is needed: `dlrun --help` imports this file

    return reload.load(reference, trusted=trusted)
