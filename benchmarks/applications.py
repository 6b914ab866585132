"""The examples as exhibits of the gallery: each trained from its own folder, its number held against a bound."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dlrun.config.choices import ConfigFile, describe
from dlrun.report.gallery.collect import setting
from dlrun.report.gallery.entry import Entry, Picture
from dlrun.storage.lookup import all_runs, read_each
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import Summary
from dlrun.studies.study import Claim, judge

EXAMPLES = Path(__file__).parents[1] / "examples"
SECTION = "Applications"

IDENTITY = """
import sys
from dlrun.config import hydra_main
from dlrun.runs.build import build
hydra_main.inspect(sys.argv[1:], prog="dlrun train", use=lambda config: print(build(config).identity.hash) or 0)
"""
"""Prints the identity that a run would have. In a process of its own: the parts are modules of the example's folder."""

Train = Callable[[list[str], float, Path, Path], str]
"""`train(arguments, seconds, log, folder)` runs `dlrun train`; it returns what went wrong."""


@dataclass(frozen=True)
class Application:
    """An example: what is claimed of a metric, its bound, and the figure to look at, by its file in `figures/`.

    `known` is what seed 0 gave on two cores.
    """

    name: str
    claim: str
    metric: str
    known: float
    least: float | None = None
    most: float | None = None
    figure: str = ""
    caption: str = ""

    @property
    def arguments(self) -> list[str]:
        return [f"+experiment={self.name}"]

    @property
    def command(self) -> str:
        return f"cd examples/{self.name}\ndlrun train +experiment={self.name}"

    @property
    def folder(self) -> Path:
        return EXAMPLES / self.name

    @property
    def question(self) -> str:
        yaml = self.folder / "conf" / "experiment" / f"{self.name}.yaml"
        return describe(ConfigFile("experiment", self.name, yaml, users=True))

    def check(self, metrics: Mapping[str, float]) -> Claim:
        """The claim, held against a run's metrics."""
        value = metrics.get(self.metric)
        low, high = (-float("inf") if self.least is None else self.least), self.most
        holds = None if value is None else low <= value <= (float("inf") if high is None else high)
        bound = f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"
        found = "the run has no such metric" if value is None else f"{self.metric} is {value:.4g}"
        return judge(f"{self.claim}: {bound}.", holds, f"{found}; expected is about {self.known:g}, from seed 0.")


APPLICATIONS = (
    Application(
        *("segmentation", "The mean intersection over union of the classes of new pictures", "test/iou", 0.80),
        least=0.78,
        figure="masks",
        caption="Validation pictures, the classes of their pixels, those found, and where they differ",
    ),
    Application(
        *("detection", "The mean average precision of boxes that overlap by half", "test/map", 0.94),
        least=0.9,
        figure="found",
        caption="The boxes found on validation canvases, and dashed the true ones",
    ),
    Application(
        *("pose", "The share of joints within 1.5 pixels", "test/pck", 0.993),
        least=0.98,
        figure="joints",
        caption="The joints found in validation pictures, as dots; rings are the true places",
    ),
    Application(
        *("generation", "Nats a test image, as an upper bound", "test/loss", 16.8),
        most=17.2,
        figure="samples",
        caption="Validation digits and the same from their codes; digits of random codes",
    ),
    Application(
        *("game", "The share of right moves on new boards", "test/right_moves", 0.965),
        least=0.95,
        figure="boards",
        caption="The probability of each move on validation boards (X is to play); rings are the best moves",
    ),
    Application(
        *("translation", "The share of new numbers that are translated without a mistake", "test/exact_match", 1.0),
        least=0.99,
        figure="pairs",
        caption="Numbers of the validation split and their translations; wrong ones would be orange",
    ),
    Application(
        *("captioning", "The share of pictures whose sentence is right word by word", "test/exact_match", 0.967),
        least=0.95,
        figure="captions",
        caption="Validation pictures and what the model says of them; orange is wrong",
    ),
    Application(
        *("question_answering", "The share of new stories that are answered rightly", "test/accuracy", 0.865),
        least=0.83,
        figure="answers",
        caption="Validation stories and the likeliest answers; orange is wrong",
    ),
    Application(
        *("tabular", "The share of loans that are judged wrongly", "test/error", 0.224),
        most=0.235,
        figure="trees",
        caption="A tree of two questions, and the validation errors of trees and of the network",
    ),
    Application(
        *("lightning", "The test error of a module with its own optimizer and schedule", "test/error", 0.043),
        most=0.055,
        figure="predictions",
        caption="Predictions on validation digits over the steps; orange is wrong",
    ),
)


def read_application(example: Application, *, minutes: float, logs: Path, train: Train) -> Entry:
    """The entry of an example: its newest run of this code, or a new one."""
    entry = Entry(example.name, example.command)
    run = newest(example, identity(example)) if minutes else newest(example)
    problem = ""
    if run is None and minutes:
        problem = train(example.arguments, minutes * 60, logs / f"{example.name}.log", example.folder)
        run = None if problem else newest(example)
    if run is not None:
        entry = read_run(example, run)
    else:
        entry = replace(entry, whole=not problem, remark=problem or "Not run this time.")
    return entry


def read_run(example: Application, run: RunDir) -> Entry:
    summary = run.summary()
    picture = Picture(run.figures / example.figure, example.caption)
    there = picture.place.with_suffix(".png").is_file()
    return Entry(
        example.name,
        example.command,
        claims=[example.check(summary.metrics)],
        pictures=[picture] if there else [],
        started=summary.started,
        seconds=summary.seconds or None,
        jobs=1,
        setting=setting(summary),
        remark="" if there else f"The run has no figure {picture.place.name}.png: its log says why.",
    )


def newest(example: Application, identity: str | None = None) -> RunDir | None:
    """The newest finished run of an example, of this identity if one is given; of two steps (`trainer.fast`) none."""

    def fits(summary: Summary) -> bool:
        words = (summary.command or "").split()
        same = identity is None or summary.identity == identity
        return summary.name == example.name and summary.status == "finished" and same and words[2:] == example.arguments

    found = [run for run, summary in read_each(all_runs(), RunDir.summary) if fits(summary)]
    return found[-1] if found else None


def identity(example: Application) -> str:
    """The identity that a run of this code would have."""
    done = subprocess.run(
        [sys.executable, "-c", IDENTITY, *example.arguments], cwd=example.folder, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message")
    return done.stdout.split()[-1]
