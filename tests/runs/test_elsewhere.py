"""A run that is looked at from another folder than the one in which it was begun."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dlrun.storage.lookup import all_runs
from tests.conftest import Called
from tests.facts import refuses

MODEL = """
import torch
class Line(torch.nn.Linear):
    def __init__(self, outputs):
        super().__init__(64, outputs)
    def forward(self, x):
        return super().forward(x.flatten(1))
"""


def test_a_run_whose_module_is_elsewhere_says_where_it_was_begun(
    here: Path,
    call: Callable[..., Called],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (here / "conf" / "model").mkdir(parents=True)
    (here / "conf" / "model" / "line.yaml").write_text("_target_: lines.Line\n")
    (here / "lines.py").write_text(MODEL)
    done = call("train", "model=line", "trainer.steps=2", "tracking.enabled=false", "trainer.figures=false")
    assert done.code == 0, done.err
    run, start = all_runs()[-1].path.resolve(), Path.cwd()
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    np.save("x.npy", np.zeros((1, 64)))
    # as in a process of its own
    monkeypatch.setattr(sys, "path", [place for place in sys.path if Path(place or ".").resolve() != start.resolve()])
    for command, *rest in (["test"], ["resume"], ["predict", "x.npy"]):
        monkeypatch.delitem(sys.modules, "lines", raising=False)
        refuses(call(command, str(run), *rest), "no module `lines`", f"begun in {start}")
