"""The matrix: a line a fault, of what its tries came to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

CASE, VERDICT = "fault", "verdict"
RecordProperty = Callable[[str, object], None]


def table(reports: Iterable[Any]) -> str:
    """A line for each case: tries that were right, seconds to the true status, orphans, differences.

    Then what was wrong in each try that was not right. Reports are pytest's, of other processes too.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    skipped: dict[str, str] = {}
    for report in reports:
        properties = dict(getattr(report, "user_properties", ()))
        if CASE not in properties or (report.when != "call" and not report.failed):
            continue
        case, verdict = str(properties[CASE]), properties.get(VERDICT)
        if report.skipped:
            skipped[case] = str(report.longrepr[2])
        else:
            ended = str(getattr(getattr(report.longrepr, "reprcrash", None), "message", "no verdict")).split("\n")[0]
            rows.setdefault(case, []).append(
                verdict or {"right": False, "seconds": None, "orphans": [], "differences": [], "wrong": [ended]}
            )
    if not rows and not skipped:
        return ""
    width = max(map(len, (*rows, *skipped)))
    lines = [f"{'fault':<{width}}  right  seconds to status  orphans  differences"]
    for case in sorted(rows):
        tries = rows[case]
        right = f"{sum(each['right'] for each in tries)}/{len(tries)}"
        orphans, differing = (sum(len(each[key]) for each in tries) for key in ("orphans", "differences"))
        lines.append(f"{case:<{width}}  {right:>5}  {_spread(tries):>17}  {orphans:>7}  {differing:>11}")
    lines += [f"{case:<{width}}  skipped: {why}" for case, why in sorted(skipped.items()) if case not in rows]
    for case in sorted(rows):
        for each in rows[case]:
            lines += [f"{case}: {text}" for kind in ("wrong", "orphans", "differences") for text in each[kind][:3]]
    return "\n".join(lines)


def _spread(tries: list[dict[str, Any]]) -> str:
    found = sorted(each["seconds"] for each in tries if each["seconds"] is not None)
    return f"{found[len(found) // 2]:.1f}, at most {found[-1]:.1f}" if found else "-"
