"""The examples train, resume to the same bits, and answer, from copies of their folders."""

from __future__ import annotations

import doctest
import importlib
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

import dlrun as package
from dlrun.nests.nest import leaves
from dlrun.runs.differences import differences
from dlrun.runs.recorder import RunRecorder
from dlrun.storage.journal import last_step, read
from dlrun.storage.lookup import all_runs
from tests import processes
from tests.conftest import Called

Call = Callable[..., Called]

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(folder.name for folder in EXAMPLES.iterdir() if (folder / "conf").is_dir())
FEW = (
    *("trainer.steps=4", "trainer.batch_size=16", "trainer.evaluate_every=2", "trainer.log_every=1"),
    *("trainer.checkpoint_every=1", "trainer.figures=false", "tracking.enabled=false"),
    # the faster one of two runs may be another each time, and the last bit with it
    "trainer.memory_format=contiguous",
)
FEW_SAMPLES = ("+dataset.validation=8", "+dataset.test=8", "dataset.train=60")
SMALL = {
    "captioning": FEW_SAMPLES,
    "detection": FEW_SAMPLES,
    "pose": FEW_SAMPLES,
    "question_answering": ("+dataset.validation=8", "+dataset.test=8", "+dataset.train=60"),
    "segmentation": FEW_SAMPLES,
    "tabular": ("dataset.rows=200",),
    "translation": (*FEW_SAMPLES, "+model.longest=40", "evaluation.train_samples=8"),
}


@pytest.fixture
def example(request: pytest.FixtureRequest, here: Path) -> Iterator[str]:
    """A copy of an example's folder, which is the current one."""
    name: str = request.param
    shutil.copytree(EXAMPLES / name, here, dirs_exist_ok=True, ignore=shutil.ignore_patterns("outputs", "__pycache__"))
    yield name
    for module in here.glob("*.py"):
        sys.modules.pop(module.stem, None)


@pytest.mark.parametrize("example", NAMES, indirect=True)
def test_it_trains_answers_and_resumes_to_the_same_bits(
    example: str, call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("train", f"+experiment={example}", *FEW, *SMALL.get(example, ()))
    done = call(*line)
    assert done.code == 0, done.err
    [whole] = all_runs()
    monitored = whole.summary().selected_by
    assert monitored is not None
    assert monitored in whole.summary().metrics
    run = package.load(whole.id)
    assert run.data.test is not None
    batch = run.data.test.gather(torch.arange(3))
    with torch.no_grad():
        found = [*leaves(run.model(batch.x))]
    # the policy of the game has -inf for fields that are taken
    assert all(not bool(each.isnan().any()) and len(each) == 3 for each in found)
    [observer] = yaml.safe_load(whole.config.read_text(encoding="utf-8"))["observers"]
    assert (whole.figures / f"{observer}.png").is_file(), done.err

    def point(recorder: RunRecorder, step: int, *given: object) -> None:
        log_point(recorder, step, *given)
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    log_point = RunRecorder.point
    with monkeypatch.context() as patched:
        patched.setattr(RunRecorder, "point", point)
        assert call(*line).code == 130
    [broken] = [each for each in all_runs() if each != whole]
    assert last_step(broken.journal) == 3
    # without what this process knows of the run
    resumed = processes.run(
        [sys.executable, "-m", "dlrun", "resume", broken.id], cwd=here, capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr
    assert [each["resumed_from"] for each in read(broken.journal)[0] if "resumed_from" in each] == [None, 3]
    assert not [*differences(whole, broken)]


@pytest.mark.parametrize("example", ["translation"], indirect=True)
def test_numbers_are_written_as_in_both_languages(example: str, monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.syspath_prepend(here)
    module = importlib.import_module("english_french")
    assert doctest.testmod(module).failed == 0
    told = {
        81: "quatre-vingt-un",
        99: "quatre-vingt-dix-neuf",
        180: "cent quatre-vingts",
        2071: "deux mille soixante et onze",
    }
    assert {n: module.french(n) for n in told} == told
    assert module.english(90317) == "ninety thousand three hundred and seventeen"


@pytest.mark.parametrize("example", ["game"], indirect=True)
def test_perfect_play_is_perfect(example: str, monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.syspath_prepend(here)
    game = importlib.import_module("tictactoe")
    assert game.value((0,) * 9) == 0
    # of the 765 positions up to symmetry 138 are over (Schaefer 2002)
    assert len(game.positions()) == 765 - 138
    # a row of two is completed
    assert game.value((1, 1, 0, -1, -1, 0, 0, 0, 0)) == 1


@pytest.mark.parametrize("example", ["detection"], indirect=True)
def test_average_precision_by_hand(example: str, monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.syspath_prepend(here)
    canvas = importlib.import_module("canvas")
    metric = canvas.MeanAveragePrecision()
    boxes = torch.tensor([[[0.0, 0, 8, 8], [20, 20, 28, 28], [0, 0, 8, 8]]])
    # three predictions of class 1: right, wrong, right but of a box that is taken
    found = {"object": torch.tensor([[3.0, 2.0, 1.0]]), "boxes": boxes, "classes": torch.full((1, 3, 2), -9.0)}
    found["classes"][..., 1] = 9.0
    wanted = {"boxes": torch.tensor([[[0.0, 0, 8, 8], [10, 10, 18, 18]]]), "labels": torch.tensor([[1, 1]])}
    metric.update(found, wanted)
    # recall 1/2 at precision 1, and no more
    assert metric.compute() == pytest.approx(0.5)


def test_the_readme_has_every_example() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert NAMES
    assert all(f"+experiment={name}`" in text for name in NAMES)
