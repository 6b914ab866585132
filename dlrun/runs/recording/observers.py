"""A run's observers, called one after another by its recorder."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from dlrun.config import instantiate
from dlrun.engine.own.state import OwnState, describe
from dlrun.errors import NonFinite, RunError, UserError, place
from dlrun.observers import HOOKS
from dlrun.observers.view import ChangeableRun, Guard, Moment, RunView, Watched, WeightsChanged
from dlrun.randomness import OBSERVING, key, preserve_generators, seed_libraries
from dlrun.runs.recording.observer_checks import check_observer
from dlrun.storage.checkpoint import Checkpoint
from dlrun.storage.sources import changes_result
from dlrun.terminal import output
from dlrun.types import Schedule


@dataclass(frozen=True)
class Access:
    """How an observer sees its run, and what notices a change."""

    look: RunView
    change: ChangeableRun | None = None
    """For an observer that is declared to change the training."""
    guard: Guard | None = None


class Observers:
    """The observers of a run by name.

    `attach` gives them the run. `stopped` says which has ended the training, and why.
    """

    def __init__(self, parts: Mapping[str, Any] | None = None, trusted: Collection[str] = ()) -> None:
        self.parts = dict(parts or {})
        self.stopped: dict[str, str] = {}
        self._own = {name: OwnState({f"observers.{name}": part}, trusted) for name, part in self.parts.items()}
        for own in self._own.values():
            own.watch()
        self._rates: dict[str, float] = {}
        self._moment = Moment()
        self._run: Watched | None = None
        self._access: dict[str, Access] = {}
        self._no_model = ""
        self._said: set[tuple[str, str, type]] = set()
        self._saved_step: int | None = None

    def __bool__(self) -> bool:
        return bool(self.parts)

    @property
    def changing(self) -> list[str]:
        """The names of those that change weights or rates."""
        return [name for name, part in self.parts.items() if getattr(type(part), "changes_training", False)]

    @property
    def stopping(self) -> list[str]:
        """The names of those that may end the training."""
        return [name for name, part in self.parts.items() if hasattr(part, "stop_reason")]

    @property
    def during_training(self) -> list[str]:
        """The names of those that are called before the end."""
        hooks = [hook for hook in HOOKS if hook != "on_end"]
        return [name for name, part in self.parts.items() if any(hasattr(part, hook) for hook in hooks)]

    def describe(self) -> str:
        """Their names, and what they may do to the run."""
        verbs = dict.fromkeys(self.changing, "changes the training")
        verbs |= {name: "may end the training" for name in self.stopping if name not in verbs}
        words = (f"{name} ({verbs[name]})" if name in verbs else name for name in self.parts)
        return ", ".join(words) + (f"; ended by {self.stopped['by']}: {self.stopped['reason']}" if self.stopped else "")

    def scaled(self, schedule: Schedule) -> Schedule:
        """The schedule with the factors that observers set."""
        return _Scaled(schedule, self._rates) if self.changing else schedule

    def attach(self, run: Watched, *, no_model: str = "") -> None:
        """Give them a run; `no_model` is why its model is out of date if the run fails."""
        self._run = run = replace(run, moment=self._moment, rates=self._rates)
        self._no_model = no_model
        changing = self.changing
        for name in self.parts:
            guard = Guard(run.training, name)
            change = ChangeableRun(name, run) if name in changing else None
            self._access[name] = Access(RunView(name, run, guard), change, guard)

    def start(self, step: int, *, resumed: bool) -> None:
        """Call `on_start`, before the first step of this process."""
        if self.parts:
            self._moment.resumed = resumed
            self._at(step, {})
            if resumed:
                curves = next(iter(self._access.values())).look.curves()
                self._moment.latest.update({name: points[-1][1] for name, points in curves.items() if points})
            self._call_all("on_start", may_change=True)

    def point(self, step: int, values: dict[str, float]) -> None:
        """Call those that look at a point of the curves."""
        if not self.parts:
            return
        self._at(step, values)
        hook = "on_evaluation" if any(name.startswith("val/") for name in values) else "on_log"
        self._call_all(hook, may_change=True)
        for name in self.stopping if not self.stopped else ():
            reason = self._call(name, "stop_reason")
            if reason is not None and not isinstance(reason, str):
                raise RunError(
                    f"observers.{name}: stop_reason returned {reason!r}; it returns a text, the reason to end the "
                    f"training, or None."
                )
            if reason is not None and not self.stopped:
                self.stopped = {"by": f"observers.{name}", "reason": reason}
                output.say(f"  observers.{name} ends the training at step {step}: {reason}")

    def checkpoint(self, content: Checkpoint) -> Checkpoint:
        """Call `on_checkpoint`; returns the checkpoint with the observers' state."""
        if not self.parts:
            return content
        # the loop saves once more at its end
        if content.step != self._saved_step:
            self._at(content.step, {})
            self._call_all("on_checkpoint")
            self._saved_step = content.step
        states = {name: state for name in self.parts if (state := self._state_of(name))}
        kept = {"states": states, "rates": dict(self._rates), "stopped": dict(self.stopped)}
        return replace(content, observers={name: value for name, value in kept.items() if value})

    def load(self, content: Mapping[str, Any]) -> None:
        """Take what `checkpoint` has kept.

        Raises `UserError` for what a checkpoint may not set.
        """
        for name, state in content.get("states", {}).items():
            if name in self.parts:
                self._load_state(name, state)
        # of one that was taken away on resume nothing holds any more
        self._rates.update({n: float(f) for n, f in content.get("rates", {}).items() if n in self.changing})
        stopped = {str(key): str(value) for key, value in content.get("stopped", {}).items()}
        if stopped.get("by", "").removeprefix("observers.") in self.stopping:
            self.stopped = stopped

    def end(
        self,
        step: int,
        status: str,
        *,
        metrics: Mapping[str, float] | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Call `on_end` of a run that ends with `status`; a second call does nothing."""
        if self._run is None or self._moment.status != "running":
            return
        moment = self._moment
        moment.status, moment.metrics = status, metrics or {}
        moment.error = None if error is None else f"{type(error).__name__}: {error}".removesuffix(": ")
        moment.diverged = isinstance(error, NonFinite)
        moment.no_model = self._no_model if status != "finished" else ""
        # the weights are saved by now: nothing is guarded any more
        self._access = {name: Access(RunView(name, self._run)) for name in self.parts}
        self._at(step, {})
        self._call_all("on_end")

    def _load_state(self, name: str, state: Mapping[str, Any]) -> None:
        part, prefix = self.parts[name], f"observers.{name}."
        for each in state.get("attributes", {}):
            attribute = each.removeprefix(prefix)
            # made while training, not by `__init__`
            if attribute.isidentifier() and not hasattr(part, attribute):
                setattr(part, attribute, None)
        try:
            self._own[name].load_state_dict(state)
        except KeyError:  # its class was edited since
            output.warn(f"observers.{name} has no state in the checkpoint: it begins anew.")

    def _at(self, step: int, values: Mapping[str, float]) -> None:
        assert self._run is not None
        moment = self._moment
        moment.step, moment.epoch = step, self._run.training.plan.epoch(step)
        moment.values = dict(values)
        moment.latest.update(values)

    def _call_all(self, hook: str, *, may_change: bool = False) -> None:
        for name in self.parts:
            self._call(name, hook, may_change=may_change)

    def _call(self, name: str, hook: str, *, may_change: bool = False) -> Any:
        """Call a method of an observer, if it has it."""
        method = getattr(self.parts[name], hook, None)
        if method is None:
            return None
        access = self._access[name]
        view = access.change if may_change and access.change else access.look
        try:
            with self._apart(), _guarding(None if view is access.change else access.guard):
                return method(view)
        except WeightsChanged:
            raise
        except KeyError as error:
            if hook != "stop_reason" or not self._comes(error):
                self._report(name, hook, error)
        except UserError as error:
            # nothing is trained yet: whoever asked for it can correct it
            if hook == "on_start":
                raise
            self._report(name, hook, error)
        except Exception as error:
            self._report(name, hook, error)
        finally:
            self._write(view.take_logged())
        return None

    def _comes(self, error: KeyError) -> bool:
        """Is a name that was asked for one of a validation, before the first of them?"""
        name, known = str(error.args[0] if error.args else ""), self._moment.latest
        return name.startswith("val/") and not any(each.startswith("val/") for each in known)

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Have an observer draw by the seed and the step, and leave the generators as they were."""
        assert self._run is not None
        with preserve_generators():
            seed_libraries(key(self._run.training.seed, OBSERVING, self._moment.step))
            yield

    def _report(self, name: str, hook: str, error: Exception) -> None:
        """Raise the error of an observer that the result depends on; of any other, warn once of each kind."""
        part, said = self.parts[name], (name, hook, type(error))
        words = f"{type(error).__name__}: {error}".removesuffix(": ") + place(error)
        ends = getattr(part, "strict", False) or (changes_result(type(part)) and hook != "on_end")
        # a run that has failed has an error of its own
        if ends and self._moment.status in ("running", "finished"):
            raise RunError(f"observers.{name}.{hook} failed: {words}") from error
        if said in self._said:
            return
        self._said.add(said)
        goes_on = "" if hook == "on_end" else "; the training goes on"
        hint = (
            "" if type(part).__module__.startswith("dlrun.") else " `strict = True` in its class ends the run instead."
        )
        output.warn(f"observers.{name}.{hook} failed: {words}{goes_on}.{hint}")

    def _write(self, logged: dict[str, float]) -> None:
        assert self._run is not None
        if logged:
            self._run.journal.metrics(self._moment.step, self._moment.epoch, logged)
            self._moment.latest.update(logged)

    def _state_of(self, name: str) -> dict[str, Any]:
        own = self._own[name]
        known = len(own.lost)
        own.look_again()
        for line in describe([], own.lost[known:], []):
            output.warn(line)
        return own.state_dict()


@contextmanager
def _guarding(guard: Guard | None) -> Iterator[None]:
    if guard is None:
        yield
        return
    guard.begin()
    try:
        yield
    finally:
        guard.check()


@dataclass(frozen=True)
class _Scaled:
    """A schedule times the observers' factors."""

    schedule: Schedule
    rates: Mapping[str, float]

    def __call__(self, step: int, steps: int) -> float:
        factor = self.schedule(step, steps)
        for each in self.rates.values():
            factor *= each
        return factor


def make_observers(plain: Mapping[str, Any]) -> Observers:
    """Make the observers of a checked configuration.

    Raises `ConfigError`.
    """
    given = {name: part for name, part in plain.get("observers", {}).items() if part is not None}
    parts = {}
    for name, config in given.items():
        check_observer(name, config["_target_"], instantiate.resolve(config["_target_"], trusted=plain["trusted"]))
        parts[name] = instantiate.make(config, trusted=plain["trusted"])
    return Observers(parts, plain["trusted"])
