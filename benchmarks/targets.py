"""The goals, and the numbers that the other scripts measured last.

A script marks the figures that answer a goal (`Figure.goal`, `Figure.number`); they lie in `benchmarks/results/`.
Nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.report import Figure, Section


@dataclass(frozen=True)
class Goal:
    """A target for a number; `aim` is the value thought possible."""

    work: str
    target: str
    reached: Callable[[float], bool]
    aim: str = ""


def at_most(bound: float) -> Callable[[float], bool]:
    return lambda number: number <= bound


def at_least(bound: float) -> Callable[[float], bool]:
    return lambda number: number >= bound


# by the name that a figure gives; `work` has the quantity and its unit
GOALS = {
    "convnet": Goal("MNIST convnet, a step / the slides' bare loop, all cores", "≤ 0.42", at_most(0.42), "0.30"),
    "convnet_peak": Goal("the same, % of the matrix products' peak", "≥ 33 %", at_least(33), "50 %"),
    "mlp": Goal("MLP 784-64-10 at 32, more a step than the bare loop, one thread", "≤ 10 µs", at_most(10), "negative"),
    "plane": Goal("MLP of 8 layers of 2 at 32, more a step likewise", "≤ 10 µs", at_most(10), "negative"),
    "polynomial": Goal("polynomial by SGD, more a step likewise", "≤ 10 µs", at_most(10), "negative"),
    "mlp_compiled": Goal("MLP 784-64-10 at 32, its steps compiled / bare loop", "≤ 0.20", at_most(0.20)),
    "plane_compiled": Goal("MLP of 8 layers of 2 at 32, likewise", "≤ 0.20", at_most(0.20)),
    "polynomial_compiled": Goal("polynomial by SGD, likewise", "≤ 0.15", at_most(0.15)),
    "gpt": Goal("character GPT, tokens a second / nanoGPT's loop", "≥ 1.15", at_least(1.15)),
    "gpt_compiled": Goal("the same, its steps compiled", "≥ 1.15", at_least(1.15)),
    "process": Goal("whole process of one trivial run, CPU seconds", "≤ 2.4 s", at_most(2.4)),
    "study_training": Goal(
        "polynomial study of one draw, CPU seconds of the training process", "≤ 2.6 s", at_most(2.6)
    ),
    "study_all": Goal("the same with the uploader", "≤ 5.5 s", at_most(5.5)),
    "seeds_2d": Goal(
        "100 seeds of a 2-D MLP, one thread, speed-up over 100 bare runs", "≥ 33 ×", at_least(33), "100 ×"
    ),
    "seeds_mlp_32": Goal("10 rates × 10 seeds of a 784-64-10 MLP at 32, the same", "≥ 1.8 ×", at_least(1.8)),
    "seeds_mlp_100": Goal("the same at 100", "≥ 1.8 ×", at_least(1.8)),
    "seeds_convnet": Goal("one of 100 seeds of the MNIST convnet in one process / as a command", "≤ 1.0", at_most(1.0)),
    "gpu_run": Goal("GPU: the slides' program, 10 epochs", "≤ 1.0 s", at_most(1.0), "0.4 s"),
    "gpu_hundred": Goal("GPU: 100 runs of it as one sweep", "≤ 30 s", at_most(30), "7 s"),
}


def measure(*, quick: bool = False, folder: Path | None = None) -> Section:
    found = report.read_goals(folder or report.RESULTS.with_name("results"))
    figures = []
    for name, goal in GOALS.items():
        target = f"{goal.target} (possible: {goal.aim})" if goal.aim else goal.target
        if name not in found:
            figures.append(Figure(goal.work, "not measured", target))
            continue
        kept = found[name]
        where = f"{kept['section']}, {kept['when']}, {kept['commit']}; {kept['machine']}"
        figures.append(Figure(goal.work, f"{kept['value']} [{where}]", target, goal.reached(kept["number"])))
    notes = "Each value with the section of this file that it is from. What no section has says so."
    return Section("targets", "what was to be reached", "python -m benchmarks targets", figures, notes, report.load())


def main() -> None:
    print(measure().markdown())


if __name__ == "__main__":
    main()
