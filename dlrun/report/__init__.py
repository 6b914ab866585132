"""What a sweep came to: pages, tables and figures in its folder, and the few lines that a terminal shows."""

from __future__ import annotations

from dlrun.report.terminal import closing
from dlrun.report.writing import write

__all__ = ["closing", "write"]
