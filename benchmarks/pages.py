"""Pictures of MLflow's pages as `dlrun ui` opens them: `python -m benchmarks.pages FOLDER`, to look at.

Needs Chromium. Measures nothing: MLflow's charts are configured by what its pages keep (`tracking/mlflow/pages`), which
no test of rows can see.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from dlrun.tracking.mlflow.server.local import free_port

DLRUN = (sys.executable, "-m", "dlrun")
RUNS = {
    "run": ("trainer.epochs=8",),
    "sweep": ("-m", "optimizer.lr=0.0003,0.001,0.01,0.1", "seed=range(3)", "trainer.epochs=8"),
    "study": ("+experiment=polynomial_capacity",),
    "language": ("dataset=stdlib", "model=gpt", "model.size=nano", "trainer.steps=300", "trainer.evaluate_every=50"),
}
# milliseconds of the page's own clock: its charts wait for the curves
PATIENCE = 90_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("folder", type=Path, help="gets the pictures, and `outputs` with the runs")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(RUNS)} (default: all)")
    options = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        parser.error("Chromium is not installed.")
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.names or RUNS:
        identifier = train(options.folder, *RUNS[name])
        picture = options.folder.absolute() / f"{name}.png"
        shoot(browser, options.folder, identifier, picture)
        print(picture)
    return 0


def train(folder: Path, *overrides: str) -> str:
    """Train a run or sweep below `folder`; returns its id."""
    environment = os.environ | {"DLRUN_OUTPUTS": str(folder.absolute() / "outputs")}
    done = subprocess.run(
        [*DLRUN, "train", *overrides], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    # its last line is `dlrun ui ID`
    return done.stdout.split()[-1]


def shoot(browser: str, folder: Path, identifier: str, picture: Path) -> None:
    """Take the picture of the page that `dlrun ui` names."""
    environment = os.environ | {"DLRUN_OUTPUTS": str(folder.absolute() / "outputs")}
    command = [*DLRUN, "ui", identifier, "--no-browser", "--port", str(free_port())]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            address = next(line.strip() for line in server.stdout if line.startswith("http"))
            options = [
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--window-size=1600,1200",
            ]
            options += [f"--virtual-time-budget={PATIENCE}", f"--screenshot={picture}"]
            subprocess.run([browser, *options, address], check=True, capture_output=True)
        finally:
            server.send_signal(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
