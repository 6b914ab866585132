"""The study of memory: held by runs that fulfil its claims, not held by runs that violate them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dlrun.storage.results import Result
from dlrun.studies.memory import Memory, activations, seconds
from tests.studies.test_studies import HELD, NOT, OPEN, grid, verdicts

DEPTHS = (4, 9, 16, 36, 64)
Growth = Callable[[float], float]


def runs(folder: Path, plain: Growth, root: Growth, reversible: Growth, times: tuple[float, float]) -> list[Result]:
    found = grid(folder, "model.depth", DEPTHS, 3, lambda depth, seed: {})
    for place, result in enumerate(found):
        depth, noise = result.value("model.depth"), 1 + 0.02 * (place % 3 - 1)
        forward = 0.01 * depth * noise
        backward, ratio = times[1] * forward * noise, times[0] * noise
        result.summary.memory = {  # type: ignore[assignment]
            "plain": {"activations": plain(depth), "forward": forward, "backward": backward, "relative": 1.0},
            **{
                way: {"activations": growth(depth), "forward": forward, "backward": 3 * forward, "relative": ratio}
                for way, growth in (("reversible", reversible), ("every block", plain), ("sqrt", root))
            },
        }
    return found


@pytest.mark.parametrize(
    ("growths", "times", "expected"),
    [
        ((lambda d: d, lambda d: d**0.5, lambda d: 1), (1.33, 2.0), [HELD] * 5),
        ((lambda d: d**0.5, lambda d: d, lambda d: d**0.3), (1.7, 1.1), [NOT] * 5),
        ((lambda d: d if d != 9 else 3 * d, lambda d: d**0.5, lambda d: 1), (1.33, 2.0), [OPEN] + [HELD] * 4),
    ],
)
def test_memory(
    tmp_path: Path, growths: tuple[Growth, Growth, Growth], times: tuple[float, float], expected: list[str]
) -> None:
    found = runs(tmp_path, *growths, times)
    assert verdicts(Memory().claims(found)) == expected
    (drawn,) = Memory().figures(found)
    assert len(drawn.figure.axes) == 2
    assert activations(found, "plain")[64] == pytest.approx(growths[0](64))
    assert seconds(found, "plain")[4] == pytest.approx(0.04 * (1 + times[1]), rel=0.01)


def test_runs_that_were_not_measured_decide_nothing(tmp_path: Path) -> None:
    found = grid(tmp_path, "model.depth", DEPTHS, 2, lambda depth, seed: {"val/loss": 1.0})
    assert verdicts(Memory().claims(found)) == [OPEN] * 5
    assert not [*Memory().figures(found)]
