"""`dlrun check`: build a run or a sweep, and estimate its cost; or list its weights."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.hydra import Hydra
from omegaconf import DictConfig

from dlrun.commands.train import multirun
from dlrun.config import hydra_main
from dlrun.errors import ConfigError
from dlrun.execution import device
from dlrun.execution.timing import forecast, steps_within
from dlrun.runs.build import build
from dlrun.runs.measures import memory
from dlrun.runs.open_run import with_steps
from dlrun.runs.presentation import announce
from dlrun.runs.weights.listing import weights_table
from dlrun.storage.jobs.job import Job
from dlrun.sweeps.jobs.builder import REMARKS, JobBuilder
from dlrun.sweeps.jobs.pretrained import begin_with_pretrained
from dlrun.sweeps.jobs.preview import JobCost, job_costs, makespan
from dlrun.sweeps.jobs.reuse import describe_reuse, other_sweeps
from dlrun.sweeps.plugins import adopt, gives_gpus, is_of_scheduler
from dlrun.sweeps.pool.slots import Slot
from dlrun.sweeps.pool_runner import slots_of
from dlrun.terminal import output
from dlrun.terminal.format import amount, counted, duration

SHOWN = 40
"""Jobs that are listed one by one."""


PARAMETERS = "--parameters"


def main(argv: list[str]) -> int:
    if PARAMETERS in argv:
        rest = [word for word in argv if word != PARAMETERS]
        return hydra_main.inspect(rest, prog=f"dlrun check {PARAMETERS}", use=list_parameters)
    return hydra_main.inspect(argv, prog="dlrun check", use=check, use_sweep=check_sweep)


def list_parameters(config: DictConfig) -> int:
    """List the weights of a run with their shapes, rates and decay."""
    built = build(begin_with_pretrained(config, train=False))
    training = built.training
    output.say(
        weights_table(
            training.objective,
            training.optimizer,
            built.config["optimizer"],
            begins=training.thaw.begins if training.thaw else (),
            trusted=built.config["trusted"],
        )
    )
    output.say(f"{counted(built.parameters, 'parameter', ',')}, of which {built.trained:,} train")
    return 0


def check(config: DictConfig) -> int:
    """Build a run and estimate the time of training."""
    built = build(begin_with_pretrained(config, train=False))
    device.apply(built.execution)
    minutes = None if built.trainer.fast else built.trainer.minutes
    if minutes is not None:
        built = with_steps(built, steps_within(built.training, minutes))
    announce(built)
    if built.trainer.profile == "memory":
        every = built.trainer.activation_checkpointing
        output.say(memory.describe(memory.measure(built.training, every), every))
    if minutes is not None:
        output.say(f"  takes     {duration(60 * minutes)} of training; the run measures its steps itself")
    else:
        takes = forecast(built.training)
        known = (
            f"about {duration(takes.seconds)} of training and validation here" if takes.seconds is not None else None
        )
        output.say(f"  takes     {known or f'a time that is not known: {takes.why}'}")
    output.say("  all is in order; nothing was trained")
    return 0


def check_sweep(hydra: Hydra, master: DictConfig) -> int:
    """List a sweep's jobs; estimate time, memory and disk."""
    candidates, left_out = multirun.list_jobs(hydra, master)
    if not candidates:
        raise ConfigError("The sweep is empty: one of its keys has no value.")
    builder = JobBuilder(pretrain=False)
    adopt(master.hydra)
    with device.gpus_elsewhere(gives_gpus(master.hydra.launcher)):
        jobs = builder.jobs(candidates)
    groups = len(builder.rules)
    output.say(f"{counted(len(jobs), 'job')} in {counted(groups, 'group')}; {builder.rule.monitor} selects")
    output.say(_job_list(jobs))
    for line in [*left_out, *[*builder.remarks][:REMARKS], *describe_reuse(jobs, other_sweeps())]:
        output.say(f"  {line}")
    slots = slots_of(master.hydra.launcher, jobs, len(jobs))
    takes = job_costs(jobs, slots[0])
    at_once = min(len(slots), len(jobs))
    rows = [["slots", f"{at_once} at once, {counted(slots[0].threads, 'thread')} each{_on(slots)}"]]
    if is_of_scheduler(master.hydra.launcher):
        name, at_once = master.hydra.launcher._target_.split(".")[-2], 1
        rows = [["slots", f"{name} has them; the rest is of this machine, one job after another"]]
    output.say("\n".join(f"  {name:<10}{text}" for name, text in rows + _costs(takes, at_once)))
    output.say("  all is in order; nothing was trained")
    return 0


def _costs(takes: Sequence[JobCost], at_once: int) -> list[list[str]]:
    times = [each.seconds for each in takes if each.seconds is not None]
    memory = [each.memory for each in takes if each.memory is not None]
    disk = [each.disk for each in takes if each.disk is not None]
    why = next((each.why for each in takes if each.why), "")
    # the largest jobs might all run at once
    peak = sum(sorted(memory, reverse=True)[:at_once])
    found: dict[str, tuple[Sequence[float], str]] = {
        "time": (times, f"about {duration(makespan(times, at_once))} of training"),
        "memory": (memory, f"about {amount(peak, 'B')} at most"),
        "disk": (disk, f"about {amount(sum(disk), 'B')} of checkpoints"),
    }
    return [[name, text if len(known) == len(takes) else f"not known: {why}"] for name, (known, text) in found.items()]


def _job_list(jobs: Sequence[Job]) -> str:
    lines = [f"  {job.n:<4}{' '.join(job.overrides)}" for job in jobs[:SHOWN]]
    return "\n".join(lines + [f"  …   {len(jobs) - SHOWN} more"] * (len(jobs) > SHOWN))


def _on(slots: Sequence[Slot]) -> str:
    devices = sorted({slot.device for slot in slots if slot.device is not None})
    return f", on GPU {', '.join(devices)}" if devices else ""
