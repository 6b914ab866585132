"""A schedule drawn with characters, for `dlrun list` on a terminal."""

from __future__ import annotations

from dlrun.types import Schedule

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def picture(schedule: Schedule, *, steps: int = 1000, width: int = 48, height: int = 3) -> str:
    r"""The curve over `steps` steps, in `height` lines.

    >>> print(picture(lambda step, steps: 1 - step / steps, width=8, height=2))
        1 ┤█▆▃▁
        0 ┤████▇▅▂
    """
    at = [round(i * (steps - 1) / max(1, width - 1)) for i in range(width)]
    heights = [max(0.0, schedule(step, steps)) for step in at]
    top = max(heights) or 1.0
    eighths = [round(h / top * 8 * height) for h in heights]
    lines = []
    for row in reversed(range(height)):
        label = f"{top:.2g}" if row == height - 1 else "0" if row == 0 else ""
        bar = "".join(_EIGHTHS[min(8, max(0, e - 8 * row))] for e in eighths)
        lines.append(f"{label:>5} {'┤' if label else '│'}{bar}".rstrip())
    return "\n".join(lines)
