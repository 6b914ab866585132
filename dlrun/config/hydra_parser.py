"""The options of Hydra's command line, as Hydra 1.3 declares them, and `--block` of dlrun.

Its own parser has a help text that is no string: from Python 3.14 on, argparse refuses it (hydra#3121). A test of
tests/config/test_compose.py compares the two.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hydra import __version__

from dlrun.errors import UserError
from dlrun.terminal.escape import visible

BLOCK = "--block"
"""Begins a block of a sweep; what stands before the first is of all."""

_OF_ALL = re.compile(r"-|[+~]*hydra[./]|sweep\.")
_OVERRIDE = re.compile(r"[+~]*[\w./@-]+=|~\w")
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


def parse(argv: Sequence[str], prog: str) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Hydra's parser, and `argv` parsed in any order.

    Raises `UserError` for options that do not go together or have no meaning here.
    """
    parser = hydra_parser()
    parser.error = lambda message: argparse.ArgumentParser.error(parser, visible(message))  # type: ignore[method-assign]
    parser.prog, parser.usage = (
        prog,
        f"{prog} [-m] [OVERRIDE…] [--block OVERRIDE…] [--cfg job] [--config-dir FOLDER] [--help]",
    )
    rest, blocks = split_blocks(argv)
    args, unknown = parser.parse_known_intermixed_args(rest)
    if unknown:
        raise UserError(
            f"There is no option `{visible(unknown[0])}`. Values are typed as KEY=VALUE without dashes, for example "
            f"`optimizer.lr=0.1`, `dataset=moons` or `+experiment=digits`. `{prog} --help` shows options and keys."
        )
    if sum(map(bool, (args.run, args.multirun, args.cfg, args.info, args.shell_completion))) > 1:
        raise UserError("Only one of --run, --multirun (-m), --cfg, --info and --shell-completion can be given.")
    if args.resolve and not (args.cfg or args.help):
        raise UserError("--resolve goes with --cfg or --help. Type `--cfg job --resolve`.")
    if args.config_path or args.experimental_rerun:
        raise UserError(
            "--config-path and --experimental-rerun have no meaning here. --config-dir FOLDER adds a folder."
        )
    if args.shell_completion:
        raise UserError('Completion is installed for all commands at once: eval "$(dlrun -sc install=bash)".')
    if blocks and not args.multirun:
        raise UserError(f"`{BLOCK}` begins a block of a sweep. Add -m to run them all.")
    args.overrides += blocks
    return parser, args


def split_blocks(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line without its blocks, and these as an override.

    Options within a block stay options, and keys of Hydra and of the sweep are of the whole.

    >>> split_blocks(["-m", "seed=0,1", "--block", "model=mlp", "model.width=16,32", "--block", "model=linear"])[1]
    ['hydra.sweeper.blocks=[["model=mlp","model.width=16,32"],["model=linear"]]']
    >>> split_blocks(["-m", "--block", "model=mlp model.width=16,32"])[1]
    ['hydra.sweeper.blocks=[["model=mlp","model.width=16,32"]]']

    Raises `UserError` for a block without overrides.
    """
    rest: list[str] = []
    blocks: list[list[str]] = []
    for word in argv:
        if word == BLOCK:
            blocks.append([])
        # the value of an option is no override
        elif blocks and ("=" in word or word.startswith("~")) and not _OF_ALL.match(word):
            blocks[-1] += _words(word)
        else:
            rest.append(word)
    if [] in blocks:
        raise UserError(f"`{BLOCK}` begins a block of a sweep. Type for example `{BLOCK} model=mlp model.width=16,32`.")
    if not blocks:
        return rest, []
    listed = ",".join(f"[{','.join(map(_quoted, block))}]" for block in blocks)
    return rest, [f"hydra.sweeper.blocks=[{listed}]"]


def _words(word: str) -> list[str]:
    """The overrides in one word of the shell, which may quote a whole block."""
    try:
        found = shlex.split(word)
    except ValueError:
        return [word]
    return found if len(found) > 1 and all(_OVERRIDE.match(each) for each in found) else [word]


def block_words(block: Any) -> list[str]:
    """The overrides of a block of a sweep: a mapping, a list of overrides, or these as text.

    >>> block_words({"model": "mlp", "model.width": "16,32"}), block_words("model=mlp model.width=16,32")
    (['model=mlp', 'model.width=16,32'], ['model=mlp', 'model.width=16,32'])
    """
    if isinstance(block, Mapping):
        return [f"{key}={'null' if value is None else value}" for key, value in block.items()]
    return shlex.split(block) if isinstance(block, str) else [str(word) for word in block or ()]


def _quoted(word: str) -> str:
    # before a quote, and only there, a backslash stands for the next character
    escaped = re.sub(r'(\\*)("|$)', lambda run: 2 * run[1] + run[2].replace('"', '\\"'), word)
    return f'"{escaped}"'
