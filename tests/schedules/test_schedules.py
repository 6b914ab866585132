"""Schedules against torch's schedulers, and their pictures."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedules

from dlrun.errors import ConfigError
from dlrun.schedules.curves import constant, cosine, linear, one_cycle, step_decay, warmup_stable_decay
from dlrun.schedules.picture import picture
from dlrun.types import Schedule

STEPS = 40
CURVES: list[Schedule] = [constant, step_decay, cosine, linear, one_cycle, warmup_stable_decay]
Scheduler = Callable[[torch.optim.Optimizer], torch_schedules.LRScheduler]


def factors(schedule: Schedule, steps: int = STEPS) -> list[float]:
    return [schedule(step, steps) for step in range(steps)]


def oracle(make: Scheduler, steps: int = STEPS) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = make(optimizer)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return found


def warmed(n: int, then: Scheduler) -> Scheduler:
    def make(optimizer: torch.optim.Optimizer) -> torch_schedules.LRScheduler:
        rise = torch_schedules.LinearLR(optimizer, start_factor=1 / (n + 1), total_iters=n)
        return torch_schedules.SequentialLR(optimizer, [rise, then(optimizer)], milestones=[n])

    return make


@pytest.mark.parametrize(
    ("schedule", "scheduler"),
    [
        (constant, partial(torch_schedules.ConstantLR, factor=1.0)),
        (partial(constant, warmup=8), partial(torch_schedules.LinearLR, start_factor=1 / 9, total_iters=8)),
        (step_decay, partial(torch_schedules.MultiStepLR, milestones=[20, 30])),
        (
            partial(step_decay, milestones=[0.1, 7, 0.7], gamma=0.5),
            partial(torch_schedules.MultiStepLR, milestones=[4, 7, 28], gamma=0.5),
        ),
        (cosine, partial(torch_schedules.CosineAnnealingLR, T_max=STEPS)),
        (partial(cosine, floor=0.1), partial(torch_schedules.CosineAnnealingLR, T_max=STEPS, eta_min=0.1)),
        (partial(cosine, warmup=0.25), warmed(10, partial(torch_schedules.CosineAnnealingLR, T_max=30))),
        (
            partial(linear, floor=0.2),
            partial(torch_schedules.LinearLR, start_factor=1.0, end_factor=0.2, total_iters=STEPS),
        ),
        (
            partial(linear, warmup=5),
            warmed(5, partial(torch_schedules.LinearLR, start_factor=1.0, end_factor=0.0, total_iters=35)),
        ),
        (one_cycle, partial(torch_schedules.OneCycleLR, max_lr=1.0, total_steps=STEPS, cycle_momentum=False)),
        (
            partial(one_cycle, warmup=0.2, shape="linear"),
            partial(
                torch_schedules.OneCycleLR,
                max_lr=1.0,
                total_steps=STEPS,
                pct_start=0.2,
                anneal_strategy="linear",
                cycle_momentum=False,
            ),
        ),
    ],
)
def test_a_curve_is_that_of_torch(schedule: Schedule, scheduler: Scheduler) -> None:
    assert factors(schedule) == pytest.approx(oracle(scheduler), abs=1e-9)


def test_warmup_stable_decay_has_three_parts() -> None:
    curve = factors(partial(warmup_stable_decay, warmup=4, decay=0.25, floor=0.1))
    assert curve[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert curve[4:31] == [1.0] * 27
    assert curve[30:] == pytest.approx([1.0 - 0.9 * i / 10 for i in range(10)])
    root = factors(partial(warmup_stable_decay, warmup=4, decay=10, root=True))
    assert root[30:] == pytest.approx([1.0 - (i / 10) ** 0.5 for i in range(10)])


@pytest.mark.parametrize("schedule", CURVES)
@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
def test_any_horizon_gives_factors_within_zero_and_one(schedule: Schedule, steps: int) -> None:
    assert all(0.0 <= schedule(step, steps) <= 1.0 for step in range(steps + 2))


@pytest.mark.parametrize("schedule", [constant, cosine, linear, warmup_stable_decay, one_cycle])
def test_a_warm_up_longer_than_the_run_only_rises(schedule: Schedule) -> None:
    curve = factors(partial(schedule, warmup=500), steps=20)
    assert curve == sorted(curve)
    assert curve[-1] < 0.1


def test_a_negative_length_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"schedule\.warmup=-1.*schedule\.warmup=0\.1"):
        cosine(0, 10, warmup=-1)
    with pytest.raises(ConfigError, match=r"schedule\.milestones"):
        step_decay(0, 10, milestones=[0.5, -0.1])


@pytest.mark.parametrize("schedule", CURVES)
def test_a_picture_has_the_height_and_width_asked_for(schedule: Schedule) -> None:
    lines = picture(schedule, width=30, height=4).splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("    1 ┤")
    assert lines[-1].startswith("    0 ┤")
    assert all(len(line) <= 37 for line in lines)


def test_a_picture_of_nothing_is_blank() -> None:
    assert set("".join(picture(lambda step, steps: 0.0).split())) <= set("01┤│")
