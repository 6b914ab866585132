"""The options of Hydra's command line, as Hydra 1.3 declares them.

Its own parser has a help text that is no string: from Python 3.14 on, argparse refuses it (hydra#3121). A test of
tests/config/test_compose.py compares the two.
"""

from __future__ import annotations

import argparse

from hydra import __version__

INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def hydra_parser() -> argparse.ArgumentParser:
    """A parser with the options of Hydra's."""
    # no abbreviations: --experiment would be --experimental-rerun
    parser = argparse.ArgumentParser(add_help=False, description="Hydra", allow_abbrev=False)
    add = parser.add_argument
    add("--help", "-h", action="store_true", help="Application's help")
    add("--hydra-help", action="store_true", help="Hydra's help")
    add("--version", action="version", version=f"Hydra {__version__}", help="Show Hydra's version and exit")
    add(
        "overrides", nargs="*", help="Any key=value arguments to override config values (use dots for.nested=overrides)"
    )
    add("--cfg", "-c", choices=["job", "hydra", "all"], help="Show config instead of running [job|hydra|all]")
    add("--resolve", action="store_true", help="With --cfg, resolve config interpolations before printing")
    add("--package", "-p", help="Config package to show")
    add("--run", "-r", action="store_true", help="Run a job")
    add("--multirun", "-m", action="store_true", help="Run multiple jobs with the configured launcher and sweeper")
    add("--shell-completion", "-sc", action="store_true", help="Install or uninstall shell completion")
    add("--config-path", "-cp", help="Overrides the config_path specified in hydra.main()")
    add("--config-name", "-cn", help="Overrides the config_name specified in hydra.main()")
    add("--config-dir", "-cd", help="Adds an additional config dir to the config search path")
    add("--experimental-rerun", help="Rerun a job from a previous config pickle")
    add("--info", "-i", const="all", nargs="?", choices=INFO, help=f"Print Hydra information [{'|'.join(INFO)}]")
    return parser
