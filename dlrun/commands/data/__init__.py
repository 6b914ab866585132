"""`dlrun data`: the files of the data sets, downloads, checksums, and a look at the samples."""

from __future__ import annotations

from pathlib import Path

from dlrun.datasets.files import files
from dlrun.datasets.files.locate import locate
from dlrun.datasets.files.sources import SOURCES, Source
from dlrun.errors import DataError, UserError, did_you_mean
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser
from dlrun.terminal.format import counted


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="dlrun data",
        description="List the data sets and the places of their files, download some, or look at the samples of one.",
        epilog="The files are in $DLRUN_DATA (else ~/.cache/dlrun), a folder for each data set.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="download this data set, if it is not there")
    parser.add_argument(
        "--check", action="store_true", help="verify the checksums of these data sets, or of all that are there"
    )
    parser.add_argument(
        "--look",
        action="store_true",
        help="show what a data set holds: sizes, classes, missing values, repeated samples, and a figure; NAME is a "
        "choice of `dlrun list dataset`, and values may follow: `dlrun data images dataset.path=photos --look`",
    )
    given = parser.parse_intermixed_args(argv)
    if given.look:
        return _look(given.names)
    chosen = [_source(name) for name in given.names]
    if not chosen and not given.check:
        output.say(listing())
        return 0
    failed = []  # one broken data set does not keep the others from being fetched
    for source in chosen or [source for source in SOURCES.values() if _present(source)]:
        try:
            output.say(f"{source.name}: {_get(source, check=given.check)}")
        except DataError as error:
            failed.append(str(error))
    if failed:
        raise DataError("\n\n".join(failed))
    return 0


def _look(words: list[str]) -> int:
    """Load a data set as a run would, and say what it holds."""
    # a listing needs neither Hydra nor torch
    from dlrun.commands.data.look import look

    names, overrides = ([word for word in words if ("=" in word) is value] for value in (False, True))
    if len(names) != 1:
        raise UserError("--look takes one data set. Type for example `dlrun data digits --look`.")
    return look(names[0], overrides)


def listing() -> str:
    """Each data set's state, size, content, home page and licence."""
    blocks = [f"Data sets (files in {files.data_root()}):"]
    for source in SOURCES.values():
        blocks.append(f"  {source.name:<17}{_state(source)}\n{'':19}{source.about}")
        if source.home:
            blocks.append(f"{'':19}{source.home}; licence: {source.licence}")
    blocks.append(
        "`dlrun data NAME` downloads one, `dlrun data --check` verifies what is there, `dlrun data NAME --look` "
        "shows what is in it."
    )
    return "\n".join(blocks)


def _source(name: str) -> Source:
    if name in SOURCES:
        return SOURCES[name]
    raise UserError(
        f"`{name}` is no data set whose files dlrun knows.{did_you_mean(name, SOURCES)} These are: "
        f"{', '.join(SOURCES)}.\nOf any other, `dlrun data {name} --look` shows what it holds."
    )


def _get(source: Source, *, check: bool) -> str:
    if not source.files:
        return "is computed; there is nothing to download"
    located = locate(source)
    for file, where in located.items():
        # reading verifies; a file that was verified once is not read again
        if check or not files.is_known(where, file):
            files.read(where, file)
    return f"{counted(len(located), 'file')} there and intact ({files.folder_of(source)})"


def _state(source: Source) -> str:
    if not source.files:
        return "computed, no files"
    present = _present(source)
    if len(present) == len(source.files):
        return f"there, {_megabytes(sum(p.stat().st_size for p in present))} in {files.folder_of(source)}"
    some = f"incomplete, {len(present)} of {counted(len(source.files), 'file')}" if present else "not there"
    return f"{some}: `dlrun data {source.name}` downloads {_megabytes(source.download_bytes)}"


def _present(source: Source) -> list[Path]:
    try:
        folder = files.folder_of(source)
    except DataError:
        return []
    return [where for file in source.files if (where := files.find(folder, file))]


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
