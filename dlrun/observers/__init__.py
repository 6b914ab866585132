"""Parts that look at a run while it trains, as callbacks do elsewhere; a class needs one of the methods in `HOOKS`.

    +observer=predictions

dlrun calls the methods that a class has, each with a `RunView`. A class may have `state_dict` and `load_state_dict`;
without them its attributes that change are kept in the checkpoint. `changes_training = True` says that it changes
weights or rates, `strict = True` that its exceptions end the run.
"""

from __future__ import annotations

HOOKS = {
    "on_start": "before the first step, or the first after a resume",
    "on_log": "at logging steps (trainer.log_every)",
    "on_evaluation": "after each validation (trainer.evaluate_every)",
    "on_checkpoint": "before each checkpoint is written (trainer.checkpoint_every)",
    "on_end": "once at the end, also of a run that fails, diverges or is interrupted",
    "stop_reason": "after on_log and on_evaluation: a text ends the training, None goes on",
}
"""The methods of an observer, and when each is called."""
