"""The parser of a command's arguments."""

from __future__ import annotations

import argparse
from typing import NoReturn

from dlrun.terminal.escape import visible


class Parser(argparse.ArgumentParser):
    """Python's parser, which repeats no control characters of what was typed."""

    def error(self, message: str) -> NoReturn:
        super().error(visible(message))
