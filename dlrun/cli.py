"""The command line. Its first word names the command; only then its file is imported."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

from dlrun.commands import COMMANDS, COMPOSING, module_of
from dlrun.config import paths, trust
from dlrun.errors import DlrunError, RunError, UserError, did_you_mean, place
from dlrun.runs.interrupt import EarlyInterrupt
from dlrun.terminal import output

ADVICE = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "Ask its owner, or work on a copy of your own.",
    ),
    **dict.fromkeys(
        (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY),
        "dlrun has something else at that place: rename or delete it.",
    ),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EIO), "Is its disk full?"),
    errno.ENAMETOOLONG: "Give the path of a file or folder, or an id.",
}
"""What to do about files that cannot be read or written, and about paths at which no such file can be."""

HINT = "\nDLRUN_TRACEBACK=1 shows the traceback."

STOPPED = (130, 143)
"""The exit codes after SIGINT and SIGTERM."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default the process's; returns the exit code."""
    if argv is not None:
        return _run(list(argv), nullcontext())
    # a process of its own
    output.prepare_streams()
    sys.excepthook = lambda kind, error, trace: output.show_traceback(error)
    code = _run(sys.argv[1:], EarlyInterrupt())
    if code in STOPPED:
        # one more Ctrl-C would show a traceback of what libraries do at the exit
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


def _run(given: list[str], interrupt: AbstractContextManager[object]) -> int:
    try:
        with interrupt:
            code = _dispatch(given)
            sys.stdout.flush()  # what is printed at the exit could fail there
            return code
    except DlrunError as error:
        if os.environ.get("DLRUN_TRACEBACK") == "1":
            output.show_traceback(error)
        # of an exception in the user's own code, where no log has it
        hidden = isinstance(error, RunError) and error.__cause__ is not None and "DLRUN_TRACEBACK" not in str(error)
        output.warn(f"{error}{HINT if hidden else ''}")
        return error.exit_code
    except BrokenPipeError:  # nobody reads on: `dlrun list | head`
        _print_no_more()
        return 0
    except OSError as error:
        if error.errno not in ADVICE:
            raise
        if os.environ.get("DLRUN_TRACEBACK") == "1":
            output.show_traceback(error)
        # of a move, the second is the place that is taken
        name = error.filename2 or error.filename or "The output"
        if error.filename is None:
            _print_no_more()
        output.warn(f"{name}: {error.strerror}. {ADVICE[error.errno]}")
        return UserError.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # of the user's own code one line tells; a fault of dlrun's is reported by its traceback
        if not (where := place(error)) or os.environ.get("DLRUN_TRACEBACK") == "1":
            raise
        output.warn(f"{type(error).__name__}: {error}{where}{HINT}")
        return DlrunError.exit_code


def _print_no_more() -> None:
    """Send what is still in the buffer of the standard output nowhere."""
    with suppress(OSError, ValueError):  # a notebook's stream has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if given else 2
    command, *rest = given
    paths.enable_user_modules()
    if command == "--version":
        from dlrun import __version__

        print(f"dlrun {__version__}")
        return 0
    if command in ("-sc", "--shell-completion"):
        command = "completion"
    elif command not in COMMANDS:
        raise UserError(_unknown(command, rest))
    if command == "verify-resume" and not _is_single(command):
        return UserError.exit_code
    if command == "train" and (folder := _begun()) is not None:
        command, rest = "resume", [folder]
    if command in COMPOSING and {"-h", "--help"} & {*rest}:  # the rest of the help is Hydra's
        print(f"dlrun {command}: {COMMANDS[command]}\n")
    if command not in COMPOSING:
        rest = trust.grant_from(rest)
    module = importlib.import_module(module_of(command))
    code: int = module.main(rest)
    return code


def _is_single(command: str) -> bool:
    """False in one of several processes of torchrun; the first has said so."""
    from dlrun.storage import machine  # `dlrun --help` needs none of it

    try:
        machine.check_single(f"dlrun {command} …")
    except UserError:
        if os.environ.get("RANK", "0") == "0":  # one message, not one of each process
            raise
        return False
    return True


def _begun() -> str | None:
    """The folder of this run, if torchrun starts its processes again."""
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return None
    from dlrun.execution.ranks import world  # torch takes a second to import

    return world.begun()


def usage() -> str:
    """The text of `dlrun --help`."""
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {help}" for name, help in COMMANDS.items())
    return (
        "usage: dlrun COMMAND …          `dlrun COMMAND --help` says more\n\n"
        "  dlrun train                                     train on handwritten digits, in seconds\n"
        "  dlrun train +experiment=mnist optimizer.lr=0.1  an experiment, with one value changed\n\n"
        f"commands:\n{lines}\n"
        'Completion: eval "$(dlrun -sc install=bash)", likewise zsh; dlrun -sc install=fish | source'
    )


def _unknown(command: str, rest: Sequence[str]) -> str:
    if "=" in command or command.startswith(("-", "+")):
        return f"`{command}` is no command. To train, type `dlrun train {' '.join([command, *rest])}`."
    return (
        f"There is no command `{command}`.{did_you_mean(command, COMMANDS)}\nThe commands are: {', '.join(COMMANDS)}."
    )
