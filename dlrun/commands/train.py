"""`dlrun train`: compose, check, train, select, test once, show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from omegaconf import DictConfig

from dlrun import compose, console, tracking
from dlrun.build import Built, build
from dlrun.run import run
from dlrun.rundir import RunDir


def main(argv: list[str]) -> int:
    """Train what `argv` composes; everything in it is Hydra's own command line."""
    return compose.run(
        argv, prog="dlrun train", prepare=prepare, task=lambda built, folder: conduct(built, RunDir(folder))
    )


def prepare(config: DictConfig) -> Built:
    """Decide everything about a run before its folder exists."""
    built = build(config)
    if built.tracking.enabled:
        tracking.check(system_metrics=built.tracking.system_metrics)
    return built


def _sealed(built: Built) -> Built:
    """Return a run as a job of a sweep: it waits for no uploader, and leaves the test split sealed.

    Its number would be one of many to choose from; a study whose subject is the test curve says so,
    with `evaluation.test: every`.
    """
    sealed = "never" if built.evaluation.test == "final" else built.evaluation.test
    return replace(built, evaluation=replace(built.evaluation, test=sealed), tracking=replace(built.tracking, wait=0.0))


def conduct(built: Built, folder: RunDir, *, resumed: bool = False) -> dict[str, Any]:
    """Train in `folder`, an uploader beside it, and wait for that at the end; return the summary."""
    if folder.of_a_sweep:
        built = _sealed(built)
    uploaders: list[tracking.Uploader] = []

    def begun() -> None:
        if built.tracking.enabled:
            uploaders.append(tracking.start(folder))

    try:
        return run(built, folder, resumed=resumed, begun=begun)
    finally:
        for uploader in uploaders if built.tracking.wait else []:
            console.live("  sending to MLflow …")
            if uploader.wait(built.tracking.wait):
                console.say(f"  {tracking.link(folder)}")
            else:
                console.say(
                    f"  not all is in MLflow yet; it goes on by itself, and «dlrun sync {folder.id}» sees to it"
                )
