"""How often what is said about chance is false, by simulation: the tables of docs/chance.md.

python -m benchmarks.chance > tables.md          # a quarter of an hour on one core
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks import chance_of_claims
from dlrun.analysis.intervals import confidence_interval, is_vague, mean_interval
from dlrun.analysis.simultaneous import differences
from dlrun.analysis.value_range import ValueRange

Array = np.ndarray
Draw = Callable[[np.random.Generator, int, int], Array]

GROUPS, SEEDS = (2, 5, 10, 20, 50), (2, 3, 5, 10, 30)


def _scaled(random: np.random.Generator, groups: int, seeds: int, factor: float) -> Array:
    return random.normal(size=(groups, seeds)) * np.where(np.arange(groups) % 2, factor, 1.0)[:, None]


# values of the groups, and how far each lies above the first
TRUTHS: dict[str, tuple[Draw, Callable[[int], Array]]] = {
    "alike, normal": (lambda random, g, n: random.normal(size=(g, n)), np.zeros),
    "alike, lognormal": (lambda random, g, n: random.lognormal(0, 1, (g, n)), np.zeros),
    "alike, sd 1 and 3": (lambda random, g, n: _scaled(random, g, n, 3.0), np.zeros),
    "one better by 3 sd": (lambda random, g, n: random.normal(size=(g, n)), lambda g: 3.0 * (np.arange(g) > 0)),
    "0, 1, 2 … sd apart": (lambda random, g, n: random.normal(size=(g, n)), lambda g: np.arange(g) * 1.0),
    "0, 1, 2 … apart, lognormal": (lambda random, g, n: random.lognormal(0, 1, (g, n)), lambda g: np.arange(g) * 1.0),
}
MEANS: dict[str, tuple[Callable[[np.random.Generator, int], Array], float]] = {
    "normal, sd 10 %": (lambda random, n: random.normal(1, 0.1, n), 1.0),
    "lognormal, sd 0.5": (lambda random, n: random.lognormal(0, 0.5, n), float(np.exp(0.125))),
    "lognormal, sd 1": (lambda random, n: random.lognormal(0, 1, n), float(np.exp(0.5))),
    "exponential": (lambda random, n: random.exponential(1, n), 1.0),
    "errors of 200 samples, 2 %": (lambda random, n: random.binomial(200, 0.02, n) / 200, 0.02),
    "accuracies of 200 samples, 98 %": (lambda random, n: random.binomial(200, 0.98, n) / 200, 0.98),
    "one run in five diverges, × 100": (
        lambda random, n: random.normal(1, 0.05, n) * np.where(random.random(n) < 0.2, 100, 1),
        20.8,
    ),
}


def winners(trials: int) -> str:
    """A sweep's best group against its others: the share of sweeps where one of the intervals misses."""
    rows = [["truth", "groups", *(f"{n} seeds" for n in SEEDS)]]
    for name, (draw, above) in TRUTHS.items():
        for groups in GROUPS:
            print(f"{name}, {groups} groups", file=sys.stderr, flush=True)
            found = [_winner(draw, above(groups), groups, seeds, trials) for seeds in SEEDS]
            rows.append([name, str(groups), *(f"{now:.1%} ({before:.0%})" for now, before in found)])
    return markdown_table(rows)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _winner(draw: Draw, truth: Array, groups: int, seeds: int, trials: int) -> tuple[float, float]:
    random = np.random.default_rng([groups, seeds])
    missed = before = 0
    for _ in range(trials):
        values = draw(random, groups, seeds) + truth[:, None]
        best = int(values.mean(1).argmin())
        others = [i for i in range(groups) if i != best]
        sides = [dict(enumerate(row)) for row in values.tolist()]
        rest = [sides[i] for i in others]
        found = differences(sides[best], rest, rivals=[(sides[best], rest)])
        real = [truth[i] - truth[best] for i in others]
        missed += not all(f.low <= r <= f.high for f, r in zip(found, real, strict=True))
        each = [_student(values[i] - values[best]) for i in others]
        before += not all(low <= r <= high for (low, high), r in zip(each, real, strict=True))
    return missed / trials, before / trials


def spreads(trials: int) -> str:
    """The interval of a mean: how often it holds the truth, and in brackets Student's t or the bootstrap alone."""
    rows = [["values", *(f"{n} seeds" for n in SEEDS)]]
    for name, (draw, mean) in MEANS.items():
        print(name, file=sys.stderr, flush=True)
        possible = ValueRange(0.0, 1.0 if "samples" in name else np.inf, 200)
        cells = []
        for seeds in SEEDS:
            random = np.random.default_rng(seeds)
            values = [draw(random, seeds) for _ in range(trials)]
            now = [mean_interval(each, possible) for each in values]
            before = [confidence_interval(each) for each in values]
            cells.append(f"{_covered(now, mean):.0%} ({_covered(before, mean):.0%})")
        rows.append([name, *cells])
    return markdown_table(rows)


def telling(trials: int) -> str:
    """How many intervals of a mean stand without "too few seeds", and in brackets how often these hold the truth."""
    rows = [["values", *(f"{n} seeds" for n in SEEDS)]]
    for name, (draw, mean) in MEANS.items():
        possible = ValueRange(0.0, 1.0 if "samples" in name else np.inf, 200)
        cells = []
        for seeds in SEEDS:
            random = np.random.default_rng(seeds)
            found = [(each, *mean_interval(each, possible)) for each in (draw(random, seeds) for _ in range(trials))]
            kept = [ends for each, *ends in found if not is_vague(each, *ends, possible)]
            cells.append(f"{len(kept) / trials:.0%} ({_covered(kept, mean):.0%})" if kept else "0%")
        rows.append([name, *cells])
    return markdown_table(rows)


def _covered(found: Sequence[Sequence[float]], truth: float) -> float:
    return sum(low <= truth <= high for low, high in found) / len(found)


def _student(values: Array) -> tuple[float, float]:
    from dlrun.analysis.intervals import sd, student

    return student(float(values.mean()), sd(values), len(values))


def claims(trials: int) -> str:
    """Each claim of each study: the share of sweeps of pure noise in which it is held."""
    return markdown_table(chance_of_claims.table(trials))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chance", description=__doc__)
    parser.add_argument("--trials", type=int, default=400, help="simulated sweeps of a cell")
    parser.add_argument("--only", choices=["winners", "spreads", "telling", "claims"], help="one of the tables")
    options = parser.parse_args()
    tables = {"winners": winners, "spreads": spreads, "telling": telling, "claims": claims}
    for name, table in tables.items():
        if options.only in (None, name):
            print(f"{table(options.trials)}\n")


if __name__ == "__main__":
    main()
