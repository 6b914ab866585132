from math import inf

from dlrun.observers.view import RunView


class MyPart:
    """Logs how many validations ago the loss was lowest."""

    def __init__(self) -> None:
        # kept in the checkpoint, as are all attributes that change
        self.lowest, self.since = inf, 0

    # after each validation; on_start, on_log, on_checkpoint, on_end and stop_reason are called at other times
    def on_evaluation(self, run: RunView) -> None:
        loss = run.values["val/loss"]
        self.since = 0 if loss < self.lowest else self.since + 1
        self.lowest = min(loss, self.lowest)
        run.log(since=self.since)  # the curve my_part/since
