"""`dlrun bench`: what this machine can do, and what models take on it."""

from __future__ import annotations

import argparse

from dlrun.terminal.arguments import Parser

FORWARD = """Time forward passes against the size of the batch, of models (`model=resnet18,alexnet`) on a data set's
sizes or on given ones, or of runs. Of runs, also draw accuracy against operations and parameters (the plots of Canziani
et al. 2016). Figures and tables go to outputs/bench."""

SIZES = "1,2,4,8,16,32,64"


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    # each imports torch, which the help does not need
    if arguments.what == "peak":
        from dlrun.commands.bench import peak

        return peak.main(arguments)
    from dlrun.commands.bench import forward

    return forward.main(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="dlrun bench", description="Measure this machine, and models on it.")
    kinds = parser.add_subparsers(dest="what", metavar="peak|forward", required=True)
    peak = kinds.add_parser("peak", help="the FLOP a second of matrix products, at each precision")
    forward = kinds.add_parser("forward", help="milliseconds an image against batch size", description=FORWARD)
    for command in (peak, forward):
        command.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 or mps (default: the best)")
        command.add_argument("--json", action="store_true", help="print everything as JSON")
    forward.add_argument(
        "words",
        nargs="*",
        metavar="KEY=VALUE|RUN|SWEEP",
        help="model=A,B dataset=D, or input=3x224x224 classes=1000 for no data set (the default), and values of the "
        "models; or runs",
    )
    forward.add_argument("--batch-sizes", default=SIZES, metavar="N,N,…", help=f"(default: {SIZES})")
    forward.add_argument("--seconds", type=float, default=60.0, help="time to spend, beyond three rounds (default: 60)")
    forward.add_argument("--precision", default="auto", choices=["auto", "fp32", "tf32", "bf16"])
    forward.add_argument("--metric", help="of runs, for the second figure (default: test/accuracy, else val/accuracy)")
    return parser
