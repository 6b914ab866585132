"""Power laws with a floor, fitted to losses: L = E + Σ aᵢ · xᵢ^(-αᵢ).

With parameters N and data D it is L(N, D) = E + A/N^α + B/D^β (Hoffmann et al. 2022, arXiv:2203.15556,
equation 2). Kaplan et al. 2020 (arXiv:2001.08361) have no floor E: their models are far from the entropy of text,
small models after many steps are not. Where the runs show no floor, the fit gives E = 0, which is Kaplan's straight
line in a log-log plot.

The fit is least squares in log L. Its intervals are Student's t with the residuals' degrees of freedom, for the law
linearised at its optimum (Bates and Watts 1988, chapter 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
# The search starts from the `SEARCHES` best of these exponents (of two terms, of their pairs).
STARTS = (0.05, 0.15, 0.3, 0.6, 1.2, 2.0)
SEARCHES = 3
MAX_EXPONENT = 5.0
TINY = 1e-300  # keeps log 0 and 0/0 out of a search that passes through zero
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """A fitted law of `len(centres)` quantities.

    `values` are E, a₁, α₁, a₂, α₂, … for quantities divided by their `centres` (geometric means), `covariance`
    [values, values] theirs; nan for a value at its bound. `residual` is the standard deviation of log L around the
    law, with `freedom` degrees of freedom; `log_rms` is the root mean square, without that correction.
    """

    centres: Array
    values: Array
    covariance: Array
    residual: float
    freedom: int
    log_rms: float

    @property
    def floor(self) -> float:
        """E, the limit of the loss for infinite quantities."""
        return float(self.values[0])

    def exponent(self, i: int = 0) -> float:
        """αᵢ, from 0."""
        return float(self.values[2 + 2 * i])

    def exponent_interval(self, i: int = 0) -> tuple[float, float]:
        """The 95 % interval of αᵢ.

        (nan, nan) if its term is zero.
        """
        half = self._t() * math.sqrt(self.covariance[2 + 2 * i, 2 + 2 * i])
        return self.exponent(i) - half, self.exponent(i) + half

    def loss(self, *x: float | Array) -> Any:
        """The loss at the quantities, numbers or arrays."""
        return _loss(self.values, [np.asarray(v, dtype=np.float64) / c for v, c in zip(x, self.centres, strict=True)])

    def interval(self, *x: float) -> tuple[float, float]:
        """The 95 % prediction interval of one more run's loss."""
        scaled = np.array(x, dtype=np.float64)[:, None] / self.centres[:, None]
        # a value at its bound is not uncertain: its nan counts as 0
        slope = np.nan_to_num(_slopes(self.values, scaled)[0])
        # the scatter of a run, and the uncertainty of the law
        variance = self.residual**2 + float(slope @ np.nan_to_num(self.covariance) @ slope)
        half, middle = self._t() * math.sqrt(variance), math.log(float(self.loss(*x)))
        return math.exp(middle - half), math.exp(middle + half)

    def _t(self) -> float:
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, (1 + LEVEL) / 2))


@dataclass(frozen=True)
class LogLogLine:
    """A law without a floor, L = a · x^slope.

    `low` to `high` is the slope's 95 % interval, `slope_error` its standard error, `centre` the means of log x and
    log L, and `residual` the standard deviation of log L around the line, with `freedom` degrees of freedom.
    """

    slope: float
    low: float
    high: float
    log_rms: float
    centre: tuple[float, float]
    slope_error: float
    residual: float
    freedom: int

    def loss(self, x: float | Array) -> Any:
        """The loss at x, a number or an array."""
        return np.exp(self.centre[1] + self.slope * (np.log(x) - self.centre[0]))

    def interval(self, x: float) -> tuple[float, float]:
        """The 95 % prediction interval of one more run's loss."""
        from scipy.special import stdtrit

        away = math.log(x) - self.centre[0]
        # the scatter of a run, and the uncertainty of height and slope
        variance = self.residual**2 * (1 + 1 / (self.freedom + 2)) + (self.slope_error * away) ** 2
        half, middle = float(stdtrit(self.freedom, (1 + LEVEL) / 2)) * math.sqrt(variance), float(self.loss(x))
        return middle * math.exp(-half), middle * math.exp(half)


def fit_law(loss: Sequence[float], *x: Sequence[float]) -> PowerLaw | None:
    """Fit a law to losses [n] at quantities x, each [n].

    It takes more runs than the law has values, and three distinct values of each quantity; else None.

    >>> law = fit_law([1 + 4 / n**0.5 for n in (1, 4, 16, 64, 256)], [1, 4, 16, 64, 256])
    >>> round(law.floor, 3), round(law.exponent(), 3), round(float(law.loss(1e4)), 3)
    (1.0, 0.5, 1.04)
    """
    y, columns = np.log(np.asarray(loss, dtype=np.float64)), np.asarray(x, dtype=np.float64)
    # the values are E, and a and α of each quantity
    freedom = len(y) - 1 - 2 * len(columns)
    if freedom < 1 or any(len(np.unique(column)) < 3 for column in columns) or not np.isfinite(y).all():
        return None
    # centred in log, the values are of like size and little correlated
    centres = np.exp(np.log(columns).mean(1))
    scaled = columns / centres[:, None]
    starts = sorted((_start(y, scaled, exponents) for exponents in product(STARTS, repeat=len(columns))), key=_error)
    values, rss = min((_search(y, scaled, start) for start, _ in starts[:SEARCHES]), key=_error)
    residual = math.sqrt(rss / freedom)
    covariance = _covariance(values, scaled) * residual**2
    return PowerLaw(centres, values, covariance, residual, freedom, math.sqrt(rss / len(y)))


def fit_line(loss: Sequence[float], x: Sequence[float]) -> LogLogLine | None:
    """Fit a line to log loss over log x.

    None for fewer than three distinct x.

    >>> round(fit_line([8.0, 4.0, 2.0], [1.0, 2.0, 4.0]).slope, 6)
    -1.0
    """
    from scipy.special import stdtrit

    a, b = np.log(np.asarray(x, dtype=np.float64)), np.log(np.asarray(loss, dtype=np.float64))
    if len(np.unique(a)) < 3:
        return None
    slope, offset = np.polyfit(a, b, 1)
    left, freedom = b - slope * a - offset, len(a) - 2
    rss, centre = float(left @ left), (float(a.mean()), float(b.mean()))
    slope_error = math.sqrt(rss / freedom / float(((a - a.mean()) ** 2).sum()))
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * slope_error
    bounds, rest = (float(slope - half), float(slope + half)), math.sqrt(rss / freedom)
    return LogLogLine(float(slope), *bounds, math.sqrt(rss / len(a)), centre, slope_error, rest, freedom)


def _start(y: Array, x: Array, exponents: Sequence[float]) -> tuple[Array, float]:
    """The best values for given exponents, and their relative error."""
    from scipy.optimize import nnls

    # for given exponents the law is linear in E and aᵢ, which must not be negative
    powers = np.stack([np.ones_like(y), *(column**-e for column, e in zip(x, exponents, strict=True))], 1)
    factors, rest = nnls(powers / np.exp(y)[:, None], np.ones_like(y))
    return np.array([factors[0], *(v for pair in zip(factors[1:], exponents, strict=True) for v in pair)]), rest


def _error(found: tuple[Array, float]) -> float:
    return found[1]


def _search(y: Array, x: Array, start: Array) -> tuple[Array, float]:
    """The local optimum from `start`, and its squared error."""
    from scipy.optimize import least_squares

    low = np.zeros_like(start)
    high = np.array([np.inf, *[np.inf, MAX_EXPONENT] * len(x)])
    # analytic derivatives, and scales of the start: E, aᵢ and αᵢ differ by orders of magnitude
    found = least_squares(
        lambda values: np.log(_loss(values, x) + TINY) - y,
        # off zero, where an exponent has no effect, and so no slope
        np.maximum(start, 1e-9),
        jac=lambda values: _slopes(values, x),
        bounds=(low, high),
        x_scale=np.maximum(start, 1e-2),
        xtol=1e-10,
        ftol=1e-12,
        max_nfev=300,
    )
    return found.x, 2 * float(found.cost)


def _loss(values: Array, x: Sequence[Array] | Array) -> Any:
    terms = [values[1 + 2 * i] * column ** -values[2 + 2 * i] for i, column in enumerate(x)]
    return values[0] + sum(terms)


def _slopes(values: Array, x: Array) -> Array:
    """The derivatives of log L by the values, [runs, values]."""
    columns = [np.ones_like(x[0])]
    for i, column in enumerate(x):
        power = column ** -values[2 + 2 * i]
        columns += [power, -values[1 + 2 * i] * power * np.log(column)]
    slopes: Array = np.stack(columns, 1) / (_loss(values, x)[:, None] + TINY)
    return slopes


def _covariance(values: Array, x: Array) -> Array:
    """The covariance of the values, for residuals of variance 1."""
    slopes = _slopes(values, x)
    # a value at its bound is not free, and gets nan
    at_zero = values < 1e-6 * np.exp(np.log(_loss(values, x)).mean())
    free = ~at_zero
    for i in range(len(x)):
        free[2 + 2 * i] &= free[1 + 2 * i]  # a term that is zero has no exponent
    found = np.full((len(values), len(values)), np.nan)
    free_slopes = slopes[:, free]
    found[np.ix_(free, free)] = np.linalg.pinv(free_slopes.T @ free_slopes, rcond=1e-13)
    return found
