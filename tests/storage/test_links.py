"""Links in a received folder: nothing outside of it is read, sent, written or deleted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dlrun.errors import UserError
from dlrun.storage.files.links import check_files, links_out, remove_folder
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.lookup import all_runs, all_sweeps
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
QUICK = ("trainer.epochs=1", "trainer.figures=false")


def test_only_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder, secret = tmp_path / "run", tmp_path / "secret"
    (folder / "figures").mkdir(parents=True)
    secret.write_text("kept")
    (folder / "figures" / "a.png").write_text("a")
    (folder / "figures" / "own.png").symlink_to("a.png")
    (folder / "best.pt").symlink_to(folder / "figures" / "a.png")
    (folder / "itself").symlink_to("itself")
    assert list(links_out(folder)) == []
    (tmp_path / "linked").symlink_to(folder)  # the outputs folder itself may lie elsewhere
    check_files(tmp_path / "linked")
    (folder / "figures" / "key.png").symlink_to("../../secret")
    with pytest.raises(UserError, match=r"key\.png is a link out of its folder"):
        check_files(tmp_path / "linked")
    remove_folder(tmp_path / "linked")
    assert folder.is_dir()
    remove_folder(folder)
    assert secret.read_text() == "kept"


@pytest.mark.parametrize(
    "name", ["summary.json", "journal.jsonl", ".lock", ".hydra/config.yaml", "checkpoints/last.pt", "train.log"]
)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_folder_in_the_place_of_a_file_is_named(
    call: Call, name: str, make: Callable[[Path], None]
) -> None:
    assert call("train", *QUICK, "tracking.enabled=false").code == 0
    (run,) = all_runs()
    (run.path / name).unlink()
    make(run.path / name)
    refuses(call("resume", run.id, "trainer.epochs=2"), name)
    # nobody waits for what a pipe does not give
    assert call("runs").code == 0
    assert call("sync").code == 0


@pytest.fixture
def received(here: Path, call: Call, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Path]:
    """A run, and a folder outside of it with a file."""
    assert call("train", *QUICK, "tracking.enabled=false").code == 0
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.txt").write_text("secret")
    return all_runs()[-1], outside


@pytest.mark.parametrize("name", ["checkpoints/best.pt", "figures"])
def test_a_run_with_a_link_out_of_its_folder_is_not_read(
    received: tuple[RunDir, Path], here: Path, call: Call, name: str
) -> None:
    run, outside = received
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).symlink_to(outside if name == "figures" else outside / "secret.txt")
    (here / "x.csv").write_text(",".join(["0"] * 64))
    for command in (["test"], ["predict"], ["sample"], ["resume"]):
        refuses(call(*command, run.id, *(["x.csv"] if command == ["predict"] else [])), name, "link out of its folder")
    refuses(call("compare", run.id, run.id), name)
    refuses(call("train", *QUICK, f"init_from={run.path}"), name)
    assert call("runs", "--delete", "--yes", run.id).code == 0
    assert not run.path.exists()
    assert [file.read_text() for file in outside.iterdir()] == ["secret"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_link_is_not_sent(received: tuple[RunDir, Path], here: Path, call: Call) -> None:
    run, outside = received
    run.figures.mkdir()
    (run.figures / "curve.png").write_text("a curve")
    (run.figures / "key.png").symlink_to(outside / "secret.txt")
    (run.figures / "hard.png").hardlink_to(outside / "secret.txt")
    (run.path / "profile").symlink_to(outside)
    run.log.unlink()
    run.log.symlink_to(outside / "secret.txt")
    done = call("sync", run.id)
    assert done.code == 0
    says(done.out + done.err, "hard.png is a hard link")
    sent = {file.name: file.read_bytes() for file in (here / "outputs").rglob("*/artifacts/**/*") if file.is_file()}
    assert sent["curve.png"] == b"a curve"
    assert "key.png" not in sent
    assert b"secret" not in sent.values()


def test_a_sweep_with_a_link_in_a_job_is_not_reported(received: tuple[RunDir, Path], call: Call) -> None:
    _, outside = received
    assert call("train", "-m", "seed=0,1", *QUICK, "tracking.enabled=false").code == 0
    sweep = all_sweeps()[-1]
    (sweep.path / "1" / "notes").symlink_to(outside)
    refuses(call("report", sweep.id), "1/notes")
    assert call("runs", "--delete", "--yes", sweep.id).code == 0
    assert (outside / "secret.txt").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_file_is_made_behind_a_link_of_a_lock(received: tuple[RunDir, Path], call: Call) -> None:
    run, outside = received
    with run.edit_summary() as summary:
        summary.status = "running"
    for name in (".lock", ".summary.lock", ".uploader.lock"):
        (run.path / name).unlink(missing_ok=True)
        (run.path / name).symlink_to(outside / f"made-by{name}")
    assert call("train", *QUICK, "seed=1", "tracking.enabled=false").code == 0
    assert call("runs").code == 0
    synced = call("sync", run.id, all_runs()[-1].id)
    assert synced.code == 1
    assert "it is a link" in synced.err and f"{all_runs()[-1].id}  finished  sent" in synced.out
    assert [file.name for file in outside.iterdir()] == ["secret.txt"]


def test_a_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / f".x.{os.getpid()}").symlink_to(tmp_path / "elsewhere")
    write_atomically(tmp_path / "x", b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_store_s_link_is_not_followed(received: tuple[RunDir, Path], here: Path, call: Call) -> None:
    run, outside = received
    assert call("sync", run.id).code == 0
    (artifacts,) = (here / "outputs").rglob("artifacts")
    (artifacts / "figures").symlink_to(outside)
    run.figures.mkdir()
    (run.figures / "secret.txt").write_text("replaced")
    assert call("sync", "--again", run.id).code == 1
    assert [file.read_text() for file in outside.iterdir()] == ["secret"]
