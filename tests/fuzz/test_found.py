"""Files that a fuzzer has found: each is refused in a message."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest

from dlrun.datasets.language.labelled import read_table
from dlrun.datasets.language.pairs.read import read_sources
from dlrun.datasets.tensors.spec import read_spec
from dlrun.errors import DamagedFile, DataError
from dlrun.runs.weights.mlflow_model import read_exported
from dlrun.storage import manifest, run_config
from dlrun.storage.identity import digest
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.store import prepare
from dlrun.types import Spec
from tests.fuzz.readers.folders import LAUGHS
from tests.fuzz.readers.saved import zipped
from tests.made_sweeps import made_sweep


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


def test_a_manifest_that_is_a_number(tmp_path: Path) -> None:
    content = {"not finite": "nan"}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DamagedFile):
        manifest.read(SweepDir(tmp_path))
    made = made_sweep(tmp_path / "sweep", {"seed": [0]}, lambda values: {"val/error": 0.5})
    made.added.write_text(json.dumps({"job": content, "digest": digest(content)}) + "\n")
    with pytest.raises(DamagedFile):
        manifest.read(made)


def test_a_store_of_other_bytes(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE abcdef (a)")
    # SQLite says what is malformed by its name
    wrong = path.read_bytes().replace(b"CREATE TABLE abcdef", b"CREATE TABEL abcdef").replace(b"abcdef", b"abc\xffef")
    path.write_bytes(wrong)
    with pytest.raises(sqlite3.DatabaseError):
        prepare(Address(f"sqlite:///{path}"), tmp_path / "mlartifacts")


def test_records_without_fields(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("{}\n{}\n")
    for read in (read_table, lambda path: read_sources(path, {})):
        with pytest.raises(DataError, match="line 1 has no fields"):
            read(path)
