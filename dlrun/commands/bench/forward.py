"""`dlrun bench forward`: milliseconds an image against batch size; accuracy against operations."""

from __future__ import annotations

import argparse
import csv
import io
import secrets
import time
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from dlrun.commands.bench.subjects import Place, Timeable, of_configuration, of_runs, scores
from dlrun.errors import UserError
from dlrun.execution.device import Execution, apply, choose, describe
from dlrun.execution.forward_time import Timed, samples_word, time_forward
from dlrun.execution.peak_flops import peak_flops
from dlrun.storage.files.json_text import dumps
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.lookup import outputs
from dlrun.terminal import output
from dlrun.terminal.escape import csv_cell
from dlrun.terminal.format import amount, counted, table


def main(arguments: argparse.Namespace) -> int:
    sizes = _sizes(arguments.batch_sizes)
    if not (isfinite(arguments.seconds) and arguments.seconds >= 0):
        raise UserError(f"--seconds {arguments.seconds}: expected a number of at least 0.")
    place = Place(*choose(arguments.device, arguments.precision), max(sizes))
    given = [word for word in arguments.words if "=" in word and not Path(word).exists()]
    references = [word for word in arguments.words if word not in given]
    if given and references:
        raise UserError(f"`{given[0]}` makes a model, and `{references[0]}` is one of a run. Give one kind of them.")
    found = of_runs(references, place) if references else of_configuration(given, place)
    # before anything is timed: runs without a metric in common would waste the time
    scored = scores([run for own in found.runs.values() for run in own], arguments.metric) if references else None
    # as a run of dlrun computes: with its memory kept, and the fastest kernels
    execution = Execution(place.device, place.precision, torch.get_num_threads(), deterministic=False)
    apply(execution)
    timed = time_forward(found.subjects, sizes, seconds=arguments.seconds, on_round=_show)
    report = _report(found, timed, execution, scored)
    folder = _write(report, found, timed, scored)
    if arguments.json:
        print(dumps(report, indent=2))
    else:
        output.say(_text(report, sizes, samples_word(found.shape), on_cpu=place.device.type == "cpu"))
        output.say(f"  {folder}")
    return 0


def _sizes(given: str) -> list[int]:
    try:
        sizes = sorted({int(size) for size in given.split(",")})
    except ValueError:
        sizes = [0]
    if sizes[0] < 1:
        raise UserError(f"--batch-sizes {given}: expected numbers of at least 1, such as 1,2,4,8.")
    return sizes


def _show(n: int) -> None:
    output.live(f"  round {n}")


def _report(
    found: Timeable, timed: Sequence[Timed], execution: Execution, scored: tuple[str, dict[str, float]] | None
) -> dict[str, Any]:
    """Everything that was measured, as JSON values."""
    peak = peak_flops(execution, measure=True)
    models = []
    for subject in found.subjects:
        flop = subject.flop()
        times = []
        for cell in (cell for cell in timed if cell.subject is subject and cell.seconds):
            middle, low, high = cell.per_sample()
            share = flop / middle / peak if peak else None
            milliseconds: dict[str, Any] = {"ms": 1e3 * middle, "ms_low": 1e3 * low, "ms_high": 1e3 * high}
            times.append(
                {"batch_size": cell.size} | milliseconds | {"rounds": len(cell.seconds), "share_of_peak": share}
            )
        one: dict[str, Any] = {"model": subject.label, "parameters": subject.parameters, "flop": flop, "times": times}
        if scored:
            one["runs"] = {run.id: scored[1][run.id] for run in found.runs[subject.label]}
        models.append(one)
    about = {"device": describe(execution.device), "threads": execution.threads, "precision": execution.precision}
    about |= {"torch": torch.__version__, "input": list(found.shape), "peak_flop_per_second": peak}
    return about | ({"metric": scored[0]} if scored else {}) | {"models": models}


def _write(
    report: dict[str, Any], found: Timeable, timed: Sequence[Timed], scored: tuple[str, dict[str, float]] | None
) -> Path:
    """Write tables and figures into a new folder; returns it."""
    from dlrun.analysis.figures.forward import Scored, forward_time, score_against_operations
    from dlrun.analysis.figures.style import save

    now, noun = time.localtime(), samples_word(found.shape)
    name = f"{time.strftime('%H%M%S', now)}-forward-{secrets.token_hex(3)}"
    folder = outputs() / "bench" / time.strftime("%Y-%m-%d", now) / name
    folder.mkdir(parents=True)
    models = report["models"]
    write_atomically(folder / "forward.json", dumps(report, indent=2).encode())
    columns = ("model", "parameters", "flop")
    rows = [{k: model[k] for k in columns} | cell for model in models for cell in model["times"]]
    write_atomically(folder / "forward_time.csv", _csv(rows))
    curves = {
        m["model"]: {c["batch_size"]: (c["ms"], c["ms_low"], c["ms_high"]) for c in m["times"]}
        for m in models
        if m["times"]
    }
    save(forward_time(curves, noun=noun), folder / "forward_time.png")
    if scored:
        metric = scored[0]
        points = [
            {k: m[k] for k in columns} | {"run": id, metric: value} for m in models for id, value in m["runs"].items()
        ]
        write_atomically(folder / "accuracy_operations.csv", _csv(points))
        drawn = [Scored(m["model"], m["flop"], m["parameters"], [*m["runs"].values()]) for m in models]
        save(score_against_operations(drawn, metric, noun=noun), folder / "accuracy_operations.png")
    return folder


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, [*rows[0]] if rows else ["model"])
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue().encode()


def _text(report: dict[str, Any], sizes: Sequence[int], noun: str, *, on_cpu: bool) -> str:
    cpu = f", {counted(report['threads'], 'thread')}" if on_cpu else ""
    shape = "×".join(map(str, report["input"]))
    head = f"{report['device']}{cpu}, {report['precision']}; milliseconds per {noun} of {shape}, by batch size"
    rows = [["", "parameters", "FLOP", *map(str, sizes)]]
    for model in report["models"]:
        by_size = {cell["batch_size"]: cell["ms"] for cell in model["times"]}
        cells = [f"{by_size[size]:.3g}" if size in by_size else "no memory" for size in sizes]
        rows.append([model["model"], f"{model['parameters']:,}", amount(model["flop"]), *cells])
    lines = [head, table(rows)]
    if "metric" in report:
        found = [[m["model"], id, f"{value:.6g}"] for m in report["models"] for id, value in m["runs"].items()]
        lines.append(table([["", "run", report["metric"]], *found]))
    return "\n".join(lines)
