"""`dlrun -sc`: completion for shells. A person types `install=`, the installed script `query=`.

Hydra's own scripts know no subcommands, and change `COMP_WORDBREAKS` for every other program. So the scripts are our
own; Hydra only completes overrides.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, suppress
from io import StringIO
from pathlib import Path

from dlrun.commands import COMMANDS, COMPOSING, module_of
from dlrun.errors import UserError, did_you_mean

BASH = r"""_dlrun() {
    local IFS=$'\n' line=${COMP_LINE:0:COMP_POINT} word
    word=${line##* }
    COMPREPLY=($(COMP_LINE=$line "${1/#\~/$HOME}" -sc query=bash 2>/dev/null))
    # where = ends a word, bash wants only what follows it
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")
    fi
}
complete -o nospace -F _dlrun dlrun"""

ZSH = r"""(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_dlrun() {
    local -a found
    found=("${(@f)$(COMP_LINE="${(j: :)words[1,CURRENT-1]} $PREFIX" ${~words[1]} -sc query=zsh 2>/dev/null)}")
    compadd -Q -S '' -- ${(M)found:#*[=./]}
    compadd -Q -- ${${found:#*[=./]}:#}
}
compdef _dlrun dlrun"""

FISH = r"""function __dlrun_complete
    set -l words (commandline -cpo)
    COMP_LINE=(commandline -cp) $words[1] -sc query=fish 2>/dev/null
end
complete -c dlrun -f -a '(__dlrun_complete)'"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
REMOVALS = {"bash": "complete -r dlrun", "zsh": "compdef -d dlrun", "fish": "complete -e -c dlrun"}
OPTIONS = ("--cfg", "--config-dir", "--config-name", "--help", "--info", "--multirun", "--resolve")

OF_RUNS = {"sample", "predict", "export"}
OF_RUNS_AND_SWEEPS = {"resume", "test", "report", "runs", "compare", "sync", "ui"}
"""The commands that take a run; and those that take a sweep too."""
FOLDERS = OF_RUNS | OF_RUNS_AND_SWEEPS


def main(argv: Sequence[str]) -> int:
    """Print a shell's script, or the completions of $COMP_LINE."""
    action, _, shell = (argv[0] if argv else "").partition("=")
    if action not in ("install", "uninstall", "query") or shell not in SCRIPTS:
        raise UserError(
            f"`-sc {' '.join(argv)}`: expected `-sc install=SHELL` or `-sc uninstall=SHELL`, with bash, zsh or fish."
            + did_you_mean(shell, SCRIPTS)
        )
    if action == "query":
        print("\n".join(_spaced(complete(os.environ.get("COMP_LINE", "")), shell)))
    else:
        print((SCRIPTS if action == "install" else REMOVALS)[shell])
    return 0


def complete(line: str) -> list[str]:
    """Completions of the last word of `line`."""
    words = line.split()
    # behind a blank a new word begins
    begun = "" if line[-1:].isspace() else words.pop() if words else ""
    if len(words) < 1:
        return []
    found = _next_words(words[1:], begun)
    return sorted({word for word in found if word.startswith(begun)})


def _next_words(words: Sequence[str], begun: str) -> Iterable[str]:
    if not words:
        return [*COMMANDS, *(("--help", "--version") if begun.startswith("-") else ())]
    command, *rest = words
    if begun.startswith("-"):
        return OPTIONS if command in COMPOSING else _options(command)
    if command in COMPOSING:
        return _overrides(rest, begun)
    # an id is also typed as a folder; what follows it is a file
    folder = command in FOLDERS and (begun or (command in ("predict", "export") and rest))
    return [*_arguments(command, rest), *(_paths(begun) if folder else ())]


def _options(command: str) -> list[str]:
    """The options of a command, from its source: importing it may take seconds."""
    inner = module_of(command).removeprefix("dlrun.commands.").split(".")
    source = Path(__file__).parent.joinpath(*inner).with_suffix(".py")
    source = source if source.exists() else source.with_suffix("") / "__init__.py"
    found = re.findall(r'add_argument\(\s*"(--[\w-]+)"', source.read_text(encoding="utf-8")) if source.exists() else []
    return ["--help", *found]


def _paths(begun: str) -> list[str]:
    """Files and folders that begin so; a folder ends with a slash."""
    folder, _, name = begun.rpartition("/")
    prefix = f"{folder}/" if folder or begun.startswith("/") else ""
    with suppress(OSError):
        found = [
            path for path in Path(prefix or ".").iterdir() if not path.name.startswith(".") or name.startswith(".")
        ]
        return [f"{prefix}{path.name}{'/' * path.is_dir()}" for path in found]
    return []


def _arguments(command: str, before: Sequence[str]) -> Iterable[str]:
    # here, not at the top: completing a command's name needs neither
    from dlrun.config import choices
    from dlrun.storage import lookup

    if command == "list":
        groups = choices.groups()
        return groups.get(before[0], ()) if before else [*groups, *choices.settings()]
    if command == "new":
        from dlrun.commands.new import KINDS

        return () if before else KINDS
    if command == "data":
        return choices.groups().get("dataset", ())
    if command not in OF_RUNS | OF_RUNS_AND_SWEEPS:
        return ()
    runs = [run.id for run in lookup.all_runs()] if command != "report" else []
    sweeps = [sweep.id for sweep in lookup.all_sweeps()] if command in OF_RUNS_AND_SWEEPS else []
    return runs + sweeps


def _overrides(words: Sequence[str], begun: str) -> Iterable[str]:
    """Hydra's completions of an override; none after a mistake."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.plugins.completion_plugin import DefaultCompletionPlugin

    from dlrun.config import compose as composition
    from dlrun.config import hydra_parser

    # a completion must print nothing but words
    with suppress(Exception, SystemExit), redirect_stderr(StringIO()):
        args = hydra_parser.parse(words, "dlrun")[1]
        loader = ConfigLoaderImpl(composition.search_path(args.config_dir))
        line = " ".join([*args.overrides, begun])
        with composition.open_hydra(args.config_dir):
            found = DefaultCompletionPlugin(loader)._query(args.config_name or composition.PRIMARY, line)
        # an experiment is added with a plus; Hydra's own keys are completed from their h on
        added = ["+" + word if word == "experiment=" else word for word in found]
        return [word for word in added if not word.startswith("hydra") or begun.startswith("h")]
    return []


def _spaced(words: Sequence[str], shell: str) -> list[str]:
    """Add the blank behind a complete word, for bash."""
    # the other shells add it themselves
    return [word + " " if shell == "bash" and not word.endswith(("=", ".", "/")) else word for word in words]
