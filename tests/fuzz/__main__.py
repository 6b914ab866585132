"""Look for files that a reader does not refuse as it should: `python -m tests.fuzz --minutes 10 [READER…]`.

Each reader has a process of its own. Where atheris is installed (pip install atheris), libFuzzer follows which lines of
dlrun a file reaches; else files are made at random. What is found is kept in outputs/fuzz.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where atheris follows them
    from tests.fuzz.mutations import Below
    from tests.fuzz.reader import Reader

from tests.fuzz.guard import Finding

KEPT = Path("outputs/fuzz")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("readers", nargs="*")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random", action="store_true", help="without atheris")
    options = parser.parse_args()
    faulthandler.enable()
    readers, guided = _import_readers(guided=not options.random)
    wanted = options.readers or [*readers]
    if unknown := {*wanted} - {*readers}:
        parser.error(f"there are no {', '.join(unknown)}; there are {', '.join(readers)}")
    KEPT.mkdir(parents=True, exist_ok=True)
    bad = 0
    for name in wanted:
        # a process for each: a fault in a library's code ends it
        child = os.fork()
        if not child:
            os._exit(_look(readers[name], options.minutes * 60, options.seed, guided=guided))
        _, status = os.waitpid(child, 0)
        bad += status != 0
        if status not in (0, 1 << 8):
            print(f"{name}: its process ended with status {status}: see {KEPT / name}-now", flush=True)
    return int(bad > 0)


def _import_readers(*, guided: bool) -> tuple[dict[str, Reader], bool]:
    guided = guided and find_spec("atheris") is not None
    if guided:
        import atheris

        following: AbstractContextManager[object] = atheris.instrument_imports(include=["dlrun"])
    else:
        following = nullcontext()
    with following:
        from dlrun.storage.files import unpacked
        from tests.fuzz.readers import READERS
    # so that a small bomb is one
    unpacked.LEAST = 1 << 26
    return {reader.name: reader for reader in READERS}, guided


def _look(reader: Reader, seconds: float, seed: int, *, guided: bool) -> int:
    """Look with one reader; 1 if something is found."""
    name, now = reader.name, KEPT / f"{reader.name}-now"
    counts, found = {"read": 0, "taken": 0}, dict[str, str]()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DLRUN_CACHE"] = f"{folder}/cache"
        os.environ["DLRUN_OUTPUTS"] = f"{folder}/outputs"

        def try_one(below: Below) -> None:
            content = reader.make(below)
            now.write_bytes(content)
            # a reader that hangs in a library's code ends the process here
            faulthandler.dump_traceback_later(300, exit=True)
            counts["read"] += 1
            try:
                counts["taken"] += reader.check(content, Path(folder, "given"))
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                key = f"{type(error).__name__} {traceback.extract_tb(error.__traceback__)[-1]}"
                if key not in found:
                    found[key] = f"{name}-{hashlib.sha256(content).hexdigest()[:8]}"
                    (KEPT / found[key]).write_bytes(content)
                    print(f"{found[key]}\n{''.join(traceback.format_exception(error)[-5:])}", flush=True)

        # what is loaded once is no file's doing
        for content in reader.contents:
            with suppress(Exception, Finding):
                reader.check(reader.pack(content), Path(folder, "given"))
        begun = time.monotonic()

        def report() -> int:
            minutes = (time.monotonic() - begun) / 60
            engine = "atheris" if guided else "random"
            print(
                f"{name:18} {engine:8} {minutes:5.1f} minutes {counts['read']:9,} files, {counts['taken']:8,} taken, "
                f"{len(found)} findings",
                flush=True,
            )
            return int(bool(found))

        if guided:
            _guide(try_one, begun + seconds, report)
        numbers = random.Random(seed)
        while time.monotonic() < begun + seconds:
            try_one(numbers.randrange)
        return report()


def _guide(try_one: Callable[[Below], None], end: float, report: Callable[[], int]) -> None:
    """Have libFuzzer choose the numbers until the `end`; it ends the process."""
    import atheris

    def one(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        # beyond the data's end, numbers go on at random: a short input is a whole file too
        rest = random.Random(data)

        def below(count: int) -> int:
            if provider.remaining_bytes():
                return int(provider.ConsumeIntInRange(0, count - 1))
            return rest.randrange(count)

        try_one(below)
        if time.monotonic() >= end:
            # libFuzzer would go on
            os._exit(report())

    atheris.Setup(
        [sys.argv[0], "-max_len=256", "-rss_limit_mb=0", "-timeout=100000", "-verbosity=0", "-print_final_stats=0"], one
    )
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
