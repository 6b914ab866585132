"""The trained model as MLflow keeps it: an exported graph, which loads where dlrun is not installed."""

from __future__ import annotations

import warnings
from typing import Any

from dlrun.storage.rundir import RunDir
from dlrun.tracking.mlflow.client import MlflowRun


def send_model(remote: MlflowRun, run: RunDir, uri: str) -> None:
    """Log the model of a run with its selected weights; it loads with `mlflow.pytorch.load_model`.

    The graph is exported with a free batch size, in evaluation mode, on the CPU.
    """
    step = str(run.summary().best_step)
    if remote.tags.get("dlrun.model", "").startswith(f"step {step}:"):
        return
    import mlflow
    import torch

    import dlrun

    torch.set_num_threads(1)
    loaded: Any = dlrun.load(str(run.path))  # type: ignore[attr-defined,unused-ignore]
    model = loaded.model.to("cpu").eval()
    example = loaded.data.train.gather(torch.arange(min(2, len(loaded.data.train)))).x.to("cpu")
    needs = [f"torch=={torch.__version__.partition('+')[0]}", f"mlflow=={mlflow.__version__}", "numpy"]
    mlflow.set_tracking_uri(uri)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.start_run(run_id=remote.run_id)
        try:
            info = mlflow.pytorch.log_model(
                model,
                name="model",
                input_example=example.numpy(),
                pip_requirements=needs,
                serialization_format="pt2",
            )
        finally:
            mlflow.end_run()
    remote.send(tags={"dlrun.model": f"step {step}: {info.model_uri}"})
