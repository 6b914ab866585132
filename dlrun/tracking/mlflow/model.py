"""The trained model as MLflow stores it: an exported graph, which loads where dlrun is not installed."""

from __future__ import annotations

import warnings
from typing import Any

from dlrun.storage.rundir import RunDir
from dlrun.tracking.content.run_source import LoadModel
from dlrun.tracking.mlflow.names.address import Address


def send_model(run: RunDir, load: LoadModel, *, run_id: str, address: Address) -> str:
    """Store a run's model; returns its URI for `mlflow.pytorch.load_model`.

    The graph has the selected weights. It is exported with a free batch size, in evaluation mode, on the CPU.
    """
    import mlflow
    import torch

    # the processors are the trainers'
    torch.set_num_threads(1)
    model, example = load(run)
    needs = [f"torch=={torch.__version__.partition('+')[0]}", f"mlflow=={mlflow.__version__}", "numpy"]
    mlflow.set_tracking_uri(address.reveal())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.start_run(run_id=run_id)
        try:
            info: Any = mlflow.pytorch.log_model(
                model,
                name="model",
                input_example=example.numpy(),
                pip_requirements=needs,
                serialization_format="pt2",
            )
        finally:
            mlflow.end_run()
    return str(info.model_uri)
