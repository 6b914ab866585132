"""The commands, a file or room each. Its `main(argv)` returns the exit code."""

from __future__ import annotations

# in the order of `dlrun --help`
COMMANDS = {
    "train": "train a run, or with -m a sweep of many",
    "resume": "continue a run or a sweep, or train a run longer",
    "test": "evaluate a run's selected weights on the test split",
    "report": "write a sweep's report: tables, figures, claims",
    "compare": "compare runs or sweeps seed by seed, or fold by fold",
    "sample": "draw samples from a run: text of a language model, points or pictures of a density",
    "predict": "apply a run's model to the samples in a file",
    "export": "write a run's model for other programs: torch.export, ONNX, safetensors",
    "runs": "list, filter and delete runs and sweeps",
    "list": "show the groups of the configuration, their choices, and what the keys are",
    "data": "list the data sets, download and check their files",
    "new": "write a part of your own to begin with: a module and its yaml",
    "check": "check a configuration and estimate its cost, without training",
    "bench": "measure this machine's peak, and the forward passes of models",
    "verify-resume": "prove that a killed and resumed run equals an unbroken one, bit for bit",
    "sync": "send to MLflow and other trackers what they lack",
    "ui": "open the runs in MLflow's pages",
}
COMPOSING = ("train", "check", "verify-resume")
"""The commands with Hydra's command line: overrides, `-m`, `--cfg`."""

OF_TRAINED = ("test", "sample", "predict", "export")
"""The commands in `trained/`."""


def module_of(command: str) -> str:
    """The name of a command's module.

    >>> module_of("verify-resume"), module_of("predict")
    ('dlrun.commands.verify_resume', 'dlrun.commands.trained.predict')
    """
    room = "trained." if command in OF_TRAINED else ""
    return f"{__name__}.{room}{command.replace('-', '_')}"
