"""The trained model as MLflow stores it: an exported graph, which loads where dlrun is not installed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

from dlrun.nests.shapes import describe_shapes, is_shape
from dlrun.storage.rundir import RunDir
from dlrun.tracking.content.journal_reader import Point
from dlrun.tracking.content.run_source import LoadModel
from dlrun.tracking.mlflow.client import asked_once
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.uri import using

# what MLflow takes of a model's params
MOST, LONGEST = 100, 500


class Linked(NamedTuple):
    """A metric of the run that is one of its model too, with its data set's name and digest."""

    point: Point
    dataset: str
    digest: str


def send_model(
    run: RunDir,
    load: LoadModel,
    *,
    run_id: str,
    address: Address,
    tags: Mapping[str, str] = MappingProxyType({}),
    metrics: Sequence[Linked] = (),
) -> str:
    """Store a run's model; returns its URI for `mlflow.pytorch.load_model`.

    The graph has the selected weights. It is exported with a free batch size, in evaluation mode, on the CPU. It takes
    prepared inputs: the model's tag `dlrun.inputs` and its metadata say how raw ones are prepared. `metrics`
    are points that the run has already; `tags` replace those that MLflow would take from this process.
    """
    with using(address):
        return _send(run, load, run_id, address, tags, metrics)


def _send(
    run: RunDir, load: LoadModel, run_id: str, address: Address, tags: Mapping[str, str], metrics: Sequence[Linked]
) -> str:
    import mlflow
    import torch

    inputs = run.summary().inputs
    tags = {"dlrun.inputs": describe_inputs(inputs, run.summary().spec), **tags}
    # the processors are the trainers'
    torch.set_num_threads(1)
    model, example = load(run)
    needs = [f"torch=={torch.__version__.partition('+')[0]}", f"mlflow=={mlflow.__version__}", "numpy"]
    client: Any = mlflow.MlflowClient(tracking_uri=address.reveal())
    stored = client.get_run(run_id)
    # Made here and not by `log_model` within the run: that takes source and commit of this process, which is dlrun's,
    # and gives the model all metrics of a step, without their data sets.
    kept = find_or_make(client, stored, {**tags, "dlrun.step": str(run.summary().best_step or 0)})
    if kept.status != mlflow.entities.LoggedModelStatus.READY:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlflow.pytorch.log_model(
                model,
                model_id=kept.model_id,
                input_example=example.numpy(),
                pip_requirements=needs,
                serialization_format="pt2",
                metadata={"inputs": dict(inputs)},
            )
    output = mlflow.entities.LoggedModelOutput(kept.model_id, step=run.summary().best_step or 0)
    client.log_outputs(run_id, [output])
    for point, dataset, digest in metrics:
        how = {"dataset_name": dataset, "dataset_digest": digest, "model_id": kept.model_id}
        client.log_metric(run_id, point.name, point.value, point.time, point.step, synchronous=True, **how)
    return f"models:/{kept.model_id}"


def find_or_make(client: Any, stored: Any, tags: Mapping[str, str]) -> Any:
    """The model of a run's weights, which a try whose answer was lost may have made; others of these are deleted."""
    run_id, step = stored.info.run_id, tags["dlrun.step"]
    wanted = f"source_run_id = '{run_id}' AND tags.`dlrun.step` = '{step}'"
    found = client.search_logged_models([stored.info.experiment_id], filter_string=wanted)
    found = sorted(found, key=lambda model: str(model.status) != "READY")
    for other in found[1:]:
        client.delete_logged_model(other.model_id)
    if found:
        return found[0]
    with asked_once():
        return client.create_logged_model(
            stored.info.experiment_id,
            "model",
            source_run_id=run_id,
            tags=dict(tags),
            params=_some(stored.data.params),
        )


def describe_inputs(inputs: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    """What a model takes, from a summary's `inputs` and `spec`.

    >>> scale = {"shape": [2], "mean": [0.5], "deviation": [0.25]}
    >>> describe_inputs({"prepare": scale}, {"input_shape": [2]})
    'float32 [N, 2]: (raw - 0.5) / 0.25'
    >>> describe_inputs({"prepare": None}, {"input_shape": [2]})
    'float32 [N, 2]: raw inputs as they are'
    """
    return _prepared(inputs, spec) + _scaled(spec)


def _scaled(spec: Mapping[str, Any]) -> str:
    """What becomes of outputs of scaled targets."""
    if not (scale := spec.get("target_scale")):
        return ""
    mean, deviation = (", ".join(f"{value:.12g}" for value in each[:4]) for each in scale)
    more = ", …" if len(scale[0]) > 4 else ""
    return f"; targets are outputs · [{deviation}{more}] + [{mean}{more}]"


def _prepared(inputs: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    if not is_shape(spec.get("input_shape", ())):
        return f"of each sample {describe_shapes(spec['input_shape'])}, as the data set has them"
    shape = ", ".join(map(str, ["N", *spec.get("input_shape", ())]))
    if spec.get("task") == "language":
        return f"int64 [{shape}]: tokens of the run's tokenizer"
    if not inputs:
        return (
            f"[{shape}]: prepared by the data set's own function, which is not exported; dlrun.load(RUN).prepare has it"
        )
    scale = inputs["prepare"]
    if scale is None:
        return f"{inputs.get('dtype', 'float32')} [{shape}]: raw inputs as they are"
    if "columns" in scale:
        return f"float32 [{shape}]: a table's columns, encoded; the model's metadata says how, inputs.prepare"
    if scale.get("indices"):
        return f"int64 [{shape}]: raw indices as they are"
    mean, deviation = (scale.get(name, plain) for name, plain in (("mean", [0.0]), ("deviation", [1.0])))
    if len(mean) == len(deviation) == 1:
        return f"float32 [{shape}]: (raw - {mean[0]:.12g}) / {deviation[0]:.12g}"
    return f"float32 [{shape}]: (raw - mean) / deviation along axis 1; the model's metadata has both, inputs.prepare"


def _some(params: Mapping[str, str]) -> dict[str, str]:
    # a model takes fewer and shorter ones than its run
    return dict(islice(((name, value[:LONGEST]) for name, value in params.items()), MOST))
