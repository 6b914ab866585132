"""Models of MLflow as the beginning of a run: by name and version, by alias, by run; no code of theirs is run."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dlrun.errors import DamagedFile
from dlrun.runs.weights.mlflow_model import read_exported
from dlrun.storage import checkpoint
from dlrun.storage.lookup import all_runs
from dlrun.tracking.mlflow.store import prepare
from dlrun.tracking.mlflow.uri import artifact_folder, store_address
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
QUICK = ("tracking.enabled=false", "trainer.figures=false", "model.hidden=[4]")


def net(hidden: int = 4) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, 10))


def export(model: nn.Module, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(torch.export.export(model.eval(), (torch.randn(2, 1, 8, 8),)), path)
    return path


@pytest.mark.filterwarnings("ignore:No complete tensor")
def test_the_weights_of_an_exported_model_are_read_without_its_graph(tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    strided = nn.Linear(64, 4)
    strided.weight = nn.Parameter(torch.randn(64, 4).t())
    for model in (strided, net(), net().bfloat16(), net(1)):
        program = torch.export.export(model.eval(), (torch.randn(2, 64, dtype=next(model.parameters()).dtype),))
        torch.export.save(program, file)
        found, expected = read_exported(file), model.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert all(found[name].dtype == value.dtype for name, value in expected.items())
    whole = file.read_bytes()
    for spoilt in (b"", whole[: len(whole) // 2], b"no archive"):
        file.write_bytes(spoilt)
        with pytest.raises(DamagedFile, match=r"model\.pt2"):
            read_exported(file)
    endless = '"tensor_meta": {"sizes": [{"as_int": Infinity}], "strides": []}'
    for config in (
        '{"config": {"a": {"use_pickle": true}}}',
        '{"config": [1]}',
        f'{{"config": {{"a": {{{endless}}}}}}}',
    ):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("m/data/weights/model_weights_config.json", config)
        with pytest.raises(DamagedFile):
            read_exported(file)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_begins_with_a_model_of_the_store(here: Path, call: Call) -> None:
    assert call("train", *QUICK, "trainer.steps=3", "seed=5").code == 0
    (base,) = all_runs()
    weights = checkpoint.load_best(base.best).model
    made = nn.Sequential()
    made.layers = nn.Sequential(nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
    made.load_state_dict(weights)
    made.forward = lambda x: made.layers(x.flatten(1))  # type: ignore[method-assign]
    address = store_address()
    prepare(address, artifact_folder())
    os.environ["MLFLOW_TRACKING_URI"] = address.reveal()
    try:
        run_id = _store(made, weights, base.id)
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]
    sources = ("models:/digits/1", "models:/digits@best", f"runs:/{run_id}/model")
    for source in (*sources, f"runs:/{run_id}/weights"):
        known = all_runs()
        done = call("train", *QUICK, f"init_from={source}", "trainer.steps=1", "optimizer.lr=0")
        assert done.code == 0, done.err
        run = next(each for each in all_runs() if each not in known)
        found = checkpoint.load(run.last).model
        assert all(torch.equal(found[name], value) for name, value in weights.items())
        assert run.summary().origin["init_from"] == source
        # the weights are those of a run here, so what they have learned from is known
        assert not run.summary().origin["unknown"]
        assert "MLFLOW_TRACKING_URI" not in os.environ
    refuses(call("train", *QUICK, f"init_from={sources[0]}", "dataset.split_seed=1"), "test samples were trained on")
    refuses(call("train", *QUICK, "init_from=models:/nobody/1"), "models:/nobody/1", "mlflow.db")
    refuses(call("train", *QUICK, f"init_from=runs:/{run_id}/pickled"), "model.pth", "runs its code", "weights.pt")
    # of another folder's run nothing is known
    other = here / "other"
    base.path.rename(other)
    told = call("check", *QUICK, f"init_from={sources[0]}", "dataset.split_seed=1")
    says(told.out, "unknown origin", "MLflow")


def test_a_store_that_is_not_there_is_named(call: Call) -> None:
    refuses(call("train", *QUICK, "init_from=models:/digits/1"), "mlflow.db", "MLFLOW_TRACKING_URI")


def _store(made: nn.Module, weights: dict[str, Any], identifier: str) -> str:
    """Store a model as dlrun does, a state dict, and a pickled module; returns the MLflow run."""
    from mlflow import MlflowClient
    from mlflow.models import Model

    client: Any = MlflowClient()
    experiment = client.create_experiment("mine", artifact_location=artifact_folder().as_uri())
    run = client.create_run(experiment, tags={"dlrun.id": identifier})
    for place, file in (("model", "data/model.pt2"), ("weights", "state_dict.pth"), ("pickled", "data/model.pth")):
        folder = Path("stored", place)
        (folder / file).parent.mkdir(parents=True)
        Model(run_id=run.info.run_id).save(str(folder / "MLmodel"))
        if file.endswith("pt2"):
            export(made, folder / file)
        else:
            torch.save(weights if place == "weights" else nn.Linear(2, 1), folder / file)
        client.log_artifacts(run.info.run_id, str(folder), place)
    client.create_registered_model("digits")
    client.create_model_version("digits", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias("digits", "best", "1")
    return str(run.info.run_id)
