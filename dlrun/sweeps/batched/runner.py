"""The jobs of a sweep as the launcher `batched` runs them: many as one program, or one after another here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from omegaconf import DictConfig

from dlrun.storage.manifest import Job
from dlrun.storage.results import Result
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.batched import policy, training, verify
from dlrun.sweeps.batched.members import Builder
from dlrun.sweeps.batched.planning import Stack, Stacking
from dlrun.sweeps.batched.shared_data import SharedData
from dlrun.sweeps.job_events import JobEvents
from dlrun.sweeps.pool.in_process import Inside
from dlrun.sweeps.pool.slots import Slot, counted
from dlrun.terminal import output

LOCAL = "as by hydra/launcher=local"


class Batch:
    """Runs in this process what can be run here; `elsewhere` has the rest, `here` the numbers of what was.

    `seconds` are guesses of how long each job trains, by its number; `load` gives the jobs their data.
    """

    def __init__(
        self,
        sweep: SweepDir,
        hydra: DictConfig,
        slots: Sequence[Slot],
        seconds: Mapping[int, float],
        *,
        load: SharedData,
    ) -> None:
        self.elsewhere: list[Job] = []
        self.here: set[int] = set()
        self._sweep = sweep
        self._hydra = hydra
        self._slots = slots
        self._seconds = dict(seconds)
        self._load = load
        self._builder = Builder(sweep.job, load)
        self._verify = counted("verify", hydra.launcher.get("verify", 0), least=0)

    def run(self, due: Sequence[Result], course: JobEvents) -> None:
        """Run jobs that are due, stacks first."""
        reasons, trusted = Counter[str](), list[Job]()
        for result in due:
            why = policy.against(result, self._hydra)
            if why is None:
                trusted.append(result.job)
            else:
                self.elsewhere.append(result.job)
                reasons[why] += 1
        policy.tell_reasons(reasons, way=LOCAL)
        with Inside(self._slots) as inside:
            one_by_one = self._stacked(trusted, course, inside)
            if one_by_one and not course.stopped:
                self._one_by_one(one_by_one, course, inside)

    def _stacked(self, jobs: Sequence[Job], course: JobEvents, inside: Inside) -> list[Job]:
        """Train what goes faster as one program; return the other jobs."""
        stacking = Stacking(self._builder, slots=len(self._slots))
        again: list[Job] = []
        for each in stacking.stacks(jobs):
            try:
                self._train(each, course, inside)
            except Exception as error:
                output.warn(
                    f"{len(each.members)} jobs could not be trained as one program, and are trained one by one: "
                    f"{type(error).__name__}: {error}"
                )
                again += [member.job for member in each.members]
            if course.stopped:
                return []
        policy.tell_reasons(stacking.reasons, way="not as one program")
        if self._verify and not self.here:
            output.say("verify: no jobs were trained as one program, so that there is nothing to compare")
        self._seconds |= stacking.seconds
        return sorted([*stacking.rest, *again], key=lambda job: job.n)

    def _train(self, each: Stack, course: JobEvents, inside: Inside) -> None:
        tasks = [course.task(member.job) for member in each.members]
        call = partial(training.train, each, tasks, show=course.shown)
        self.here |= {task.key for task in tasks}
        inside.together(call, log=self._sweep.log, done=course.done)
        if self._verify:
            verify.tell(each.members[: self._verify], self._builder)

    def _one_by_one(self, jobs: list[Job], course: JobEvents, inside: Inside) -> None:
        why = policy.fits_here(jobs, self._seconds, slots=len(self._slots))
        if why is not None:
            policy.tell_reasons({why: len(jobs)}, way=LOCAL)
            self.elsewhere += jobs
            return
        policy.tell(jobs, self._seconds)
        self.here |= {job.n for job in jobs}
        tasks = self._load.tasks(course.tasks(jobs, launcher="batched"))
        inside.run(tasks, done=course.done, tick=lambda: course.shown(inside.running))
