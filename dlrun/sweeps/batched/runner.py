"""The jobs of a sweep under the launcher `batched`: stacked where that is faster, short ones in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

from omegaconf import DictConfig

from dlrun.runs.interrupt import Interrupt, stopped
from dlrun.storage.manifest import Job
from dlrun.storage.results import Result
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.batched import policy, training, verify
from dlrun.sweeps.batched.members import Builder
from dlrun.sweeps.batched.planning import Planner, Stack
from dlrun.sweeps.batched.shared_data import SharedData
from dlrun.sweeps.job_events import JobEvents
from dlrun.sweeps.pool import in_process
from dlrun.sweeps.pool.slots import Slot, counted
from dlrun.sweeps.pool.task import Task, TaskResult
from dlrun.terminal import output
from dlrun.terminal.format import duration

LOCAL = "as by hydra/launcher=local"


class BatchedRunner:
    """Runs what this process can run; `load` gives the jobs their data sets."""

    def __init__(self, sweep: SweepDir, hydra: DictConfig, slots: Sequence[Slot], *, load: SharedData) -> None:
        self._sweep = sweep
        self._hydra = hydra
        self._slots = slots
        self._load = load
        self._builder = Builder(sweep.job, load)
        self._verify = counted("verify", hydra.launcher.get("verify", 0), least=0)

    def run(self, due: Sequence[Result], events: JobEvents) -> list[Job]:
        """Run the stacks, then the short jobs; returns the jobs that need processes of their own."""
        trusted, left = self._sort_out(due)
        with in_process.hold(self._slots) as slot:
            left += self._run_stacks([job for job in trusted if not policy.is_short(job)], events, slot)
            left += self._run_short([job for job in trusted if policy.is_short(job)], events, slot)
        return [] if events.stopped else sorted(left, key=lambda job: job.n)

    def _sort_out(self, due: Sequence[Result]) -> tuple[list[Job], list[Job]]:
        reasons = {result.job.n: policy.why_not_here(result, self._hydra) for result in due}
        policy.say_reasons(Counter(filter(None, reasons.values())), how=LOCAL)
        trusted = [result.job for result in due if reasons[result.job.n] is None]
        return trusted, [result.job for result in due if reasons[result.job.n] is not None]

    def _run_stacks(self, jobs: Sequence[Job], events: JobEvents, slot: Slot) -> list[Job]:
        """Train what is faster stacked; returns the other jobs."""
        planner = Planner(self._builder, slots=len(self._slots))
        unfinished: list[Job] = []
        count = 0
        for stack in planner.stacks(jobs):
            try:
                self._train(stack, events, slot)
                count += 1
            except Exception as error:
                output.warn(
                    f"{len(stack.members)} jobs could not be trained as one program, and are trained one by one: "
                    f"{type(error).__name__}: {error}"
                )
                unfinished += [member.job for member in stack.members]
            if events.stopped:
                return []
        policy.say_reasons(planner.reasons, how="not as one program")
        if self._verify and not count:
            output.say("verify: no jobs were trained as one program, so that there is nothing to compare")
        return [*planner.rest, *unfinished]

    def _train(self, stack: Stack, events: JobEvents, slot: Slot) -> None:
        tasks = [events.task(member.job) for member in stack.members]
        with Interrupt() as interrupt:
            with output.duplicate() as screen, in_process.isolated(self._sweep.log, threads=slot.threads):
                results = training.train(stack, tasks, interrupt, screen, show=events.shown)
            for result in results:
                events.done(result)
        if interrupt.signal is not None:
            raise stopped(interrupt.signal)
        if self._verify:
            verify.compare(stack.members[: self._verify], self._builder)

    def _run_short(self, jobs: Sequence[Job], events: JobEvents, slot: Slot) -> list[Job]:
        """Run jobs one after another for as long as the pool would not end earlier; returns the rest."""
        if not jobs or events.stopped:
            return []
        output.say(f"batched: {len(jobs)} short job{'s' * (len(jobs) != 1)} in this process, one after another")
        left, seconds = list(jobs), list[float]()

        def tasks() -> Iterator[Task]:
            while left and self._is_faster_here(len(left), seconds):
                yield self._load.share(events.task(left.pop(0), launcher="batched"))

        def done(result: TaskResult) -> bool:
            seconds.append(result.seconds)
            return events.done(result)

        in_process.run(tasks(), slot, done=done, tick=partial(events.shown, 1))
        if left and not events.stopped:
            policy.say_reasons({f"one takes {duration(median(seconds))}": len(left)}, how=LOCAL)
        return left

    def _is_faster_here(self, left: int, seconds: Sequence[float]) -> bool:
        # the first job warms up; until the pool would have begun, nothing is lost
        if not seconds or sum(seconds) < policy.SERVER:
            return True
        return left * median(seconds) <= policy.seconds_in_pool(left, median(seconds), len(self._slots))
