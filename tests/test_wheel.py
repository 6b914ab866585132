"""The wheel, installed where there is no checkout, is all of dlrun."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import processes
from tests.config.test_own_parts import GUIDE, SHOWN

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None or importlib.util.find_spec("build") is None,
    reason="hatchling and build are not installed: make setup installs them",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's own environment: it sees what this one has installed, but not the checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder, with_pip=False, symlinks=True)
    site = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    # a folder that a .pth file adds has its own .pth files, the editable install's, not read
    (site / "rest.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    command = ["--python", str(folder / "bin/python"), "install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True, capture_output=True, timeout=120)
    return folder


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


@pytest.fixture
def installed(here: Path, elsewhere: Path):
    def call(*argv: str) -> str:
        command = [str(elsewhere / "bin/dlrun"), *argv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=here, env=environment())
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


@pytest.fixture(scope="module")
def server(elsewhere: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What forks further calls from what the wheel's environment has imported."""
    with tempfile.TemporaryDirectory(prefix="dlrun-") as folder:
        place = Path(folder, "wheel")
        modules = processes.SERVERS["dlrun"]
        started = processes.start_server(place, modules, python=elsewhere / "bin/python", env=environment())
        yield place
        processes.end_servers([started])


@pytest.fixture
def again(here: Path, elsewhere: Path, server: Path):
    """Call what is installed, as `installed` does, in a process that need not import it all once more."""

    def call(*argv: str) -> str:
        command = [str(elsewhere / "bin/python"), str(elsewhere / "bin/dlrun"), *argv]
        done = processes.run(
            command, server=server, capture_output=True, text=True, timeout=120, cwd=here, env=environment()
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


def test_the_wheel_holds_the_configuration_and_the_plugins(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = {f"dlrun/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert conf <= names
    folder = ROOT / "dlrun/commands/new/templates"
    templates = {str(path.relative_to(ROOT)) for path in folder.iterdir() if path.is_file()}
    assert len(templates) > 10 and templates <= names
    assert {"hydra_plugins/dlrun/__init__.py", "hydra_plugins/dlrun/search_path.py"} <= names
    assert not {name for name in names if name.startswith(("tests/", "benchmarks/", "conf/"))}
    assert "hydra_plugins/__init__.py" not in names  # a namespace that other plugins share


def test_it_is_the_wheel_that_runs(elsewhere: Path) -> None:
    program = "import dlrun.config.paths as c; print(c.package_folder())"
    done = subprocess.run([elsewhere / "bin/python", "-I", "-c", program], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_relative_to(elsewhere)


def test_help_and_list(installed) -> None:
    assert "verify-resume" in installed("--help")
    assert "polynomial" in installed("list", "model")


def test_a_configuration_with_the_users_own_parts(here: Path, again) -> None:
    (here / "conf/model").mkdir(parents=True)
    (here / "conf/model/mine.yaml").write_text("_target_: mylab.Mine\n")
    assert "_target_: mylab.Mine" in again("train", "model=mine", "--cfg", "job")


def test_a_run(here: Path, installed) -> None:
    installed("train", "trainer.epochs=1", "tracking.enabled=false")
    assert len([*here.glob("outputs/runs/*/*/summary.json")]) == 1


def test_the_users_own_parts(here: Path, again) -> None:
    for match in SHOWN.finditer(GUIDE.read_text(encoding="utf-8")):
        path = here / match["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(match["text"], encoding="utf-8")
    quick = ("tracking.enabled=false", "trainer.figures=false", "trainer.epochs=2")
    again("train", "+experiment=rings", *quick)
    (run,) = here.glob("outputs/runs/*/*")
    again("resume", str(run), "trainer.epochs=3")
    assert "val/confidence" in again("test", str(run), "--split", "validation")
    (here / "points.csv").write_text("1.0,0.0\n0.0,2.0\n")
    assert len(again("predict", str(run), "points.csv").splitlines()) == 3
    again("train", "+experiment=rings", "dataset=stripes", "model=mlp", "optimizer=radam", *quick)
