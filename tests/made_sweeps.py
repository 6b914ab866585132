"""Sweeps made by hand: a manifest, and run folders with the numbers that a test needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from dlrun.storage.jobs.job import REPLICATED, Job
from dlrun.storage.manifest import Manifest
from dlrun.storage.sweepdir import SweepDir
from tests.summaries import summarise

GROUPS = ("model", "loss", "optimizer", "schedule")
Metrics = Callable[[dict[str, Any]], dict[str, float]]
Curves = Callable[[dict[str, Any]], dict[str, list[tuple[int, float]]]]


def made_sweep(
    folder: Path,
    grid: Mapping[str, list[Any]],
    metrics: Metrics,
    *,
    curves: Curves = lambda values: {},
    summary: Mapping[str, Any] | None = None,
    **asked: Any,
) -> SweepDir:
    """Write a sweep over a grid of values by key, the seed among them, whose runs have finished with `metrics(values)`.

    `metrics` may return {"status": …, "error": …} for a run that did not finish, and {} for one not begun.
    """
    sweep = SweepDir(folder)
    folder.mkdir(parents=True)
    jobs = []
    for n, values in enumerate(dict(zip(grid, choice, strict=True)) for choice in product(*grid.values())):
        jobs.append(_job(n, values))
        _run(sweep, jobs[-1], metrics(values), curves(values))
    manifest = {
        "name": "made",
        "definition": "d" * 64,
        "asked": {},
        "command": "dlrun train -m …",
        "created": 1e9,
        "monitor": "val/error",
        "higher_is_better": False,
        "test": "final",
    }
    Manifest(**{**manifest, **asked}, jobs=tuple(jobs)).write(sweep)
    summarise(sweep, **{"status": "finished", "seconds": 12.5, **(summary or {})})
    return sweep


def group_of(**values: Any) -> str:
    """Return the group that the maker gives these values; a dot in a key is written as two underscores."""
    text = json.dumps(
        {key.replace("__", "."): value for key, value in values.items() if key.replace("__", ".") not in REPLICATED},
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _job(n: int, values: dict[str, Any]) -> Job:
    config: dict[str, Any] = {"name": "made", "seed": 0, "trusted": []}
    for key, value in values.items():
        *path, last = key.split(".")
        inner = config
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = {**inner.get(last, {}), "_target_": value} if last in GROUPS else value
    overrides = tuple(f"{key}={value}" for key, value in values.items())
    return Job(n, overrides, config, identity=f"{n:064d}", group=group_of(**values))


def _run(sweep: SweepDir, job: Job, metrics: dict[str, Any], curves: dict[str, list[tuple[int, float]]]) -> None:
    if not metrics:
        return
    run = sweep.job(job.n)
    (run.path / ".hydra").mkdir(parents=True)
    run.config.write_text(json.dumps(job.config))
    lines = [json.dumps({"step": s, "epoch": 0, "metrics": {k: v}}) for k, points in curves.items() for s, v in points]
    run.journal.write_text("".join(f"{line}\n" for line in lines))
    if "status" in metrics:
        summarise(run, **metrics, seed=job.seed)
        return
    summarise(
        run,
        status="finished",
        metrics=metrics,
        seed=job.seed,
        best_step=100,
        steps=200,
        seconds=2.0,
        train_seconds=1.0,
        parameters=10,
        device="cpu",
        data={"name": "made", "fingerprint": f"draw{job.seed}", "train": 80, "validation": 20, "test": 20},
        test_reads=int(any(name.startswith("test/") for name in metrics)),
    )
