"""The gallery: `python -m benchmarks.gallery` (`make gallery`) runs the studies, a few experiments and the examples.

Each that fits two cores within the limit is run, one after another; whole sweeps of the same code are not run again,
and one that was stopped goes on. The others are shown from their newest whole sweep under outputs/, or from their
record in docs/gallery. The page is outputs/gallery/index.html. Measures nothing.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra._internal.hydra import Hydra
from omegaconf import DictConfig

from benchmarks.applications import APPLICATIONS, SECTION, Application, read_application
from dlrun.commands.train import multirun
from dlrun.config import choices, hydra_main
from dlrun.config.choices import ConfigFile
from dlrun.report.gallery.collect import is_whole, question, read_entry
from dlrun.report.gallery.entry import Entry
from dlrun.report.gallery.page import write_page
from dlrun.report.gallery.records import read_records, record
from dlrun.storage import identity, manifest
from dlrun.storage.lookup import all_sweeps, find_sweep, outputs, read_each
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.location import SweepLocation
from dlrun.terminal.format import duration

DLRUN = (sys.executable, "-m", "dlrun")
RECORDS = Path(__file__).parents[1] / "docs" / "gallery"
MINUTES = {"scaling_laws": 35.0, "mnist_seeds": 45.0, "scaling_laws_gpu": math.inf}
"""Expected minutes on two cores, of those that take many; infinite without a GPU. All others are tried."""

EXPERIMENTS = {"digits": "slides", "moons": "3.1", "digits_pixels": "3.1", "shakespeare_char": "3.2"}
"""Single runs worth a picture, with their sections. They are run with three seeds, as sweeps, which are found again."""

SECTIONS = {
    "slides": "The slides: regression, classification, evaluation",
    "3.1": "3.1 Losses",
    "3.2": "3.2 Autoregressive models",
    "3.3": "3.3 Gradient descent",
    "3.4": "3.4 Backpropagation",
    "3.5": "3.5 The value of depth",
    "3.6": "3.6 Training protocols",
    "3.7": "3.7 The benefits of scale",
    "": "Further",
}
"""The sections of Fleuret's chapter, by what the first sentence of an experiment's file names."""


@dataclass(frozen=True)
class Exhibit:
    """An experiment of the gallery, the key of its section, and the arguments of `dlrun train`."""

    name: str
    section: str
    arguments: Sequence[str]

    @property
    def command(self) -> str:
        return shlex.join(["dlrun", "train", *self.arguments])


def exhibits() -> list[Exhibit]:
    """The studies of `conf/experiment` and the single experiments, by section."""
    files = choices.groups()["experiment"]
    families = {name: [*_family(name, files)] for name in files}
    studies = [name for name in files if any("study" in _read(files[each]) for each in families[name])]
    found = [Exhibit(name, _section(families[name]), [f"+experiment={name}"]) for name in studies]
    for name, section in EXPERIMENTS.items():
        found.append(Exhibit(name, section, ["-m", f"+experiment={name}", "seed=range(3)"]))
    order = [*SECTIONS]
    return sorted(found, key=lambda exhibit: order.index(exhibit.section))


def _family(name: str, files: Mapping[str, ConfigFile]) -> Iterator[str]:
    """An experiment, and those that it begins with."""
    yield name
    for base in _read(files[name]).get("defaults", []):
        if isinstance(base, str) and base in files:
            yield from _family(base, files)


def _read(file: ConfigFile) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(file.path.read_text(encoding="utf-8"))
    return content


def _section(family: Sequence[str]) -> str:
    for name in family:
        if found := re.search(r"book, (3\.[1-7])|(slides)[, ]", question(name)):
            return found[1] or found[2]
    return ""


def main() -> int:
    options = _parser().parse_args()
    if options.keep:
        for reference in options.keep:
            sweep = find_sweep(reference)
            if sweep is None or not is_whole(sweep):
                raise SystemExit(f"{reference}: expected a whole sweep, by its folder or id.")
            print(record(read_entry(sweep), RECORDS))
        return 0
    found = [*exhibits(), *APPLICATIONS]
    if unknown := {*options.names} - {each.name for each in found}:
        raise SystemExit(f"Nothing is called {min(unknown)}. Valid: {', '.join(each.name for each in found)}.")
    chosen = [each for each in found if each.name in (options.names or [each.name for each in found])]
    records, page = read_records(RECORDS), outputs() / "gallery" / "index.html"
    limit = 0.0 if options.collect else options.minutes
    entries: list[Entry] = []
    for n, exhibit in enumerate(chosen, 1):
        _say(f"{n}/{len(chosen)} {exhibit.name}")
        entries.append(show(exhibit, records.get(exhibit.name), minutes=limit, logs=page.parent / "logs"))
        # after each: a page so far, whatever happens to the rest
        write_page(entries, page, title="The chapter, run")
    _say(str(page))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gallery", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these experiments")
    parser.add_argument("--minutes", type=float, default=40.0, help="the limit of each (40)")
    parser.add_argument("--collect", action="store_true", help="run nothing: the page of what is there")
    parser.add_argument("--keep", nargs="+", metavar="SWEEP", help="write records of whole sweeps into docs/gallery")
    return parser


def show(exhibit: Exhibit | Application, kept: Entry | None, *, minutes: float, logs: Path) -> Entry:
    """The entry of an exhibit; what goes wrong is its remark."""
    try:
        if isinstance(exhibit, Application):
            entry = read_application(exhibit, minutes=minutes, logs=logs, train=train)
        else:
            entry = _entry(exhibit, kept, minutes=minutes, logs=logs)
    # one that fails, whatever its study raises, must not cost the others
    except Exception as error:
        entry = replace(kept or Entry(exhibit.name, exhibit.command), whole=False, remark=f"It failed: {error}")
    if entry.remark:
        _say(f"  {entry.remark}")
    if isinstance(exhibit, Application):
        return replace(entry, question=exhibit.question, section=SECTION)
    return replace(entry, question=question(exhibit.name), section=SECTIONS[exhibit.section])


def _entry(exhibit: Exhibit, kept: Entry | None, *, minutes: float, logs: Path) -> Entry:
    location = locate(exhibit)
    reason = problem = ""
    if not _is_there(location):
        reason = _too_long(exhibit, kept, minutes)
        problem = "" if reason else train(exhibit.arguments, minutes * 60, logs / f"{exhibit.name}.log")
        location = locate(exhibit)
    if _is_there(location):
        return read_entry(location.sweep)
    older = [read_entry(sweep) for sweep in _older(location)[-1:]]
    whole = sorted([*older, *filter(None, [kept])], key=lambda entry: entry.started or 0.0)
    if whole:
        which = "Shown is the record of its last whole sweep." if whole[-1].recorded else "Shown is one of other code."
        return replace(whole[-1], whole=not problem, remark=f"{reason}{problem} {which}")
    if location.resumed:
        entry = read_entry(location.sweep)
        return replace(entry, remark=f"{reason}{problem} {entry.remark}".strip())
    return Entry(exhibit.name, exhibit.command, whole=not problem, remark=f"{reason}{problem}")


def locate(exhibit: Exhibit) -> SweepLocation:
    """The folder of the sweep with the exhibit's definition, `resumed` if there is one."""
    found: list[SweepLocation] = []

    def use_sweep(hydra: Hydra, config: DictConfig) -> int:
        found.append(multirun.locate(hydra, config))
        return 0

    hydra_main.inspect(exhibit.arguments, prog="dlrun train", use=_no_sweep, use_sweep=use_sweep)
    return found[0]


def _no_sweep(config: DictConfig) -> int:
    raise ValueError(f"{config.name} is no sweep.")


def _is_there(location: SweepLocation) -> bool:
    return location.resumed and is_whole(location.sweep)


def _older(location: SweepLocation) -> list[SweepDir]:
    """Whole sweeps of the same request by other code or another torch, oldest first."""
    wanted = _request(location.definition)
    found = [sweep for sweep, its in read_each(all_sweeps(), manifest.read) if _agree(_request(its.asked), wanted)]
    return [sweep for sweep in found if is_whole(sweep)]


def _request(definition: Mapping[str, Any]) -> dict[str, Any]:
    asked = {key: definition.get(key) for key in ("name", "config", "sweep", "sweeper")}
    return dict(identity.flatten(asked))


def _agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    # a later version has keys that an earlier one lacks
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def _too_long(exhibit: Exhibit, kept: Entry | None, minutes: float) -> str:
    """Why an exhibit is not run; empty if it is."""
    if not minutes:
        return "Not run this time."
    expected = MINUTES.get(exhibit.name, (kept.seconds or 0.0) / 60 if kept else 0.0)
    if expected <= minutes:
        return ""
    if math.isinf(expected) and torch.cuda.is_available():
        return ""
    if math.isinf(expected):
        return "Not run: it needs a GPU."
    return f"Not run: it takes about {duration(60 * expected)} on two cores, and the limit is {duration(60 * minutes)}."


def train(arguments: Sequence[str], seconds: float, log: Path, folder: Path | None = None) -> str:
    """Run `dlrun train`, from `folder`; returns what went wrong, else an empty text.

    After `seconds` it is stopped, and saves: a sweep goes on the next time.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    # the run of another folder is beside the others
    environment = os.environ | {"DLRUN_OUTPUTS": str(outputs())}
    with log.open("w") as file:
        process = subprocess.Popen(
            [*DLRUN, "train", *arguments],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            # no SIGINT: a shell lets its background jobs ignore that one
            process.terminate()
            process.wait()
            return f"Stopped after {duration(seconds)}; the next time it goes on. The log is {log}."
        except KeyboardInterrupt:
            process.wait()  # Ctrl-C reached it too: it saves
            raise
    _say(f"  {duration(time.monotonic() - began)}")
    return "" if code == 0 else f"It failed (exit code {code}): {_last_error(log)} The log is {log}."


def _last_error(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    told = [line.removeprefix("dlrun: ") for line in lines if line.startswith("dlrun: ")]
    return next(chain(reversed(told), reversed(lines)), "no message.")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # the page so far is written
        sys.exit(130)
