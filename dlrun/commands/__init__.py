"""The commands: one small file each, with a `main(argv) -> exit code`, imported when it is asked for."""

from __future__ import annotations

COMMANDS = {
    "train": "train a run; with -m, one for every combination of values",
    "resume": "go on with a run that was stopped, or train it longer",
    "test": "read the test split with a run's selected weights",
    "report": "write a sweep's report: tables, figures, claims",
    "compare": "compare runs or sweeps seed by seed",
    "sample": "have a run's model of language write text",
    "predict": "apply a run's selected weights to a file",
    "runs": "list, filter and delete runs",
    "list": "show the groups and their choices",
    "data": "show the data sets, and fetch and check their files",
    "check": "check a configuration without training",
    "verify-resume": "prove that a killed and resumed run is bit-equal to one never stopped",
    "sync": "send runs to MLflow and other trackers that missed them",
    "ui": "open MLflow on the runs of this folder",
}
COMPOSING = ("train", "check", "verify-resume")
"""The commands whose arguments are Hydra's own."""
