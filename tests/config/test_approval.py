"""What a configuration of somebody else may do: nothing that this user has not granted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dlrun.config import compose, paths, trust
from dlrun.config.allowlist import allows
from dlrun.config.check import check_config
from dlrun.config.unpickling import check_unpickling
from dlrun.errors import ConfigError
from tests.conftest import Called
from tests.facts import refuses

Call = Callable[..., Called]
METRIC = "def metric(model, batch):\n    open('ran', 'w').close()\n    return batch.x.sum() * 0, len(batch.x)\n"
EVIL = {"_target_": "os.system", "command": "touch ran"}


@pytest.fixture(autouse=True)
def _ungranted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trust.VARIABLE, "")


def write(folder: Path, name: str, content: dict[str, Any]) -> None:
    file = folder / "experiment" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("# @package _global_\n" + yaml.safe_dump(content))


@pytest.fixture
def foreign(here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of configuration that came from somebody else, and a module outside of the user's folder."""
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "outside.py").write_text(METRIC)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_a_foreign_folder_does_not_trust_itself(foreign: Path, here: Path, call: Call) -> None:
    metric = {"x": {"_target_": "outside.metric"}}
    write(foreign, "evil", {"trusted": ["outside"], "metrics": metric})
    for given in (["--config-dir", str(foreign)], [f"hydra.searchpath=[{foreign}]"]):
        refuses(call("check", "+experiment=evil", *given), str(foreign), "trusted=[outside]")
        assert not (here / "ran").exists()
    # a sweeper's settings become the overrides of its jobs
    write(
        foreign, "sweep", {"metrics": metric, "hydra": {"sweeper": {"params": {"trusted": "[outside]", "seed": "0,1"}}}}
    )
    refuses(call("check", "-m", "+experiment=sweep", "--config-dir", str(foreign)), "trusted=[outside")
    assert not (here / "ran").exists()
    assert call("check", "+experiment=evil", "--config-dir", str(foreign), "trusted=[outside]").code == 0
    assert (here / "ran").exists()


def test_what_the_user_s_own_folder_grants_counts_there_too(foreign: Path, here: Path, call: Call) -> None:
    write(foreign, "evil", {"trusted": ["outside"], "metrics": {"x": {"_target_": "outside.metric"}}})
    (here / "conf").mkdir()
    (here / "conf" / "mine.yaml").write_text("trusted: [outside]\n")
    assert call("check", "+experiment=evil", "--config-dir", str(foreign)).code == 0


def test_a_foreign_folder_has_no_module_imported(foreign: Path, here: Path, call: Call) -> None:
    (here / "mine_b.py").write_text("open('ran', 'w')\n")
    (foreign / "dlrun.yaml").write_text("defaults: [_self_]\nhydra: {searchpath: ['pkg://mine_b']}\n")
    refuses(call("check", "--config-dir", str(foreign)), "hydra.searchpath=[pkg://mine_b]")
    assert not (here / "ran").exists()


@pytest.mark.parametrize(
    "arguments", [{"checkpoint_path": "evil.pth"}, {"model_name": "local-dir:evil"}, {"pretrained_cfg": {"file": "x"}}]
)
def test_no_library_unpickles_a_file(arguments: dict[str, Any]) -> None:
    def create_model(model_name: str = "resnet18", **rest: Any) -> None: ...

    create_model.__module__ = "timm.models._factory"
    with pytest.raises(ConfigError, match=r"trusted=\[timm\]"):
        check_unpickling(create_model, arguments)
    check_unpickling(create_model, arguments, ["timm"])
    check_unpickling(create_model, {"model_name": "resnet18", "checkpoint_path": ""})


FILE = {"class": "logging.FileHandler", "filename": "${hydra.runtime.output_dir}/x.log"}


@pytest.mark.parametrize(
    ("hydra", "key"),
    [
        ({"job": {"env_set": {"PYTHONPATH": "/evil"}}}, "hydra.job.env_set.PYTHONPATH"),
        ({"run": {"dir": "/elsewhere"}}, "hydra.run.dir"),
        ({"sweep": {"dir": "${dlrun.outputs:}/../conf"}}, "hydra.sweep.dir"),
        ({"output_subdir": "../../../../conf"}, "hydra.output_subdir"),
        ({"sweep": {"subdir": "../${hydra.job.num}"}}, "hydra.sweep.subdir"),
        ({"job_logging": {"handlers": {"x": FILE | {"filename": "victim"}}}}, "hydra.job_logging.handlers.x"),
    ],
)
def test_a_foreign_folder_acts_within_the_folder_of_a_run(
    foreign: Path, here: Path, call: Call, hydra: dict[str, Any], key: str
) -> None:
    write(foreign, "evil", {"hydra": hydra})
    refuses(call("train", "+experiment=evil", "--config-dir", str(foreign)), f"trusted=[{key}]")
    assert not (here / "outputs").exists()
    assert call("check", "+experiment=evil", "--config-dir", str(foreign), f"trusted=[{key}]").code == 0


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (FILE | {"filename": "/victim"}, "/victim"),
        (FILE | {"filename": "${hydra.runtime.output_dir}/../../x"}, "writes to"),
        (FILE | {"filename": "${hydra.runtime.output_dir}/${hydra.job.name}/../../x"}, "writes to"),
        (FILE | {"filename": "cfg://version"}, "writes to"),
        (FILE | {".": {"baseFilename": "/victim"}}, "sets attributes"),
        ({"class": "logging.handlers.HTTPHandler", "host": "evil", "url": "/"}, "elsewhere"),
        ({"()": "logging.config.fileConfig", "fname": "evil.ini"}, "no class"),
        ({"()": "logging.config.dictConfig", "config": {}}, "no class"),
        ({"()": "logging.os.system", "command": "touch ran"}, "logging.os.system"),
    ],
)
def test_log_handlers_write_within_the_folder_of_a_run(
    here: Path, call: Call, handler: dict[str, Any], reason: str
) -> None:
    write(here / "conf", "mine", {"hydra": {"job_logging": {"handlers": {"x": handler}}}})
    refuses(call("check", "+experiment=mine"), "hydra.job_logging.handlers.x", reason)
    write(here / "conf", "mine", {"hydra": {"job_logging": {"handlers": {"x": FILE}}}})
    assert call("check", "+experiment=mine").code == 0


def test_the_command_line_places_a_log(here: Path, call: Call) -> None:
    elsewhere = "hydra.job_logging.handlers.file.filename=mine.log"
    assert call("train", elsewhere, "trainer.epochs=1", "tracking.enabled=false", "trainer.figures=false").code == 0
    assert (here / "mine.log").exists()


@pytest.mark.parametrize(
    "content",
    [
        {"evil": EVIL, "hydra": {"callbacks": {"x": "${evil}"}}},
        {"hydra": {"callbacks": {"x": "${oc.decode:'{_target_: os.system, command: touch ran}'}"}}},
        {"hydra": {"callbacks": {"x": {"_target_": "mine.os.system", "command": "touch ran"}}}},
        {"hydra": {"callbacks": {"x": {"_target_": "hydra.experimental.callbacks.Path", "y": [EVIL]}}}},
        {"loss": "${oc.decode:'{_target_: os.system, command: touch ran}'}"},
        {"metrics": {"x": {"_target_": "mine.metric", "y": "${oc.create:{_target_: os.system, command: touch ran}}"}}},
        {"metrics": {"x": {"_target_": "mine.os.system", "command": "touch ran"}}},
    ],
)
def test_whatever_is_called_is_looked_through(here: Path, call: Call, content: dict[str, Any]) -> None:
    (here / "mine.py").write_text("import os\n\ndef metric(model, batch, y=None): ...\n")
    write(here / "conf", "mine", content)
    for command in ("check", "train"):
        refuses(call(command, "+experiment=mine"))
    assert not (here / "ran").exists()


@pytest.mark.parametrize("record", paths.RECORDS)
def test_a_module_beside_a_run_is_not_the_user_s_own(
    here: Path, call: Call, monkeypatch: pytest.MonkeyPatch, record: str
) -> None:
    received = here / "received" / "inner"
    received.mkdir(parents=True)
    (received / "evil.py").write_text("open('ran', 'w')\n")
    (received / record).mkdir()
    refuses(call("check", "model={_target_: received.inner.evil.M}"), "received.inner.evil.M")
    # nor its conf, to whoever looks at it from within
    write(received / "conf", "mine", {"trusted": ["evil"]})
    monkeypatch.chdir(received)
    assert paths.user_folder() is None
    assert trust.trusted_names() == []
    refuses(call("check", "model={_target_: evil.M}"))
    assert not list(here.rglob("ran"))


@pytest.mark.parametrize("place", ["a-run", "a-sweep/0", "outputs/runs/2026-01-02/a-run"])
def test_a_module_that_came_with_runs_is_not_the_user_s_own(here: Path, call: Call, place: str) -> None:
    received = here / "received"
    (received / place / ".hydra").mkdir(parents=True)
    (received / "evil.py").write_text("open('ran', 'w')\n")
    refuses(call("check", "model={_target_: received.evil.M}"), "`received` lies with runs", "trusted=[")
    assert not (here / "ran").exists()


def test_the_user_s_own_module_grants_not_what_it_imports(here: Path) -> None:
    (here / "mine_a.py").write_text("import os\nclass Callback: ...\n")
    assert allows("mine_a.Callback")
    assert not allows("mine_a.os.system")
    assert not allows("mine_a.os.system", trusted=["mine_a"])


def test_a_typed_key_of_hydra_is_no_name_that_a_run_trusts(here: Path) -> None:
    compose.config(["hydra.job_logging.handlers.file.filename=mine.log", "trusted=[mylab]"])
    assert trust.trusted_names() == ["mylab"]
    with pytest.raises(ConfigError):
        check_config(compose.config(["trusted=os"]))
    assert trust.trusted_names() == ["mylab"]


def test_a_module_in_a_foreign_folder_is_not_the_users_own(here: Path, call: Callable[..., Called]) -> None:
    folder = here / "received"
    (folder / "experiment").mkdir(parents=True)
    (folder / "evil.py").write_text(METRIC)
    (folder / "experiment" / "evil.yaml").write_text(
        "# @package _global_\nmetrics:\n  x: {_target_: received.evil.metric}\n"
    )
    quick = ("tracking.enabled=false", "trainer.epochs=1", "+experiment=evil", "--config-dir", str(folder))
    refuses(call("train", *quick), "received.evil.metric", "--config-dir", "trusted=[received.evil.metric]")
    refuses(call("train", "-m", *quick, "seed=0,1"), "trusted=[received.evil.metric]")
    assert not (here / "ran").exists()
    assert call("check", *quick, "trusted=[received.evil.metric]").code == 0


def test_a_configuration_folder_around_the_users_modules_takes_nothing_from_them(
    here: Path, call: Callable[..., Called]
) -> None:
    (here / "own.py").write_text("def metric(model, batch):\n    return batch.x.sum() * 0, len(batch.x)\n")
    (here / "mine.yaml").write_text("defaults: [dlrun, _self_]\nmetrics:\n  x: {_target_: own.metric}\n")
    assert call("check", "--config-dir", str(here), "-cn", "mine").code == 0
