"""`dlrun bench peak`: the FLOP a second of matrix products."""

from __future__ import annotations

import argparse

import torch

from dlrun.execution.device import Execution, choose, describe
from dlrun.execution.kernel_rates import best_product
from dlrun.execution.peak_flops import cache_file, from_data_sheet, measure_peak, peak_flops
from dlrun.storage.files.json_text import dumps
from dlrun.terminal import output
from dlrun.terminal.format import amount, counted, table


def main(arguments: argparse.Namespace) -> int:
    device = choose(arguments.device, "fp32")[0]
    found = [measure(device, precision) for precision in precisions(device)]
    if arguments.json:
        print(dumps({"device": describe(device), "torch": torch.__version__, "rates": found}, indent=2))
        return 0
    on = f", {counted(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else ""
    output.say(f"{describe(device)}{on}, torch {torch.__version__}")
    shown = {"measured": "measured", "size": "size", "data_sheet": "data sheet", "peak": "mfu is a share of"}
    rows = [["", *shown.values()]]
    rows += [[str(each["precision"]), *(_text(name, each[name]) for name in shown)] for each in found]
    output.say(table(rows))
    if device.type == "cpu":
        output.say(
            "  mfu is a share of a thread's fastest product or convolution, in its own time, times the run's threads"
        )
    output.say(f"  kept in {cache_file()}")
    return 0


def precisions(device: torch.device) -> list[str]:
    """The precisions that a device has units for."""
    if device.type != "cuda":
        return ["fp32", "bf16"]
    new = torch.cuda.get_device_capability(device) >= (8, 0)
    return ["fp32", "tf32", "bf16"] if new else ["fp32"]


def measure(device: torch.device, precision: str) -> dict[str, object]:
    """Measure the rate of products on all threads, and keep the peak that a run's `mfu` is a share of."""
    execution = Execution(device, precision, torch.get_num_threads(), deterministic=False)
    sheet = from_data_sheet(describe(device), precision) if device.type == "cuda" else None
    best = best_product(device, precision)
    measure_peak(execution)
    peak = peak_flops(execution, measure=False)
    return {"precision": precision, "measured": best.rate, "size": best.size, "data_sheet": sheet, "peak": peak}


def _text(name: str, value: object) -> str:
    if not isinstance(value, int | float):
        return "–"
    return str(value) if name == "size" else amount(value, "FLOP/s")
