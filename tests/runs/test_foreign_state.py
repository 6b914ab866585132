"""A checkpoint of somebody else: what it may set in one's own parts and modules."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dlrun.engine.own.rules import OptimizerState
from dlrun.engine.own.state import OwnState
from dlrun.errors import UserError
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.layered import LayeredRule, ParameterGroup
from dlrun.optimizers.torch_optimizer import TorchRule
from dlrun.storage.lookup import all_runs
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]

OPTIMIZERS = ["Adam", "Adafactor", "ASGD", "LBFGS", "NAdam", "Rprop"]

QUICK = ("dataset=moons", "optimizer=sgd", "trainer.batch_size=100", "trainer.figures=false", "tracking.enabled=false")

MODULE = """
import subprocess
from torch.nn import functional as F
COMMAND, LIMIT, SEEN = "true", 3, []
class Own:
    def __init__(self):
        self.calls, self.file, self.phase, self.counts = 0, "log.txt", "warm", {}
    def __call__(self, model, batch):
        self.calls += model.training
        self.phase = "warm" if self.calls % 2 else "cold"
        self.counts["calls"] = self.counts.get("calls", 0) + 1
        subprocess.run(COMMAND, shell=True)
        return F.cross_entropy(model(batch.x), batch.y, reduction="none") * min(1, self.calls / 100)
"""


@pytest.fixture
def run(here: Path, call: Call) -> Path:
    """The folder of a run with state of its own, after five steps."""
    (here / "conf" / "loss").mkdir(parents=True)
    (here / "conf" / "loss" / "own.yaml").write_text("_target_: ownloss.Own\n")
    (here / "ownloss.py").write_text(MODULE)
    sys.modules.pop("ownloss", None)
    assert call("train", *QUICK, "loss=own", "trainer.steps=5").code == 0
    return all_runs()[-1].path


def alter(run: Path, values: dict[str, Any]) -> None:
    for file in (run / "checkpoints" / name for name in ("last.pt", "best.pt")):
        content = torch.load(file, weights_only=True)
        content["own"]["attributes"] |= values
        torch.save(content, file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ownloss.COMMAND", "touch entered"),
        ("ownloss.LIMIT", 10**9),
        ("ownloss.SEEN", [1]),
        ("loss.file", "elsewhere.txt"),
        ("loss.phase", "/etc/passwd"),
        ("loss.calls", "a text"),
        ("loss.calls", [1]),
        ("loss.counts", {"kind": "dict", "value": [["a path", 1]]}),
    ],
)
def test_what_the_code_does_not_change_is_not_set(name: str, value: Any, run: Path, here: Path, call: Call) -> None:
    alter(run, {name: value})
    sys.modules.pop("ownloss")
    refuses(call("resume", str(run), "trainer.steps=7"), name, f"trusted=[state.{name}]")
    refuses(call("test", str(run)), name)
    assert not (here / "entered").exists()


def test_what_the_user_trusts_is_set(run: Path, here: Path, call: Call) -> None:
    alter(run, {"ownloss.COMMAND": "touch entered"})
    sys.modules.pop("ownloss")
    assert call("resume", str(run), "trainer.steps=7", "trusted=[state.ownloss.COMMAND]").code == 0
    assert (here / "entered").exists()


class Late:
    """Has a number that the first pass does not change, and texts that are in no source."""

    def __init__(self) -> None:
        self.calls = self.third = self.never = 0
        self.history: list[float] = []
        self.said = ""

    def __call__(self) -> float:
        self.calls += 1
        if self.calls % 3 == 0:
            self.third += 1
            self.history.append(self.third)
        self.said = f"call {self.calls}"
        return float(self.calls)

    def other(self) -> str:
        return self.said


def learned(part: Any) -> OwnState:
    own = OwnState({"loss": part})
    before = own.now()
    part()
    own.learn(before, lambda number: part())
    return own


def test_state_that_shows_late_is_taken_where_the_code_changes_it() -> None:
    one, other = learned(Late()), learned(Late())
    content = one.state_dict()
    content["attributes"] |= {"loss.third": 5, "loss.history": [1.0, 2.0]}
    other.load_state_dict(content)
    part = other.parts["loss"]
    assert (part.third, part.history) == (5, [1.0, 2.0])
    with pytest.raises(UserError, match=r"loss\.never.*state\.loss\.never"):
        other.load_state_dict({"attributes": {"loss.never": 5}, "parts": {}})


def test_text_that_is_in_no_source_is_said_to_be_lost() -> None:
    own = learned(Late())
    assert "loss.said" in own.lost
    assert "loss.said" not in own.state_dict()["attributes"]


def test_state_that_becomes_something_else_is_said_and_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    own = learned(Late())
    assert "loss.calls" in own.state_dict()["attributes"]
    own.parts["loss"].calls = subprocess
    assert own.state_dict() == {}
    says(capsys.readouterr().err, "loss.calls changes", "cannot be saved")


class Updates:
    """A part that takes all that a state dict holds, as torch's schedules do."""

    def __init__(self) -> None:
        self.file, self.step = "log.txt", 0

    def __call__(self) -> float:
        self.step += 1
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


@pytest.mark.parametrize("key", ["step", "file"])
def test_a_part_that_loads_its_state_gets_no_foreign_text(key: str) -> None:
    # made here: as a constant of this file it would be the user's own
    state = {"step": 2} | {key: "/".join(["", "etc", "shadow"])}
    own = learned(Updates())
    own.load_state_dict({"parts": {"loss": {"state": {"step": 2}}}})
    assert own.parts["loss"].step == 2
    with pytest.raises(UserError, match=r"state\.loss"):
        own.load_state_dict({"parts": {"loss": {"state": state}}})
    with pytest.raises(UserError, match=r"state\.optimizer"):
        OptimizerState(Updates()).check(state)
    assert own.parts["loss"].file == "log.txt"


class Inner(Updates):
    """An optimizer of one's own that keeps the state of one of torch's."""

    def __init__(self, cls: type[torch.optim.Optimizer]) -> None:
        self.parameter = nn.Parameter(torch.ones(2, 2))
        self.optimizer = cls([self.parameter], lr=0.1)

    def take_step(self) -> None:
        self.parameter.grad = torch.ones(2, 2)
        self.optimizer.step(lambda: torch.ones(()))  # type: ignore[arg-type]  # LBFGS takes it

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_names_in_states_of_torchs_optimizers_are_taken(name: str) -> None:
    cls = getattr(torch.optim, name)
    trained = Inner(cls)
    trained.take_step()
    OptimizerState(Inner(cls)).check(trained.state_dict())
    # as keys alone, and no others
    word = "_".join(["exp", "avg"])
    for state in ({"state": {0: {"step": word}}}, {"state": {0: {f"/{word}": 1}}}):
        with pytest.raises(UserError, match=r"state\.optimizer"):
            OptimizerState(Inner(cls)).check(state)


class Told(torch.optim.SGD):
    """An optimizer of torch's kind with a text in its state that no source has."""

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"said": "".join(["made at ", "run time"])}


class Rule(Updates):
    lr = 0.1

    def init(self, params: list[torch.Tensor], decay: list[bool]) -> None: ...

    def update(self, params: list[torch.Tensor], grads: list[torch.Tensor], lr: float) -> None: ...


def optimizers_of_ones_own() -> list[Any]:
    torch_rule = TorchRule(Told, {"lr": 0.1})
    torch_rule.init([nn.Parameter(torch.ones(2))], [True])
    return [Rule(), Descent(Rule()), Descent(LayeredRule([Rule()], [ParameterGroup([0])])), Descent(torch_rule)]


@pytest.mark.parametrize("number", range(4))
def test_a_state_that_an_optimizer_would_not_load_is_said_when_it_is_saved(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    optimizer = optimizers_of_ones_own()[number]
    asked, foreign = OptimizerState(optimizer), {"file": "/".join(["", "etc", "shadow"])}
    asked.look(optimizer.state_dict())
    assert capsys.readouterr().err == ""
    for _ in range(2):
        asked.look(foreign)
    assert capsys.readouterr().err.count("trusted=[state.optimizer]") == 1
    with pytest.raises(UserError, match=r"state\.optimizer"):
        asked.check(foreign)
    OptimizerState(optimizer, ["state.optimizer"]).check(foreign)
