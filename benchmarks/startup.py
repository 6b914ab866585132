"""From the prompt to the first step and to the closing table, and the time that torch alone takes."""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import commands, report
from benchmarks.alternation import added, alternate, ratios, spread
from benchmarks.report import Figure, Section
from dlrun.storage import journal

TORCH = "import torch"
OPTIMIZER = f"{TORCH}; torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)"
CLOSING = ("  the last weights;", "  weights of step")


def ready(program: str, here: Path) -> dict[str, float]:
    """The seconds from the start of Python until it has run `program` (its exit does not count)."""
    tic = time.time()
    said = commands.call([sys.executable, "-c", f"{program}; import time; print(time.time())"], here)
    return {"ready": float(said.split()[-1]) - tic}


def trained(here: Path, *overrides: str) -> dict[str, float]:
    """The seconds until a run has begun, taken its first step, shown its closing table, and ended."""
    tic, closing, output = time.time(), 0.0, []
    with commands.start(commands.dlrun("train", "trainer.log_every=1", *overrides), here) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            closing = time.time() - tic if line.startswith(CLOSING) else closing
    if process.returncode:
        raise RuntimeError("".join(output))
    run = commands.folder_in("".join(output), here)
    records, _ = journal.read(run.journal)
    begun = next(r["time"] for r in records if r.get("event") == "start")
    first = next(r["time"] for r in records if "metrics" in r)
    return {"begun": begun - tic, "step": first - tic, "closing": closing, "end": time.time() - tic}


def help_shown(here: Path) -> dict[str, float]:
    """The seconds of `dlrun --help`."""
    return {"end": commands.seconds(commands.dlrun("--help"), here)}


def measure(*, quick: bool = False, repeats: int | None = None) -> Section:
    load = report.load()
    with commands.workplace() as here:
        short = ("trainer.fast=true",) if quick else ()
        untracked = ("tracking.enabled=false", *short)
        # the warm-up round creates the store, so that no measured run does
        programs = {
            "help": partial(help_shown, here),
            "torch": partial(ready, TORCH, here),
            "optimizer": partial(ready, OPTIMIZER, here),
            "train": partial(trained, here, *(untracked if quick else ())),
            "untracked": partial(trained, here, *untracked),
        }
        taken = alternate(programs, repeats or (1 if quick else 7), warm_up=0 if quick else 1)
    series = {f"{name} {moment}": [t[moment] for t in times] for name, times in taken.items() for moment in times[0]}
    return Section(
        "startup",
        "from the prompt to the first step",
        "python -m benchmarks.startup",
        figures(series),
        NOTES + " --quick: nothing is tracked." * quick,
        load,
    )


NOTES = (
    "The first step is the first line of the journal (trainer.log_every=1): the step is done by then. torch's part"
    " ends when the statement is carried out; neither part counts the exit of Python. The store exists."
)


def figures(series: dict[str, list[float]]) -> list[Figure]:
    """The figures of each program's moments (`<program> <moment>`), round by round."""
    more = added(series["train step"], series["optimizer ready"])
    untracked = added(series["untracked step"], series["optimizer ready"])
    share = ratios(series["torch ready"], series["train closing"])
    helped = series["help end"]

    def seconds(name: str) -> str:
        return spread(series[name], ".2f", "s")

    return [
        Figure("`dlrun --help`", seconds("help end"), "< 0.3 s", median(helped) < 0.3),
        Figure("`import torch`", seconds("torch ready")),
        Figure("`import torch` and one `torch.optim.SGD`", seconds("optimizer ready")),
        Figure("`dlrun train`: prompt to first step", seconds("train step")),
        Figure("… more than torch and one optimizer", spread(more, "+.2f", "s"), "≤ 1.0 s", median(more) <= 1),
        Figure("`dlrun train`: prompt to closing table", seconds("train closing")),
        Figure("… of which `import torch`", spread([100 * s for s in share], ".0f", "%")),
        Figure("`dlrun train`: prompt to prompt, all in MLflow", seconds("train end")),
        Figure("`dlrun train tracking.enabled=false`: prompt to first step", seconds("untracked step")),
        Figure(
            "… more than torch and one optimizer", spread(untracked, "+.2f", "s"), "≤ 1.0 s", median(untracked) <= 1
        ),
        Figure("`dlrun train tracking.enabled=false`: prompt to closing table", seconds("untracked closing")),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of two steps, as a check that it works")
    parser.add_argument("--repeats", type=int, help="rounds (7)")
    options = parser.parse_args()
    print(measure(quick=options.quick, repeats=options.repeats).markdown())


if __name__ == "__main__":
    main()
