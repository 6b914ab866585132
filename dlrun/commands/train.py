"""`dlrun train`: compose, check, train, select, test once, show."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from dlrun import compose, console, tracking
from dlrun.build import Built, build
from dlrun.run import run
from dlrun.rundir import RunDir
from dlrun.sweep.job import sealed


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


def conduct(built: Built, folder: RunDir, *, resumed: bool = False) -> dict[str, Any]:
    """Train in `folder`, an uploader beside it, and wait for that at the end; return the summary."""
    if folder.of_a_sweep:
        built = sealed(built)
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
