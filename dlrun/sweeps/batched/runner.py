"""The jobs of a sweep under the launcher `batched`: stacked where that is faster, short ones in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from omegaconf import DictConfig

from dlrun.runs.interrupt import Interrupt, exception_for
from dlrun.storage.jobs.job import Job
from dlrun.storage.results import Result
from dlrun.sweeps.batched import policy, short_jobs, training, verify
from dlrun.sweeps.batched.isolation import isolated
from dlrun.sweeps.batched.members import Builder
from dlrun.sweeps.batched.planning import Planner, Stack
from dlrun.sweeps.batched.shared_data import SharedData
from dlrun.sweeps.job_events import JobEvents
from dlrun.sweeps.pool.slots import Slot, check_count, hold
from dlrun.sweeps.pool.task import Task, TaskResult
from dlrun.sweeps.pool_runner import PoolRunner
from dlrun.sweeps.store import SweepStore
from dlrun.terminal import output
from dlrun.terminal.format import counted, duration

LOCAL = "as by hydra/launcher=local"


class BatchedRunner:
    """The `JobRunner` of the launcher `batched`."""

    def __init__(self, store: SweepStore, hydra: DictConfig) -> None:
        self._store = store
        self._hydra = hydra
        # for the jobs that cannot run in this process
        self._pool = PoolRunner(store, hydra.launcher)
        self._slots: Sequence[Slot] = ()
        self._data = SharedData()
        self._builder = Builder(store.sweep.job, self._data)
        self._verify = check_count("verify", hydra.launcher.get("verify", 0), least=0)

    def run(self, jobs: Iterable[Job | None], events: JobEvents, *, count: int) -> None:
        """Run stacks, then short jobs, then the rest in processes."""
        if not isinstance(jobs, Sequence):
            output.say("batched: a search runs its jobs as hydra/launcher=local does: it looks at them while they run")
            self._pool.run(jobs, events, count=count)
            return
        due = [self._store.result(job) for job in jobs if job is not None]
        self._slots = self._pool.slots(len(due))
        trusted, left = self._sort_out(due)
        # one slot for all that runs here; it is free again before the pool takes its slots
        with hold(self._slots) as slot:
            planner = Planner(self._builder, slots=len(self._slots))
            left += self._run_stacks([job for job in trusted if not short_jobs.is_short(job)], planner, events, slot)
            short = [job for job in trusted if short_jobs.is_short(job)]
            left += self._run_short([*short, *planner.here], events, slot)
        rest = sorted(left, key=lambda job: job.n)
        if rest and not events.stopped:
            self._pool.run(rest, events, count=count)

    def run_tasks(
        self, tasks: Sequence[Task], *, on_result: Callable[[TaskResult], bool], on_tick: Callable[[int], None]
    ) -> None:
        # jobs that trained in this process may run here again; others may harm it
        if not all(self._store.sweep.run(task.key).summary().launcher == "batched" for task in tasks):
            self._pool.run_tasks(tasks, on_result=on_result, on_tick=on_tick)
            return
        with hold(self._pool.slots(len(tasks))) as slot:
            short_jobs.run(map(self._data.share, tasks), slot, on_result=on_result, on_tick=on_tick)

    def stop(self, n: int) -> None:
        self._pool.stop(n)

    def going(self) -> Collection[int]:
        # its jobs end with it
        return ()

    def _sort_out(self, due: Sequence[Result]) -> tuple[list[Job], list[Job]]:
        reasons = {result.job.n: policy.why_not_here(result, self._hydra) for result in due}
        policy.say_reasons(Counter(filter(None, reasons.values())), how=LOCAL)
        trusted = [result.job for result in due if reasons[result.job.n] is None]
        return trusted, [result.job for result in due if reasons[result.job.n] is not None]

    def _run_stacks(self, jobs: Sequence[Job], planner: Planner, events: JobEvents, slot: Slot) -> list[Job]:
        """Train the stacks; returns the jobs for the pool."""
        unfinished: list[Job] = []
        count = 0
        for stack in planner.stacks(jobs):
            try:
                self._train(stack, events, slot)
                count += 1
            except Exception as error:  # no memory, say; the members look killed, and can be resumed one by one
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
            with output.duplicate() as screen, isolated(self._store.sweep.log, threads=slot.threads):
                results = training.train(stack, tasks, interrupt, screen, show=events.show)
            for result in results:
                events.take(result)
        if interrupt.signal is not None:
            raise exception_for(interrupt.signal)
        if self._verify:
            verify.compare(stack.members[: self._verify], self._builder)

    def _run_short(self, jobs: Sequence[Job], events: JobEvents, slot: Slot) -> list[Job]:
        """Run jobs here while it is faster; returns the rest."""
        if not jobs or events.stopped:
            return []
        output.say(f"batched: {counted(len(jobs), 'short job')} in this process, one after another")

        def make_task(job: Job) -> Task:
            # `run_tasks` looks for this `launcher` in the summary
            return self._data.share(events.task(job, launcher="batched"))

        left, seconds = short_jobs.run_while_faster(jobs, make_task, events, slot, slots=len(self._slots))
        if left and not events.stopped:
            policy.say_reasons({f"one takes {duration(seconds)}": len(left)}, how=LOCAL)
        return left
