"""State of a user's own parts: whatever hides it, a resumed run is the run that was never stopped."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor, nn

import dlrun as package
from dlrun.engine.own.state import OwnState
from dlrun.runs.differences import differences
from dlrun.storage import checkpoint
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]

QUICK = ("dataset=moons", "optimizer=sgd", "trainer.batch_size=100", "trainer.figures=false", "tracking.enabled=false")

HEAD = """
import collections, dataclasses, itertools, random
import numpy, torch
from torch import nn
from torch.nn import functional as F

def entropy(model, batch):
    return F.cross_entropy(model(batch.x), batch.y, reduction="none")
"""

SAVED = {
    "a counter": """
class Own:
    def __init__(self): self.calls = 0
    def __call__(self, model, batch):
        self.calls += model.training
        return entropy(model, batch) * min(1, self.calls / 100)
""",
    "a tensor": """
class Own:
    def __init__(self): self.centre = torch.zeros(2)
    def __call__(self, model, batch):
        scores = model(batch.x)
        self.centre = 0.9 * self.centre + 0.1 * scores.detach().mean(0)
        return F.cross_entropy(scores - self.centre, batch.y, reduction="none")
""",
    "a list in an object of its own": """
class Ramp:
    def __init__(self): self.seen = [0.0]
class Own:
    def __init__(self): self.ramp = Ramp()
    def __call__(self, model, batch):
        values = entropy(model, batch)
        self.ramp.seen.append(float(values.detach().mean()))
        return values * (1 + sum(self.ramp.seen[-5:]))
""",
    "objects in a list and a dict": """
class Ramp:
    def __init__(self): self.calls = 0
    def __call__(self):
        self.calls += 1
        return min(1, self.calls / 100)
class Own:
    def __init__(self): self.ramps, self.named = [Ramp()], {"one": [Ramp()]}
    def __call__(self, model, batch):
        return entropy(model, batch) * self.ramps[0]() * self.named["one"][0]()
""",
    "slots": """
class Base:
    __slots__ = ("__calls",)
    def __init__(self): self.__calls = 0
    def count(self):
        self.__calls += 1
        return self.__calls
class Own(Base):
    __slots__ = ()
    def __call__(self, model, batch):
        return entropy(model, batch) * min(1, self.count() / 100)
""",
    "a list in a frozen dataclass": """
@dataclasses.dataclass(frozen=True)
class Own:
    seen: list[float] = dataclasses.field(default_factory=list)
    def __call__(self, model, batch):
        self.seen.append(1.0)
        return entropy(model, batch) * min(1, len(self.seen) / 100)
""",
    "the defaults of a function, and an object of its closure": """
class Ramp:
    def __init__(self): self.calls = 0
def make():
    ramp = Ramp()
    def scale(memo={"calls": 0}, *, more=[]):
        ramp.calls += 1
        memo["calls"] += 1
        more.append(1)
        return min(1, (ramp.calls + memo["calls"] + len(more)) / 300)
    return scale
class Own:
    def __init__(self): self.scale = make()
    def __call__(self, model, batch):
        return entropy(model, batch) * self.scale()
""",
    "an object that its module holds": """
class Ramp:
    def __init__(self): self.calls = 0
RAMP = Ramp()
class Own:
    def __call__(self, model, batch):
        RAMP.calls += 1
        return entropy(model, batch) * min(1, RAMP.calls / 100)
""",
    "an attribute of a class that it inherits from": """
class Base:
    calls = 0
class Own(Base):
    def __call__(self, model, batch):
        Base.calls += 1
        return entropy(model, batch) * min(1, Base.calls / 100)
""",
    "the batch before": """
class Own:
    def __init__(self): self.before = None
    def __call__(self, model, batch):
        shift = 0.0 if self.before is None else self.before.mean()
        self.before = batch.x
        return entropy(model, batch) * (1 + shift)
""",
    "an attribute of its class": """
class Own:
    calls = 0
    def __call__(self, model, batch):
        Own.calls += 1
        return entropy(model, batch) * min(1, Own.calls / 100)
""",
    "a global of its module": """
CALLS = 0
class Own:
    def __call__(self, model, batch):
        global CALLS
        CALLS += 1
        return entropy(model, batch) * min(1, CALLS / 100)
""",
    "a generator": """
class Own:
    def __init__(self): self.draw, self.more = random.Random(3), numpy.random.default_rng(3)
    def __call__(self, model, batch):
        return entropy(model, batch) * (self.draw.random() + self.more.random())
""",
    "the generators of Python and numpy": """
class Own:
    def __init__(self): self.scale = random.random() + numpy.random.rand()
    def __call__(self, model, batch):
        return entropy(model, batch) * (self.scale + random.random() + numpy.random.rand())
""",
    "an attribute that the first call makes": """
class Own:
    def __call__(self, model, batch):
        self.calls = getattr(self, "calls", 0) + model.training
        return entropy(model, batch) * min(1, self.calls / 100)
""",
    "a phase and numbers by name": """
class Own:
    def __init__(self): self.phase, self.sums = "warm", {}
    def __call__(self, model, batch):
        self.sums["calls"] = self.sums.get("calls", 0) + model.training
        factor = 0.5 if self.phase == "warm" else 1
        self.phase = "cold" if self.sums["calls"] % 2 else "warm"
        return entropy(model, batch) * factor * min(1, self.sums["calls"] / 100)
""",
    "a state dict": """
class Own:
    def __init__(self): self.step, self.calls = -1, itertools.count()
    def __call__(self, model, batch):
        self.step = next(self.calls)
        return entropy(model, batch) * min(1, self.step / 100)
    def state_dict(self): return {"step": self.step}
    def load_state_dict(self, state): self.calls = itertools.count(state["step"] + 1)
""",
    "weights and a buffer": """
class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("seen", torch.zeros(()))
    def forward(self, model, batch):
        if self.training: self.seen += 1
        return F.cross_entropy(model(batch.x) * self.scale.exp(), batch.y, reduction="none") * (1 + 1 / (1 + self.seen))
""",
    "a module in an attribute": """
class Own:
    def __init__(self): self.head = nn.Linear(2, 2)
    def __call__(self, model, batch):
        return F.cross_entropy(self.head(model(batch.x)), batch.y, reduction="none")
""",
}


def own_loss(here: Path, text: str) -> None:
    (here / "conf" / "loss").mkdir(parents=True, exist_ok=True)
    (here / "conf" / "loss" / "own.yaml").write_text("_target_: ownloss.Own\n")
    (here / "ownloss.py").write_text(HEAD + text)


def forget() -> None:
    """What another process would not have: the module, and the places of the generators."""
    sys.modules.pop("ownloss", None)
    random.seed()
    numpy.random.seed()


# 16 steps are two epochs: both runs evaluate there, which counts in some of these
@pytest.mark.parametrize("kind", SAVED)
def test_a_resumed_run_is_the_run_that_was_never_stopped(kind: str, here: Path, call: Call) -> None:
    own_loss(here, SAVED[kind])
    runs = []
    for name, steps in (("whole", 30), ("parts", 16)):
        forget()
        done = call("train", *QUICK, "loss=own", f"name={name}", f"trainer.steps={steps}", "trainer.log_every=1")
        assert done.code == 0, done.err
        runs.append(all_runs()[-1])
    forget()
    done = call("resume", runs[1].id, "trainer.steps=30")
    assert done.code == 0, done.err
    assert list(differences(*runs)) == []
    # looked at again, the selected weights have the numbers that selected them
    forget()
    assert call("test", runs[0].id).code == 0
    one, two = (run.summary().metrics["test/loss"] for run in runs)
    assert one == two


def test_a_model_s_own_attributes_are_asked_with_it(here: Path, call: Call) -> None:
    (here / "phased.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, outputs):\n"
        "        super().__init__()\n"
        "        self.linear, self.phase = nn.Linear(2, outputs), 0\n"
        "    def forward(self, x):\n"
        "        self.phase += self.training\n"
        "        return self.linear(x) * (1 + self.phase)\n"
    )
    done = call("train", *QUICK, "~model", "+model._target_=phased.Net", "trainer.steps=20")
    assert done.code == 0, done.err
    (run,) = all_runs()
    own = package.load(run.id)
    assert own.model.phase > 0
    x, y = own.data.validation.gather(torch.arange(len(own.data.validation)))
    loss = nn.functional.cross_entropy(own.model(x).detach(), y)
    assert float(loss) == pytest.approx(run.summary().metrics["val/loss"], rel=1e-5)
    assert call("export", run.id, "a.pt2").code == 0
    assert torch.equal(torch.export.load("a.pt2").module()(x), own.model(x))


def test_a_data_set_that_seeds_nothing_is_the_same_in_each_process(here: Path, call: Call) -> None:
    (here / "unseeded.py").write_text(
        "import random, numpy, torch\nfrom dlrun.datasets import from_tensors\n"
        "def points(n=50):\n"
        "    x = torch.randn(n, 2) + float(numpy.random.rand()) + random.random()\n"
        "    return from_tensors('points', (x, torch.arange(n) % 2), task='classification', validation_size=10)\n"
    )
    given = ("~dataset", "+dataset._target_=unseeded.points", "trainer.steps=1", "trainer.batch_size=10", *QUICK[3:])
    for seed in range(2):
        # torch draws its first seed, as each process does that begins
        assert torch.seed() and call("train", *given, f"seed={seed}").code == 0
    torch.seed()
    assert len({run.summary().data["fingerprint"] for run in all_runs()}) == 1
    resumed = call("resume", all_runs()[0].id, "trainer.steps=2")
    assert resumed.code == 0, resumed.err


def test_weights_of_a_loss_are_trained_counted_and_selected(here: Path, call: Call) -> None:
    own_loss(here, SAVED["weights and a buffer"])
    done = call("train", *QUICK, "loss=own", "trainer.steps=20")
    says(done.out, "loss      1 parameter of its own")
    run = all_runs()[-1]
    last, best = checkpoint.load(run.last), checkpoint.load_best(run.best)
    scale = last.own["parts"]["loss"]["modules"]["scale"]
    assert float(scale) != 0
    assert set(best.own["parts"]["loss"]["modules"]) == {"scale", "seen"}
    weights = sum(value.numel() for value in last.model.values())
    assert run.summary().parameters == weights + 1


@pytest.mark.parametrize("kind", ["a counter", "the generators of Python and numpy"])
def test_steps_with_a_state_are_not_compiled(kind: str, here: Path, call: Call) -> None:
    own_loss(here, SAVED[kind])
    done = call("train", *QUICK, "loss=own", "trainer.steps=9", "trainer.compile=true")
    assert done.code == 0
    says(done.err, "one by one", "which a program does not know" if "counter" in kind else "a program does not know")


def test_what_cannot_be_saved_is_said_with_its_name(here: Path, call: Call) -> None:
    own_loss(
        here,
        """
class Own:
    def __init__(self): self.calls = itertools.count()
    def __call__(self, model, batch): return entropy(model, batch) * min(1, next(self.calls) / 100)
""",
    )
    done = call("train", *QUICK, "loss=own", "trainer.steps=9")
    assert done.code == 0
    says(done.err, "Resume will not be exact because loss.calls changes")
    says(call("resume", all_runs()[-1].id, "trainer.steps=12").err, "loss.calls changes")


def test_a_tensor_that_nothing_would_train_is_refused(here: Path, call: Call) -> None:
    own_loss(
        here,
        """
class Own:
    def __init__(self): self.scale = torch.zeros((), requires_grad=True)
    def __call__(self, model, batch): return entropy(model, batch) * self.scale.exp()
""",
    )
    refuses(call("train", *QUICK, "loss=own"), "loss.scale", "torch.nn.Parameter")


def test_a_state_dict_that_no_checkpoint_holds_is_refused_at_the_start(here: Path, call: Call) -> None:
    own_loss(
        here,
        """
class Own:
    def __call__(self, model, batch): return entropy(model, batch)
    def state_dict(self): return {"self": self}
    def load_state_dict(self, state): pass
""",
    )
    refuses(call("train", *QUICK, "loss=own"), "state_dict() has a Own")


class Parts(nn.Module):
    """A model with a cache, an output that is kept for looking at it, and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 1)
        self.cache: dict[int, Tensor] = {}
        self.shown: Tensor | None = None
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.cache.setdefault(len(x), torch.ones(len(x)))
        self.shown = self.inner(x)
        return self.shown


def test_a_cache_and_a_kept_output_are_no_state() -> None:
    model, x = Parts(), torch.randn(2, 4, 2)
    own = OwnState({"model": model})
    before = own.now()
    model(x[0])
    own.learn(before, lambda number: float(model(x[number]).detach().sum()))
    assert (own.saved, own.lost) == (["model.calls"], [])
    # as if nothing had been tried
    assert (model.calls, model.cache, model.shown) == (0, {}, None)


def test_parts_without_a_state_cost_no_pass() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    own = OwnState({"model": model})
    before = own.now()
    model(torch.randn(4, 2))
    own.learn(before, lambda number: pytest.fail("nothing has changed"))
    assert own.state_dict() == {}
    assert own.why_not_one_program() is None


def test_a_checkpoint_of_before_the_state_of_parts_is_resumed(here: Path, call: Call) -> None:
    assert call("train", *QUICK, "trainer.steps=5").code == 0
    run: RunDir = all_runs()[-1]
    for file in (run.last, run.best):
        content = checkpoint.read(file)
        del content["own"]
        torch.save(content, file)
    assert call("resume", run.id, "trainer.steps=9").code == 0
    assert json.loads((run.path / "summary.json").read_text())["steps"] == 9
