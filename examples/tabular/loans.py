"""A table with categories and missing values: who pays a loan back. The rows are generated."""

from __future__ import annotations

import csv
import math
import random
from pathlib import Path

from dlrun.datasets.table import table
from dlrun.types import Data

FILE = Path(__file__).with_name("loans.csv")
HOMES = {"own": 0.9, "mortgage": 0.3, "rent": -0.6}
JOBS = {"employed": 0.4, "self-employed": -0.2, "retired": 0.6, "student": -0.8}


def loans(rows: int = 4000) -> Data:
    """The rows of loans.csv, which is written if it is not there; missing values have an input that says so."""
    if not FILE.exists():
        write(FILE, rows)
    return table(
        path=str(FILE), target="paid", missing="indicator", stratify=True, validation_size=0.15, test_size=0.25
    )


def write(file: Path, rows: int) -> None:
    draw = random.Random(0)
    with file.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["age", "income", "amount", "home", "job", "paid"])
        for _ in range(rows):
            age, income, amount = draw.randint(18, 80), draw.lognormvariate(10.3, 0.5), draw.lognormvariate(9, 0.8)
            home, job = draw.choice([*HOMES]), draw.choice([*JOBS])
            # those who do not tell their income pay less often: a gap says something
            silent = draw.random() < 0.15
            score = 2 * math.log(income / amount) - 2 + HOMES[home] + JOBS[job] - ((age - 45) / 25) ** 2 - 1.5 * silent
            paid = "yes" if draw.random() < 1 / (1 + math.exp(-score)) else "no"
            shown = ["" if draw.random() < 0.05 else age, "" if silent else round(income), round(amount)]
            table.writerow([*shown, home, "" if draw.random() < 0.05 else job, paid])
