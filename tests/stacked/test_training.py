"""A stack against the same runs trained one by one: weights, curves, choices, checkpoints."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from dlrun.datasets.moons import moons
from dlrun.datasets.polynomial import polynomial
from dlrun.datasets.tensors.augment import Augment
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine import loop
from dlrun.engine.batches import Batches
from dlrun.engine.ema import Average
from dlrun.engine.failures.memory import Memory
from dlrun.engine.objective import Objective
from dlrun.engine.plan import Plan
from dlrun.engine.protocols import Stepper, TotalsFn
from dlrun.engine.state import State
from dlrun.engine.steppers import RecompilingStepper
from dlrun.errors import NonFinite
from dlrun.execution import compiled, cuda_graphs
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.mse import mse
from dlrun.losses.nll import nll
from dlrun.losses.triplet import triplet
from dlrun.metrics import for_task, knn_accuracy, recall_at_1, recall_at_1_of_inputs, top_k
from dlrun.models.autoregressive_pixels import AutoregressivePixels
from dlrun.models.gaussian_mixture import GaussianMixture
from dlrun.models.lenet5 import LeNet5
from dlrun.models.linear import Linear
from dlrun.models.mlp import MLP
from dlrun.models.polynomial import Polynomial
from dlrun.models.realnvp import RealNVP
from dlrun.models.tanh_layers import TanhLayers
from dlrun.optimizers.adam import Adam
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.lbfgs import LBFGS
from dlrun.optimizers.muon import Muon
from dlrun.optimizers.sgd import SGD
from dlrun.runs.recording.spikes import guarded
from dlrun.schedules.curves import constant, cosine, linear
from dlrun.stacked.key import stack_key
from dlrun.stacked.training import StackedRecorder, StackedTraining
from dlrun.stacked.why_not import why_not
from dlrun.storage.checkpoint import BestWeights, Checkpoint
from dlrun.types import Batch, Data, Loss, Rule

CPU = torch.device("cpu")
SMALL = partial(MLP, (2,), 2, width=16, activation="tanh")
PLAN = Plan(steps=40, per_epoch=25, log_every=7, evaluate_every=10, checkpoint_every=8)
MOONS = moons(n=240, validation_size=40)
DENSITY: Any = {"loss": nll, "metrics": for_task("density")}
IMAGES = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(3))
PICTURES = TensorSplit(IMAGES, (4 * IMAGES.mean((1, 2, 3))).long() % 3)


class Notes:
    """A recorder in memory."""

    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []
        self.saved: list[dict[str, Any]] = []
        self.best: BestWeights | None = None

    def point(self, step: int, epoch: float, values: dict[str, float]) -> None:
        self.points.append((step, {n: v for n, v in values.items() if not n.startswith("throughput/")}))

    def save(self, content: Checkpoint, best: BestWeights | None) -> None:
        self.saved.append(cloned(content))
        self.best = cloned(best)


def cloned(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {k: cloned(v) for k, v in value.items()}
    if isinstance(value, Checkpoint | BestWeights):
        return type(value).from_dict(cloned(value.to_dict()))
    return [cloned(v) for v in value] if isinstance(value, list | tuple) else value


def training(
    seed: int,
    rule: Rule,
    *,
    model: Callable[[], nn.Module] = SMALL,
    data: Data = MOONS,
    loss: Loss = cross_entropy,
    clip: float | None = None,
    accumulate: int = 1,
    **options: Any,
) -> loop.Training:
    torch.manual_seed(seed)
    objective = Objective(model(), loss)
    optimizer = Descent(rule, clip=clip, accumulate=accumulate)
    optimizer.init(objective)
    given = {
        "objective": objective,
        "batches": Batches(data.train, size=8, seed=seed, device=CPU),
        "optimizer": optimizer,
        "schedule": constant,
        "plan": PLAN,
        "seed": seed,
        "device": CPU,
        "validation": data.validation,
        "metrics": for_task(data.spec.task),
    }
    return loop.Training(**given | options)  # type: ignore[arg-type]


def train_single(
    make: Callable[[int], loop.Training], runs: int
) -> tuple[list[loop.Training], list[State], list[Notes]]:
    trainings, notes = [make(i) for i in range(runs)], [Notes() for _ in range(runs)]
    return trainings, [loop.train(t, State(), n) for t, n in zip(trainings, notes, strict=True)], notes


def train_stacked(make: Callable[[int], loop.Training], runs: int) -> tuple[StackedTraining, list[Notes]]:
    trainings, notes = [make(i) for i in range(runs)], [Notes() for _ in range(runs)]
    assert why_not(trainings) is None
    stacked = StackedTraining(trainings)
    loop.train(stacked, stacked.state, StackedRecorder(stacked, notes))
    return stacked, notes


def close(a: Any, b: Any, *, tolerance: float = 2e-5) -> bool:
    """Whether two checkpoints, curves or numbers agree to single precision, but for their times."""
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.allclose(a, b, rtol=tolerance, atol=tolerance)
    if isinstance(a, Checkpoint | BestWeights):
        return close(a.to_dict(), b.to_dict(), tolerance=tolerance)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k], tolerance=tolerance) for k in a if k != "train_seconds")
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(close(x, y, tolerance=tolerance) for x, y in zip(a, b, strict=True))
    return bool(a == (pytest.approx(b, rel=tolerance, abs=tolerance) if isinstance(b, float) else b))


def check(make: Callable[[int], loop.Training], runs: int = 4, *, tolerance: float = 2e-5) -> None:
    trainings, states, expected = train_single(make, runs)
    stacked, notes = train_stacked(make, runs)
    for i in range(runs):
        assert close(notes[i].points, expected[i].points, tolerance=tolerance), i
        assert close(notes[i].saved, expected[i].saved, tolerance=tolerance), i
        assert close(notes[i].best, expected[i].best, tolerance=tolerance), i
        assert stacked.states[i].step == states[i].step
        assert stacked.states[i].best_step == states[i].best_step
        weights = stacked.members[i].objective.model.state_dict()
        assert close(weights, trainings[i].objective.model.state_dict(), tolerance=tolerance)


RATES = (0.05, 0.1, 0.02, 0.3)
RULES: dict[str, Callable[[int], Rule]] = {
    "sgd": lambda i: SGD(lr=RATES[i]),
    "decay": lambda i: SGD(lr=0.1, weight_decay=(0.0, 1e-2, 1e-3, 0.1)[i], decay_all=i == 1),
    "decoupled": lambda i: SGD(lr=0.1, weight_decay=(0.0, 1e-2, 1e-3, 0.1)[i], decoupled=True),
    "momentum": lambda i: SGD(lr=RATES[i] / 3, momentum=(0.9, 0.0, 0.5, 0.8)[i], dampening=(0.0, 0.3, 0.2, 0.0)[i]),
    "nesterov": lambda i: SGD(lr=RATES[i] / 3, momentum=(0.9, 0.6, 0.5, 0.8)[i], nesterov=True),
    "adam": lambda i: Adam(lr=RATES[i] / 10, beta1=(0.9, 0.8, 0.95, 0.9)[i], beta2=(0.999, 0.99, 0.9, 0.95)[i]),
    "adamw": lambda i: Adam(lr=0.01, weight_decay=(0.0, 0.01, 0.1, 0.5)[i], eps=10.0 ** -(6 + i), decoupled=True),
    # a smaller run has zero gradients in the rest of its row
    "no_eps": lambda i: Adam(lr=0.01, eps=(0.0, 0.0, 1e-8, 0.0)[i]),
    "l2": lambda i: Adam(lr=0.01, weight_decay=(0.0, 0.01, 0.1, 0.5)[i]),
}


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("name", RULES)
def test_every_rule_follows_the_runs_alone(name: str) -> None:
    check(lambda i: training(i, RULES[name](i)))


def of_pictures(model: Callable[[], nn.Module], lr: float = 0.05, **options: Any) -> Callable[[int], loop.Training]:
    data = replace(MOONS, train=PICTURES, validation=PICTURES)
    return lambda i: training(i, SGD(lr=lr, momentum=0.9), model=model, data=data, **options)


def odd(model: nn.Module, batch: Batch) -> Tensor:
    """A loss of more than the model's outputs."""
    features: Tensor = cast("Linear", model).features(batch.x)
    return cross_entropy(model, batch) + 0.1 * features.square().mean()


def wide_loss(model: nn.Module, batch: Batch) -> Tensor:
    outputs: Tensor = model(batch.x)
    return (outputs - nn.functional.one_hot(batch.y, 3)).abs().sum(1)


def by_class(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """A weighted mean: the weights of its batches differ."""
    values = nn.functional.cross_entropy(model(batch.x), batch.y, reduction="none")
    return values, torch.tensor([1.0, 5.0, 20.0])[batch.y]


def reads_back(model: nn.Module, batch: Batch) -> Tensor:
    return cross_entropy(model, batch) * (1.0 if float(batch.x.mean()) > 0 else 2.0)


def draws(model: nn.Module, batch: Batch) -> Tensor:
    outputs: Tensor = model(batch.x + torch.rand_like(batch.x))
    return nn.functional.cross_entropy(outputs, batch.y)


CALLS = iter(range(1000))


def of_the_batch(model: nn.Module, batch: Batch) -> Tensor:
    """A loss with a memory of its own."""
    return cross_entropy(model, batch) * next(CALLS)


def norms() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.LayerNorm(8), nn.ReLU(inplace=True), nn.Linear(8, 3))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(
    "make",
    [
        lambda i: training(i, SGD(lr=0.1), model=partial(TanhLayers, (2,), 2)),
        lambda i: training(i, SGD(lr=0.1), model=partial(MLP, (2,), 2, hidden=[], activation="elu")),
        lambda i: training(i, SGD(lr=0.1), model=partial(MLP, (2,), 2, init_scale=0.5 + i)),
        of_pictures(partial(Linear, (1, 8, 8), 3)),
        of_pictures(partial(Linear, (1, 8, 8), 3), loss=odd),
        of_pictures(partial(MLP, (1, 8, 8), 3, hidden=[9, 5]), loss=wide_loss, metrics={"top": partial(top_k, k=2)}),
        of_pictures(partial(Linear, (1, 8, 8), 3), loss=by_class),
        of_pictures(norms),
        of_pictures(lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 3))),
        lambda i: training(i, SGD(lr=0.01), model=partial(GaussianMixture, (2,), components=3), **DENSITY),
        lambda i: training(i, SGD(lr=0.01), model=partial(RealNVP, (2,), couplings=2, width=8), **DENSITY),
        of_pictures(partial(AutoregressivePixels, (1, 8, 8), 2, channels=2, blocks=1), lr=0.001, **DENSITY),
    ],
    ids=[
        "tanh_layers",
        "no_layers",
        "init_scale",
        "linear",
        "odd_loss",
        "value_loss",
        "weights",
        "norms",
        "convolutions",
        "mixture",
        "network",
        "pixels",
    ],
)
def test_every_model_and_loss_follows_the_runs_alone(make: Callable[[int], loop.Training]) -> None:
    check(make, 3)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("options", [{"mining": "hard"}, {"mining": "semi_hard", "distance": "squared"}])
def test_embeddings_and_metrics_of_a_whole_split_follow_the_runs_alone(options: dict[str, Any]) -> None:
    metrics = {"recall": recall_at_1, "of_inputs": recall_at_1_of_inputs}
    parts = {"loss": partial(triplet, **options), "metrics": metrics, "evaluation_batch_size": 7}
    # few steps: in another order of sums another of two triplets may be the harder one
    check(of_pictures(partial(MLP, (1, 8, 8), 2), plan=replace(PLAN, steps=12), **parts), 3, tolerance=1e-4)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("name", ["decay", "momentum", "adamw", "no_eps"])
def test_polynomials_of_their_own_degrees_and_data(name: str) -> None:
    def make(i: int) -> loop.Training:
        data = polynomial(n=50, data_seed=i % 2, noise=0.1 * (1 + i))
        model = partial(Polynomial, (1,), 1, degree=(2, 5, 0)[i])
        run = training(i, RULES[name](i), model=model, data=data, loss=mse, clip=1.0 + i)
        run.average = Average(run.objective.params, 0.9)
        return run

    check(make, 3)


@pytest.mark.usefixtures("blocks")
def test_a_power_that_overflows_is_that_of_the_runs_that_have_it() -> None:
    """Beside degree 40, degrees 0 and 1 see finite features, and a run that diverges is alone in it."""
    x = torch.linspace(-1, 1, 40)[:, None]
    x[5] = 1e9  # ** 40 is beyond float64
    split = TensorSplit(x, x.clip(-1, 1))
    data = replace(MOONS, train=split, validation=split)

    def make(i: int) -> loop.Training:
        lr = (0.1, 1e-19, 1e-19)[i]
        model = partial(Polynomial, (1,), 1, degree=(0, 40, 1)[i])
        run = training(i, SGD(lr=lr, momentum=0.5), model=model, data=data, loss=mse, metrics=for_task("regression"))
        run.optimizer.measure_norms = True  # type: ignore[attr-defined]
        return run

    with pytest.raises(NonFinite) as alone:
        loop.train(make(1), State(), Notes())
    stacked, notes = train_stacked(make, 3)
    assert {i: str(error) for i, error in stacked.errors.items()} == {1: str(alone.value)}
    for i in (0, 2):
        single, expected = make(i), Notes()
        loop.train(single, State(), expected)
        assert close(notes[i].points, expected.points)
        assert close(stacked.members[i].objective.params, single.objective.params)


def test_a_loss_of_the_coefficients_keeps_degrees_apart() -> None:
    def decayed(model: nn.Module, batch: Batch) -> Tensor:
        return mse(model, batch) + cast("Polynomial", model).coefficients.square().mean()

    data = polynomial(n=50)
    runs = {
        loss: [
            training(0, SGD(lr=0.1), model=partial(Polynomial, (1,), 1, degree=d), data=data, loss=loss) for d in (1, 3)
        ]
        for loss in (mse, decayed)
    }
    assert why_not(runs[mse]) is None
    assert "model" in str(why_not(runs[decayed]))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(
    "options",
    [
        {"schedules": True},
        {"clip": True},
        {"norms": True},
        {"norms": True, "clip": True, "accumulate": 3},
        {"smoothing": True},
        {"accumulate": 3},
        {"average": True},
        {"drop_last": True, "size": 30},
        {"only": 2},
        {"size": 200},
    ],
    ids=lambda options: "-".join(options),
)
def test_what_a_run_has_for_itself(options: dict[str, Any]) -> None:
    def make(i: int) -> loop.Training:
        run = training(
            i,
            SGD(lr=0.3),
            clip=(0.05, 0.5, 5.0)[i] if "clip" in options else None,
            loss=partial(cross_entropy, label_smoothing=(0.0, 0.1, 0.4)[i])
            if "smoothing" in options
            else cross_entropy,
            schedule=(cosine, partial(linear, warmup=0.2), cosine)[i] if "schedules" in options else constant,
            accumulate=options.get("accumulate", 1),
            average=None,
        )
        sizes = {name: options[name] for name in ("drop_last", "only", "size") if name in options}
        run.batches = replace(run.batches, **sizes)
        run.average = Average(run.objective.params, 0.9) if "average" in options else None
        run.optimizer.measure_norms = "norms" in options  # type: ignore[attr-defined]
        return run

    check(make, 3)


def test_each_run_augments_by_its_own_draws() -> None:
    make = of_pictures(partial(MLP, (1, 8, 8), 3, width=8))

    def augmented(i: int) -> loop.Training:
        run = make(i)
        run.batches = replace(run.batches, augment=Augment(shift=1, flip=True))
        return run

    check(augmented, 3)


def test_batches_are_those_of_the_run_alone_to_the_bit() -> None:
    stacked = StackedTraining([training(i, SGD(lr=0.1)) for i in range(3)])
    for start in (0, 3, 24, 26):
        own = [member.batches.start(start) for member in stacked.members]
        for batch, *singles in zip(stacked.batches.start(start), *own, strict=False):
            assert all(torch.equal(batch.x[i], single.x) for i, single in enumerate(singles))
            assert all(torch.equal(batch.y[i], single.y) for i, single in enumerate(singles))
            start += 1
            if start > 55:
                break
    # of each run, as when it is alone: throughput and utilisation are its own
    assert [stacked.batches.seen(steps) for steps in range(30)] == [
        stacked.members[0].batches.seen(s) for s in range(30)
    ]


@pytest.mark.usefixtures("blocks")
def test_a_run_out_of_patience_leaves_and_the_others_go_on() -> None:
    plan = replace(PLAN, steps=60, evaluate_every=3)

    def make(i: int) -> loop.Training:
        rule = Adam(lr=(0.003, 0.3, 0.01, 1.0)[i])
        return training(i, rule, plan=plan, patience=(None, 2, 4, 3)[i], average=None)

    _, states, _ = train_single(make, 4)
    assert len({state.step for state in states}) > 2
    trainings, notes = [make(i) for i in range(4)], [Notes() for _ in range(4)]
    stacked = StackedTraining(trainings)
    loop.train(stacked, stacked.state, StackedRecorder(stacked, notes))
    single, _, expected = train_single(make, 4)
    for i in range(4):
        assert [p[0] for p in notes[i].points] == [p[0] for p in expected[i].points]
        assert close(notes[i].points, expected[i].points, tolerance=1e-4)
        assert close(notes[i].saved[-1], expected[i].saved[-1], tolerance=1e-4)
        assert close(notes[i].best, expected[i].best, tolerance=1e-4)
        weights = trainings[i].objective.model.state_dict()
        assert close(weights, single[i].objective.model.state_dict(), tolerance=1e-4)
    again = StackedTraining([make(i) for i in range(4)], [replace(state) for state in stacked.states])
    assert again.state.step == max(state.step for state in states)


def test_a_run_that_diverges_leaves_with_its_error() -> None:
    def make(i: int) -> loop.Training:
        return of_pictures(partial(MLP, (1, 8, 8), 3, width=8), loss=mse_of_class)(i)

    def mse_of_class(model: nn.Module, batch: Batch) -> Tensor:
        outputs: Tensor = model(batch.x)
        return (outputs - batch.y[:, None]).square().mean(1)

    def rated(i: int) -> loop.Training:
        run = make(i)
        run.optimizer.rule.lr = (0.01, 1e9, 0.02)[i]  # type: ignore[attr-defined]
        return run

    failed = Notes()
    with pytest.raises(NonFinite) as caught:
        loop.train(rated(1), State(), failed)
    stacked, notes = train_stacked(rated, 3)
    assert [*stacked.errors] == [1]
    assert str(stacked.errors[1]) == str(caught.value)
    assert [p[0] for p in notes[1].points] == [p[0] for p in failed.points]
    assert len(notes[1].saved) == len(failed.saved)
    for i in (0, 2):
        expected = Notes()
        loop.train(rated(i), State(), expected)
        assert close(notes[i].points, expected.points)
        assert close(notes[i].saved, expected.saved)
    assert all(math.isfinite(v) for note in (notes[0], notes[2]) for _, values in note.points for v in values.values())


def test_when_all_have_left_it_is_over() -> None:
    stacked, notes = train_stacked(lambda i: training(i, SGD(lr=0.1), patience=1, plan=replace(PLAN, steps=4000)), 2)
    assert {state.step for state in stacked.states} != {4000}
    assert [note.saved[-1].step for note in notes] == [state.step for state in stacked.states]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("rule", ["momentum", "adamw"])
def test_a_run_goes_on_alone_or_stacked_from_either_checkpoint(rule: str) -> None:
    def make(i: int) -> loop.Training:
        run = training(i, RULES[rule](i))
        run.average = Average(run.objective.params, 0.9)
        return run

    _, _, whole = train_single(make, 3)
    answers: Iterator[bool] = iter([False] * 13 + [True])
    trainings, notes = [make(i) for i in range(3)], [Notes() for _ in range(3)]
    stacked = StackedTraining(trainings)
    loop.train(stacked, stacked.state, StackedRecorder(stacked, notes), stop=lambda: next(answers))
    # alone, from what was saved of the stack
    run, rest = make(1), Notes()
    state = loop.restore(run, cloned(notes[1].saved[-1]))
    assert state.step == 13
    run.best = notes[1].best
    loop.train(run, state, rest)
    assert close(notes[1].points + rest.points, whole[1].points)
    assert close(rest.saved[-1], whole[1].saved[-1])
    # stacked, from what was saved of the runs alone
    again, later = [make(i) for i in range(3)], [Notes() for _ in range(3)]
    at = [note.saved[1] for note in whole]
    states = [loop.restore(run, cloned(content)) for run, content in zip(again, at, strict=True)]
    for run, note in zip(again, whole, strict=True):
        run.best = note.best
    assert why_not(again, states) is None
    resumed = StackedTraining(again, states)
    loop.train(resumed, resumed.state, StackedRecorder(resumed, later))
    for i in range(3):
        assert close(later[i].points, [p for p in whole[i].points if p[0] > 16])
        assert close(later[i].saved[-1], whole[i].saved[-1])


class TwoHeads(nn.Module):
    """A model with an auxiliary head."""

    auxiliary_weight = 0.3

    def __init__(self) -> None:
        super().__init__()
        self.main, self.other = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)

    def all_outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.main(x), self.other(x)


def test_what_cannot_be_one_program_says_why() -> None:
    def one(**options: Any) -> loop.Training:
        return training(0, options.pop("rule", None) or SGD(lr=0.1), **options)

    with_dropout = one(model=partial(MLP, (2,), 2, dropout=0.1))
    normed = one(model=lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)))
    measured = one()
    measured.optimizer.measure_norms = True  # type: ignore[attr-defined]
    limited = one()
    limited.optimizer.memory = Memory(4)  # type: ignore[attr-defined]
    split = one().batches.split
    assert isinstance(split, TensorSplit)
    weighted = replace(split, weight=torch.ones(len(split)))
    fits = {
        "dropout": [with_dropout, with_dropout],
        "BatchNorm1d": [normed, normed],
        "auxiliary heads": [one(model=TwoHeads)] * 2,
        "LBFGS": [replace(one(), optimizer=LBFGS())] * 2,
        "Muon": [one(rule=Muon(lr=0.1))] * 2,
        "model": [one(), one(model=partial(MLP, (2,), 2, width=16))],
        "optimizer": [one(), one(rule=Adam(lr=0.1))],
        "optimizer.nesterov": [one(), one(rule=SGD(lr=0.1, momentum=0.9, nesterov=True))],
        "trainer.clip": [one(), one(clip=1.0)],
        "trainer.log_gradients": [one(), measured],
        "loss": [one(), one(loss=wide_loss)],
        "trainer.batch_size (8 and 9)": [one(), one(batches=replace(one().batches, size=9))],
        "training samples (200 and 100)": [one(), one(data=moons(n=140, validation_size=40))],
        "intervals of trainer": [one(), one(plan=replace(PLAN, steps=41))],
        "loss.mining=random": [one(loss=partial(triplet, mining="random"))] * 2,
        "have weights": [one(batches=replace(one().batches, split=weighted))] * 2,
        "trainer.micro_batch cuts the batches of one run": [limited] * 2,
        "steps of its own (trainer.on_spike)": [guarded(one(), "skip")] * 2,
        "metrics.knn compares": [one(metrics={"knn": knn_accuracy})] * 2,
    }
    for words, runs in fits.items():
        assert words in (why_not(runs) or ""), words
    for loss in (reads_back, draws):
        assert "cannot be computed for many runs at once" in (why_not([one(loss=loss)]) or "")
    assert "differs when many runs are computed" in (why_not([one(loss=of_the_batch)]) or "")
    assert "different steps" in (why_not([one(), one()], [State(step=3), State(step=4)]) or "")
    assert why_not([one(), training(7, SGD(lr=0.3, momentum=0.9))]) is None
    assert stack_key(one()) == stack_key(training(7, SGD(lr=0.3, momentum=0.9)))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("name", ["sgd", "nesterov", "adamw"])
def test_the_steps_of_a_stack_are_one_program_where_the_runs_ask_for_it(
    name: str, interpreted: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    model = partial(MLP, (2,), 2, hidden=[2, 2], activation="tanh")

    def make(i: int) -> loop.Training:
        schedule = (cosine, constant, cosine)[i]
        return training(i, RULES[name](i), model=model, clip=0.3 + i, schedule=schedule, patience=(None, 1, None)[i])

    _, _, expected = train_single(make, 3)
    stacked = StackedTraining([replace(make(i), make_stepper=compiled.make_stepper) for i in range(3)])
    notes = [Notes() for _ in range(3)]
    loop.train(stacked, stacked.state, StackedRecorder(stacked, notes))
    assert len(interpreted) == 1
    assert "one by one" not in capsys.readouterr().err
    for i in range(3):
        assert close(notes[i].points, expected[i].points, tolerance=1e-4), i
        assert close(notes[i].saved[-1], expected[i].saved[-1], tolerance=1e-4), i


@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler of programs needs g++")
def test_torch_compiles_the_steps_of_a_stack(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dlrun.stacked.weights.LARGE", 0)

    def make(i: int) -> loop.Training:
        return training(i, RULES["adamw"](i), model=partial(MLP, (2,), 2, hidden=[20, 20]), clip=0.3 + i)

    _, _, expected = train_single(make, 3)
    stacked = StackedTraining([replace(make(i), make_stepper=compiled.make_stepper) for i in range(3)])
    notes = [Notes() for _ in range(3)]
    loop.train(stacked, stacked.state, StackedRecorder(stacked, notes))
    assert "one by one" not in capsys.readouterr().err
    for i in range(3):
        assert close(notes[i].points, expected[i].points, tolerance=1e-4), i
        assert close(notes[i].saved[-1], expected[i].saved[-1], tolerance=1e-4), i


@pytest.mark.parametrize("compile", [False, True])
def test_a_run_found_diverged_while_another_leaves_goes_with_it(compile: bool, interpreted: list[Any]) -> None:
    """Run 1 is out of patience at step 15, where the loss of run 2 has not been read since it became NaN."""
    plan = replace(PLAN, steps=60, log_every=20, evaluate_every=15, checkpoint_every=None)

    def spoilt(step: int, _: int) -> float:
        return float("nan") if step >= 25 else 1.0

    def make(i: int) -> loop.Training:
        model = partial(MLP, (2,), 2, hidden=[2, 2], activation="tanh")
        patience, schedule = (None, 1, None)[i], (constant, constant, spoilt)[i]
        run = training(i, SGD(lr=(0.1, 0.0, 0.1)[i]), model=model, plan=plan, patience=patience, schedule=schedule)
        return replace(run, make_stepper=compiled.make_stepper) if compile else run

    stacked, _ = train_stacked(make, 3)
    assert [*stacked.errors] == [2]
    assert [state.step for state in stacked.states][:2] == [60, 30]


def fake_graph(steps: Callable[[], list[Tensor]], device: torch.device) -> tuple[Callable[[], None], list[Tensor]]:
    """Stand in for `cuda_graphs.record` without a GPU: take the steps again, their results copied to one place."""
    found = [t.clone() for t in steps()]

    def replay() -> None:
        for place, value in zip(found, steps(), strict=True):
            place.copy_(value)

    return replay, found


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw"])
@pytest.mark.parametrize("patience", [None, 1])
def test_the_steps_of_a_stack_are_graphs_and_recorded_again_when_runs_have_left(
    name: str, patience: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[int] = []

    def graphs(run: Any) -> Stepper:
        made.append(len(run.active))
        return cuda_graphs.CudaGraphStepper(run, compiled.example_batch(run), compiled.step_state(run))

    def stepper(run: Any) -> Stepper:
        return RecompilingStepper(run, graphs, first=graphs(run), after=10)

    def graphed(totals_fn: TotalsFn) -> TotalsFn:
        return cuda_graphs.GraphedTotals(totals_fn, CPU)

    plan = Plan(steps=120, per_epoch=25, log_every=10, evaluate_every=20, checkpoint_every=60)

    def make(i: int) -> loop.Training:
        rule = RULES["nesterov" if name == "momentum" else name](i)
        schedule = (cosine, constant, cosine)[i]
        return training(i, rule, clip=0.3 + i, plan=plan, schedule=schedule, patience=(None, patience, None)[i])

    _, states, expected = train_single(make, 3)
    monkeypatch.setattr(cuda_graphs, "record", fake_graph)
    monkeypatch.setattr(cuda_graphs, "warm_up", lambda work, device: None)
    monkeypatch.setattr(cuda_graphs, "EAGER_CHUNKS", 2)
    stacked, notes = train_stacked(lambda i: replace(make(i), make_stepper=stepper, wrap_totals=graphed), 3)
    left = states[1].step < plan.steps
    assert made == ([3, 2] if left else [3])
    assert not capsys.readouterr().err
    for i in range(3):
        assert close(notes[i].points, expected[i].points, tolerance=1e-4), i
        assert close(notes[i].saved[-1], expected[i].saved[-1], tolerance=1e-4), i
        assert stacked.states[i].step == states[i].step


def test_lenet_stacks_and_a_shared_rate_is_a_number() -> None:
    make = of_pictures(partial(LeNet5, (1, 8, 8), 3), plan=replace(PLAN, steps=5))
    check(make, 2)
    assert isinstance(StackedTraining([make(0), make(1)]).schedule(3, 40), float)


class Wave(nn.Module):
    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(2, 2, dtype=kind))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(self.w.dtype) @ self.w).abs()


def test_complex_weights_and_sparse_gradients_train_alone() -> None:
    assert why_not([training(0, Adam(lr=0.1), model=lambda: Wave(torch.float32))]) is None
    assert "complex" in (why_not([training(0, Adam(lr=0.1), model=lambda: Wave(torch.complex64))]) or "")
    sparse = lambda: nn.Sequential(nn.Linear(2, 2), nn.Embedding(3, 2, sparse=True))  # noqa: E731
    assert "sparse gradients" in (why_not([training(0, Adam(lr=0.1), model=sparse)]) or "")
