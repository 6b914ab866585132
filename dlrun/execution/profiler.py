"""Twenty steps of a run under PyTorch's profiler: a trace, a table and a picture.

The loop knows no profiler. It calls `stop` before each step (or block of steps): there the profiler begins and ends,
and cuts the trace into steps.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from dlrun.engine.plan import Plan
from dlrun.engine.state import State
from dlrun.storage.files.replacing import write_atomically
from dlrun.terminal import output
from dlrun.terminal.format import table

STEPS = 20
"""Steps under the profiler, or the whole of a block that is compiled or recorded as one."""
WARM_UP = 10
"""Steps before them, if the run is long enough: the first ones allocate, choose kernels, compile."""
SHOWN = 15
"""Operators with a row of their own in the table; the others are one row."""
OUTSIDE = "Python and the loop"
_STEP = "step "
_BACKWARD = "autograd::engine::evaluate_function: "


@dataclass(frozen=True)
class Operator:
    """An operator's seconds, without callees, and calls a step."""

    name: str
    seconds: float
    calls: float


@dataclass(frozen=True)
class Profile:
    """The time of some steps, by operators.

    There are `steps` of them, from the step `first` on. `operators` are those of the training thread, `kernels` those
    of an accelerator, the longest first. `seconds` is the mean of a step under the profiler, `before` the median of the
    steps before it (None: there were none).
    """

    first: int
    steps: int
    seconds: float
    before: float | None
    operators: list[Operator]
    kernels: list[Operator]

    def text(self) -> str:
        alone = f", {_short(self.before)} without the profiler" if self.before else ""
        many = f"{self.steps} steps" if self.steps > 1 else "1 step"
        head = f"  where a step goes: {many} from step {self.first} on, {_short(self.seconds)} each{alone}"
        rows = _rows("on the processor", self.operators, self.seconds)
        if self.kernels:
            rows += [[], *_rows("on the device", self.kernels, self.seconds)]
        return f"{head}\n{table(rows)}"


def window(plan: Plan, start: int) -> tuple[int, int]:
    """The range of steps to profile: (first, end).

    In a run from `start` on it begins after the warm-up, at the first place where no validation falls into the twenty
    steps, if there is one.

    >>> window(Plan(steps=1000, per_epoch=25, log_every=10, evaluate_every=25), 0)
    (25, 45)
    >>> window(Plan(steps=6, per_epoch=25, log_every=1, evaluate_every=25), 0)
    (2, 6)
    """
    earliest = start + min(WARM_UP, (plan.steps - start) // 3)
    for first in range(earliest, min(earliest + plan.evaluate_every, plan.steps - STEPS)):
        if not any(plan.evaluates(step) for step in range(first + 1, first + STEPS + 1)):
            return first, first + STEPS
    return earliest, min(earliest + STEPS, plan.steps)


@contextmanager
def profile_steps(
    state: State, stop: Callable[[], bool], *, plan: Plan, device: torch.device, folder: Path
) -> Iterator[Callable[[], bool]]:
    """Yield a `stop` for the loop, to profile by.

    Trace, table and picture of twenty steps go to `folder`. An error of the profiler is a warning, not the end of the
    run.
    """
    watch = _Watch(state, window(plan, state.step), device)

    def look_and_stop() -> bool:
        watch.look()
        return stop()

    try:
        yield look_and_stop
    finally:
        watch.end()
        if watch.found:
            _attempt(lambda: _keep(watch, folder))


def _attempt(work: Callable[[], None]) -> bool:
    try:
        work()
    except Exception as error:
        output.warn(f"The steps could not be profiled: {type(error).__name__}: {error}")
        return False
    return True


class _Watch:
    """Begins, cuts and ends a trace of steps."""

    def __init__(self, state: State, window: tuple[int, int], device: torch.device) -> None:
        self._state = state
        self._first, self._last = window
        self._device = device
        self._marks: list[tuple[int, float]] = []
        self._began = (0, 0.0)
        self._failed = False
        self._range: Any = None
        self.profiler: Any = None
        self.found: Profile | None = None

    def look(self) -> None:
        """Begin, cut or end the trace, if due."""
        step = self._state.step
        if self.found or self._failed:
            return
        if self._range is not None:
            self._cut()
            if step >= self._last:
                self.end()
            else:
                self._open()
            return
        self._marks.append(self._mark())
        if step >= self._first:
            self._failed = not _attempt(self._begin)

    def end(self) -> None:
        """End the trace, if there is one, and summarise it."""
        if self.profiler is None or self.found or self._failed:
            return
        self._cut()
        self._failed = not _attempt(self._end)

    def _mark(self) -> tuple[int, float]:
        if self._device.type == "cuda":  # kernels queued before are no part of what follows
            torch.cuda.synchronize(self._device)
        return self._state.step, time.perf_counter()

    def _begin(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it announces its beginning and its end
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._device.type == "cuda" else [])]
        profiler = profile(activities=activities)
        profiler.start()
        self.profiler = profiler
        self._began = self._mark()
        self._open()

    def _open(self) -> None:
        self._range = torch.profiler.record_function(f"{_STEP}{self._state.step + 1}")
        self._range.__enter__()

    def _cut(self) -> None:
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range = None

    def _end(self) -> None:
        (first, began), (last, ended) = self._began, self._mark()
        self.profiler.stop()
        if last == first:  # the run ended before a step was traced
            return
        # without the first step, which is slower than the others
        before = [(b - a) / (n - m) for (m, a), (n, b) in pairwise(self._marks[1:][-WARM_UP:])]
        self.found = Profile(
            first=first + 1,
            steps=last - first,
            seconds=(ended - began) / (last - first),
            before=median(before) if before else None,
            operators=_operators(self.profiler, last - first, device=False),
            kernels=_operators(self.profiler, last - first, device=True),
        )


def _short(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.0f} µs"


def _operators(profiler: Any, steps: int, *, device: bool) -> list[Operator]:
    """A step's operators on host or device, longest first."""
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        if (event.device_type == torch._C._autograd.DeviceType.CPU) == device:
            continue
        step = event.key.startswith(_STEP)
        if device and (step or event.is_user_annotation):  # the ranges' shadows on the device are no kernels
            continue
        name = OUTSIDE if step else event.key.removeprefix(_BACKWARD)
        own = event.self_device_time_total if device else event.self_cpu_time_total
        seconds[name] += own * 1e-6 / steps
        # the engine's call of a node in the backward pass is counted already, as that of its operator
        calls[name] += 0 if step or event.key.startswith(_BACKWARD) else event.count / steps
    found = [Operator(name, seconds[name], calls[name]) for name in seconds]
    return sorted(found, key=lambda operator: -operator.seconds)


def _rows(title: str, operators: list[Operator], step: float) -> list[list[str]]:
    """Rows of the longest operators, the others, and all."""
    longest, others = operators[:SHOWN], operators[SHOWN:]
    if others:
        rest = Operator(f"{len(others)} others", sum(o.seconds for o in others), sum(o.calls for o in others))
        longest = [*longest, rest]
    whole = Operator("together", sum(o.seconds for o in operators), sum(o.calls for o in operators))
    rows = [[title, "µs a step", "share", "calls a step"]]
    for operator in [*longest, whole]:
        calls = f"{operator.calls:.4g}" if operator.calls else ""
        share = f"{operator.seconds / step:.1%}"
        rows.append([operator.name[:60], f"{1e6 * operator.seconds:.1f}", share, calls])
    return rows


def _keep(watch: _Watch, folder: Path) -> None:
    """Write trace, table and picture; show the table."""
    assert watch.found is not None
    folder.mkdir(exist_ok=True)
    # a trace cut off half-way must not look whole
    half = folder / ".trace.json.gz"
    watch.profiler.export_chrome_trace(str(half))
    half.replace(folder / "trace.json.gz")
    text = watch.found.text()
    write_atomically(folder / "steps.txt", f"{text}\n".encode())
    output.say(text)
    _draw(watch.found, folder / "steps.png")


def _draw(profile: Profile, path: Path) -> None:
    from dlrun.analysis.figures.style import BLUE, ORANGE, figure, save, style_context

    shown = [(o, BLUE) for o in profile.operators[:SHOWN]] + [(o, ORANGE) for o in profile.kernels[:SHOWN]]
    with style_context():
        drawn = figure(9, 1.5 + 0.35 * len(shown))
        axes = drawn.subplots()
        names = [operator.name[:48] for operator, _ in shown]
        axes.barh(range(len(shown)), [1e6 * o.seconds for o, _ in shown], color=[colour for _, colour in shown])
        axes.set_yticks(range(len(shown)), names)
        axes.invert_yaxis()
        axes.set_xlabel("µs a step (orange: on the device)" if profile.kernels else "µs a step")
        axes.set_title(f"where a step goes: {profile.steps} steps from step {profile.first} on")
        save(drawn, path)
