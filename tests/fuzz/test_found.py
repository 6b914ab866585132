"""Files that a fuzzer has found: each is refused in a message."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from dlrun.datasets.tensors.spec import read_spec
from dlrun.errors import DamagedFile
from dlrun.runs.weights.mlflow_model import read_exported
from dlrun.storage import run_config
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.types import Spec
from tests.fuzz.readers.folders import LAUGHS
from tests.fuzz.readers.saved import zipped


@pytest.mark.parametrize(
    "text",
    ["a: ${a\n", "a: &a [*a, 1]\n", LAUGHS.decode(), "a: !!python/object/apply:os.getpid []"],
)
def test_a_configuration_that_is_none(tmp_path: Path, text: str) -> None:
    run = RunDir(tmp_path)
    run.config.parent.mkdir()
    run.config.write_text(text)
    with pytest.raises(DamagedFile):
        run_config.load(run)
    with suppress(DamagedFile):
        run_config.plain(run)


def test_aliases_are_read(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.config.parent.mkdir()
    run.config.write_text("a: &a {b: [1, 2]}\nc: *a\n")
    assert run_config.plain(run)["c"] == run_config.load(run).c == {"b": [1, 2]}


def test_a_list_where_a_word_is_expected(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"status": ["killed"], "metrics": {}}))
    for folder in (RunDir(tmp_path), SweepDir(tmp_path)):
        with pytest.raises(DamagedFile, match="status"):
            folder.summary()


def test_an_archive_whose_entries_lie_before_its_beginning(tmp_path: Path) -> None:
    content = zipped({"m/data/weights/model_weights_config.json": b"{}"})
    place = content.rindex(b"PK\5\6") + 16
    # the place of the directory: all others are counted from it
    wrong = content[:place] + (1 << 31).to_bytes(4, "little") + content[place + 4 :]
    (tmp_path / "model.pt2").write_bytes(wrong)
    with pytest.raises(DamagedFile):
        read_exported(tmp_path / "model.pt2")


@pytest.mark.parametrize(
    "wrong",
    [{"class_names": ["a"]}, {"class_names": ["a", 5]}, {"outputs": "2"}, {"task": None}, {"target_scale": [[1], 2]}],
)
def test_sizes_of_a_model_that_contradict_one_another(wrong: dict[str, object]) -> None:
    right = {"task": "classification", "input_shape": [3], "outputs": 2, "class_names": ["a", "b"]}
    assert read_spec(right) == Spec("classification", (3,), 2, class_names=("a", "b"))
    assert read_spec(right | wrong) is None
