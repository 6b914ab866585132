"""The models to time: of the configuration, or of runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dlrun.commands.runs.sweeps import runs_of
from dlrun.config import compose
from dlrun.config.check import check_config
from dlrun.config.choices import groups
from dlrun.errors import ConfigError, UserError
from dlrun.execution import memory_format
from dlrun.execution.device import describe
from dlrun.execution.forward_time import Subject, random_inputs
from dlrun.runs.parts import make_dataset, make_model
from dlrun.runs.reload.predictor import Predictor, load_predictor
from dlrun.storage.lookup import find, locate_sweep
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import Summary
from dlrun.terminal import output
from dlrun.terminal.format import counted
from dlrun.types import Spec

DEFAULT_MODELS = ("alexnet", "googlenet", "resnet18", "resnet50")
DEFAULT_INPUT, DEFAULT_CLASSES = "3x224x224", "1000"
OF_SPEC = ("input", "classes")
TIMED = ("model", "dataset", "seed", "trusted")
"""The keys and groups that a forward pass depends on."""


@dataclass(frozen=True)
class Place:
    """Where to time: the device, the precision, the largest batch."""

    device: torch.device
    precision: str
    largest: int


@dataclass(frozen=True)
class Timeable:
    """The subjects, the shape of a sample, and of runs, those of each subject."""

    subjects: Sequence[Subject]
    shape: tuple[int, ...]
    runs: Mapping[str, Sequence[RunDir]]


def of_configuration(words: Sequence[str], place: Place) -> Timeable:
    """The models that `model=A,B` names, with the sizes of a data set or of `input` and `classes`.

    Raises `UserError` for one that does not exist or takes no such inputs.
    """
    given = _once_each(words)
    overrides = [word for word in words if word.partition("=")[0] not in ("model", *OF_SPEC)]
    _check_effect(overrides)
    spec, of = _spec(given, overrides)
    names = given["model"].split(",") if given.get("model") else _default_models(given)
    subjects = []
    for name in names:
        plain = check_config(compose.config([f"model={name}", *overrides]))
        model = _placed(make_model(plain, spec, of=of), place)
        subjects.append(_subject(name, model, spec, place))
    return Timeable(subjects, spec.input_shape, {})


def _once_each(words: Sequence[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key in given:
            raise UserError(f"`{key}` is given twice, as `{given[key]}` and as `{value}`. Give it once.")
        given[key] = value
    return given


def _check_effect(overrides: Sequence[str]) -> None:
    """Raise `UserError` for a key that changes no forward pass: whoever gave it meant another time."""
    for word in overrides:
        group = word.lstrip("+~").partition("=")[0].partition(".")[0]
        if group not in TIMED:
            raise UserError(
                f"`{word}` is none of a forward pass: that has model=…, dataset=… and their values, or input=… and "
                f"classes=…. Leave it out; --device and --precision choose where and how it is computed."
            )


def of_runs(references: Sequence[str], place: Place) -> Timeable:
    """The models of runs, each kind of model once.

    Raises `UserError` for a run that is not found or not finished, and for runs with different inputs.
    """
    runs = _finished(references)
    found: dict[str, tuple[Predictor, list[RunDir]]] = {}
    for run in runs:
        predictor = load_predictor(run)
        views = predictor.config["evaluation"].get("views")
        key = json.dumps(
            [predictor.config["model"], predictor.spec.input_shape, predictor.spec.outputs, views],
            sort_keys=True,
            default=str,
        )
        found.setdefault(key, (predictor, []))[1].append(run)
    shapes = {predictor.spec.input_shape for predictor, _ in found.values()}
    if len(shapes) > 1:
        told = ", ".join("×".join(map(str, shape)) for shape in sorted(shapes))
        raise UserError(f"These runs take inputs of different shapes ({told}): time those of each shape by themselves.")
    labels = label_models([predictor.config["model"] for predictor, _ in found.values()])
    of = dict(zip(labels, found.values(), strict=True))
    if several := [label for label, (predictor, _) in of.items() if predictor.views]:
        output.warn(
            f"The scores of {', '.join(several)} are of several views of each image (evaluation.views); times and "
            f"operations are of one view."
        )
    subjects = [
        _subject(label, _placed(predictor.model, place), predictor.spec, place) for label, (predictor, _) in of.items()
    ]
    return Timeable(subjects, shapes.pop(), {label: own for label, (_, own) in of.items()})


def label_models(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each of some different models: the target's, and the values in which those of one target differ.

    >>> label_models([{"_target_": "a.MLP", "width": 8}, {"_target_": "a.MLP", "width": 16}, {"_target_": "a.Linear"}])
    ['MLP width=8', 'MLP width=16', 'Linear']
    """
    names = [str(model["_target_"]).rpartition(".")[2] for model in models]
    labels = []
    for name, model in zip(names, models, strict=True):
        alike = [other for other, of in zip(models, names, strict=True) if of == name]
        keys = dict.fromkeys(key for other in alike for key in other if key != "_target_")
        differing = [key for key in keys if any(other.get(key) != alike[0].get(key) for other in alike)]
        labels.append(" ".join([name, *(f"{key}={model.get(key)}" for key in differing)]))
    # of different modules, or with sizes of other data sets
    return [
        f"{label} {labels[: i + 1].count(label)}" if labels.count(label) > 1 else label
        for i, label in enumerate(labels)
    ]


def _finished(references: Sequence[str]) -> list[RunDir]:
    found: list[RunDir] = []
    for reference in references:
        sweep = locate_sweep(reference)
        if sweep is None:
            if reference in groups()["model"]:
                raise UserError(f"`{reference}` is a model, where a run was expected. Type model={reference}")
            run = find(reference)
            if run.status() != "finished":
                raise UserError(f"{run.path} is {run.status()}: expected a finished run. Type `dlrun resume {run.id}`.")
            found.append(run)
            continue
        jobs = runs_of(sweep)
        ended = [job for job in jobs if job.status() == "finished"]
        if not ended:
            raise UserError(f"No job of {sweep.path} has finished. Type `dlrun resume {sweep.id}`.")
        if len(ended) < len(jobs):
            output.warn(f"{counted(len(jobs) - len(ended), 'job')} of {sweep.id} left out: not finished.")
        found += ended
    return list({run.path: run for run in found}.values())


def _spec(given: Mapping[str, str], overrides: Sequence[str]) -> tuple[Spec, str]:
    """The sizes, and the name of what they are of."""
    if "dataset" in given:
        if clash := [key for key in OF_SPEC if key in given]:
            raise UserError(f"{clash[0]}= and dataset= both say which inputs to give. Leave one of them out.")
        data = make_dataset(check_config(compose.config(list(overrides))))
        return data.spec, data.name
    shape, classes = given.get("input", DEFAULT_INPUT), given.get("classes", DEFAULT_CLASSES)
    sizes = shape.split("x")
    if not all(size.isdecimal() and int(size) for size in (*sizes, classes)):
        wrong = f"classes={classes}" if not classes.isdecimal() or not int(classes) else f"input={shape}"
        raise UserError(f"{wrong}: expected sizes above 0. Type for example input=3x224x224 classes=1000.")
    spec = Spec("classification", tuple(map(int, sizes)), int(classes), classes=int(classes))
    return spec, f"input={shape}"


def _default_models(given: Mapping[str, str]) -> list[str]:
    if "dataset" in given:
        raise UserError(
            f"dataset={given['dataset']}: of which models? Type for example `dlrun bench forward "
            f"dataset={given['dataset']} model=mlp,linear`. The models are: {', '.join(groups()['model'])}."
        )
    return [*DEFAULT_MODELS]


def _placed(model: nn.Module, place: Place) -> nn.Module:
    if memory_format.pays(model, place.device, place.precision):
        memory_format.apply(model, "channels_last")
    return model.to(place.device).eval()


def _subject(label: str, model: nn.Module, spec: Spec, place: Place) -> Subject:
    subject = Subject(label, model, random_inputs(spec, place.largest).to(place.device), place.precision)
    try:
        with torch.no_grad():
            model(subject.x[:1])
    except Exception as error:  # each model has its own words for what it cannot take
        shape = "×".join(map(str, spec.input_shape))
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        raise ConfigError(
            f"{label} takes no inputs of {shape} on {describe(place.device)}: {type(error).__name__}: {reason}. "
            f"dataset=NAME or input=3x32x32 classes=10 gives other sizes."
        ) from error
    return subject


def scores(runs: Sequence[RunDir], metric: str | None) -> tuple[str, dict[str, float]]:
    """The metric to compare runs by, and its value of each, by id.

    Raises `UserError` if they have none in common.
    """
    summaries: dict[str, Summary] = {run.id: run.summary() for run in runs}
    wanted = (
        [metric] if metric else ["test/accuracy", "val/accuracy", "test/error", "val/error", "test/loss", "val/loss"]
    )
    name = next((w for w in wanted if all(w in summary.metrics for summary in summaries.values())), None)
    if name is None:
        known = sorted(set.intersection(*(set(summary.metrics) for summary in summaries.values())))
        raise UserError(
            f"Not all of these runs have {metric or 'an accuracy'}. They all have: {', '.join(known) or 'none'}."
        )
    if len({summary.samples(name) for summary in summaries.values()}) > 1:
        output.warn(f"{name} is not of the same samples in all these runs: their points do not compare.")
    return name, {id: float(summary.metrics[name]) for id, summary in summaries.items()}
