"""The gallery's tool: finds every study, and one that fails, is missing or takes too long costs no other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks import applications, gallery
from benchmarks.applications import APPLICATIONS, EXAMPLES
from benchmarks.gallery import EXPERIMENTS, MINUTES, SECTIONS, Exhibit, exhibits, show, train
from dlrun.report.gallery.entry import Entry
from dlrun.report.gallery.records import read_records
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.summaries import summarise

ROOT = Path(gallery.__file__).parents[1]

TINY = """
# @package _global_
# Two degrees (Fleuret's slides, 47-50).
defaults:
  - override /dataset: polynomial
  - override /model: polynomial
  - override /loss: mse
  - override /optimizer: least_squares
  - override /hydra/launcher: batched
hydra:
  mode: MULTIRUN
  sweeper: {params: {model.degree: "0,1,2", seed: "0"}}
study: {_target_: dlrun.studies.polynomial_capacity.PolynomialCapacity}
evaluation: {test: every}
tracking: {enabled: false}
trainer: {steps: 1, batch_size: null, figures: false}
"""


@pytest.fixture
def tiny(here: Path, call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch) -> Exhibit:
    """A study of the user's, trained in this process."""
    folder = here / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(TINY.lstrip())
    (folder / "tiny_more.yaml").write_text("# @package _global_\ndefaults: [tiny, _self_]\n")

    def in_this_process(arguments: Sequence[str], seconds: float, log: Path) -> str:
        done = call("train", *arguments)
        return "" if done.code == 0 else f"It failed: {done.err}"

    monkeypatch.setattr(gallery, "train", in_this_process)
    return next(each for each in exhibits() if each.name == "tiny")


def test_every_study_is_found_and_every_name_is_one() -> None:
    folder = ROOT / "conf" / "experiment"
    named = {path.stem for path in folder.glob("*.yaml") if "\nstudy:" in path.read_text(encoding="utf-8")}
    found = {each.name: each for each in exhibits()}
    assert named <= found.keys()
    assert "scaling_laws_gpu" in found  # its base names the study
    assert {*MINUTES, *EXPERIMENTS} <= found.keys()
    assert {each.section for each in found.values()} <= SECTIONS.keys()
    assert found["depth"].command == "dlrun train +experiment=depth"
    assert found["depth"].section == "3.5"
    assert found["digits"].command == "dlrun train -m +experiment=digits 'seed=range(3)'"


def test_records_of_the_repository_can_be_shown(here: Path) -> None:
    entries = [*read_records(gallery.RECORDS).values()]
    assert {entry.name for entry in entries} <= {each.name for each in exhibits()}
    gallery.write_page(entries, here / "page.html")
    assert (here / "page.html").read_text(encoding="utf-8").count("data:image/png") >= len(entries)


def test_a_study_is_run_once(tiny: Exhibit, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiny.section == "slides"
    first = show(tiny, None, minutes=1, logs=here)
    assert (first.jobs, first.remark, first.section) == (3, "", SECTIONS["slides"])
    assert first.question == "Two degrees (Fleuret's slides, 47-50)."
    assert len(first.claims) == 3 and first.pictures
    monkeypatch.setattr(gallery, "train", lambda *_: pytest.fail("it was run again"))
    assert show(tiny, None, minutes=1, logs=here) == first
    more = next(each for each in exhibits() if each.name == "tiny_more")
    assert show(more, None, minutes=0, logs=here).remark == "Not run this time."


def test_a_whole_sweep_by_other_code_is_shown_where_none_is_run(
    tiny: Exhibit, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = show(tiny, None, minutes=1, logs=here)
    monkeypatch.setattr("dlrun.sweeps.jobs.definition.sources", lambda: "other")
    then = show(tiny, None, minutes=0, logs=here)
    assert (then.claims, then.started) == (first.claims, first.started)
    assert "other code" in then.remark
    # a longer request is another one
    text = (here / "conf" / "experiment" / "tiny.yaml").read_text()
    (here / "conf" / "experiment" / "tiny.yaml").write_text(text.replace("0,1,2", "0,1,2,3"))
    assert not show(tiny, None, minutes=0, logs=here).claims


def test_a_study_that_fails_says_so(tiny: Exhibit, here: Path) -> None:
    path = here / "conf" / "experiment" / "tiny.yaml"
    path.write_text(path.read_text() + "model: {width: nothing}\n")
    failed = show(tiny, None, minutes=1, logs=here)
    assert "It failed" in failed.remark and not failed.claims
    kept = Entry("tiny", "dlrun train +experiment=tiny", started=1e9, recorded=True, setting="two cores")
    shown = show(tiny, kept, minutes=1, logs=here)
    assert (shown.setting, shown.recorded) == ("two cores", True)
    assert "It failed" in shown.remark


def test_one_that_takes_too_long_is_shown_from_its_record(
    tiny: Exhibit, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "train", lambda *_: pytest.fail("it was run"))
    kept = Entry("tiny", "dlrun train +experiment=tiny", started=1e9, seconds=7200.0, recorded=True)
    shown = show(tiny, kept, minutes=40, logs=here)
    assert shown.recorded and "2 h" in shown.remark
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setitem(MINUTES, "tiny", float("inf"))
    assert "needs a GPU" in show(tiny, None, minutes=40, logs=here).remark


def test_a_program_that_fails_or_does_not_end(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "DLRUN", (sys.executable, "-c", "print('dlrun: no data'); raise SystemExit(2)"))
    told = train([], 60, here / "logs" / "a.log")
    assert "exit code 2" in told and "no data" in told and "a.log" in told
    monkeypatch.setattr(gallery, "DLRUN", (sys.executable, "-c", "import time; time.sleep(600)"))
    assert "the next time it goes on" in train([], 0.1, here / "logs" / "a.log")


def test_every_example_is_an_exhibit_with_a_claim_and_a_figure() -> None:
    folders = {folder.name for folder in EXAMPLES.iterdir() if (folder / "conf").is_dir()}
    assert {each.name for each in APPLICATIONS} == folders
    for each in APPLICATIONS:
        assert each.question and each.folder.is_dir()
        assert each.figure == "predictions" or (each.folder / "conf" / "observer" / f"{each.figure}.yaml").is_file()
        far = -each.known if each.least is not None else 2 * each.known
        verdicts = [each.check(metrics).verdict for metrics in ({each.metric: each.known}, {each.metric: far}, {})]
        assert verdicts == ["held", "not held", "undecided"]


def test_an_example_is_run_once_and_in_its_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example, *_ = APPLICATIONS
    monkeypatch.setattr(applications, "identity", lambda _: "these sources")
    ran: list[tuple[Path | None, Sequence[str]]] = []

    def trained(arguments: Sequence[str], seconds: float, log: Path, folder: Path | None = None) -> str:
        ran.append((folder, arguments))
        run = RunDir(here / "outputs" / "runs" / "2026-01-01" / "120000-segmentation-aaaaaaaa")
        run.figures.mkdir(parents=True)
        run.config.parent.mkdir()
        run.config.touch()
        (run.figures / "masks.png").write_bytes(b"png")
        metrics, command = {"test/iou": 0.8}, "dlrun train +experiment=segmentation"
        summarise(run, status="finished", name=example.name, command=command, identity="these sources", metrics=metrics)
        return ""

    monkeypatch.setattr(gallery, "train", trained)
    assert "Not run" in show(example, None, minutes=0, logs=here).remark
    first, second = (show(example, None, minutes=1, logs=here) for _ in range(2))
    assert ran == [(EXAMPLES / "segmentation", ["+experiment=segmentation"])]
    assert first == second and (first.section, first.remark) == ("Applications", "")
    assert [claim.verdict for claim in first.claims] == ["held"] and first.pictures
    monkeypatch.setattr(gallery, "train", lambda *_: "It failed.")
    monkeypatch.setattr(applications, "identity", lambda _: "others")
    failed = show(example, None, minutes=1, logs=here)
    assert failed.remark == "It failed." and not failed.whole


def test_the_kept_records_have_their_pictures() -> None:
    pictures = [picture for entry in read_records(gallery.RECORDS).values() for picture in entry.pictures]
    assert pictures
    assert all(picture.place.with_name(f"{picture.place.name}.png").is_file() for picture in pictures)
