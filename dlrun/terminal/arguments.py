"""The parser of a command's arguments."""

from __future__ import annotations

import argparse
from typing import NoReturn

from dlrun.terminal.escape import visible


class Parser(argparse.ArgumentParser):
    """An argument parser that prints no control characters."""

    def error(self, message: str) -> NoReturn:
        super().error(visible(message))
