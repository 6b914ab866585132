"""What `deploy/mlflow` starts fits the MLflow that is installed."""

from __future__ import annotations

import configparser
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "deploy" / "mlflow"
COMPOSE: dict[str, Any] = yaml.safe_load((PLACE / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


@pytest.fixture(scope="module")
def serve() -> ModuleType:
    spec = importlib.util.spec_from_file_location("serve", PLACE / "serve.py")
    assert spec and spec.loader
    module = sys.modules["serve"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mlflow_file(name: str) -> str:
    spec = importlib.util.find_spec("mlflow")
    assert spec and spec.origin
    return (Path(spec.origin).parent / name).read_text(encoding="utf-8")


def test_each_variable_of_the_containers_is_in_the_example() -> None:
    used = {*re.findall(r"\$\{(\w+)", (PLACE / "compose.yaml").read_text())}
    given = {*re.findall(r"^(\w+)=", (PLACE / "env.example").read_text(), re.MULTILINE)}
    assert used == given


def test_no_password_stands_in_a_file_of_the_project() -> None:
    for name, value in re.findall(r"^(\w+)=(.*)$", (PLACE / "env.example").read_text(), re.MULTILINE):
        assert name == "HOST" or not value
    for service in SERVICES.values():
        secret = [v for k, v in service.get("environment", {}).items() if re.search("PASSWORD|SECRET|SESSION", k)]
        assert all(value.startswith("${") for value in secret)


def test_the_containers_have_the_tested_mlflow() -> None:
    pinned = re.search(r"^mlflow==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert f"'mlflow[auth]=={pinned[1]}'" in SERVICES["mlflow"]["build"]["dockerfile_inline"]
    assert SERVICES["mlflow"]["image"].endswith(f":{pinned[1]}")


@pytest.mark.parametrize("way", ["containers", "programs"])
def test_options_and_variables_are_those_of_the_installed_mlflow(way: str) -> None:
    own, text = SERVICES["mlflow"], (PLACE / "serve.py").read_text()
    options = {*re.findall(r"--[a-z-]+", own["command"] if way == "containers" else text.partition("def end(")[0])}
    options -= {"--pgdata", "--auth", "--encoding", "--no-locale", "--quiet", "--username", "--dbname", "--no-align"}
    options -= {"--tuples-only", "--command", "--ssl-keyfile", "--ssl-certfile"}  # of PostgreSQL and uvicorn
    command_line = mlflow_file("cli/__init__.py") + mlflow_file("utils/cli_args.py")
    assert options and not [option for option in options if f'"{option}"' not in command_line]
    variables = {name for name in own["environment"] if name.startswith("MLFLOW")}
    variables = variables if way == "containers" else {*re.findall(r'"(MLFLOW_\w+)"', text)}
    declared = mlflow_file("environment_variables.py") + mlflow_file("server/__init__.py")
    assert variables and not [name for name in variables if f'"{name}"' not in declared]


def test_the_file_of_logins_has_keys_that_mlflow_reads(serve: ModuleType) -> None:
    for text in (COMPOSE["configs"]["logins"]["content"], serve.LOGINS.format(permission="EDIT", database="x")):
        logins = configparser.ConfigParser()
        logins.read_string(text)
        known = mlflow_file("server/auth/config.py")
        assert not [key for key in logins["mlflow"] if f'"{key}"' not in known]


def test_secrets_are_made_once_and_are_their_owners(serve: ModuleType, tmp_path: Path) -> None:
    place = serve.Place(tmp_path)
    first = place.secret("admin.password")
    assert len(first) >= 24 and place.secret("admin.password") == first != place.secret("session.key")
    assert (tmp_path / "admin.password").stat().st_mode & 0o777 == 0o600


def test_what_is_missing_is_told_with_what_to_type(
    serve: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None if name == "psycopg2" else name)
    with pytest.raises(SystemExit, match="pip install 'psycopg2-binary'"):
        serve.check_packages()
    monkeypatch.setattr(serve.shutil, "which", lambda name: None)
    monkeypatch.setattr(serve, "DEBIAN", tmp_path)
    with pytest.raises(SystemExit, match="apt-get install postgresql"):
        serve.programs_of_postgres()
