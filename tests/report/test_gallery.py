"""The gallery: what it says of whole, failed and recorded sweeps, and that its page needs no other file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlrun.report.gallery.collect import is_whole, newest_of_each_study, read_entry
from dlrun.report.gallery.entry import Entry, Picture
from dlrun.report.gallery.page import write_page
from dlrun.report.gallery.records import read_records, record
from dlrun.storage import manifest
from dlrun.storage.results import Result
from dlrun.storage.sweepdir import SweepDir
from dlrun.studies.study import CaptionedFigure, Claim, judge
from tests.conftest import Called
from tests.facts import refuses, says
from tests.made_sweeps import made_sweep

TAG = "<script>alert(1)</script>"


class Study:
    """A study of one claim and one figure."""

    def __init__(self, holds: bool | None = True, text: str = "the error falls") -> None:
        self.holds, self.text = holds, text

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        return [judge(self.text, self.holds, f"{len(results)} runs of `a<b`")]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        from dlrun.analysis.figures.style import figure

        drawn = figure(2, 2)
        drawn.add_subplot().plot([1, 2])
        yield CaptionedFigure("own", drawn, f"What {self.text} shows.")


@pytest.fixture
def sweeps(here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SweepDir]:
    """`sweeps(name, id, *failing, study=…)` makes a sweep of two seeds under outputs/."""
    monkeypatch.setenv("DLRUN_TRUSTED", Study.__module__)

    def make(name: str, place: str, *failing: int, study: dict[str, Any] | None = None, **asked: Any) -> SweepDir:
        def metrics(values: dict[str, Any]) -> dict[str, Any]:
            failed = {"status": "failed", "error": f"no finite loss {TAG}"}
            error = 0.25 + 0.5 * values["seed"]
            return failed if values["seed"] in failing else {"val/error": error, "test/error": error}

        target = None if study is None else {"_target_": f"{Study.__module__}.{Study.__qualname__}", **study}
        folder = here / "outputs" / "sweeps" / "2026-01-01" / place
        return made_sweep(folder, {"seed": [0, 1]}, metrics, name=name, study=target, **asked)

    return make


def written(file: Path) -> str:
    """A page's text without its pictures."""
    return re.sub(r"base64,[^\"]*", "", file.read_text(encoding="utf-8"))


def test_one_page_has_every_study(sweeps: Callable[..., SweepDir], call: Callable[..., Called], here: Path) -> None:
    sweeps("depth", "120000-depth-aaaa", study={"holds": True}, command="dlrun train +experiment=depth")
    sweeps("mine", "120001-mine-bbbb", study={"holds": False})
    done = call("report", "--gallery")
    assert done.code == 0, done.err
    text = written(here / "outputs" / "gallery" / "index.html")
    assert "2 sweeps with 2 claims, checked against their runs: 1 held, 1 not held." in text
    assert re.findall(r"<h3>(.*?)</h3>", text) == ["Depth", "Mine"]
    assert "<pre>dlrun train +experiment=depth</pre>" in text
    # the question is the first sentence of the experiment's file
    assert "eight layers" in text.lower()
    assert "2 runs of <code>a&lt;b</code>" in text
    assert "took 12.5 s" in text
    assert {*re.findall('href="#(.*?)"', text)} == {*re.findall('article id="(.*?)"', text)}


def test_the_page_needs_no_other_file(sweeps: Callable[..., SweepDir], here: Path) -> None:
    write_page([read_entry(sweeps("a", "120000-a-aaaa", study={}))], here / "page.html")
    text = (here / "page.html").read_text(encoding="utf-8")
    assert re.findall(r'src="(.{26})', text) == ["data:image/svg+xml;base64,"]
    assert not re.findall("http|<link|<script|@import", written(here / "page.html"))
    assert 'name="viewport"' in text


def test_nothing_of_a_sweep_is_markup(sweeps: Callable[..., SweepDir], here: Path) -> None:
    made = sweeps("a", "120000-a-aaaa", 1, study={"text": TAG}, command=f"dlrun train {TAG}\x1b[2J")
    entry = read_entry(made)
    odd = Entry(TAG, TAG, question=TAG, section=TAG, setting=TAG, claims=[Claim(TAG, TAG, TAG)], scores=[[TAG] * 7])  # type: ignore[arg-type]
    write_page([entry, odd], here / "page.html", title=TAG)
    text = written(here / "page.html")
    assert "<script" not in text and "alert(1)" in text
    assert "\x1b" not in text


def test_failed_and_missing_sweeps_are_shown_as_such(sweeps: Callable[..., SweepDir], here: Path) -> None:
    failed = read_entry(sweeps("a", "120000-a-aaaa", 1, study={}))
    assert "of 2 jobs, 1 failed" in failed.remark
    assert "no finite loss" in failed.remark
    assert "`dlrun resume aaaa --retry-failed`" in failed.remark
    absent = Entry("b", "dlrun train +experiment=b", remark="Not run: it needs a GPU.")
    refused = Entry("c", "dlrun train +experiment=c", whole=False, remark="It failed: no data.")
    older = Entry("d", "dlrun", claims=[judge("x", False, "y")], started=1e9, remark="Shown is one of other code.")
    write_page([failed, absent, refused, older], here / "page.html")
    text = written(here / "page.html")
    assert "Not run: it needs a GPU." in text and "It failed: no data." in text
    assert "2 of 4 sweeps with 2 claims" in text
    states = [re.sub("<.*?>", "", each) for each in re.findall("<span>(.*?)</span>", text)]
    assert states == ["✓ not whole", "not run", "failed", "✗ of 2001-09-09"]


def test_a_whole_sweep_goes_before_a_newer_broken_one(sweeps: Callable[..., SweepDir]) -> None:
    whole = sweeps("a", "120000-a-aaaa", study={})
    broken = sweeps("a", "120001-a-bbbb", 0, study={})
    only = sweeps("b", "120002-b-cccc", 1, study={})
    sweeps("without", "120003-without-dddd")
    assert [is_whole(each) for each in (whole, broken, only)] == [True, False, False]
    assert newest_of_each_study() == [whole, only]
    newer = sweeps("a", "120004-a-eeee", study={})
    assert newest_of_each_study() == [newer, only]
    tried = sweeps("a", "120005-a-ffff", study={})
    found = manifest.read(tried)
    jobs = tuple(replace(job, config=job.config | {"trainer": {"fast": True}}) for job in found.jobs)
    replace(found, jobs=jobs).write(tried)
    assert newest_of_each_study() == [newer, only]


def test_a_damaged_sweep_costs_no_other_study(sweeps: Callable[..., SweepDir], call: Callable[..., Called]) -> None:
    sweeps("good", "a", study={})
    (sweeps("bad", "b", study={}).path / "summary.json").write_text("[1]")
    done = call("report", "--gallery")
    assert done.code == 0, done.err
    says(done.out, "1 sweep:")
    says(done.err, "summary.json is damaged")


def test_a_sweep_without_a_study_shows_its_test_scores(sweeps: Callable[..., SweepDir], here: Path) -> None:
    made = sweeps("a", "120000-a-aaaa")
    figures = made.job(0).figures
    figures.mkdir()
    (figures / "learning_curves.png").write_bytes(b"\x89PNG")
    (figures / "schedule.png").write_bytes(b"\x89PNG")
    entry = read_entry(made)
    assert entry.pictures == [Picture(figures / "learning_curves", "Learning curves (seed 0)")]
    assert [row[:3] for row in entry.scores] == [["test/error", "2", "0.50 ± 0.35"]]
    write_page([entry], here / "page.html")
    assert "<td>0.50 ± 0.35</td>" in written(here / "page.html")
    assert "<span>test/error 0.50 ± 0.35 </span>" in written(here / "page.html")


def test_a_record_says_what_its_sweep_said(sweeps: Callable[..., SweepDir], here: Path) -> None:
    entry = read_entry(sweeps("a", "120000-a-aaaa", study={"holds": None}))
    path = record(entry, here / "kept")
    assert sorted(file.name for file in path.parent.iterdir()) == ["a-own.png", "a.json"]
    kept = read_records(here / "kept")["a"]
    assert (kept.claims, kept.command, kept.seconds) == (entry.claims, entry.command, 12.5)
    assert [picture.caption for picture in kept.pictures] == [picture.caption for picture in entry.pictures]
    write_page([kept], here / "page.html")
    text = (here / "page.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in text
    assert "kept from a sweep of" in text


@pytest.mark.parametrize("wrong", [{"claims": [{"text": "x"}]}, {"jobs": "two"}, {"odd": 1}, {"pictures": [{}]}])
def test_a_damaged_record_is_left_out_and_named(
    sweeps: Callable[..., SweepDir], here: Path, wrong: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(read_entry(sweeps("a", "120000-a-aaaa", study={})), here / "kept")
    record(read_entry(sweeps("b", "120000-b-bbbb", study={})), here / "kept")
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    assert [*read_records(here / "kept")] == ["b"]
    assert "a.json is damaged" in capsys.readouterr().err


def test_what_to_type(sweeps: Callable[..., SweepDir], call: Callable[..., Called]) -> None:
    refuses(call("report", "--gallery"), "polynomial_capacity")
    refuses(call("report"), "dlrun report --gallery")
    made = sweeps("a", "120000-a-aaaa")
    refuses(call("report", "aaaa", "aaaa"), "dlrun report --gallery")
    refuses(call("report", "--gallery", "nothing"), "No sweep `nothing`")
    refuses(call("report", "--gallery", "--select", "aaaa"), "--select")
    done = call("report", "--gallery", str(made.path))
    assert done.code == 0, done.err
    says(done.out, "index.html")
