"""Real faults, each tried at random moments; a matrix at the end. `make faults` runs them, all else skips them.

A try is run by `victims`, broken by `breaking` and `server`, and judged by `judging`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import matrix
from tests.faults.judging import Trial
from tests.faults.server import MlflowServer, mlflow_server
from tests.faults.victims import Wholes

WHY = "real faults take hours: type `make faults TRIES=1`"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tries", type=int, default=20, help="tries of each fault, at random moments")
    parser.addoption("--seed", type=int, help="of these moments; drawn and printed if not given")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--seed", default=0) is None:
        # here, so that processes of pytest-xdist get the same
        config.option.seed = random.SystemRandom().randrange(10_000)


def pytest_report_header(config: pytest.Config) -> str | None:
    if _asked(config):
        return f"faults: {config.getoption('--tries', 20)} tries of each, --seed {config.getoption('--seed', 0)}"
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "attempt" in metafunc.fixturenames:
        tries = metafunc.config.getoption("--tries", 20) if _asked(metafunc.config) else 1
        metafunc.parametrize("attempt", range(tries))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)
            if not _asked(config):
                item.add_marker(pytest.mark.skip(reason=WHY))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = [report for found in terminalreporter.stats.values() for report in found]
    if _asked(config) and (text := matrix.table(reports)):
        terminalreporter.section(f"matrix of faults, --seed {config.getoption('--seed', 0)}")
        terminalreporter.write_line(text)


@pytest.fixture(scope="session")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Wholes:
    """Runs and sweeps that nothing has happened to."""
    return Wholes(tmp_path_factory.mktemp("wholes"))


@pytest.fixture
def trial(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    cache: Path,
    wholes: Wholes,
    attempt: int,
    record_property: matrix.RecordProperty,
) -> Iterator[Trial]:
    """One try of a fault in an empty folder; no process of it is left behind."""
    parameters = _texts(request.node.callspec)
    name = request.node.originalname.removeprefix("test_").replace("_", " ")
    record_property(matrix.CASE, ": ".join(filter(None, (name, " ".join(parameters)))))
    seed = request.config.getoption("--seed", 0)
    chance = random.Random(f"{seed} {name} {parameters} {attempt}")
    made = Trial(tmp_path, cache, wholes, chance, record_property)
    yield made
    made.clean()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real MLflow server, of which `server.proxy()` makes a bad one."""
    with mlflow_server(tmp_path_factory.mktemp("server")) as found:
        yield found


def _texts(callspec: Any) -> list[str]:
    """The parameters of a test but its attempt, as their ids have them."""
    ids = dict(zip(callspec.params, callspec._idlist, strict=True))
    return [text for name, text in ids.items() if name != "attempt"]


def _asked(config: pytest.Config) -> bool:
    return "faults" in str(config.option.markexpr)
