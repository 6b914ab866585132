"""A record that came from somebody else: its `trusted:` counts only where this user grants the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import dlrun
from dlrun.config import trust
from dlrun.errors import ConfigError, DamagedFile
from dlrun.storage import run_config
from dlrun.storage.lookup import all_runs, all_sweeps
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.location import saved_hydra
from tests.conftest import Called
from tests.facts import refuses

Call = Callable[..., Called]
QUICK = ("trainer.epochs=1", "tracking.enabled=false", "trainer.figures=false")
METRIC = "def metric(model, batch):\n    open('ran', 'w').close()\n    return batch.x.sum() * 0, len(batch.x)\n"


@pytest.fixture
def elsewhere(here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is installed outside the user's folder, and writes a file `ran` when its metric is called."""
    monkeypatch.setenv(trust.VARIABLE, "")
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "outside.py").write_text(METRIC)
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def received(elsewhere: None, call: Call) -> RunDir:
    """A run folder whose configuration was edited: it names a metric of `outside`, and trusts itself."""
    assert call("train", *QUICK).code == 0
    run = all_runs()[-1]
    config = yaml.safe_load(run.config.read_text())
    config |= {"trusted": ["outside"], "metrics": {"x": {"_target_": "outside.metric"}}}
    run_config.replace(run, yaml.safe_dump(config))
    return run


@pytest.mark.parametrize("command", ["test", "predict", "resume"])
def test_a_received_run_runs_no_code_that_only_it_trusts(
    received: RunDir, here: Path, call: Call, command: str
) -> None:
    np.save(here / "x.npy", np.zeros((1, 64)))
    rest = {"predict": ["x.npy"], "resume": ["trainer.epochs=2"], "test": []}[command]
    refused = call(command, str(received.path), *rest)
    refuses(refused, "trusted=[outside.metric]")
    assert not (here / "ran").exists()
    assert call(command, str(received.path), *rest, "trusted=[outside.metric]").code == 0
    # a prediction computes no metric
    assert (here / "ran").exists() == (command != "predict")


@pytest.mark.parametrize("reference", ["${oc.env:SECRET_KEY}", "${oc.select:nowhere,${oc.env:${name_of},x}}"])
@pytest.mark.parametrize("command", ["test", "predict", "resume"])
def test_a_received_run_is_told_no_environment_variable(
    here: Path, call: Call, monkeypatch: pytest.MonkeyPatch, command: str, reference: str
) -> None:
    monkeypatch.setenv(trust.VARIABLE, "")
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    assert call("train", *QUICK).code == 0
    run = all_runs()[-1]
    tags = {"a": reference.replace("name_of", "tracking.tags.b"), "b": "SECRET_KEY"}
    config = yaml.safe_load(run.config.read_text())
    config["tracking"]["tags"] = tags
    run_config.replace(run, yaml.safe_dump(config))
    np.save(here / "x.npy", np.zeros((1, 64)))
    rest = {"predict": ["x.npy"], "resume": ["trainer.epochs=2"], "test": []}[command]
    refused = call(command, str(run.path), *rest)
    refuses(refused, "SECRET_KEY", "trusted=[oc.env.SECRET_KEY]")
    kept = b"".join(file.read_bytes() for file in run.path.rglob("*") if file.is_file())
    assert b"hunter2" not in kept + (refused.out + refused.err).encode()
    assert call(command, str(run.path), *rest, "trusted=[oc.env.SECRET_KEY]").code == 0


def test_a_notebook_asks_too(received: RunDir) -> None:
    with pytest.raises(ConfigError, match=r"outside\.metric"):
        dlrun.load(str(received.path))
    assert dlrun.load(str(received.path), trusted=["outside"]).model


def test_the_user_s_own_configuration_and_environment_grant(
    received: RunDir, here: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "conf").mkdir()
    (here / "conf" / "mine.yaml").write_text("trusted: [outside]\n")
    assert call("test", received.id).code == 0
    (here / "conf" / "mine.yaml").write_text("trusted: outside\n")  # text, no list: it grants no letter either
    assert not {"o", "outside"} & {*trust.trusted_names()}
    (here / "conf" / "mine.yaml").unlink()
    assert call("test", received.id).code == 2
    monkeypatch.setenv(trust.VARIABLE, "other,outside")
    assert call("test", received.id).code == 0


def test_a_received_sweep_runs_no_code_that_only_it_trusts(elsewhere: None, here: Path, call: Call) -> None:
    metric = ("trusted=[outside]", "+metrics.x._target_=outside.metric")
    assert call("train", "-m", "seed=0,1", "hydra/launcher=batched", *QUICK, *metric).code == 0
    sweep = all_sweeps()[-1]
    (sweep.path / "1" / "summary.json").unlink()
    (sweep.path / "1" / "journal.jsonl").unlink()
    (here / "ran").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(trust.VARIABLE, "")
        refused = call("resume", sweep.id)
        refuses(refused, "trusted=[outside.metric]")
        assert not (here / "ran").exists()


def test_a_received_sweep_has_no_callback_called(here: Path, call: Call) -> None:
    assert call("train", "-m", "seed=0,1", *QUICK).code == 0
    sweep = all_sweeps()[-1]
    file = sweep.path / "multirun.yaml"
    content = yaml.safe_load(file.read_text())
    content["hydra"]["callbacks"] = {"x": {"_target_": "dlrun.commands.runs.main", "argv": ["--delete"]}}
    file.write_text(yaml.safe_dump(content))
    (sweep.path / "1" / "summary.json").unlink()
    refused = call("resume", sweep.id)
    refuses(refused, "hydra.callbacks.x._target_=dlrun.commands.runs.main")


ELSEWHERE = {"class": "logging.FileHandler", "filename": "victim"}


@pytest.mark.parametrize(
    ("section", "content", "key"),
    [
        ("job", {"env_set": {"LD_PRELOAD": "/evil.so"}}, "hydra.job.env_set.LD_PRELOAD"),
        (
            "job_logging",
            {"handlers": {"x": ELSEWHERE}},
            "hydra.job_logging.handlers.x",
        ),
        ("job_logging", {"handlers": {"x": {"()": "logging.os.system"}}}, "logging.os.system"),
    ],
)
def test_a_received_sweep_acts_only_in_its_folder(
    here: Path, call: Call, section: str, content: dict[str, Any], key: str
) -> None:
    assert call("train", "-m", "seed=0,1", *QUICK).code == 0
    sweep = all_sweeps()[-1]
    file = sweep.path / "multirun.yaml"
    saved = yaml.safe_load(file.read_text())
    saved["hydra"][section] |= content
    file.write_text(yaml.safe_dump(saved))
    (sweep.path / "1" / "summary.json").unlink()
    (here / "victim").write_text("kept")
    refused = call("resume", sweep.id)
    refuses(refused, f"trusted=[{key}]")
    assert (here / "victim").read_text() == "kept"


def test_a_received_sweep_names_no_folder_outside_of_it(here: Path, call: Call) -> None:
    assert call("train", "-m", "seed=0,1", *QUICK).code == 0
    sweep = all_sweeps()[-1]
    content = json.loads(sweep.manifest.read_text())
    content["jobs"][1]["n"] = "../../elsewhere"
    sweep.manifest.write_text(json.dumps(content))
    refused = call("resume", str(sweep.path))
    assert (refused.code, list(here.rglob("elsewhere"))) == (2, [])


def test_no_module_lies_among_the_outputs(here: Path, call: Call) -> None:
    (here / "outputs" / "evil").mkdir(parents=True)
    (here / "outputs" / "evil" / "payload.py").write_text("open('ran', 'w')\n")
    assert call("check", "model={_target_: outputs.evil.payload.M}").code == 2
    assert not (here / "ran").exists()


def test_a_value_that_is_no_list_is_refused(here: Path, call: Call) -> None:
    refuses(call("test", "x", "trusted=mylab"), "trusted=[mylab]")


@pytest.mark.parametrize("content", ["", "[", "x: 1", "hydra: 5"])
def test_a_damaged_configuration_of_a_sweep_is_named(here: Path, call: Call, content: str) -> None:
    sweep = SweepDir(here)
    (here / "multirun.yaml").write_text(content)
    with pytest.raises(DamagedFile, match=r"multirun\.yaml"):
        saved_hydra(sweep)


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_without_a_fingerprint_takes_in_no_file_of_its_own_choice(here: Path, call: Call, begun: bool) -> None:
    """The words of a file would be written into the received folder, as a vocabulary."""
    (here / "mine.txt").write_text("to be or not to be " * 60)
    (here / "secret.txt").write_text("hunter two is the password of all " * 60)
    text = ["dataset=text", "dataset.path=mine.txt", "dataset.tokenizer=word", "dataset.vocabulary_size=8"]
    text += ["dataset.context=8", "model=gpt", "trainer.steps=2", "trainer.batch_size=4"]
    assert call("train", *text, "tracking.enabled=false", "trainer.figures=false").code == 0
    run = all_runs()[-1]
    if not begun:
        for file in (run.last, run.best):
            file.unlink()
    config = yaml.safe_load(run.config.read_text())
    config["dataset"]["path"] = str(here / "secret.txt")
    run_config.replace(run, yaml.safe_dump(config))
    with run.edit_summary() as summary:
        summary.data, summary.status = {}, "killed"
    refuses(call("resume", run.id, "trainer.steps=4"), "secret.txt", f"trusted=[{here / 'secret.txt'}]")
    assert "hunter" not in run.tokenizer.read_text()
    if not begun:
        assert call("resume", run.id, "trainer.steps=4", f"trusted=[{here}/]").code == 0
        assert "hunter" in run.tokenizer.read_text()
