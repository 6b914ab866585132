"""`dlrun check`: everything that is decided before a run is trained, and how long it would take."""

from __future__ import annotations

from omegaconf import DictConfig

from dlrun import compose, console, device
from dlrun.build import build
from dlrun.forecast import seconds_for
from dlrun.presentation import head


def main(argv: list[str]) -> int:
    """Compose, check and build what `argv` says, time a few steps, and train nothing."""
    return compose.consult(argv, prog="dlrun check", use=check)


def check(config: DictConfig) -> int:
    """Show what would be trained, and how long it would take here."""
    built = build(config)
    device.apply(built.execution)
    console.say(head(built))
    if built.trainer.minutes is None:
        forecast = console.duration(seconds_for(built.training))
        console.say(f"  takes     about {forecast} of training and validation here")
    console.say("  all is in order; nothing was trained")
    return 0
