"""What every test stands on: an empty folder, no inherited settings, and two ways to call dlrun."""

from __future__ import annotations

import functools
import gc
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from _pytest.doctest import DoctestModule

from tests import processes

# one thread a process, before anything imports torch
os.environ["OMP_NUM_THREADS"] = "1"
# the programs that are started need not compile dlrun each time
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

SETTINGS = ("DLRUN_OUTPUTS", "DLRUN_TRUSTED", "MLFLOW_TRACKING_URI", "DLRUN_TRACEBACK", "HYDRA_FULL_ERROR")


LONG = (
    *(
        "tracking/test_model",
        "test_wheel",
        "commands/test_ui",
        "runs/test_resume",
        "sweeps/test_sweep",
        "tracking/test_runs",
    ),
    *("tracking/test_sweeps", "sweeps/test_search", "runs/test_run", "config/test_own_parts", "commands/test_python"),
)
"""The files whose tests take longest: begun first, so that no process is left alone with one at the end."""


class Doctests:
    """Has pytest look for examples in the files with a `>>>` alone: it imports and walks each that it looks into."""

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_file(self, file_path: Path) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
        found = yield
        if file_path.suffix == ".py" and b">>>" not in file_path.read_bytes():
            return [each for each in found if not isinstance(each, DoctestModule)]
        return found


def remember_yaml() -> None:
    """Parse each text of a configuration once a session: an eighth of the time of a short training.

    A text with a mistake is parsed each time, from its file: the message names it.
    """
    known: dict[str, bytes] = {}
    parse = yaml.load

    def load(stream: Any, Loader: Any) -> Any:
        if Loader.__name__ != "OmegaConfLoader":
            return parse(stream, Loader)
        text = stream if isinstance(stream, str) else stream.read()
        if text not in known:
            if stream is not text:
                stream.seek(0)
            known[text] = pickle.dumps(parse(stream, Loader))
        return pickle.loads(known[text])

    yaml.load = load


def pytest_collection_finish() -> None:
    """Keep all that was imported and collected out of each garbage collection from here on: a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5000, 10, 10)


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers from which processes are forked, once for all of pytest's own processes."""
    config.pluginmanager.register(Doctests())
    remember_yaml()
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="dlrun-")
        servers = processes.start_servers(Path(folder.name))
        config.add_cleanup(folder.cleanup)
        config.add_cleanup(lambda: processes.end_servers(servers))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest tests first."""
    order = {Path(__file__).parent / f"{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path, len(LONG)))


@dataclass(frozen=True)
class Called:
    """What a call of dlrun came to."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the whole session: what is made once need not be made for each test."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(params=["joined", "apart"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Stacked weights as one block, and as a block of each parameter, as many weights have it."""
    monkeypatch.setattr("dlrun.stacked.weights.LARGE", {"joined": 1 << 60, "apart": 0}[request.param])
    return str(request.param)


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Take the traced step as it is, where TorchInductor would compile it; the list holds what was traced."""
    import torch

    graphs: list[Any] = []

    def run(graph: Any, given: list[torch.Tensor]) -> Callable[[list[torch.Tensor]], Any]:
        graphs.append(graph)

        def call(flat: list[torch.Tensor]) -> Any:
            with torch.no_grad():
                return graph(*flat)

        return call

    monkeypatch.setattr("dlrun.execution.compiled._lower", run)
    return graphs


@pytest.fixture
def here(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory: empty, and dlrun's own settings all unset but the cache."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DLRUN_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    # a module of this folder would hide one of the same name in the next test's
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(f"{tmp_path}{os.sep}"):
            del sys.modules[name]


@pytest.fixture
def dlrun(here: Path) -> Callable[..., Called]:
    """`dlrun(*argv)` in a process of its own, as from a shell."""

    def call(*argv: str, timeout: float = 120, **environment: str) -> Called:
        command = [sys.executable, "-m", "dlrun", *argv]
        done = processes.run(
            command, cwd=here, env=os.environ | environment, capture_output=True, text=True, timeout=timeout
        )
        return Called(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def call(here: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    """`call(*argv)` in this process: many times faster, for what needs no process of its own."""
    from dlrun.cli import main

    def call(*argv: str) -> Called:
        capfd.readouterr()
        try:
            code = main(list(argv))
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else 1
        out, err = capfd.readouterr()
        return Called(code, out, err)

    return call


@pytest.fixture
def verify_resume(call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Called]:
    """`dlrun verify-resume` with its four processes forked."""
    forked = SimpleNamespace(Popen=processes.Process, run=processes.run)
    monkeypatch.setattr("dlrun.commands.verify_resume.subprocess", forked)
    return functools.partial(call, "verify-resume")
