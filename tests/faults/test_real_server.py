"""Eight runs and a sweep are sent at once to a server with PostgreSQL, TLS and logins, whatever befalls it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from dlrun.storage.files.waiting import wait_until
from tests.faults.compare import Found
from tests.faults.judging import Trial
from tests.faults.real_server import Gateway, RealServer, real_server, skip_without_programs
from tests.faults.victims import RUN
from tests.faults.writers import copies

ROOT = Path(__file__).parents[2]
Variables = dict[str, str]


@pytest.fixture(scope="module")
def real() -> Iterator[RealServer]:
    skip_without_programs()
    with real_server() as server:
        yield server


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs with a run and a sweep that nobody was sent."""
    here = tmp_path_factory.mktemp("template")
    for words in ([*RUN], ["-m", *RUN[1:], "optimizer.lr=0.01,0.1", "seed=0,1", "trainer.steps=60"]):
        line = ["train", *(word for word in words if word != "train"), "tracking.enabled=false"]
        subprocess.run([sys.executable, "-m", "dlrun", *line], cwd=here, check=True, capture_output=True)
    return here / "outputs"


class Writers:
    """The senders of all runs and sweeps of an outputs folder."""

    def __init__(self, outputs: Path, log: Path, variables: Variables) -> None:
        self.outputs, self.log = outputs, log
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DLRUN", "MLFLOW", "AWS"))}
        self.variables = kept | {"DLRUN_OUTPUTS": str(outputs)} | variables

    def start(self, patience: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.faults.writers", str(patience)]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=self.variables, stdout=log, stderr=log)

    def compare(self) -> Found:
        """What the server has beside what the folders have, asked for directly."""
        code = "import pickle, sys; from tests.faults.compare import look; pickle.dump(look(), sys.stdout.buffer)"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=ROOT, env=self.variables, capture_output=True, check=True)
        return cast("Found", pickle.loads(done.stdout))


@dataclass
class Case:
    """One try, and what a fault may change of it."""

    trial: Trial
    real: RealServer
    place: Path
    gateway: Gateway
    address: str

    def through_gateway(self) -> Variables:
        (self.place / "token").write_text(self.gateway.token)
        return {"MLFLOW_TRACKING_URI": self.address, "DLRUN_TRACKING_TOKEN_FILE": str(self.place / "token")}

    def by_login(self) -> Variables:
        """A user of its own, whose login is in a file."""
        user = f"ada{self.trial.chance.random()}"
        assert self.real.ask("POST", "users/create", username=user, password="the-first-password") == 200
        self.write_login(user, "the-first-password")
        left_out = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        given = {name: value for name, value in self.real.environment.items() if name not in left_out}
        return given | {"HOME": str(self.place), "USER_OF_CASE": user}

    def write_login(self, user: str, password: str) -> None:
        file = self.place / ".mlflow" / "credentials"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"[mlflow]\nmlflow_tracking_username = {user}\nmlflow_tracking_password = {password}\n")


def nothing(case: Case, variables: Variables) -> None:
    """Only that many write at once."""


def restart(case: Case, variables: Variables) -> None:
    case.real.stop()
    case.real.start()


def drop_connections(case: Case, variables: Variables) -> None:
    for _ in range(3):
        case.real.drop_connections()
        case.trial.moment(1)


def change_password(case: Case, variables: Variables) -> None:
    user = variables["USER_OF_CASE"]
    assert case.real.ask("PATCH", "users/update-password", username=user, password="the-second-password") == 200
    case.trial.moment(3)
    case.write_login(user, "the-second-password")


def renew_token(case: Case, variables: Variables) -> None:
    case.gateway.token = "the-second-token"
    case.trial.moment(3)
    (case.place / "token").write_text(case.gateway.token)


def lose_answers(case: Case, variables: Variables) -> None:
    case.gateway.loses = True
    case.trial.moment(8)
    case.gateway.loses = False


FAULTS: dict[str, tuple[Callable[[Case], Variables], Callable[[Case, Variables], None]]] = {
    "nothing": (Case.by_login, nothing),
    "server restarts": (Case.by_login, restart),
    "database drops connections": (Case.by_login, drop_connections),
    "password is changed": (Case.by_login, change_password),
    "token is renewed": (Case.through_gateway, renew_token),
    "answers are lost": (Case.through_gateway, lose_answers),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_eight_writers(trial: Trial, real: RealServer, template: Path, fault: str) -> None:
    gateway = Gateway(real, "the-first-token", trial.chance)
    case = Case(trial, real, trial.place, gateway, trial.stack.enter_context(gateway.listening()))
    login, befall = FAULTS[fault]
    variables = login(case)
    writers = Writers(trial.place / "outputs", trial.place / "writers.log", variables)
    copies(template, writers.outputs, runs=8, sweeps=1)
    began = time.monotonic()
    process = writers.start(patience=120)
    # when the first run is there, whatever an import takes
    wait_until(lambda: any(writers.outputs.rglob(".uploader.lock")) or process.poll() is not None, 120, poll=0.02)
    trial.moment(6)
    befall(case, variables)
    failed = process.wait(600)
    for _ in range(3):  # as `dlrun sync` does
        failed = failed and writers.start(patience=30).wait(600)
    trial.check(not failed, writers.log.read_text()[-2000:])
    found = (
        writers.compare()
        if fault not in ("token is renewed", "answers are lost")
        else Writers(writers.outputs, writers.log, real.environment).compare()
    )
    trial.check(found.equal, str(found))
    secrets = ("the-first-token", "the-second-token", "the-first-password", "the-second-password")
    written = [file for file in writers.outputs.rglob("*") if file.is_file()]
    trial.check(not [f for f in (*written, writers.log) for s in secrets if s.encode() in f.read_bytes()], "a secret")
    print(f"{fault}: {found} {time.monotonic() - began:.1f} s, {gateway.refused} refused, {gateway.lost} lost")
    trial.conclude()
