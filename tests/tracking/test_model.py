"""The model that MLflow keeps loads where dlrun is not installed, and says the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dlrun
from dlrun.tracking.mlflow.uri import store_address
from dlrun.tracking.pending import pending
from tests import processes

ROOT = Path(dlrun.__file__).parents[1]
ELSEWHERE = """
import sys, warnings
sys.modules["dlrun"] = None  # any import of it fails
warnings.simplefilter("ignore")
import mlflow, torch
store, run_id, place = sys.argv[1:]
mlflow.set_tracking_uri(store)
run = mlflow.get_run(run_id)
step, _, uri = run.data.tags["dlrun.model"].partition(": ")
model = mlflow.pytorch.load_model(uri)
torch.save(model(torch.load(place)), place)
print(run.info.status, step)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_logged_model_loads_without_dlrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DLRUN_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.chdir(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("PYTEST_CURRENT_TEST")
    overrides = ["dataset=digits", "trainer.steps=3", "trainer.figures=false"]
    tracking = ["tracking.log_model=true", "tracking.wait=300"]
    processes.run([sys.executable, "-m", "dlrun", "train", *overrides, *tracking], check=True, env=environment)

    import torch

    from dlrun.storage.lookup import all_runs

    (run,) = all_runs()
    summary = run.summary()
    assert summary.uploaded == {"mlflow": True}, (run.path / "uploader.log").read_text()
    # by the stamp, which the run's own process compares too
    assert pending(run) == []
    loaded = dlrun.load(str(run.path))
    x = loaded.data.train.gather(torch.arange(7)).x
    torch.save(x, tmp_path / "x.pt")
    arguments = [store_address(run).reveal(), summary.mlflow_run_id, str(tmp_path / "x.pt")]
    environment.pop("PYTHONPATH")
    elsewhere = subprocess.run(
        [sys.executable, "-P", "-c", ELSEWHERE, *arguments], check=True, env=environment, capture_output=True, text=True
    )
    assert elsewhere.stdout.strip() == f"FINISHED step {summary.best_step}"
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "x.pt"), loaded.model(x), rtol=1e-5, atol=1e-6)

    import mlflow
    from mlflow import MlflowClient

    client = MlflowClient(arguments[0])
    page = client.get_run(arguments[1])
    mlflow.set_tracking_uri(arguments[0])
    (output,) = page.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert output.step == summary.best_step
    # what it takes is prepared: the model says how
    scale = mlflow.models.get_model_info(model.model_uri).metadata["inputs"]["prepare"]
    assert model.tags["dlrun.inputs"].startswith("float32 [N, 1, 8, 8]: (raw - ")
    raw = 16 * torch.rand(5, *scale["shape"])
    torch.testing.assert_close((raw - scale["mean"][0]) / scale["deviation"][0], loaded.prepare(raw))
    metrics = {metric.key: (metric.step, metric.value, metric.dataset_name) for metric in model.metrics}
    for name, value in summary.metrics.items():
        split = name.partition("/")[0]
        shown = name if split == "test" else f"best/{name}"
        assert metrics[shown] == (
            summary.best_step,
            pytest.approx(value),
            f"digits/{split.replace('val', 'validation')}",
        )
        # the run has it once
        assert len(client.get_metric_history(arguments[1], shown)) == 1
    for name in ("mlflow.user", "mlflow.source.name", "mlflow.source.git.commit"):
        assert model.tags.get(name) == page.data.tags.get(name), name
    assert model.tags["mlflow.source.name"].startswith("dlrun train")
