"""A step of dlrun, of a bare loop and of other trainers on the same work, each in a process of its own.

In each round every program trains in a new process, in another order each time: whether the heap keeps a step's
memory or returns it to the system differs between processes of one program, and nearly doubles the step of a
convolutional network. Steps count from the eleventh on; set-up and the end are left out. Lightning, the Trainer of
Hugging Face, Keras, Ignite and skorch need an environment of their own (`make bench-peers`); without it they are left
out, and the notes say so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from benchmarks import language, report, step
from benchmarks.alternation import added, alternate, ratios, spread
from benchmarks.peers import works
from benchmarks.report import ROOT, Figure, Section

PEERS = {"lightning": "Lightning", "huggingface": "Hugging Face's Trainer", "keras": "Keras", "ignite": "Ignite"}
PEERS |= {"skorch": "skorch"}
OURS = {"bare": "bare loop", "ours": "dlrun", "compiled": "dlrun, its steps compiled"}
PACKAGES = {"huggingface": "transformers", "ignite": "ignite"}
# peers without a program for a work
NOT_FOR = {"gpt": ("keras", "ignite", "skorch")}
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
TITLES = {"mlp": "MLP 784-64-10", "plane": "MLP of 8 layers of 2"}
# works whose goal is the time added to a step, not the ratio
MORE = ("mlp", "plane", "polynomial")


def peers_python() -> Path | None:
    """The Python of the peers' environment, if there is one."""
    python = Path(os.environ.get("DLRUN_PEERS", ROOT / ".venv-peers"), "bin", "python")
    return python if python.exists() else None


def installed() -> dict[str, str]:
    """The versions of the installed peers, by their names here."""
    python = peers_python()
    if python is None:
        return {}
    names = {name: PACKAGES.get(name, name) for name in PEERS}
    program = (
        "import json; from importlib.util import find_spec; from importlib.metadata import packages_distributions as d,"
        f"version; names = {names!r}; d = d();"
        "print(json.dumps({n: version(d[m][0]) for n, m in names.items() if find_spec(m) and m in d}))"
    )
    found: dict[str, str] = json.loads(subprocess.run([python, "-c", program], capture_output=True, check=True).stdout)
    return found


def once(program: str, work: Path) -> dict[str, float]:
    """The measurements of a work in a new process; raises `RuntimeError` with its output if it fails."""
    python = str(peers_python()) if program in PEERS else sys.executable
    done = subprocess.run(
        [python, "-m", "benchmarks.worker", program, str(work)],
        cwd=work.parent,
        env=os.environ | QUIET | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    try:
        answer: dict[str, float] = json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(f"{program}: {done.stderr[-2000:]}") from None
    return answer


def compare(work: works.Work, programs: Sequence[str], repeats: int) -> dict[str, list[dict[str, float]]]:
    """The measurements of each program, round by round, after a round that does not count.

    A program that fails in that round is left out, with a message on the standard error.
    """
    with TemporaryDirectory(prefix="dlrun-bench-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "work.pt"
        works.save(work, path)
        ready: dict[str, Callable[[], dict[str, float]]] = {}
        for name in programs:
            try:
                once(name, path)
                ready[name] = partial(once, name, path)
            except RuntimeError as error:
                print(f"left out: {error}", file=sys.stderr)
        return alternate(ready, repeats, warm_up=0)


def figures(work: works.Work, taken: dict[str, list[dict[str, float]]]) -> list[Figure]:
    """One row per program."""
    threads = work.threads or len(os.sched_getaffinity(0))
    label = f"{TITLES.get(work.name, work.name)}, batch {work.batch_size}, {threads} thread{'s' * (threads > 1)}"
    series = {name: {key: [r[key] for r in rounds] for key in rounds[0]} for name, rounds in taken.items()}
    bare, peak, flop = series["bare"], series["peak"], series["ours"]["flop"][0]
    found = [
        Figure(f"{label}: peak of matrix products", spread([g / 1e9 for g in peak["gemm"]], ".0f", "GFLOP/s")),
        Figure(f"{label}: peak of copies", spread([g / 1e9 for g in peak["copied"]], ".1f", "GB/s")),
    ]
    moved = works.traffic(work)
    for name in (n for n in (*OURS, *PEERS) if n in series):
        wall = series[name]["wall"]
        products = [100 * flop / s / g for s, g in zip(wall, peak["gemm"], strict=True)]
        copies = [100 * moved / s / g for s, g in zip(wall, peak["copied"], strict=True)]
        share = f"{median(products):.2g} % and {median(copies):.2g} % of the peaks"
        faults = series[name]["faults"]
        memory = f"{max(series[name]['megabytes']):.0f} MiB, page faults {min(faults):.0f} to {max(faults):.0f} a step"
        if name == "bare":
            value = f"{spread([1e6 * s for s in wall], '.0f', 'µs')} a step; {share}; {memory}"
            found.append(Figure(f"{label}: {OURS[name]}", value))
            continue
        ratio, cpu = ratios(wall, bare["wall"]), ratios(series[name]["cpu"], bare["cpu"])
        more = [1e6 * s for s in added(wall, bare["wall"])]
        each = f"{spread(ratio, '.3f')}, {median(more):+.0f} µs; CPU {median(cpu):.3f}; {share}; {memory}"
        goal, number = _goal(work.name, name, ratio, more)
        found.append(Figure(f"{label}: {(OURS | PEERS)[name]} / bare", each, goal=goal, number=number))
        if goal == "convnet":
            shown = spread(products, ".1f", "%")
            found.append(Figure("… of the matrix products' peak", shown, goal="convnet_peak", number=median(products)))
        if work.name == "gpt" and name in OURS:
            faster = [1 / r for r in ratio]
            goal = "gpt_compiled" if name == "compiled" else "gpt"
            what = "… tokens a second against the bare loop's"
            found.append(Figure(what, spread(faster, ".3f"), goal=goal, number=median(faster)))
    return found


def _goal(work: str, program: str, ratio: list[float], more: list[float]) -> tuple[str, float | None]:
    """The goal that a program's row answers, and the number for it."""
    if program == "ours" and work in (*MORE, "convnet"):
        return work, median(more) if work in MORE else median(ratio)
    if program == "compiled" and work in MORE:
        return f"{work}_compiled", median(ratio)
    return "", None


def measure(
    *, quick: bool = False, repeats: int | None = None, only: Sequence[str] = works.NAMES, compiled: bool = True
) -> Section:
    load, versions, found = report.load(), installed(), []
    pictures, labels, data = step.images()
    text, corpus = language.tokens()
    for name in only:
        work = works.work(name, 6 if quick else None, (pictures, labels), text)
        ours = [o for o in OURS if o != "compiled" or (compiled and not quick)]
        programs = [*ours, "peak", *(p for p in versions if p not in NOT_FOR.get(name, ()))]
        found += figures(work, compare(work, programs, repeats or (1 if quick else 7)))
    peers = ", ".join(f"{PEERS[name]} {version}" for name, version in versions.items())
    notes = (
        f"Data: {data}; {corpus}; a sine. A row: the time of a step / the bare loop's, and how much more that is; CPU "
        "time likewise; the share of the measured peaks that a step reaches (its products; the bytes that it has to "
        "move at least, of copies); the peak memory of the process, the least and the most page faults of its steps. "
        "dlrun: `trainer.compile=false`, and `=true`. "
        f"{peers or 'The other trainers are not installed here: make bench-peers'}."
    )
    return Section("frameworks", "a step beside other trainers", "python -m benchmarks.frameworks", found, notes, load)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frameworks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="six steps of each, as a check that it works")
    parser.add_argument("--repeats", type=int, help="rounds (7)")
    parser.add_argument("--only", choices=works.NAMES, action="append", help="this work (all)")
    parser.add_argument(
        "--no-compiled", action="store_true", help="leave out compiled steps, which take a minute to compile"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(
        quick=options.quick,
        repeats=options.repeats,
        only=options.only or works.NAMES,
        compiled=not options.no_compiled,
    )
    print(found.markdown())


if __name__ == "__main__":
    main()
