"""The jobs of a sweep as the launcher `batched` runs them: many as one program, or one after another here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from omegaconf import DictConfig

from dlrun import console
from dlrun.manifest import Job
from dlrun.results import Result
from dlrun.sweep import batched, confirmation, stack
from dlrun.sweep.course import Course
from dlrun.sweep.groups import Builder
from dlrun.sweep.inside import Inside
from dlrun.sweep.shared import SharedData
from dlrun.sweep.slots import Slot, counted
from dlrun.sweep.stacking import Stack, Stacking
from dlrun.sweepdir import SweepDir

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

    def run(self, due: Sequence[Result], course: Course) -> None:
        """Run jobs that are due, stacks first."""
        reasons, trusted = Counter[str](), list[Job]()
        for result in due:
            why = batched.against(result, self._hydra)
            if why is None:
                trusted.append(result.job)
            else:
                self.elsewhere.append(result.job)
                reasons[why] += 1
        batched.tell_reasons(reasons, way=LOCAL)
        with Inside(self._slots) as inside:
            one_by_one = self._stacked(trusted, course, inside)
            if one_by_one and not course.stopped:
                self._one_by_one(one_by_one, course, inside)

    def _stacked(self, jobs: Sequence[Job], course: Course, inside: Inside) -> list[Job]:
        """Train what goes faster as one program; return the other jobs."""
        stacking = Stacking(self._builder, slots=len(self._slots))
        again: list[Job] = []
        for each in stacking.stacks(jobs):
            try:
                self._train(each, course, inside)
            except Exception as error:
                console.warn(
                    f"{len(each.members)} jobs could not be trained as one program, and are trained one by one: "
                    f"{type(error).__name__}: {error}"
                )
                again += [member.job for member in each.members]
            if course.stopped:
                return []
        batched.tell_reasons(stacking.reasons, way="not as one program")
        if self._verify and not self.here:
            console.say("verify: no jobs were trained as one program, so that there is nothing to compare")
        self._seconds |= stacking.seconds
        return sorted([*stacking.rest, *again], key=lambda job: job.n)

    def _train(self, each: Stack, course: Course, inside: Inside) -> None:
        tasks = [course.task(member.job) for member in each.members]
        call = partial(stack.train, each, tasks, show=course.shown)
        self.here |= {task.key for task in tasks}
        inside.together(call, log=self._sweep.log, done=course.done)
        if self._verify:
            confirmation.tell(each.members[: self._verify], self._builder)

    def _one_by_one(self, jobs: list[Job], course: Course, inside: Inside) -> None:
        why = batched.fits_here(jobs, self._seconds, slots=len(self._slots))
        if why is not None:
            batched.tell_reasons({why: len(jobs)}, way=LOCAL)
            self.elsewhere += jobs
            return
        batched.tell(jobs, self._seconds)
        self.here |= {job.n for job in jobs}
        tasks = self._load.tasks(course.tasks(jobs, launcher="batched"))
        inside.run(tasks, done=course.done, tick=lambda: course.shown(inside.running))
