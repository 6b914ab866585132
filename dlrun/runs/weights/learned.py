"""The samples that weights have learned from: their keys travel with a run, and through `init_from`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlrun.datasets.tensors.overlap import NOTHING, union
from dlrun.errors import UserError
from dlrun.runs.weights import loading
from dlrun.runs.weights.mlflow_model import is_model, read_model
from dlrun.storage import checkpoint
from dlrun.storage.checkpoint import LearnedSamples
from dlrun.storage.files.links import check_files
from dlrun.storage.lookup import find
from dlrun.storage.rundir import RunDir
from dlrun.types import Data, SampleKeys

BRINGING = {"timm": ("pretrained", "checkpoint_path"), "torchvision": ("weights", "pretrained")}
"""Arguments by which models of a library bring trained weights."""


@dataclass(frozen=True)
class Learned:
    """Keys of the samples that weights were trained on, and of those that chose them.

    `unknown` has the reasons why these are not all.
    """

    trained: SampleKeys = NOTHING
    chosen: SampleKeys = NOTHING
    unknown: tuple[str, ...] = ()

    def __or__(self, other: Learned) -> Learned:
        return Learned(
            union(self.trained, other.trained),
            union(self.chosen, other.chosen),
            tuple(dict.fromkeys([*self.unknown, *other.unknown])),
        )


def from_data(data: Data) -> Learned:
    """What a run on a data set learns from: it trains on one split, and another chooses its weights."""
    keys = data.sample_keys
    # a data set that was made by hand may give none
    missing = () if "train" in keys else (f"the data set {data.name} gives no keys of its samples",)
    return Learned(union(keys.get("train", NOTHING)), union(keys.get("validation", NOTHING)), missing)


def from_weights(reference: str) -> Learned:
    """What the weights of `init_from` have learned from.

    Raises `UserError` if the run is not found, or its learned.pt is damaged.
    """
    folder = run_of(reference)
    if folder is None:
        what = (
            "a model in MLflow of no run in this outputs folder"
            if is_model(reference)
            else "a file outside of a run's folder"
        )
        return Learned(unknown=(f"{reference} is {what}",))
    if not folder.learned.exists():
        return Learned(unknown=(f"{folder.path} has no learned.pt, as runs of before 0.2",))
    found = checkpoint.load_learned(folder.learned)
    trained, chosen = (
        SampleKeys(values, len(values) * one_in, one_in)
        for values, one_in in ((found.trained, found.trained_one_in), (found.chosen, found.chosen_one_in))
    )
    return Learned(trained, chosen, tuple(found.unknown))


def from_library(model: Mapping[str, Any]) -> Learned | None:
    """What the weights that a model of a library brings have learned from; None if it brings none."""
    library = str(model["_target_"]).partition(".")[0]
    given = [f"model.{key}={model[key]}" for key in BRINGING.get(library, ()) if model.get(key)]
    return Learned(unknown=tuple(f"{each} brings weights of {library}" for each in given)) if given else None


def run_of(reference: str) -> RunDir | None:
    """The run of `init_from`, which may name one of its checkpoints, or its model in MLflow.

    None for a file from elsewhere, and for a model that has other weights than a run here.
    """
    if is_model(reference):
        return _run_of_model(reference)
    file = Path(reference)
    if not file.is_file():
        return loading.find_run(reference)
    folder = RunDir(file.absolute().parent.parent)
    if file.absolute() not in (folder.last, folder.best) or not folder.config.exists():
        return None
    check_files(folder.path)
    return folder


def _run_of_model(reference: str) -> RunDir | None:
    stored = read_model(reference)
    with suppress(UserError):  # the run is elsewhere, or deleted
        folder = find(stored.run) if stored.run else None
        # the tag is the store's word; equal weights are proof
        if folder and loading.digest(reference) == loading.digest(str(folder.path)):
            return folder
    return None


def write(folder: RunDir, learned: Learned) -> None:
    """Write a run's learned.pt."""
    content = LearnedSamples(
        trained=learned.trained.values,
        trained_one_in=learned.trained.one_in,
        chosen=learned.chosen.values,
        chosen_one_in=learned.chosen.one_in,
        unknown=[*learned.unknown],
    )
    checkpoint.save_learned(folder.learned, content)
