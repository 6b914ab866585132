"""Mistakes in a sweep's jobs as one message."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dlrun.terminal.format import counted

FEW = 2
"""Messages that differ in their numbers alone, such as those of folds, that are all listed."""

_NUMBER = re.compile(r"\d[\d,.]*")


def describe_complaints(complaints: Mapping[str, Sequence[str]], count: int) -> str:
    """The messages, each with the first of the jobs that it is of; of many that differ in their numbers alone one."""
    if count == 1:
        return next(iter(complaints))
    alike: dict[str, list[str]] = {}
    for message in complaints:
        alike.setdefault(_NUMBER.sub("#", message), []).append(message)
    lines = []
    for messages in alike.values():
        for shown in messages if len(messages) <= FEW else messages[:1]:
            together = [shown] if len(messages) <= FEW else messages
            jobs = [label for message in together for label in complaints[message]]
            others = ", with other numbers" if len(together) > 1 else ""
            more = f" (and {len(jobs) - 1} more{others})" if len(jobs) > 1 else ""
            lines.append(f"{jobs[0]}{more}: {shown}")
    wrong = sum(map(len, complaints.values()))
    return f"{wrong} of {counted(count, 'job')} cannot run, so none was started:\n" + "\n".join(lines)
