"""`dlrun verify-resume`: a killed and resumed run against an unbroken one, bit for bit.

The run is trained twice: once without a break, and once killed with SIGKILL after a random step and resumed.
"""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from omegaconf import DictConfig

from dlrun.config import hydra_main
from dlrun.engine.own.state import describe
from dlrun.errors import RunError, UserError
from dlrun.execution import device
from dlrun.execution.nondeterminism import first_nondeterministic
from dlrun.execution.timing import steps_within
from dlrun.randomness import STEP, key, seed_default
from dlrun.runs.build import Built, build
from dlrun.runs.differences import differences
from dlrun.storage import journal
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.rundir import RunDir
from dlrun.sweeps.jobs.pretrained import begin_with_pretrained
from dlrun.terminal import output
from dlrun.terminal.format import counted


def main(argv: list[str]) -> int:
    return hydra_main.inspect(argv, prog="dlrun verify-resume", use=lambda config: _verify(config, argv))


def _verify(config: DictConfig, argv: list[str]) -> int:
    given, config = config.get("init_from"), begin_with_pretrained(config)
    built = build(config)
    training, minutes = built.training, built.trainer.minutes
    if built.trainer.devices > 1:
        raise UserError("verify-resume kills one process. Type trainer.devices=1")
    # fixed here: each of the two runs would make another number of steps of its time
    steps = training.plan.steps if minutes is None else steps_within(training, minutes)
    fixed = ["trainer.minutes=null", f"trainer.steps={steps}"] if minutes is not None else []
    # and might time its choices otherwise
    fixed += [f"trainer.memory_format={built.execution.memory_format}"]
    fixed += [f"trainer.compile={str(built.execution.compile).lower()}"]
    # at random, and with no seed: each call tries another place of an epoch
    kill_after = random.SystemRandom().randrange(1, max(2, steps))
    # some checkpoints lie before the kill, which mostly falls between two of them
    every = max(1, min(kill_after, steps // 7))
    # the two runs have outputs folders of their own, and would each train what they begin with
    begun = [f"init_from='{Path(config.init_from).absolute()}'"] if config.get("init_from") != given else []
    overrides = [*argv, *begun, *fixed, "tracking.enabled=false", "evaluation.test=never", "trainer.figures=false"]
    # each step is in the journal, by which the kill is timed
    overrides += ["trainer.log_every=1", f"trainer.checkpoint_every={every}"]
    with tempfile.TemporaryDirectory(prefix="dlrun-verify-") as folder:
        output.say(f"training {counted(steps, 'step')} without a break …")
        whole = _train(overrides, Path(folder, "whole"))
        output.say(f"training again, to be killed after step {kill_after} (a checkpoint every {every}) …")
        broken, killed_at = _train_and_kill(overrides, Path(folder, "broken"), kill_after)
        output.say(f"killed (SIGKILL) with step {killed_at} in the journal; resuming …")
        _dlrun(["resume", str(broken.path)], Path(folder, "broken"))
        differing = list(differences(whole, broken))
    return _verdict(built, differing)


def _verdict(built: Built, differing: list[str]) -> int:
    if not differing:
        output.say("equal, bit for bit: weights, optimizer, averages, state, curves and metrics")
        return 0
    output.say(f"NOT equal; the first of {len(differing)} differences is {differing[0]}")
    for line in describe([], built.training.own.lost if built.training.own else [], []):
        output.say(line)
    # is it the resume, or are the steps themselves not repeatable here?
    device.apply(built.execution)
    operator = first_nondeterministic(lambda: _gradient(built))
    if operator:
        output.say(f"not repeatable on this device: {operator}. `trainer.deterministic=true` replaces it.")
    return 1


def _gradient(built: Built) -> None:
    training = built.training
    # the same draws at each call: what differs is an operator's own
    seed_default(training.device, key(training.seed, STEP, 0))
    batch = next(training.batches.start(0))
    torch.autograd.grad(training.objective(batch), training.objective.params, allow_unused=True)


def _train(overrides: list[str], outputs: Path) -> RunDir:
    _dlrun(["train", *overrides], outputs)
    return _only_run(outputs)


def _train_and_kill(overrides: list[str], outputs: Path, step: int) -> tuple[RunDir, int]:
    """Train, and kill once `step` is in the journal.

    Returns the run, and the last step in its journal.
    """
    outputs.mkdir()
    with (outputs / "log").open("wb") as log:
        process = subprocess.Popen(_command(["train", *overrides]), stdout=log, stderr=log, env=_environment(outputs))
        wait_until(
            lambda: process.poll() is not None or _reached(outputs) >= step, 3600, poll=0.002
        )  # a step can take less than a millisecond
        process.kill()
        process.wait()
    return _only_run(outputs), _reached(outputs)


def _reached(outputs: Path) -> int:
    journals = list(outputs.glob("runs/*/*/journal.jsonl"))
    return max((r["step"] for r in journal.read(journals[0])[0] if "step" in r), default=0) if journals else 0


def _only_run(outputs: Path) -> RunDir:
    # its date and time are not known here
    return RunDir(next(outputs.glob("runs/*/*/.hydra")).parent)


def _dlrun(arguments: list[str], outputs: Path) -> None:
    done = subprocess.run(_command(arguments), capture_output=True, text=True, env=_environment(outputs))
    if done.returncode:
        raise RunError(f"`{shlex.join(['dlrun', *arguments])}` failed:\n{done.stdout}{done.stderr}")


def _command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "dlrun", *arguments]


def _environment(outputs: Path) -> dict[str, str]:
    return os.environ | {"DLRUN_OUTPUTS": str(outputs)}
