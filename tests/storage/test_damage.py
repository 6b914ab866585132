"""A damaged file is named and refused, and stops nothing else."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlrun.errors import DamagedFile
from dlrun.storage import journal, manifest, run_config
from dlrun.storage.lookup import all_runs, all_sweeps
from dlrun.storage.results import results
from dlrun.storage.rundir import REUSED, RunDir
from dlrun.storage.sweepdir import SweepDir
from tests.conftest import Called
from tests.facts import refuses, says
from tests.made_sweeps import made_sweep

Call = Callable[..., Called]
QUIET = ("trainer.figures=false", "tracking.enabled=false", "trainer.epochs=1")


@pytest.fixture
def run(call: Call) -> RunDir:
    assert call("train", *QUIET).code == 0
    return all_runs()[0]


@pytest.fixture
def sweep(call: Call) -> SweepDir:
    batched = ("hydra/launcher=batched", "sweep.figures=false", "trainer.steps=3")
    assert call("train", "-m", *QUIET[:2], *batched, "optimizer.lr=0.1,0.2", "model=linear").code == 0
    return all_sweeps()[0]


def flip_bit(checkpoint: Path) -> None:
    """Flip the highest bit of an exponent in the largest tensor."""
    with zipfile.ZipFile(checkpoint) as archive:
        entry = max(archive.infolist(), key=lambda each: each.file_size)
    content = bytearray(checkpoint.read_bytes())
    # after the local header come the entry's name and its padding, of these lengths
    header = entry.header_offset
    lengths = [int.from_bytes(content[header + at : header + at + 2], "little") for at in (26, 28)]
    content[header + 30 + sum(lengths) + 3] ^= 0x40
    checkpoint.write_bytes(content)


@pytest.mark.parametrize("name", ["best.pt", "last.pt"])
def test_a_checkpoint_of_another_run_is_noticed(run: RunDir, call: Call, name: str) -> None:
    assert call("train", *QUIET, "seed=1").code == 0
    other = all_runs()[-1].path / "checkpoints" / name
    shutil.copy(other, run.path / "checkpoints" / name)
    commands = [("resume", run.id, "trainer.epochs=2")]
    if name == "best.pt":
        commands += [("test", run.id), ("predict", run.id, "x.csv"), ("train", *QUIET, f"init_from={run.path}")]
        Path("x.csv").write_text(",".join(["0"] * 64))
    for command in commands:
        refuses(call(*command), name, "of another run")
    run.journal.unlink()  # without it nothing is known
    assert call(*commands[0]).code == 0


@pytest.mark.parametrize("command", ["test", "resume", "init_from"])
def test_one_flipped_bit_of_a_weight_is_noticed(run: RunDir, call: Call, command: str) -> None:
    for file in (run.best, run.last):
        flip_bit(file)
    arguments = {
        "test": ("test", run.id, "--split", "validation"),
        "resume": ("resume", run.id, "trainer.epochs=2"),
        "init_from": ("train", *QUIET, f"init_from={run.best}"),
    }
    refuses(call(*arguments[command]), "last.pt" if command == "resume" else "best.pt", "altered")


def test_the_advice_about_a_damaged_checkpoint_can_be_followed(run: RunDir, call: Call) -> None:
    flip_bit(run.best)
    # the damaged file is never what is advised
    refuses(call("test", run.id), "delete it", f"init_from={run.last}")
    assert call("train", *QUIET, f"init_from={run.last}").code == 0
    run.best.unlink()
    assert call("resume", run.id, "trainer.epochs=2").code == 0

    flip_bit(run.last)
    refuses(call("resume", run.id), "delete it", f"init_from={run.best}")
    run.last.unlink()
    says(call("resume", run.id).out, "is finished")
    done = call("resume", run.id, "trainer.epochs=1")
    assert done.code == 0
    says(done.err, f"There is no {run.last}: training begins at its first step again.")
    assert run.summary().steps == 21


def test_the_last_weights_do_not_pass_for_the_best(run: RunDir, call: Call) -> None:
    run.best.unlink()
    refuses(call("test", run.id), "best.pt", "missing", f"init_from={run.last}")
    assert run.summary().test_reads == 1
    done = call("resume", run.id, "trainer.epochs=3")
    assert done.code == 0
    says(done.err, "best.pt is lost", "step 21")
    # chosen among the validations of the second and the third epoch
    assert run.summary().best_step in (42, 63)


def test_an_older_best_does_not_pass_for_the_best(run: RunDir, call: Call) -> None:
    older = run.best.read_bytes()
    assert call("resume", run.id, "trainer.epochs=2").code == 0
    assert run.summary().best_step == 42
    run.best.write_bytes(older)
    refuses(call("test", run.id), "best.pt", "of step 21", "of step 42")
    done = call("resume", run.id, "trainer.epochs=3")
    assert done.code == 0
    says(done.err, "best.pt is an older one, of step 21", "of step 42")
    assert run.summary().best_step == 63


@pytest.mark.parametrize("content", [b"", b'{"status": "fini', b"[]", b"\xff\xfe"])
def test_a_damaged_summary_stops_no_other_run(run: RunDir, call: Call, content: bytes) -> None:
    assert call("train", *QUIET).code == 0
    other = all_runs()[1]
    (run.path / "summary.json").write_bytes(content)
    done = call("runs")
    assert done.code == 0
    says(done.err, f"{run.path}/summary.json is damaged")
    says(done.out, other.id)
    refuses(call("test", run.id), "summary.json", "`dlrun resume`")
    assert call("train", *QUIET).code == 0


def test_a_lost_summary_is_written_anew_with_the_reads_of_the_journal(run: RunDir, call: Call) -> None:
    started = run.summary().started
    (run.path / "summary.json").unlink()
    done = call("resume", run.id)
    assert done.code == 0, done.err
    assert run.summary().started == started
    # one of the first training, and one of this
    assert (run.summary().status, run.summary().test_reads) == ("finished", 2)


def test_a_test_counts_the_reads_that_a_lost_summary_had(run: RunDir, call: Call) -> None:
    (run.path / "summary.json").unlink()
    says(call("test", run.id).out, "reads of the test split so far: 2")


def test_ui_names_a_damaged_run_before_it_starts_a_server(run: RunDir, call: Call) -> None:
    (run.path / "summary.json").write_bytes(b"")
    done = call("ui", run.id, "--no-browser")
    refuses(done, f"{run.path}/summary.json is damaged")
    assert "Starting" not in done.out


def test_an_edited_configuration_is_refused(run: RunDir, call: Call) -> None:
    whole = run.config.read_text()
    run.config.write_text(whole.replace("lr: ", "lr: 1"))
    assert run.config.read_text() != whole
    for command in (("resume", run.id, "trainer.epochs=2"), ("test", run.id)):
        refuses(call(*command), "config.yaml", "altered")
    run.config.write_text(whole)
    # what `resume` writes itself is no damage, and can be resumed again
    for epochs in (2, 3):
        done = call("resume", run.id, f"trainer.epochs={epochs}")
        assert done.code == 0, done.err
    assert run_config.load(run).trainer.epochs == 3
    assert call("test", run.id, "--split", "validation").code == 0


@pytest.mark.parametrize("content", ["", "a: [", "5", "-1", "true"])
def test_a_configuration_that_is_none_is_refused(run: RunDir, call: Call, content: str) -> None:
    run.config.write_text(content)
    for command in ("test", "resume"):
        refuses(call(command, run.id), "config.yaml", "damaged")
    assert call("runs").code == 0


@pytest.mark.parametrize(
    "line",
    [
        b'{"time": 1.0, "metrics": {"a": 1}}',
        b'{"step": 3, "time": 1.0, "metrics": null}',
        b'{"step": 3, "time": 1.0, "metrics": {"a": "x"}}',
        b'{"step": 3, "time": 1.0, "metrics": {"a": null}}',
        b'{"step": "3", "time": 1.0, "metrics": {"a": 1}}',
        b'{"step": 3, "time": "now", "metrics": {"a": 1}}',
        b'{"step": 3, "time": 1.0, "metrics": {"a": 1}}{"step": 4}',
        b'{"step": 3, "time": 1e300, "metrics": {"a": 1}}',
        b'{"step": 3, "time": 1.0, "metrics": {"a": 1%s}}' % (b"0" * 400),
        b'{"step": 1%s, "time": 1.0, "metrics": {"a": 1}}' % (b"0" * 30),
        b"[3]",
        b"\xff",
    ],
)
def test_an_odd_line_of_the_journal_spoils_no_other(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    good = [b'{"step": %d, "time": 1.0, "metrics": {"a": "nan"}}' % step for step in (1, 2)]
    path.write_bytes(b"\n".join([good[0], line, good[1], b""]))
    assert [record["step"] for record in journal.read(path)[0]] == [1, 2]
    assert [step for step, _ in journal.curves(path)["a"]] == [1, 2]


@pytest.mark.parametrize("damage", ["cut", "{}", "altered"])
def test_a_damaged_manifest_stops_no_other_sweep(sweep: SweepDir, call: Call, damage: str) -> None:
    content = json.loads(sweep.manifest.read_text())
    content["jobs"][0]["config"]["optimizer"]["lr"] = 0.5
    altered = {"cut": sweep.manifest.read_text()[:300], "{}": "{}", "altered": json.dumps(content)}[damage]
    sweep.manifest.write_text(altered)
    refuses(call("resume", sweep.id), "manifest.json", "damaged")
    done = call("runs", "--sweeps")
    assert done.code == 0
    says(done.err, "manifest.json is damaged")
    done = call("train", "-m", *QUIET, "seed=0,1", "model=linear", "hydra/launcher=batched", "sweep.figures=false")
    assert done.code == 0, done.err


@pytest.mark.parametrize("file", ["1/summary.json", f"1/{REUSED}"])
def test_a_damaged_job_is_told_as_such(sweep: SweepDir, call: Call, file: str) -> None:
    (sweep.path / file).write_text("")
    assert [result.status for result in results(sweep)] == ["finished", "damaged"]
    done = call("report", sweep.id)
    assert "Traceback" not in done.err
    assert call("runs").code == 0


def test_lists_within_lists_without_end_are_damage(tmp_path: Path) -> None:
    deep = "[" * 100_000
    assert not journal.parse(deep.encode())
    folder = RunDir(tmp_path)
    (tmp_path / ".hydra").mkdir()
    folder.config.write_text(deep)
    with pytest.raises(DamagedFile):
        run_config.load(folder)
    (tmp_path / "summary.json").write_text(deep)
    with pytest.raises(DamagedFile):
        folder.summary()


@pytest.mark.parametrize(
    ("key", "value"), [("started", "x"), ("metrics", [1]), ("data", "x"), ("execution", ["a"]), ("status", 5)]
)
def test_a_value_of_another_kind_is_named_damage(key: str, value: Any, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"status": "finished", key: value}))
    with pytest.raises(DamagedFile, match=f"`{key}` is "):
        RunDir(tmp_path).summary()


def test_keys_of_other_versions_and_nulls_are_no_damage(tmp_path: Path) -> None:
    values = {"status": "of a later version", "metrics": None, "seconds": 5, "later": [1], "uploaded": True}
    (tmp_path / "summary.json").write_text(json.dumps(values))
    assert RunDir(tmp_path).summary().seconds == 5


def test_runs_are_listed_beside_one_with_odd_values(call: Callable[..., Called], here: Path) -> None:
    call("train", "trainer.fast=true", "trainer.figures=false", "tracking.enabled=false")
    whole = all_runs()[0]
    for number, values in enumerate(({"started": None, "metrics": None}, {"started": 1e30}, {"started": "x"})):
        odd = whole.path.with_name(f"10111{number}-odd-oddrun{number}a")
        shutil.copytree(whole.path, odd)
        with (odd / "summary.json").open("r+") as file:
            content = json.load(file) | values
            file.seek(0)
            file.truncate()
            json.dump(content, file)
    done = call("runs")
    assert done.code == 0, done.err
    assert whole.id in done.out and "oddrun0a" in done.out and "oddrun1a" in done.out
    assert "`started` is" in done.err


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("created", "x"),
        ("jobs", 5),
        ("jobs.0", "x"),
        ("jobs.0.overrides", [1]),
        ("jobs.0.n", "../1"),
        ("jobs.0.identity", None),
        ("jobs.0.config.seed", {}),
        ("jobs.0.config.tracking", [1]),
        ("study", 1),
        ("basis", []),
        ("unknown", 1),
    ],
)
def test_an_odd_value_in_a_manifest_is_named(tmp_path: Path, path: str, value: Any) -> None:
    sweep = made_sweep(tmp_path / "sweep", {"seed": [0]}, lambda job: {})
    content = json.loads(sweep.manifest.read_text())
    del content["digest"]  # as whoever makes such a file may do
    *parents, last = path.split(".")
    inner = content
    for name in parents:
        inner = inner[int(name) if name.isdigit() else name]
    inner[int(last) if last.isdigit() else last] = value
    sweep.manifest.write_text(json.dumps(content))
    with pytest.raises(DamagedFile, match=last if not last.isdigit() else "job 0"):
        manifest.read(sweep)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("metrics", {"val/error": "x"}),
        ("steps", float("nan")),
        ("test_reads", 10**400),
        ("uploaded", 5),
        ("uploaded_stamp", [1]),
        ("data", {"test": "x"}),
        ("config_digests", "x"),
        ("identity_parts", {"data": 1}),
    ],
)
def test_an_odd_value_in_a_summary_is_named(tmp_path: Path, key: str, value: Any) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({key: value}))
    with pytest.raises(DamagedFile, match=f"`{key}` is"):
        RunDir(tmp_path).summary()
